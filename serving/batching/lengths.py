"""How long texts are lately, how fast they come and go: estimates that follow the traffic."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

_EDGES_PER_OCTAVE: Final = 8
_LONGEST: Final = 2**16
_RESCALE: Final = 1e100
_FORGOTTEN: Final = 50
_AT_ONCE: Final = 64
_EMPTY: Final = 1e-9


class LengthEstimate:
    """A histogram of lengths in which old ones fade.

    Bins are whole tokens up to 64 and eighths of an octave above: a bucket's width is at most 9%
    of its length, and the whole is a few hundred numbers however long texts are.

    Attributes:
        mean: tokens.
        seen: lengths so far.
    """

    def __init__(self, *, memory: int = 4_096, prior: int = 40):
        """Start from one guess that the first real lengths outweigh.

        Args:
            memory: after so many lengths an old one counts for 1/e.
            prior: the length believed in before any came.

        """
        small = np.arange(1, 65)
        octaves = np.log2(_LONGEST / 64)
        large = 64 * 2 ** (np.arange(1, int(octaves * _EDGES_PER_OCTAVE) + 1) / _EDGES_PER_OCTAVE)
        self._edges: NDArray[np.int64] = np.concatenate([small, large.astype(np.int64)])
        self._counts = np.zeros(len(self._edges))
        self._tokens = np.zeros(len(self._edges))
        self._memory = memory
        self._scale = 1.0  # new ones grow instead of all old ones shrinking at every step
        self._fresh = [prior]
        self.seen = -1
        self._count_fresh()

    def add(self, lengths: list[int]) -> None:
        """Count lengths, in tokens."""
        self._fresh += lengths
        if len(self._fresh) >= min(self.seen + 1, _AT_ONCE):
            self._count_fresh()

    def _count_fresh(self) -> None:
        """Numpy is slow on few numbers, so they are counted many at once."""
        if not self._fresh:
            return
        self.seen += len(self._fresh)
        lasting = self._fresh[-_FORGOTTEN * self._memory :]
        self._fresh = []
        values = np.clip(np.asarray(lasting, dtype=np.int64), 1, _LONGEST)
        bins = np.searchsorted(self._edges, values)
        weights = self._scale * np.exp(np.arange(1, len(values) + 1) / self._memory)
        self._scale = float(weights[-1])
        np.add.at(self._counts, bins, weights)
        np.add.at(self._tokens, bins, weights * values)
        if self._scale > _RESCALE:
            self._counts /= self._scale
            self._tokens /= self._scale
            self._scale = 1.0
        self.mean = float(self._tokens.sum() / self._counts.sum())

    def quantile(self, share: float) -> int:
        """The length that a share of the texts does not exceed, rounded up to its bin's end.

        Raises:
            ValueError: the share is not between 0 and 1.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"share={share!r} is not between 0 and 1; ask for 0.95, not 95")
        self._count_fresh()
        total = np.cumsum(self._counts)
        index = int(np.searchsorted(total, share * total[-1] * (1 - 1e-12)))
        return int(self._edges[min(index, len(self._edges) - 1)])

    def shares(self) -> list[tuple[int, float]]:
        """(longest length of the bin, its share), bins that are not empty, shortest first."""
        self._count_fresh()
        shares = self._counts / self._counts.sum()
        filled = np.flatnonzero(shares > _EMPTY)
        return [(int(self._edges[index]), float(shares[index])) for index in filled]


class ArrivalRate:
    """Windows a second lately, from the gaps between them."""

    def __init__(self, *, memory: int = 64):
        """Start without any expectation.

        Args:
            memory: after so many arrivals an old gap counts for 1/e.
        """
        self._decay = 1.0 / memory
        self._gap_s: float | None = None
        self._last: float | None = None

    def add(self, now: float, count: int = 1) -> None:
        """Count windows that came together at a moment of a monotonic clock, in seconds."""
        if self._last is not None:
            gap = max(now - self._last, 1e-9) / count
            weight = 1 - (1 - self._decay) ** count
            before = gap if self._gap_s is None else self._gap_s
            self._gap_s = before + weight * (gap - before)
        self._last = now

    def gap_s(self, now: float) -> float:
        """Seconds until the next is to be expected; a silence so far counts against it."""
        if self._gap_s is None or self._last is None:
            return float("inf")
        return max(self._gap_s, now - self._last)


class DrainRate:
    """Tokens a second that come out while more waits than the engine can take."""

    def __init__(self, *, memory_s: float = 2.0):
        """Start without any measure.

        Args:
            memory_s: after so many seconds under load an old one counts for 1/e.
        """
        self._memory_s = memory_s
        self._tokens = 0.0
        self._seconds = 0.0
        self._last: float | None = None
        self._measured_at = 0.0

    def add(self, now: float, tokens: int, *, loaded: bool) -> None:
        """Count a batch that came out at a moment of a monotonic clock.

        Args:
            now: seconds.
            tokens: of the batch.
            loaded: whether more than a batch still waits.
        """
        if self._last is not None:
            gap = now - self._last
            fade = float(np.exp(-gap / self._memory_s))
            self._tokens = self._tokens * fade + tokens
            self._seconds = self._seconds * fade + gap
            self._measured_at = now
        self._last = now if loaded else None

    def seconds(self, now: float, tokens: float) -> float | None:
        """Until so many tokens are out; None where lately no load was seen long enough to tell."""
        stale = now - self._measured_at > 2 * self._memory_s
        if stale or self._seconds < self._memory_s / 10 or not self._tokens:
            return None
        return tokens * self._seconds / self._tokens
