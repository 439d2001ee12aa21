"""An archive of ten million exposures for ab_analysis.py, made up in less than a minute.

Everything is what a gateway would have written, but event ids, units and texts are random bytes
instead of hashes: nothing that reads them can tell. Kept under var/bench/ by the digest of what
makes it, so that it is made once.
"""

import functools
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.manifest import canonical_digest, file_sha256
from serving.deployment import Arm, Deployment
from serving.experiments import archive_files
from serving.experiments.archive_files import (
    EXPOSURES,
    EXPOSURES_FILE,
    OUTCOMES,
    OUTCOMES_FILE,
    fixed_array,
    prepare,
    read_archive,
    seal,
    write_whole,
)

ROOT: Final = Path(__file__).resolve().parent.parent
HOME: Final = ROOT / "var" / "bench" / "ab"
EXPERIMENT: Final = "ten-million"
SHARE: Final = 0.5
LIFT: Final = 0.002
_BATCH: Final = 50_000
_SEED: Final = 20_261_130
_START_US: Final = 1_790_000_000_000_000
_DAY_US: Final = 86_400_000_000
_RETURNING: Final = 0.1
_UNKNOWN: Final = 0.01
_CORRECTED: Final = 0.02

Bytes = NDArray[np.uint8]


@functools.cache
def deployment() -> Deployment:
    """Whose answers these are: half each."""
    arms = (("champion", "1", 1.0 - SHARE), ("challenger", "2", SHARE))
    return Deployment(
        experiment_id=EXPERIMENT,
        salt="a salt for the bench",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        arms=tuple(
            Arm(
                name=name,
                model_name="sentiment",
                version=version,
                folder=Path(name),
                manifest_digest="0" * 64,
                evidence_id="bench",
                share=share,
            )
            for name, version, share in arms
        ),
    )


def make(exposures: int) -> Path:
    """The archive's folder; made where it is not there yet."""
    made_by = [file_sha256(Path(str(one))) for one in (__file__, archive_files.__file__)]
    folder = HOME / f"archive-{canonical_digest([exposures, *made_by])[:16]}"
    if (folder / "manifest.json").exists():
        return folder
    for old in HOME.glob("archive-*"):
        shutil.rmtree(old)
    prepare(folder)
    made = _Made(exposures)
    write_whole(folder / EXPOSURES_FILE, EXPOSURES, made.exposure_batches())
    write_whole(folder / OUTCOMES_FILE, OUTCOMES, made.outcome_batches())
    last_us = int(made.at_us.max())
    rows = {"exposures": exposures, "outcomes": len(made.answered), "orphans": 0}
    facts = {"rows": rows, "last_exposure_us": last_us, "last_outcome_us": last_us + 8 * _DAY_US}
    seal(folder, facts)
    read_archive(folder)
    return folder


class _Made:
    """The rows, as arrays."""

    def __init__(self, exposures: int):
        self.random = np.random.default_rng(_SEED)
        # One answer in ten is of a unit that came before.
        units = np.arange(exposures)
        back = np.flatnonzero(self.random.random(exposures) < _RETURNING)
        units[back] = units[(back * self.random.random(len(back))).astype(np.int64)]
        self.units = units
        self.unit = self._bytes(exposures, 32)
        self.on = self.random.random(exposures) < SHARE
        self.event = self._bytes(exposures, 16)
        self.at_us = _START_US + np.cumsum(self.random.integers(1, 200_000, exposures))
        # One answer in a hundred has no outcome, two in a hundred have a second one.
        answered = np.flatnonzero(self.random.random(exposures) >= _UNKNOWN)
        again = self.random.choice(answered, int(len(answered) * _CORRECTED), replace=False)
        self.answered = np.concatenate([answered, again])
        # Feedback comes in another order than the answers, within hours.
        delay_us = self.random.integers(0, _DAY_US // 4, len(self.answered))
        self.answered = self.answered[np.argsort(self.at_us[self.answered] + delay_us)]

    def _bytes(self, rows: int, width: int) -> Bytes:
        return np.frombuffer(self.random.bytes(rows * width), np.uint8).reshape(rows, width)

    def exposure_batches(self) -> Iterator[pa.RecordBatch]:
        """Batches of ``EXPOSURES``."""
        said = [f'{{"sentiment":{{"label":"positive","p":0.{n:04d}}}}}' for n in range(10_000)]
        predictions = pa.array(said)
        for rows in _parts(len(self.units)):
            n = rows.stop - rows.start
            unit, event = self.units[rows], self.event[rows]
            on = self.on[unit]
            columns: dict[str, Any] = {
                "event_id": _fixed(event),
                "request_id": pa.array(np.arange(rows.start, rows.stop)).cast(pa.string()),
                "item": pa.array(np.zeros(n, dtype=np.int32)),
                "experiment_id": _one_of([EXPERIMENT], np.zeros(n, np.bool_)),
                "deployment_id": _one_of([deployment().deployment_id], np.zeros(n, np.bool_)),
                "unit": _fixed(self.unit[unit]),
                "arm": _one_of(["champion", "challenger"], on),
                "model_version": _one_of(["sentiment/1", "sentiment/2"], on),
                "text_sha256": _fixed(self._bytes(n, 32)),
                "prediction": predictions.take(pa.array(self.random.integers(0, len(said), n))),
                "latency_ms": pa.array(self.random.gamma(4.0, 5.0, n)),
                "created_at": _times(self.at_us[rows]),
                "why": _one_of(["assigned"], np.zeros(n, np.bool_)),
                "status": _one_of(["ok"], np.zeros(n, np.bool_)),
                "cost": pa.nulls(n, pa.float64()),
            }
            yield pa.RecordBatch.from_pydict(columns, schema=EXPOSURES)

    def outcome_batches(self) -> Iterator[pa.RecordBatch]:
        """Batches of ``OUTCOMES``: a true sentiment each, within eight days."""
        for rows in _parts(len(self.answered)):
            shown = self.answered[rows]
            n = len(shown)
            right = self.random.random(n) < 0.8 + LIFT * self.on[self.units[shown]]
            later = self.random.exponential(_DAY_US, n).clip(1, 8 * _DAY_US).astype(np.int64)
            columns: dict[str, Any] = {
                "event_id": _fixed(self._bytes(n, 16)),
                "event_key": pa.nulls(n, pa.string()),
                "exposure_event_id": _fixed(self.event[shown]),
                "request_id": pa.array(shown).cast(pa.string()),
                "item": pa.array(np.zeros(n, dtype=np.int32)),
                "metric": _one_of(["reward"], np.zeros(n, np.bool_)),
                "reward": pa.array(right.astype(np.float64)),
                "label": _one_of(['{"sentiment":"negative"}', '{"sentiment":"positive"}'], right),
                "created_at": _times(self.at_us[shown] + later),
                "orphan": pa.array(np.zeros(n, dtype=np.bool_)),
            }
            yield pa.RecordBatch.from_pydict(columns, schema=OUTCOMES)


def _parts(rows: int) -> list[slice]:
    return [slice(start, min(start + _BATCH, rows)) for start in range(0, rows, _BATCH)]


def _fixed(rows: Bytes) -> pa.Array:
    return fixed_array(np.ascontiguousarray(rows).view(f"V{rows.shape[1]}")[:, 0])


def _one_of(values: list[str], second: NDArray[np.bool_]) -> pa.Array:
    return pa.array(values).take(pa.array(second.astype(np.int64)))


def _times(at_us: NDArray[np.int64]) -> pa.Array:
    return pa.array(at_us, pa.int64()).cast(pa.timestamp("us", tz="UTC"))
