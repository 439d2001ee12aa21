"""The manifest: what one step hands the next, and how the next knows that it is whole.

An artifact is a folder. Its ``manifest.json`` is written last and atomically, so a folder without
one was cut short; it lists every file with size and SHA-256, so a folder that was altered is
refused. The artifact's digest depends on its kind, its facts and its files' contents, never on
where or when it was made.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from data.contract import CONTRACT_VERSION, LabelledReview, check_contract_version
from data.errors import ArtifactError

MANIFEST_NAME: Final = "manifest.json"
EVIDENCE_NAME: Final = "evidence.json"
SIGNATURE_NAME: Final = "signature.json"
BESIDE: Final = frozenset({EVIDENCE_NAME, SIGNATURE_NAME})
"""What may stand beside a folder's manifest and is not of what it lists: who vouches for it, which
no digest depends on (serving/model_signature.py)."""


class FileEntry(BaseModel):
    """One file of an artifact."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    bytes: int


class Manifest(BaseModel):
    """What is in an artifact's folder."""

    model_config = ConfigDict(frozen=True)

    kind: str
    contract_version: str
    digest: str
    files: dict[str, FileEntry]
    facts: dict[str, Any]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_digest(value: object) -> str:
    """SHA-256, in hex, of a value's JSON with sorted keys: equal values, equal digests."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


def write_text_atomically(path: Path, text: str) -> None:
    """Write a file that is either whole or absent, also after a kill or a full disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # what stopped the writing may stop this too
            temporary.unlink()
        raise ArtifactError(
            f"cannot write {str(path)!r}: {error.strerror}; free space or choose another folder, "
            "then run the step again (nothing was half written)"
        ) from error


def start_artifact(folder: Path) -> None:
    """Make a folder ready to be written, also over a run that was cut short.

    The old manifest goes first, so that a folder half rewritten is never taken for a whole one;
    temporary files of a killed run go too, or the new manifest would list them.

    Raises:
        ArtifactError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST_NAME).unlink(missing_ok=True)
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)
    except OSError as error:
        raise ArtifactError(
            f"cannot write to {str(folder)!r}: {error.strerror}; choose another folder, "
            "then run the step again"
        ) from error


def write_manifest(folder: Path, kind: str, facts: Mapping[str, Any]) -> Manifest:
    """Seal an artifact: hash every file below ``folder`` and write its manifest last."""
    files = {
        name: FileEntry(sha256=file_sha256(path), bytes=path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name != MANIFEST_NAME
        and (name := path.relative_to(folder).as_posix()) not in BESIDE
    }
    identity = {
        "kind": kind,
        "contract_version": CONTRACT_VERSION,
        "files": {name: entry.sha256 for name, entry in files.items()},
        "facts": json.loads(json.dumps(facts, default=str)),
    }
    manifest = Manifest(
        kind=kind,
        contract_version=CONTRACT_VERSION,
        digest=canonical_digest(identity),
        files=files,
        facts=identity["facts"],
    )
    write_text_atomically(folder / MANIFEST_NAME, manifest.model_dump_json(indent=2) + "\n")
    return manifest


def read_manifest(folder: Path, kind: str | None = None) -> Manifest:
    """Read an artifact's manifest and check every file against it.

    Raises:
        ArtifactError: the folder is missing, cut short, altered, or of another kind.
        ContractError: it was written under another major version of the contract.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise ArtifactError(
            f"{str(folder)!r} has no {MANIFEST_NAME}: the step that writes it did not finish; "
            "run that step again"
        )
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ArtifactError(
            f"{str(path)!r} is not a manifest: {error}; run its step again"
        ) from error
    if kind is not None and manifest.kind != kind:
        raise ArtifactError(
            f"{str(folder)!r} holds {manifest.kind!r}, expected {kind!r}; pass the right artifact"
        )
    check_contract_version(manifest.contract_version, where=str(path))
    for name, entry in manifest.files.items():
        file = folder / name
        if not file.is_file():
            raise ArtifactError(
                f"{str(file)!r} is missing; run the step that wrote {str(folder)!r}"
            )
        if file_sha256(file) != entry.sha256:
            raise ArtifactError(
                f"{str(file)!r} is not what its manifest says (sha256 {entry.sha256[:12]}…); "
                f"it was altered or cut short: run the step that wrote {str(folder)!r} again"
            )
    return manifest


def write_json(path: Path, value: object) -> None:
    """Write JSON that people can read: indented, sorted, Korean unescaped."""
    text = json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True, default=str)
    write_text_atomically(path, text + "\n")


def write_labelled_reviews(path: Path, rows: Iterable[LabelledReview]) -> int:
    """Write one labelled review a line; returns how many."""
    count = 0
    lines = []
    for row in rows:
        lines.append(row.model_dump_json())
        count += 1
    write_text_atomically(path, "".join(f"{line}\n" for line in lines))
    return count


def read_labelled_reviews(path: Path) -> Iterator[LabelledReview]:
    """Read what ``write_labelled_reviews`` wrote.

    Raises:
        ArtifactError: a line is not a labelled review.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield LabelledReview.model_validate_json(line)
            except ValidationError as error:
                raise ArtifactError(
                    f"{str(path)!r} line {number} is not a labelled review: {error}"
                ) from error
