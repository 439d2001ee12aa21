"""What a batch costs, in bytes and seconds: fitted on the machine, followed while it serves."""

import itertools
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data.errors import ArtifactError
from data.manifest import write_text_atomically
from serving.batching.shapes import Shape

MIB: Final = 2**20
Lengths = TypeVar("Lengths", float, NDArray[np.int64] | NDArray[np.float64])
P999: Final = 0.999
_OF_BYTES: Final = (0, 1, 2, 3)
_OF_SECONDS: Final = (0, 2, 3)
_FEWEST: Final = 8
_Z_P999: Final = 3.090
_Z_SURE: Final = 1.645
_BEYOND_SEEN: Final = 0.02
_SMALLEST_MARGIN: Final = 0.05
"""One in some hundred batches takes up to 4.5% more than the same batch at other times, which the
58 of a fit need not show."""
_SLOW: Final = 0.998
"""What an old batch still counts for in the shape of the seconds, per batch since."""
_FAST: Final = 0.1
"""How far one batch moves the pace: contention comes and goes within tens of batches."""
_SOLVE_EVERY: Final = 8
_OUTLIER: Final = 4.0
_SETTLED: Final = 64
_CAP_BELOW: Final = 0.75
_CAP_GROWTH: Final = 1.02
"""A batch that fits lets the cap grow by so much at most, and no faster than time allows."""
_CAP_DOUBLES_S: Final = 30.0
_CAP_DOUBLES_MOST_S: Final = 3_600.0
_BURST_S: Final = 1.0
"""What runs out of memory so soon after another batch was planned before that was known."""
_LIFTED: Final = 1.5
"""So many times what failed fits now: it was no limit that lasts."""


class Measurement(NamedTuple):
    """One batch as it was measured: bytes beyond what the model holds at rest, and seconds."""

    shape: Shape
    bytes: int
    seconds: float


class CostFile(BaseModel):
    """A cost model as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    computes_padding: bool
    bytes_of: tuple[float, float, float, float] = Field(description="Per 1, row, token, square.")
    byte_margin: float = Field(
        ge=1.0, description="p99.9 of measured over predicted bytes, where batches are large."
    )
    byte_slack: float = Field(
        default=0.0, ge=0.0, description="p99.9 of measured less predicted bytes, where small."
    )
    seconds_of: tuple[float, float, float, float]
    measured: int = Field(ge=0, description="Batches it was fitted on; 0 is a guess.")


class CostModel:
    """Bytes and seconds of a batch, linear in few features, none of them negative.

    Features are 1, rows, rows x longest and rows x longest squared (attention's scores) for an
    engine that computes padding, else 1, rows, real tokens and their squares. Seconds leave rows
    out: where batches are small they cannot be told from 1, and 1 is what batches are made for.
    Seconds are the fitted ones times a pace that follows the last tens of batches; the fit itself
    follows slowly. Bytes are not updated: nobody measures them while serving. What was too large is
    a cap that batches stay under, and that grows back over time as they succeed: half as fast each
    time that it has grown into the same limit, so that this becomes rare. Used from one thread.
    """

    def __init__(self, file: CostFile):
        """Start from what was fitted, or guessed."""
        self.computes_padding = file.computes_padding
        self.measured = file.measured
        self.pace = 1.0
        self.cap_bytes: int | None = None
        self._failed_bytes = 0
        self._failed_at = self._grown_at = -math.inf
        self._cap_doubles_s = _CAP_DOUBLES_S / 2  # the first time out of memory is none again
        self._bytes_of = file.bytes_of
        self._margin = file.byte_margin
        self._slack = file.byte_slack
        self._seconds_of = file.seconds_of
        self._gram, self._moment = _beliefs(file)
        self._observed = 0

    @classmethod
    def unfitted(cls, *, computes_padding: bool = True) -> Self:
        """A guess that is too much for any base-sized encoder, but learns seconds quickly."""
        return cls(
            CostFile(
                computes_padding=computes_padding,
                bytes_of=(64.0 * MIB, 16_384.0, 262_144.0, 512.0),
                byte_margin=1.25,
                seconds_of=(2e-3, 0.0, 5e-4, 1e-6),
                measured=0,
            )
        )

    def bytes_needed(self, shape: Shape) -> int:
        """The p99.9 upper bound of what a batch takes beyond the model itself."""
        likely = self.bytes_likely(shape)
        return math.ceil(max(likely * self._margin, likely + self._slack))

    def bytes_likely(self, shape: Shape) -> float:
        """What it takes most likely."""
        return _dot(self._bytes_of, self._features(shape))

    def seconds(self, shape: Shape) -> float:
        """What it takes at the pace of late."""
        return self.pace * self.base_seconds(shape)

    def base_seconds(self, shape: Shape) -> float:
        """What it takes over the long run, which a slow-down of late is measured against."""
        return max(_dot(self._seconds_of, self._features(shape)), 1e-7)

    def row_seconds(self, length: Lengths) -> tuple[float, Lengths]:
        """(fixed, per row) seconds of batches whose rows all have a length, or several such."""
        fixed, row, token, square = self._seconds_of
        per_row = row + token * length + square * length * length
        return self.pace * fixed, self.pace * per_row + 1e-9

    def rows_within(self, length: Lengths, *, max_bytes: float, max_s: float) -> Lengths:
        """Rows of a length that stay within bytes (p99.9) and predicted seconds; may be < 1."""
        fixed, row, token, square = self._bytes_of
        bytes_per_row = row + token * length + square * length * length + 1e-9
        likely = min(max_bytes / self._margin, max_bytes - self._slack)
        by_bytes = (likely - fixed) / bytes_per_row
        fixed_s, per_row_s = self.row_seconds(length)
        rows: Lengths = np.minimum(by_bytes, (max_s - fixed_s) / per_row_s)
        return rows

    @property
    def settled(self) -> bool:
        """Whether enough was seen to tell a slow batch from a wrong guess."""
        return self.measured > 0 or self._observed >= _SETTLED

    def observe(self, shape: Shape, seconds: float) -> None:
        """Learn from a batch that was answered."""
        self._grow_cap(self.bytes_needed(shape))
        predicted = self.base_seconds(shape)
        if self.settled:  # a page fault or a pause of the machine
            seconds = min(max(seconds, predicted / _OUTLIER), predicted * _OUTLIER)
        ratio = seconds / predicted
        self.pace *= (ratio / self.pace) ** _FAST
        features = np.asarray(self._features(shape)) / max(seconds, 1e-7)
        self._gram = _SLOW * self._gram + np.outer(features, features)
        self._moment = _SLOW * self._moment + features
        self._observed += 1
        if self._observed % (_SOLVE_EVERY if self._observed < _SETTLED else 4 * _SOLVE_EVERY) == 0:
            before = self._seconds_of
            self._seconds_of = _solve(self._gram, self._moment, _OF_SECONDS)
            # The pace is relative to the fit: what the fit took over is not counted twice.
            moved = _dot(self._seconds_of, self._features(shape)) / _dot(
                before, self._features(shape)
            )
            if moved > 0:
                self.pace = min(max(self.pace / moved, 0.1), 10.0)

    def out_of_memory(self, shape: Shape) -> None:
        """Keep what follows clearly smaller than a batch that fitted only in halves."""
        now = time.monotonic()
        self._failed_bytes = self.bytes_needed(shape)
        cap = math.ceil(self._failed_bytes * _CAP_BELOW)
        self.cap_bytes = cap if self.cap_bytes is None else min(self.cap_bytes, cap)
        if now - self._failed_at > _BURST_S:
            self._cap_doubles_s = min(2 * self._cap_doubles_s, _CAP_DOUBLES_MOST_S)
        self._failed_at = self._grown_at = now

    def _grow_cap(self, fitted: int) -> None:
        if self.cap_bytes is None or fitted <= 0.8 * self.cap_bytes:
            return
        now = time.monotonic()
        growth = 2 ** min((now - self._grown_at) / self._cap_doubles_s, 1.0)
        self.cap_bytes = math.ceil(self.cap_bytes * min(growth, _CAP_GROWTH))
        self._grown_at = now
        if fitted > _LIFTED * self._failed_bytes:
            self._failed_bytes = fitted
            self._cap_doubles_s = max(self._cap_doubles_s / 2, _CAP_DOUBLES_S / 2)

    def save(self, path: Path) -> None:
        """Write it as JSON, with the seconds as they are followed by now."""
        file = CostFile(
            computes_padding=self.computes_padding,
            bytes_of=self._bytes_of,
            byte_margin=self._margin,
            byte_slack=self._slack,
            seconds_of=self._seconds_of,
            measured=self.measured,
        )
        write_text_atomically(path, file.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what ``save`` wrote.

        Raises:
            ArtifactError: there is none, or it is not one.
        """
        try:
            return cls(CostFile.model_validate_json(path.read_bytes()))
        except (OSError, ValidationError) as error:
            raise ArtifactError(
                f"{str(path)!r} is not a cost model: {error}; calibrate the engine again"
            ) from error

    def _features(self, shape: Shape) -> tuple[float, float, float, float]:
        if self.computes_padding:
            padded = shape.rows * shape.longest
            return 1.0, shape.rows, padded, padded * shape.longest
        return 1.0, shape.rows, shape.tokens, shape.squares


def fit_costs(measurements: Sequence[Measurement], *, computes_padding: bool) -> CostModel:
    """Fit a cost model by non-negative least squares of the relative errors.

    A large batch's memory is wrong by a share of it, a small one's by the pages that a measurement
    cannot tell (serving/batching/peak_memory.py), and they are no share of anything: each half of
    the batches has a bound of its own, and the higher one holds.

    Raises:
        ValueError: there are too few measurements to tell the features apart.
    """
    if len(measurements) < _FEWEST:
        raise ValueError(
            f"{len(measurements)!r} measurements do not tell four features apart; measure "
            f"{_FEWEST} or more"
        )
    blank = CostModel.unfitted(computes_padding=computes_padding)
    rows = np.asarray([blank._features(each.shape) for each in measurements])  # noqa: SLF001
    sizes = np.asarray([max(each.bytes, 1) for each in measurements], dtype=np.float64)
    times = np.asarray([max(each.seconds, 1e-7) for each in measurements])
    bytes_of = _fit(rows, sizes, _OF_BYTES)
    likely = np.maximum(rows @ np.asarray(bytes_of), 1.0)
    order = np.argsort(likely, kind="stable")
    small, large = order[: len(order) // 2], order[len(order) // 2 :]
    return CostModel(
        CostFile(
            computes_padding=computes_padding,
            bytes_of=bytes_of,
            byte_margin=max(
                1.0 + _SMALLEST_MARGIN, upper_bound(sizes[large] / likely[large], _BEYOND_SEEN)
            ),
            byte_slack=max(0.0, upper_bound(sizes[small] - likely[small])),
            seconds_of=_fit(rows, times, _OF_SECONDS),
            measured=len(measurements),
        )
    )


def upper_bound(values: NDArray[np.float64], beyond: float = 0.0) -> float:
    """p99.9 of what values are drawn from, from fewer than would show it.

    The largest that was seen stands for 1 in n. Beyond it the tail is taken to be a normal
    distribution's as wide as the values' own: its one-sided tolerance bound, which with 95%
    confidence holds 99.9% (https://www.itl.nist.gov/div898/handbook/prc/section2/prc263.htm).

    Args:
        values: that were seen.
        beyond: how far above the largest of them the bound is at least.
    """
    count = len(values)
    factor = _Z_P999 + _Z_SURE * math.sqrt(1 / count + _Z_P999**2 / (2 * (count - 1)))
    spread = float(np.mean(values) + factor * np.std(values, ddof=1))
    return max(float(np.quantile(values, P999)) + beyond, spread)


def _fit(
    rows: NDArray[np.float64], values: NDArray[np.float64], columns: tuple[int, ...]
) -> tuple[float, float, float, float]:
    relative = rows / values[:, None]
    return _solve(relative.T @ relative, relative.sum(axis=0), columns)


def _solve(
    gram: NDArray[np.float64], moment: NDArray[np.float64], columns: tuple[int, ...]
) -> tuple[float, float, float, float]:
    """Non-negative least squares from its normal equations, columns scaled alike.

    Four columns have 15 choices of those that are not zero: the best whose weights are all
    positive is the solution. (scipy's would cost 60 MiB and a second at the first batch.)
    """
    scale = np.sqrt(np.maximum(np.diag(gram), 1e-300))
    scaled = gram / np.outer(scale, scale) + 1e-9 * np.eye(len(gram))
    wanted = moment / scale
    best, best_gain = np.zeros(len(gram)), 0.0
    for size in range(1, len(columns) + 1):
        for chosen in itertools.combinations(columns, size):
            index = np.asarray(chosen)
            found = np.linalg.solve(scaled[np.ix_(index, index)], wanted[index])
            gain = float(found @ wanted[index])  # how far it brings the squares down
            if gain > best_gain and (found >= 0).all():
                best = np.zeros(len(gram))
                best[index] = found
                best_gain = gain
    one, row, token, square = (float(value) for value in best / scale)
    return one, row, token, square


def _beliefs(file: CostFile) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Normal equations that give back the file's seconds: what was fitted counts as observed."""
    weight = min(file.measured, 200) / 4 if file.measured else 1e-3
    gram = np.zeros((4, 4))
    moment = np.zeros(4)
    for rows in (1, 4, 16, 64):
        for longest in (8, 32, 128, 512):
            padded = rows * longest
            features = np.asarray([1.0, rows, padded, padded * longest])
            features = features / max(_dot(file.seconds_of, tuple(features)), 1e-7)
            gram += weight / 4 * np.outer(features, features)
            moment += weight / 4 * features
    return gram, moment


def _dot(weights: tuple[float, ...], features: tuple[float, ...]) -> float:
    return sum(weight * feature for weight, feature in zip(weights, features, strict=True))
