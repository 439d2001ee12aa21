"""A version's files in MLflow's artifact store: put there with evidence and signature, and fetched.

In: a sealed folder. Stored under its run: the manifest's files, the manifest, ``evidence.json``,
``signature.json``, and the ``MLmodel`` that MLflow's pages read, which nobody fetches.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from data.errors import ArtifactError, RegistryError
from data.manifest import EVIDENCE_NAME, MANIFEST_NAME, SIGNATURE_NAME, Manifest
from serving.model_signature import (
    check_pair,
    read_evidence,
    sign_folder,
    signing_key,
    verification_key,
    verify_folder,
    write_evidence,
)
from serving.registry.connection import Registry, ResolvedVersion, store_signature
from serving.registry.signature import Signature


def store_files(
    registry: Registry,
    run_id: str,
    folder: Path,
    *,
    manifest: Manifest,
    evidence: Mapping[str, str],
    signature: Signature,
    is_registered: bool,
) -> None:
    """Store a model's files, signed with its evidence; what is there already is not sent again.

    Args:
        registry: where to.
        run_id: the run that they are stored under.
        folder: the sealed folder.
        manifest: its manifest.
        evidence: what it was judged by.
        signature: what goes in and comes out.
        is_registered: it is a version already, so its signature counts and stays.

    Raises:
        RegistryError: the store did not keep them.
        SettingsError: there is no key to sign with, or the one to check with is another's.
    """
    where = path_in_run(manifest.digest)
    stored = _stored_sizes(registry, run_id, where)
    is_signed = is_registered and stored.keys() >= {EVIDENCE_NAME, SIGNATURE_NAME}
    with tempfile.TemporaryDirectory(dir=registry.state, prefix=".signing-") as temporary:
        staged = Path(temporary) / manifest.digest[:16]
        _stage(folder, manifest, staged)
        if not is_signed:
            _sign(registry, staged, evidence)
        sizes = {
            path.relative_to(staged).as_posix(): path.stat().st_size
            for path in sorted(staged.rglob("*"))
            if path.is_file()
        }
        # A signature is as long as another, so its size does not say that it is this one.
        fresh = set() if is_signed else {EVIDENCE_NAME, SIGNATURE_NAME}
        for name, size in sizes.items():
            if stored.get(name) != size or name in fresh:
                target = f"{where}/{name}".rpartition("/")[0]
                registry.client.log_artifact(run_id, str(staged / name), target)
    if "MLmodel" not in stored:
        store_signature(registry, run_id, where, manifest, signature)
    stored = _stored_sizes(registry, run_id, where)
    if lost := sorted(name for name, size in sizes.items() if stored.get(name) != size):
        raise RegistryError(
            f"the artifact store of {registry.uri!r} did not keep {lost!r}; see that it has space "
            "and run the step again (no version was registered)"
        )


def fetch_file(registry: Registry, run_id: str, path: str, folder: Path, name: str) -> None:
    """Fetch one file of a run into a folder.

    Args:
        registry: where from.
        run_id: the run.
        path: the run's folder that it lies in.
        folder: where it goes, under its own name.
        name: the file, with its folders.
    """
    # With a destination MLflow also copies what lies on this machine: no one gets the original.
    # It names the copy after the whole path or after the file alone, as the store pleases.
    with tempfile.TemporaryDirectory(dir=folder.parent) as own:
        copy = Path(registry.client.download_artifacts(run_id, f"{path}/{name}", own))
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy.rename(folder / name)


def fetch_signature(registry: Registry, run_id: str, path: str, folder: Path, what: str) -> None:
    """Fetch evidence and signature of a version.

    Raises:
        RegistryError: it has none.
    """
    present = {entry.path for entry in registry.client.list_artifacts(run_id, path)}
    for name in (EVIDENCE_NAME, SIGNATURE_NAME):
        if f"{path}/{name}" not in present:
            raise RegistryError(
                f"{what} is unsigned: its {name} is not in the store. Do not serve it; register it "
                "again from the same artifacts, which signs it"
            )
        fetch_file(registry, run_id, path, folder, name)


def check_signed(registry: Registry, folder: Path, resolved: ResolvedVersion, what: str) -> None:
    """Check a fetched folder's signature, and that the version's tags say what was signed.

    Raises:
        RegistryError: it is not what was signed, or a tag was changed since.
        SettingsError: there is no key to check with.
    """
    public = verification_key(registry.state, os.environ)
    try:
        verify_folder(folder, public)
        evidence = read_evidence(folder)
    except ArtifactError as error:
        raise RegistryError(f"{what}: {error}") from error
    now = {"name": resolved.name, **resolved.tags}
    changed = [
        f"{key} is {now.get(key)!r}, signed was {value!r}"
        for key, value in sorted(evidence.items())
        if now.get(key) != value
    ]
    if changed:
        raise RegistryError(
            f"{what} was registered on other evidence than its tags say now: {'; '.join(changed)}. "
            "They were changed by hand: set them back, or register the model again"
        )


def path_in_run(digest: str) -> str:
    """Where a model lies in its run."""
    return f"models/{digest[:16]}"


def link_or_copy(source: str, target: str) -> str:
    """Give a file a second name, or copy it where that cannot be."""
    # Weights are large and never written again, so a second name for them is enough.
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def _stage(folder: Path, manifest: Manifest, staged: Path) -> None:
    # Apart from the step's own folder, which is sealed and not ours to write in.
    for name in (*manifest.files, MANIFEST_NAME):
        (staged / name).parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(str(folder / name), str(staged / name))


def _sign(registry: Registry, staged: Path, evidence: Mapping[str, str]) -> None:
    private = signing_key(registry.state, os.environ)
    # Here, so that a key that does not fit is found by who registers, not by who serves.
    check_pair(private, verification_key(registry.state, os.environ))
    write_evidence(staged, evidence)
    sign_folder(staged, private)


def _stored_sizes(registry: Registry, run_id: str, where: str) -> dict[str, int]:
    sizes: dict[str, int] = {}
    folders = [where]
    while folders:
        for entry in registry.client.list_artifacts(run_id, folders.pop()):
            if entry.is_dir:
                folders.append(entry.path)
            else:
                sizes[entry.path.removeprefix(f"{where}/")] = entry.file_size or 0
    return sizes
