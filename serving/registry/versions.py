"""Versions of a model in the registry: registered whole or not at all, fetched as they were signed.

A version appears in one transaction, with all its tags, after each of its files has been stored and
counted. A run that is killed, or a server that goes away, leaves at most files without a version,
and the next run goes on from there: nothing is ever half registered.
"""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import filelock
from pydantic import ValidationError

from data.errors import RegistryError
from data.manifest import MANIFEST_NAME, Manifest, canonical_digest
from serving.registry.artifact_store import (
    check_signed,
    fetch_file,
    fetch_signature,
    path_in_run,
    store_files,
)
from serving.registry.connection import (
    KEY_TAG,
    Registry,
    ResolvedVersion,
    as_resolved,
    check_key,
    ensure_model,
    locked,
    reported,
    version_of_alias,
)
from serving.registry.model_files import check_file_names, check_model_folder, same_as_registered
from serving.registry.signature import CLASSIFIER_SIGNATURE, Signature

STATUS_TAG: Final = "status"
READY: Final = "ready"


def register_version(
    registry: Registry,
    *,
    name: str,
    folder: Path,
    tags: Mapping[str, str],
    description: str,
    run_id: str,
    idempotency_key: str,
    signature: Signature = CLASSIFIER_SIGNATURE,
) -> ResolvedVersion:
    """Register a sealed model folder; the same key gives the same version, whole and not doubled.

    Args:
        registry: where to.
        name: the registered model, made if it is not there.
        folder: safetensors, ONNX, JSON and Markdown only, sealed by ``write_manifest``.
        tags: what the version is and on what evidence.
        description: its model card, Markdown.
        run_id: the run that its files are stored under.
        idempotency_key: as in ``log_run``.
        signature: what goes in and comes out.

    Raises:
        ArtifactError: a file is missing or altered.
        RegistryError: a file may not be registered, the key names another model, or MLflow refused
            or went away; run again, it goes on.
        SettingsError: the key that signs is none, or does not fit the one that checks.
    """
    check_key(idempotency_key)
    manifest = check_model_folder(folder)
    said = {"name": name, "manifest_digest": manifest.digest, **tags}
    with reported(registry, f"register {name!r}"), locked(registry):
        ensure_model(registry, name)
        known = _versions_with_key(registry, name, idempotency_key)
        if known and known[0].tags.get("manifest_digest") != manifest.digest:
            raise RegistryError(
                f"key {idempotency_key!r} names version {known[0].version!r} of {name!r}, with "
                "other files; the key must change whenever the model does"
            )
        if known:
            run_id = known[0].run_id
            said = {key: known[0].tags.get(key, value) for key, value in said.items()}
        store_files(
            registry,
            run_id,
            folder,
            manifest=manifest,
            evidence=said,
            signature=signature,
            is_registered=bool(known),
        )
        if known:
            return known[0]
        # Not runs:/…, which the pages of a server that hands artifacts on cannot read.
        stored_at = registry.client.get_run(run_id).info.artifact_uri
        created = registry.client.create_model_version(
            name,
            f"{stored_at}/{path_in_run(manifest.digest)}",
            run_id,
            tags={
                **tags,
                KEY_TAG: idempotency_key,
                "manifest_digest": manifest.digest,
                STATUS_TAG: READY,
            },
            description=description,
            await_creation_for=0,
        )
        # A request whose answer was lost is sent again, and then makes a second version.
        first = _versions_with_key(registry, name, idempotency_key)[0]
        if int(first.version) != int(created.version):
            registry.client.delete_model_version(name, created.version)
        return first


def resolve(registry: Registry, name: str, alias: str) -> ResolvedVersion | None:
    """The version that an alias names now; none if the model or the alias is not there.

    Raises:
        RegistryError: MLflow went away, or the alias names a version that matjip did not register.
    """
    found = version_of_alias(registry, name, alias)
    if found is not None and found.tags.get(STATUS_TAG) != READY:
        raise RegistryError(
            f"{name}@{alias} names version {found.version!r}, without tag {STATUS_TAG}={READY}: "
            "matjip did not register it; take the alias off it in MLflow and register the model"
        )
    return found


def get_version(registry: Registry, name: str, version: str) -> ResolvedVersion:
    """One version by number.

    Raises:
        RegistryError: there is no such version.
    """
    with reported(registry, f"find version {version!r} of {name!r}"):
        return as_resolved(registry.client.get_model_version(name, version))


def download(registry: Registry, resolved: ResolvedVersion, to: Path) -> Path:
    """Fetch a version's files into a folder of ``to``, hashes and signature checked; once.

    Only files that its manifest lists are fetched, and the manifest must be the one registered. Its
    evidence comes along, and must be what the version's tags say.

    Raises:
        RegistryError: the files are not those registered, or not those signed, or the store does
            not answer.
        SettingsError: there is no key to check the signature with.
    """
    what = f"version {resolved.version!r} of {resolved.name!r} in {registry.uri!r}"
    digest = resolved.tags.get("manifest_digest", "")
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise RegistryError(f"{what} has no tag manifest_digest; register the model with matjip")
    # The same model registered on other evidence is signed with that evidence.
    judged = canonical_digest([resolved.name, resolved.tags.get("evidence_id")])
    folder = to / f"{digest[:16]}-{judged[:8]}"
    where = path_in_run(digest)
    with reported(registry, f"fetch {what}"):
        to.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(to / f".{folder.name}.lock")
    with reported(registry, f"fetch {what}"), lock:
        if folder.is_dir():
            try:
                same_as_registered(folder, digest, where=str(folder))
            except RegistryError as error:
                raise RegistryError(
                    f"the local copy {str(folder)!r} of {what} was altered; delete that folder and "
                    f"run the step again: {error}"
                ) from error
            check_signed(registry, folder, resolved, what)
            return folder
        with tempfile.TemporaryDirectory(dir=to, prefix=".fetching-") as temporary:
            fetched = Path(temporary) / "model"
            fetch_file(registry, resolved.run_id, where, fetched, MANIFEST_NAME)
            manifest = _registered_manifest(fetched / MANIFEST_NAME, digest, what)
            fetch_signature(registry, resolved.run_id, where, fetched, what)
            for name in manifest.files:
                fetch_file(registry, resolved.run_id, where, fetched, name)
            same_as_registered(fetched, digest, where=what)
            check_signed(registry, fetched, resolved, what)
            fetched.rename(folder)
    return folder


def _registered_manifest(path: Path, digest: str, what: str) -> Manifest:
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise RegistryError(
            f"{what}: its {MANIFEST_NAME} is not one: {error}; register it again"
        ) from error
    if manifest.digest != digest:
        raise RegistryError(
            f"{what} holds the manifest {manifest.digest!r}, registered was {digest!r}; it was "
            "replaced: move the alias back to an earlier version, and register the model again"
        )
    check_file_names(manifest)
    return manifest


def _versions_with_key(registry: Registry, name: str, key: str) -> list[ResolvedVersion]:
    found = registry.client.search_model_versions(f"name = '{name}' and tags.`{KEY_TAG}` = '{key}'")
    return sorted(map(as_resolved, found), key=lambda version: int(version.version))
