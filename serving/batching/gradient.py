"""How many batches help each other along: Gradient2 of Netflix's concurrency-limits.

https://github.com/Netflix/concurrency-limits, Gradient2Limit: the limit is multiplied by how much
faster batches are over the long run than lately, and a small queue is added, so that it grows
until they slow down. Here the latency is a batch's seconds over what its shape should take. The
queue is half a batch instead of the limit's root: with the root no limit falls below 4, and two
cores are busy with 2. As in Gradient2, a slow-down that lasts for many hundreds of batches becomes
the long run; the runners' workers bound what is in flight then.
"""

from typing import Final

_LONG: Final = 1 / 600
_SHORT: Final = 0.2
_SMOOTHING: Final = 0.2
_QUEUE: Final = 0.5
_DRIFTED: Final = 2.0
_DRIFT_BACK: Final = 0.95


class GradientLimit:
    """A number of batches that follows their slow-down."""

    def __init__(self, *, first: int, least: int, most: int, tolerance: float):
        """Start low, so that the long run begins with batches that are not in each other's way.

        Args:
            first: to begin with.
            least: never below.
            most: never above.
            tolerance: slow-down that is not yet taken for a queue, such as 1.5.
        """
        self._least = least
        self._most = max(most, least)
        self._tolerance = tolerance
        self._long: float | None = None
        self._short = 1.0
        self.limit = float(min(max(first, least), self._most))

    def observe(self, slowdown: float, *, in_flight: int) -> None:
        """Learn from a batch that is done.

        Args:
            slowdown: its seconds over those that its shape should take.
            in_flight: batches when it was done, itself included.
        """
        if self._long is None:
            self._long = self._short = slowdown
        self._long += _LONG * (slowdown - self._long)
        self._short += _SHORT * (slowdown - self._short)
        # After a long slow time the long run is too slow a measure; it must not take as long again.
        if self._long / self._short > _DRIFTED:
            self._long *= _DRIFT_BACK
        if in_flight < self.limit / 2:
            return  # so few in flight say nothing about how many could be
        gradient = max(0.5, min(1.0, self._tolerance * self._long / self._short))
        wanted = self.limit * gradient + _QUEUE
        self.limit += _SMOOTHING * (wanted - self.limit)
        self.limit = max(float(self._least), min(float(self._most), self.limit))
