"""Rows of archives as numpy arrays: the exposures of a deployment, and the outcomes of these.

Rows are never Python objects: a row group at a time becomes numpy arrays, exposures are sorted by
their event ids once, and outcomes find theirs by bisection.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.errors import ExperimentError
from data.manifest import MANIFEST_NAME
from serving.experiments.archive_files import (
    EXPOSURES_FILE,
    OUTCOMES_FILE,
    Archive,
    fixed_hashes,
    outcome_event_ids,
    read_archive,
    read_columns,
)
from serving.experiments.hashes import EVENT_BYTES, UNIT_BYTES, Hashes, grouped, leading_words
from serving.experiments.tables import ASSIGNED, FAILED, REWARD

Ints = NDArray[np.int64]
_NOT_FOUND: Final = -1
_ARMS_AT_MOST: Final = 255
_ROWS_AT_MOST: Final = (1 << 31) - 1
"""Places of exposures are held in 32 bits."""


@dataclass
class Exposures:
    """What arms were asked: event id, unit, arm (place in ``arms``), failed, time, (n,) each."""

    event_id: Hashes
    unit: Hashes
    arm: NDArray[np.uint8]
    failed: NDArray[np.bool_]
    at_us: Ints
    arms: list[str] = field(default_factory=list)
    versions: set[tuple[str, str]] = field(default_factory=set)

    def keep(self, rows: slice | NDArray[np.bool_]) -> None:
        """Forget all other rows."""
        self.event_id, self.unit = self.event_id[rows], self.unit[rows]
        self.arm, self.at_us = self.arm[rows], self.at_us[rows]
        self.failed = self.failed[rows]


@dataclass
class Outcomes:
    """Outcomes of such answers: place of the exposure, time, reward and so on, (m,) each."""

    exposure: NDArray[np.int32]
    at_us: Ints
    reward: NDArray[np.float64]
    labelled: NDArray[np.bool_]
    row: Ints
    """Place among all rows of all files."""


def archives_in(folder: Path) -> list[Archive]:
    """The archive that a folder is, or those that lie in it, each checked.

    Raises:
        ExperimentError: there is none, or one is not whole.
    """
    if (folder / MANIFEST_NAME).is_file():
        return [read_archive(folder)]
    found = sorted(path.parent for path in folder.glob(f"*/{MANIFEST_NAME}"))
    if not found:
        raise ExperimentError(
            f"{str(folder)!r} holds no archive; name a folder that export or retain has written"
        )
    return [read_archive(one) for one in found]


def read_exposures(
    archives: Sequence[Archive], experiment_id: str, deployment_id: str
) -> Exposures:
    """The exposures of a deployment that were dealt by chance, in the order of the files.

    Raises:
        ExperimentError: a file cannot be read, or there are too many rows.
    """
    most = sum(archive.exposures for archive in archives)
    if most > _ROWS_AT_MOST:
        raise ExperimentError(
            f"the archives hold {most!r} exposures, and {_ROWS_AT_MOST!r} are read together; name "
            "a folder with fewer of them"
        )
    shown = Exposures(
        event_id=np.empty(most, dtype=f"V{EVENT_BYTES}"),
        unit=np.empty(most, dtype=f"V{UNIT_BYTES}"),
        arm=np.empty(most, dtype=np.uint8),
        failed=np.empty(most, dtype=np.bool_),
        at_us=np.empty(most, dtype=np.int64),
    )
    columns = ["experiment_id", "deployment_id", "event_id", "unit", "arm", "model_version"]
    columns += ["why", "status", "created_at"]
    end = 0
    for archive in archives:
        for batch in read_columns(archive.folder / EXPOSURES_FILE, columns):
            wanted = _is(batch.column("experiment_id"), experiment_id)
            wanted &= _is(batch.column("deployment_id"), deployment_id)
            wanted &= _is(batch.column("why"), ASSIGNED)
            begin, end = end, end + int(wanted.sum())
            rows = slice(begin, end)
            shown.failed[rows] = _is(batch.column("status"), FAILED)[wanted]
            shown.event_id[rows] = fixed_hashes(batch.column("event_id"))[wanted]
            shown.unit[rows] = fixed_hashes(batch.column("unit"))[wanted]
            shown.at_us[rows] = _times(batch)[wanted]
            shown.arm[rows] = _arms(batch, wanted, shown)
    shown.keep(slice(end))
    return shown


def _is(column: pa.DictionaryArray, value: str) -> NDArray[np.bool_]:
    """Where a column of few values has this one."""
    values = np.array([one == value for one in column.dictionary.to_pylist()], dtype=np.bool_)
    return values[column.indices.to_numpy()] if len(values) else np.zeros(len(column), dtype=bool)


def _times(batch: pa.RecordBatch) -> Ints:
    return np.asarray(batch.column("created_at").cast(pa.int64()).to_numpy())


def _arms(batch: pa.RecordBatch, wanted: NDArray[np.bool_], shown: Exposures) -> NDArray[np.uint8]:
    """The arms of the wanted rows, as places in ``shown.arms``; notes arms and versions."""
    arms = batch.column("arm").dictionary.to_pylist()
    versions = batch.column("model_version").dictionary.to_pylist()
    arm = batch.column("arm").indices.to_numpy()[wanted].astype(np.int64)
    version = batch.column("model_version").indices.to_numpy()[wanted]
    for pair in np.unique(arm * len(versions) + version).tolist():
        shown.versions.add((arms[pair // len(versions)], versions[pair % len(versions)]))
    for place in np.unique(arm).tolist():
        if arms[place] not in shown.arms:
            shown.arms.append(arms[place])
    if len(shown.arms) > _ARMS_AT_MOST:
        raise ExperimentError(
            f"the deployment has {len(shown.arms)!r} arms or more, and {_ARMS_AT_MOST!r} are read; "
            "the archive was not written by this store"
        )
    known = {name: place for place, name in enumerate(shown.arms)}
    places = np.array([known.get(name, 0) for name in arms], dtype=np.uint8)
    return np.asarray(places[arm])


def sorted_by_event(shown: Exposures) -> NDArray[np.intp]:
    """The order of event ids; an exposure that two archives hold is kept once."""
    order, begins = grouped(shown.event_id)
    if not begins.all():
        first = np.zeros(len(order), dtype=np.bool_)
        first[order[begins]] = True
        shown.keep(first)
        order, _ = grouped(shown.event_id)
    return order


def read_outcomes(
    archives: Sequence[Archive], shown: Exposures, order: NDArray[np.intp], window: int | None
) -> Outcomes:
    """The outcomes of these exposures.

    Args:
        archives: whose outcomes; the exposure may lie in another than its outcome.
        shown: the exposures.
        order: that sorts them by event id.
        window: microseconds after the exposure that an outcome counts; None for ever.
    """
    most = sum(archive.outcomes for archive in archives)
    said = Outcomes(
        exposure=np.empty(most, dtype=np.int32),
        at_us=np.empty(most, dtype=np.int64),
        reward=np.empty(most, dtype=np.float64),
        labelled=np.empty(most, dtype=np.bool_),
        row=np.empty(most, dtype=np.int64),
    )
    leading = leading_words(shown.event_id)[order]
    columns = ["exposure_event_id", "created_at", "metric", "reward", "label"]
    end = seen = 0
    for batch in _outcome_batches(archives, columns):
        exposure = _find(fixed_hashes(batch.column("exposure_event_id")), shown, leading, order)
        at_us = _times(batch)
        wanted = (exposure != _NOT_FOUND) & _is(batch.column("metric"), REWARD)
        if window is not None:
            wanted[wanted] = at_us[wanted] <= shown.at_us[exposure[wanted]] + window
        begin, end = end, end + int(wanted.sum())
        rows = slice(begin, end)
        said.exposure[rows] = exposure[wanted]
        said.at_us[rows] = at_us[wanted]
        said.reward[rows] = batch.column("reward").to_numpy()[wanted]
        said.labelled[rows] = (
            batch.column("label").is_valid().to_numpy(zero_copy_only=False)[wanted]
        )
        said.row[rows] = seen + np.flatnonzero(wanted)
        seen += len(batch)
    return Outcomes(**{name: values[:end] for name, values in vars(said).items()})


def _outcome_batches(
    archives: Sequence[Archive], columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    for archive in archives:
        yield from read_columns(archive.folder / OUTCOMES_FILE, columns)


def _find(
    wanted: Hashes, shown: Exposures, leading: NDArray[np.uint64], order: NDArray[np.intp]
) -> NDArray[np.int32]:
    """Places of the exposures with these event ids (m,); -1 where there is none."""
    found = np.full(len(wanted), _NOT_FOUND, dtype=np.int32)
    words = leading_words(wanted)
    # Sorted, because bisection then walks through memory instead of jumping about in it.
    asked = np.argsort(words)
    words = words[asked]
    place = np.searchsorted(leading, words)
    while len(asked):
        # Event ids whose first 8 bytes are equal stand side by side: go on until all are passed.
        here = np.flatnonzero(place < len(leading))
        here = here[leading[place[here]] == words[here]]
        asked, place, words = asked[here], place[here], words[here]
        exposure = order[place]
        equal = shown.event_id[exposure] == wanted[asked]
        found[asked[equal]] = exposure[equal]
        asked, place, words = asked[~equal], place[~equal] + 1, words[~equal]
    return found


def event_ids_of(archives: Sequence[Archive], rows: Ints) -> NDArray[np.str_]:
    """The event ids of some rows, by their place among all rows of all files."""
    wanted, place = np.unique(rows, return_inverse=True)
    ids: list[str] = []
    seen = 0
    for batch in _outcome_batches(archives, ["event_id", "event_key"]):
        first, last = np.searchsorted(wanted, [seen, seen + len(batch)])
        ids += outcome_event_ids(batch.take(pa.array(wanted[first:last] - seen)))
        seen += len(batch)
    return np.asarray(ids, dtype=np.str_)[place]
