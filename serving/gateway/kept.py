"""Values that cost much to compute, kept for a while, so that being asked often costs little."""

import time
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

Value = TypeVar("Value")
LEAST_S: Final = 2.0
_TIMES: Final = 10.0


class Kept(Generic[Value]):
    """Keeps each value for ten times as long as it took, and at least two seconds.

    So at most a tenth of one core is spent on each, however many pages are open and however large
    the store. It is used by one thread alone.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic):
        """Keep nothing yet."""
        self._clock = clock
        self._kept: dict[Hashable, tuple[float, Value]] = {}

    def get(
        self, key: Hashable, compute: Callable[[], Value], *, least_s: float = LEAST_S
    ) -> Value:
        """The value of a key, computed where none is kept; an error is not kept."""
        began = self._clock()
        self._kept = {name: each for name, each in self._kept.items() if each[0] > began}
        if key in self._kept:
            return self._kept[key][1]
        value = compute()
        ended = self._clock()
        self._kept[key] = (ended + max(least_s, _TIMES * (ended - began)), value)
        return value
