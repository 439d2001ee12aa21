"""What an archive's folder holds: exposures and outcomes as Parquet, and a manifest that seals it.

    exposures.parquet   one row an answer; event_id (16 bytes), unit and text_sha256 (32 bytes)
    outcomes.parquet    one row an outcome; exposure_event_id (16 bytes) joins it to its exposure
    manifest.json       kind "experiment-archive"; facts: rows, first and last times

Files are zstd; columns of few values are dictionaries, times UTC with microseconds, predictions and
labels their JSON. An outcome's own event id is ``event_id`` (16 bytes) where it is 32 hex digits,
else ``event_key``. An ``orphan`` is an outcome whose exposure was not in the store with it: it was
archived before. A file is whole or absent, and a folder without a manifest was cut short.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import ArtifactError, ExperimentError
from data.manifest import MANIFEST_NAME, Manifest, read_manifest, start_artifact, write_manifest
from serving.experiments.hashes import EVENT_BYTES, UNIT_BYTES, Hashes, hashes_of, is_hash
from serving.experiments.store import exposure_event_id

ARCHIVE_KIND: Final = "experiment-archive"
EXPOSURES_FILE: Final = "exposures.parquet"
OUTCOMES_FILE: Final = "outcomes.parquet"
_FEW_VALUES: Final = (
    "item",
    "experiment_id",
    "deployment_id",
    "arm",
    "model_version",
    "why",
    "status",
    "metric",
    "label",
)
_ROWS_READ_AT_ONCE: Final = 400_000
_TIME: Final = pa.timestamp("us", tz="UTC")


def _schema(*fields: tuple[str, pa.DataType], nullable: Sequence[str] = ()) -> pa.Schema:
    return pa.schema([pa.field(name, kind, name in nullable) for name, kind in fields])


EXPOSURES: Final = _schema(
    ("event_id", pa.binary(EVENT_BYTES)),
    ("request_id", pa.string()),
    ("item", pa.int32()),
    ("experiment_id", pa.string()),
    ("deployment_id", pa.string()),
    ("unit", pa.binary(UNIT_BYTES)),
    ("arm", pa.string()),
    ("model_version", pa.string()),
    ("text_sha256", pa.binary(UNIT_BYTES)),
    ("prediction", pa.string()),
    ("latency_ms", pa.float64()),
    ("created_at", _TIME),
    ("why", pa.string()),
    ("status", pa.string()),
    ("cost", pa.float64()),
    nullable=("cost",),
)
OUTCOMES: Final = _schema(
    ("event_id", pa.binary(EVENT_BYTES)),
    ("event_key", pa.string()),
    ("exposure_event_id", pa.binary(EVENT_BYTES)),
    ("request_id", pa.string()),
    ("item", pa.int32()),
    ("metric", pa.string()),
    ("reward", pa.float64()),
    ("label", pa.string()),
    ("created_at", _TIME),
    ("orphan", pa.bool_()),
    nullable=("event_id", "event_key", "label"),
)


@dataclass(frozen=True)
class Archive:
    """A sealed folder.

    Attributes:
        folder: where it lies.
        exposures: rows.
        outcomes: rows, orphans included.
        orphans: outcomes whose exposure was not in the store with them.
        last_exposure_us: microseconds since 1970 of the youngest; None without any.
        last_outcome_us: of the youngest outcome.
    """

    folder: Path
    exposures: int
    outcomes: int
    orphans: int
    last_exposure_us: int | None
    last_outcome_us: int | None


def exposure_batch(rows: Sequence[Sequence[Any]]) -> pa.RecordBatch:
    """Rows of the store, in the order of ``EXPOSURES``, hashes still hex and times microseconds.

    Raises:
        ExperimentError: an event id, unit or text is no hash.
    """
    columns = dict(zip(EXPOSURES.names, zip(*rows, strict=True), strict=True))
    arrays = [
        _hash_array(columns, field)
        if pa.types.is_fixed_size_binary(field.type)
        else pa.array(columns[field.name], field.type)
        for field in EXPOSURES
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=EXPOSURES)


def _hash_array(columns: dict[str, tuple[str, ...]], field: pa.Field) -> pa.FixedSizeBinaryArray:
    digits, width = columns[field.name], field.type.byte_width
    try:
        return fixed_array(hashes_of(digits, width, what=f"exposures.{field.name}"))
    except ExperimentError as error:
        wrong = next(place for place, one in enumerate(digits) if not is_hash(one, width))
        raise ExperimentError(
            f"{error}: the exposure that comes {wrong + 1!r}. of a batch, of event id "
            f"{columns['event_id'][wrong]!r}"
        ) from error


def outcome_batch(rows: Sequence[Sequence[Any]]) -> pa.RecordBatch:
    """Rows as export.py asks for them: what OUTCOMES names, less what follows from the rest."""
    events, requests, items, *rest = zip(*rows, strict=True)
    raw = [bytes.fromhex(event) if is_hash(event, EVENT_BYTES) else None for event in events]
    keys = [event if one is None else None for event, one in zip(events, raw, strict=True)]
    shown = [
        bytes.fromhex(exposure_event_id(request, item))
        for request, item in zip(requests, items, strict=True)
    ]
    columns = (raw, keys, shown, requests, items, *rest)
    return pa.RecordBatch.from_arrays(
        [pa.array(one, field.type) for one, field in zip(columns, OUTCOMES, strict=True)],
        schema=OUTCOMES,
    )


def fixed_array(hashes: Hashes) -> pa.FixedSizeBinaryArray:
    """Hashes (n,) as a column, without a copy."""
    kind = pa.binary(hashes.dtype.itemsize)
    buffer = pa.py_buffer(np.ascontiguousarray(hashes).view(np.uint8))
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(hashes), [None, buffer])


def fixed_hashes(column: pa.FixedSizeBinaryArray) -> Hashes:
    """A column without nulls as hashes (n,), without a copy."""
    width = column.type.byte_width
    if not len(column):
        return np.empty(0, dtype=f"V{width}")
    held = np.frombuffer(column.buffers()[1], dtype=f"V{width}")
    return held[column.offset : column.offset + len(column)]


def write_whole(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Write a Parquet file, a row group a batch, that is on disk and whole or absent.

    Raises:
        ExperimentError: it cannot be written; what makes the batches may raise its own.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    few = [name for name in schema.names if name in _FEW_VALUES]
    try:
        with temporary.open("wb") as file:
            with pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=few) as writer:
                for batch in batches:
                    writer.write_batch(batch)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):  # what stopped the writing may stop this too
            temporary.unlink()
        if isinstance(error, OSError):
            raise ExperimentError(
                f"cannot write {str(path)!r}: {error.strerror or error}; free space or name "
                "another folder, then run it again (the store still has every row)"
            ) from error
        raise


def sync_folder(folder: Path) -> None:
    """What was renamed in it stays renamed, also when the power fails."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder, and what it lies in, so that they stay when the power fails."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in missing:
        sync_folder(one.parent)


def prepare(folder: Path) -> None:
    """Make a folder ready for an archive, also over one that was cut short.

    Raises:
        ExperimentError: it holds an archive or something else, or cannot be made.
    """
    try:
        if (folder / MANIFEST_NAME).exists():
            raise ExperimentError(
                f"{str(folder)!r} holds an archive already and stays as it is; name another folder"
            )
        ours = {EXPOSURES_FILE, OUTCOMES_FILE}
        inside = [path.name for path in folder.iterdir()] if folder.exists() else []
        strange = [n for n in inside if n not in ours and not (n[0] == "." and n[-4:] == ".tmp")]
        if strange:
            raise ExperimentError(
                f"{str(folder)!r} holds {min(strange)!r}, which is no part of an archive; "
                "name a new or empty folder"
            )
        make_folder(folder)
        start_artifact(folder)
        for name in ours:
            (folder / name).unlink(missing_ok=True)
    except (OSError, ArtifactError) as error:
        raise ExperimentError(
            f"cannot make the folder {str(folder)!r}: {error}; name another"
        ) from error


def seal(folder: Path, facts: dict[str, Any]) -> Archive:
    """Write the manifest, last and whole.

    Raises:
        ExperimentError: it cannot be written.
    """
    try:
        manifest = write_manifest(folder, ARCHIVE_KIND, facts)
        sync_folder(folder)
    except (OSError, ArtifactError) as error:
        raise ExperimentError(
            f"cannot seal the archive {str(folder)!r}: {error}; free space, then run it again (the "
            "store still has every row)"
        ) from error
    return _archive(folder, manifest)


def read_archive(folder: Path) -> Archive:
    """Check an archive: every byte by the manifest, every file's rows.

    Raises:
        ExperimentError: it is missing, cut short, altered or no archive.
    """
    try:
        archive = _archive(folder, read_manifest(folder, ARCHIVE_KIND))
        rows = [pq.read_metadata(folder / n).num_rows for n in (EXPOSURES_FILE, OUTCOMES_FILE)]
    except (ArtifactError, OSError, KeyError, TypeError, pa.ArrowException) as error:
        raise ExperimentError(f"{str(folder)!r} is no whole archive: {error}") from error
    if rows != [archive.exposures, archive.outcomes]:
        raise ExperimentError(
            f"{str(folder)!r} holds {rows!r} exposures and outcomes and its manifest speaks of "
            f"{[archive.exposures, archive.outcomes]!r}; export it again"
        )
    return archive


def read_columns(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Some columns of a file, whole row groups at a time; columns of few values as dictionaries.

    Raises:
        ExperimentError: it cannot be read.
    """
    few = [name for name in columns if name in _FEW_VALUES and name != "item"]
    try:
        with pq.ParquetFile(path, read_dictionary=few) as file:
            for groups in _row_groups(file):
                table = file.read_row_groups(groups, list(columns))
                yield from table.unify_dictionaries().combine_chunks().to_batches()
    except (OSError, KeyError, pa.ArrowException) as error:
        raise ExperimentError(
            f"cannot read {str(path)!r}: {error}; bring back the file that was archived"
        ) from error


def _row_groups(file: pq.ParquetFile) -> Iterator[list[int]]:
    """Row groups of some hundred thousand rows together: fewer steps, and still little memory."""
    groups: list[int] = []
    rows = 0
    for group in range(file.num_row_groups):
        groups.append(group)
        rows += file.metadata.row_group(group).num_rows
        if rows >= _ROWS_READ_AT_ONCE:
            yield groups
            groups, rows = [], 0
    if groups:
        yield groups


def outcome_event_ids(batch: pa.RecordBatch) -> list[str]:
    """The event ids of a batch of outcomes as the store has them, from both of its columns."""
    pairs = zip(
        batch.column("event_id").to_pylist(), batch.column("event_key").to_pylist(), strict=True
    )
    return [key if raw is None else raw.hex() for raw, key in pairs]


def _archive(folder: Path, manifest: Manifest) -> Archive:
    rows = manifest.facts["rows"]
    return Archive(
        folder=folder,
        exposures=rows["exposures"],
        outcomes=rows["outcomes"],
        orphans=rows["orphans"],
        last_exposure_us=manifest.facts["last_exposure_us"],
        last_outcome_us=manifest.facts["last_outcome_us"],
    )
