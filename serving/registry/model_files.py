"""What may lie in a model folder that goes to the registry or comes from it: data, never code.

Unpickling runs whatever the file says, and a ``.py`` file runs when it is loaded; so only formats
that are read and never run are let in. A file's first bytes must be those of its format: a pickle
called ``tokenizer.json`` is still a pickle. A chat template is a program of Jinja's: none but
matjip's own is let in.
"""

from pathlib import Path, PurePosixPath
from typing import Final

import orjson

from data.errors import ArtifactError, RegistryError
from data.manifest import BESIDE, MANIFEST_NAME, Manifest, canonical_digest, read_manifest
from data.prompts import chat_template
from serving.language_folder import CHAT_TEMPLATE_NAME

ALLOWED: Final = (".safetensors", ".onnx", ".onnx.data", ".json", ".md")
_PICKLE_STARTS: Final = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
_ZIP_START: Final = b"PK\x03\x04"
_SAFETENSORS_HEADER_BYTES: Final = 8


def check_model_folder(folder: Path, kind: str | None = None) -> Manifest:
    """Check that a sealed folder is whole and holds data only.

    Args:
        folder: a folder that ``write_manifest`` sealed.
        kind: the kind it must have, if given.

    Returns:
        Its manifest, whose digest is the one its contents hash to.

    Raises:
        ArtifactError: a file is missing or altered.
        RegistryError: a file is of a format that can run, or was put there after sealing.
    """
    manifest = read_manifest(folder, kind)
    check_file_names(manifest)
    on_disk = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST_NAME
    }
    if stray := sorted(on_disk - set(manifest.files) - BESIDE):
        raise RegistryError(
            f"{str(folder)!r} holds files that its manifest does not list: {stray!r}; remove them, "
            "or run the step that writes the folder again"
        )
    for name in manifest.files:
        _check_content(folder / name)
    return manifest


def check_file_names(manifest: Manifest) -> None:
    """Check a manifest itself: its digest, and that its files have allowed names and places.

    Raises:
        RegistryError: the digest is not that of what it lists, or a name is not allowed.
    """
    identity = {
        "kind": manifest.kind,
        "contract_version": manifest.contract_version,
        "files": {name: entry.sha256 for name, entry in manifest.files.items()},
        "facts": manifest.facts,
    }
    if canonical_digest(identity) != manifest.digest:
        raise RegistryError(
            f"a manifest of kind {manifest.kind!r} says digest {manifest.digest[:12]!r}, what it "
            "lists hashes to another; it was edited by hand: run the step that wrote it again"
        )
    for name in manifest.files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or path.as_posix() != name:
            raise RegistryError(f"a manifest lists {name!r}, which leaves its folder; refused")
        if not name.endswith(ALLOWED) and name != CHAT_TEMPLATE_NAME:
            raise RegistryError(
                f"{name!r} may not go to the registry: only {', '.join(ALLOWED)} are read without "
                "running anything; save weights as safetensors or export to ONNX"
            )


def _check_content(path: Path) -> None:
    if path.name == CHAT_TEMPLATE_NAME:
        _check_template(path)
    with path.open("rb") as file:
        start = file.read(_SAFETENSORS_HEADER_BYTES + 1)
    genuine = not start.startswith((*_PICKLE_STARTS, _ZIP_START))
    if path.suffix == ".safetensors":
        genuine = start[_SAFETENSORS_HEADER_BYTES:] == b"{"
    elif path.suffix == ".onnx":
        genuine = (
            start[:1] == b"\x08"
        )  # the protobuf field ir_version, which every graph starts with
    elif path.suffix == ".json":
        try:
            orjson.loads(path.read_bytes())
        except orjson.JSONDecodeError:
            genuine = False
    if not genuine:
        raise RegistryError(
            f"{str(path)!r} is not what its name says: it starts with {start!r}; pickles and "
            "archives are refused under any name: export the model again"
        )


def _check_template(path: Path) -> None:
    if path.read_bytes() != chat_template().encode():
        raise RegistryError(
            f"{str(path)!r} is not the chat template that matjip trains and serves with; make the "
            "model again with this version of matjip"
        )


def same_as_registered(folder: Path, digest: str, *, where: str) -> Manifest:
    """Check a folder that came from the registry against the digest it was registered with.

    Raises:
        RegistryError: it is not what was registered.
    """
    try:
        manifest = check_model_folder(folder)
    except ArtifactError as error:
        raise RegistryError(
            f"{where} is not what was registered: {error}. Do not serve it: move the alias back to "
            "an earlier version, and register the model again"
        ) from error
    if manifest.digest != digest:
        raise RegistryError(
            f"{where} has manifest digest {manifest.digest!r}, registered was {digest!r}; it was "
            "replaced: move the alias back to an earlier version, and register the model again"
        )
    return manifest
