"""The time that events are stored with: it never goes back, though the machine's clock may.

Of several outcomes of one answer the latest counts, and an outcome belongs to an answer for a
window of time. A clock that is set back would let an old outcome win, or put it before its answer.
"""

import threading
import time
from collections.abc import Callable


def wall_us() -> int:
    """Microseconds since 1970, as the machine's clock has them."""
    return time.time_ns() // 1_000


def monotonic_us() -> int:
    """Microseconds of a clock that nobody sets."""
    return time.monotonic_ns() // 1_000


class SteadyClock:
    """The machine's time; where that is set back, time goes on from where it was.

    It is the machine's again once that has caught up. A clock that jumps forward is followed: which
    of two times is right nobody here can tell.
    """

    def __init__(
        self,
        *,
        wall: Callable[[], int] = wall_us,
        monotonic: Callable[[], int] = monotonic_us,
    ):
        """Begin at the machine's time."""
        self._wall = wall
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._last, self._read_at = wall(), monotonic()

    def now_us(self) -> int:
        """Microseconds since 1970; later than at every call before."""
        with self._lock:
            read_at = self._monotonic()
            passed = max(read_at - self._read_at, 1)
            self._last, self._read_at = max(self._wall(), self._last + passed), read_at
            return self._last
