"""How much may be in flight at once: a semaphore weighted by predicted bytes, its limit alive.

Two limits hold together. Batches in flight stay within a latency-gradient limit, which falls when
batches slow each other down (serving/batching/gradient.py). Their predicted bytes stay within

    free + min(own - footprint, max(in flight, kept)) - reserve

Free memory is short of what batches in flight took already; that part is put back, or they would
be counted twice. It is what this process grew by since it was last at rest, but never more than
what was predicted for the batches in flight: a second model that is loaded meanwhile is no batch.
An allocator keeps what a batch took for the next: what the process grew by from one rest to another
with batches between, at most what was predicted for those, is kept and no part of the footprint.
All of it is as of the last reading, so that the limit stays put between two.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from dataclasses import dataclass

from data.errors import EngineMemoryError
from serving.batching.gradient import GradientLimit
from serving.batching.memory import MemorySource
from serving.batching.observer import AdmissionState
from serving.batching.settings import AdmissionSettings

_MIB = 2**20
_UNREAD_S = 1.0
"""For so long a source of readings may fail before it counts: one failure says nothing."""
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Permit:
    """Leave for one batch; give it back with ``Admission.release``.

    Attributes:
        bytes: predicted.
        waited: whether it was not to be had at once.
    """

    bytes: int
    waited: bool = False
    released: bool = False


@dataclass(eq=False)
class _Waiter:
    bytes: int
    granted: asyncio.Future[Permit]


class Admission:
    """Shared by all runners of a process; used from one event loop."""

    def __init__(
        self,
        memory: MemorySource,
        *,
        settings: AdmissionSettings | None = None,
    ):
        """Wrap a source of readings.

        Args:
            memory: of the device that the engines run on.
            settings: limits.
        """
        self._settings = settings or AdmissionSettings()
        self._memory = memory
        self._gradient = GradientLimit(
            first=self._settings.first_batches,
            least=self._settings.min_batches,
            most=self._settings.max_batches,
            tolerance=self._settings.tolerance,
        )
        self._waiters: deque[_Waiter] = deque()
        self._in_flight = 0
        self._in_flight_bytes = 0
        self._reading = memory()
        self._own_at_rest = self._reading.own
        self._kept = 0
        self._most_since_rest = 0
        self._loaded_since_rest = False
        self._read_at = self._good_at = time.monotonic()
        self._read_error = ""
        self._in_flight_when_read = 0
        self._timer: asyncio.TimerHandle | None = None
        self._starved_since: float | None = None
        self._moved_at = time.monotonic()

    def limit_bytes(self) -> int:
        """Predicted bytes that may be in flight together now; negative when memory is gone."""
        self._read()
        grown = max(self._reading.own - (self._own_at_rest - self._kept), 0)
        own = min(grown, max(self._in_flight_when_read, self._kept))
        return self._reading.free + own - self._settings.reserve_bytes

    def model_loaded(self) -> None:
        """What the process holds now is a model's: none of it is kept for batches."""
        self._loaded_since_rest = True
        self._read(max_age_s=0.0)
        self._kept = 0

    def share_bytes(self, workers: int, *, efficient: int) -> int:
        """What one batch may take, so that several can be in flight.

        Short memory first costs batches in flight, down to those that admission begins with, and
        only then makes batches so small that they are slow.

        Args:
            workers: that batches are to be shared among.
            efficient: bytes of a batch that is large enough to be fast.
        """
        whole = self.limit_bytes()
        even = whole // min(workers, self.limit_batches)
        return max(even, min(efficient, whole // min(workers, self._settings.first_batches)))

    def overcommitted(self) -> bool:
        """Read at once: whether memory went to others since what is in flight was admitted."""
        self._read(max_age_s=0.0)
        return self._in_flight_bytes > self.limit_bytes()

    @property
    def limit_batches(self) -> int:
        """Batches that may be in flight together however small they are."""
        return int(self._gradient.limit)

    def state(self) -> AdmissionState:
        """For metrics."""
        return AdmissionState(
            in_flight=self._in_flight,
            in_flight_bytes=self._in_flight_bytes,
            waiting=len(self._waiters),
            limit_batches=self._gradient.limit,
            limit_bytes=self.limit_bytes(),
            free_bytes=self._reading.free,
        )

    def has_room(self, needed: int) -> bool:
        """Whether a batch could run, now or when those in flight are done."""
        if self._in_flight:
            return not self.stalled()
        return self._fits(needed)

    def stalled(self) -> bool:
        """Whether batches wait for others that will hardly end any more."""
        still_s = time.monotonic() - self._moved_at
        return bool(self._waiters and self._in_flight) and still_s > self._settings.stalled_s

    def unread(self) -> str | None:
        """Why the memory cannot be read, if that goes on; meanwhile the last reading counts."""
        self._read()
        old_s = self._read_at - self._good_at
        if not self._read_error or old_s < _UNREAD_S:
            return None
        return f"the memory cannot be read for {old_s:.0f} s: {self._read_error}"

    async def acquire(self, needed: int) -> Permit:
        """Wait until a batch may run; first come, first served, however large.

        A batch that is larger than the limit runs when nothing else does, if it fits into what is
        free with the reserve used up.

        Args:
            needed: predicted bytes.

        Raises:
            EngineMemoryError: even alone it found no room within ``patience_s``.
        """
        if not self._waiters and self._fits(needed):
            return self._grant(needed)
        if not self._waiters:
            self._moved_at = time.monotonic()  # until now nobody waited for anything
        waiter = _Waiter(needed, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._wake()
        try:
            permit = await waiter.granted
        except asyncio.CancelledError:
            if waiter.granted.done() and not waiter.granted.cancelled():
                with contextlib.suppress(EngineMemoryError):
                    self.release(waiter.granted.result())
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
                self._wake()
        permit.waited = True
        return permit

    def release(self, permit: Permit, *, slowdown: float | None = None) -> None:
        """Give a permit back; a second time changes nothing.

        Args:
            permit: of a batch that is done.
            slowdown: its seconds over those of the long run, None when it failed.
        """
        if permit.released:
            return
        permit.released = True
        if slowdown is not None:
            self._gradient.observe(slowdown, in_flight=self._in_flight)
        self._in_flight -= 1
        self._in_flight_bytes -= permit.bytes
        self._moved_at = time.monotonic()
        self._wake()

    def _fits(self, needed: int) -> bool:
        if self._in_flight == 0:
            return needed <= self.limit_bytes() + self._settings.reserve_bytes
        if self._in_flight >= self.limit_batches:
            return False
        return self._in_flight_bytes + needed <= self.limit_bytes()

    def _grant(self, needed: int) -> Permit:
        self._starved_since = None
        self._in_flight += 1
        self._in_flight_bytes += needed
        self._most_since_rest = max(self._most_since_rest, self._in_flight_bytes)
        self._moved_at = time.monotonic()
        return Permit(needed)

    def _wake(self) -> None:
        while self._waiters:
            first = self._waiters[0]
            if first.granted.done():
                self._waiters.popleft()
            elif self._fits(first.bytes):
                self._waiters.popleft()
                first.granted.set_result(self._grant(first.bytes))
            elif self._hopeless():
                self._waiters.popleft()
                first.granted.set_exception(self._refusal(first))
            else:
                self._look_again()
                return

    def _hopeless(self) -> bool:
        """Nothing was admitted for so long that those behind need not wait as long again."""
        if self._in_flight:
            return False
        now = time.monotonic()
        if self._starved_since is None:
            self._starved_since = now
        return now - self._starved_since >= self._settings.patience_s

    def _refusal(self, first: _Waiter) -> EngineMemoryError:
        return EngineMemoryError(
            f"a batch needs {first.bytes / _MIB:,.0f} MiB and {self._reading.free / _MIB:,.0f} MiB "
            "are free with nothing else in flight; free memory, or serve shorter windows"
        )

    def _look_again(self) -> None:
        """Memory comes back without anyone telling, so it is read while somebody waits."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._settings.read_interval_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._wake()

    def _read(self, max_age_s: float | None = None) -> None:
        now = time.monotonic()
        if now - self._read_at < (
            self._settings.read_interval_s if max_age_s is None else max_age_s
        ):
            return
        self._read_at = now
        try:
            self._reading = self._memory()
        except Exception as error:  # noqa: BLE001 - NVML's, or of a file under /sys
            if not self._read_error:
                _log.exception("the memory cannot be read; its last reading counts until it can")
            self._read_error = f"{type(error).__name__}: {error}"
            return
        self._read_error = ""
        self._good_at = now
        self._in_flight_when_read = self._in_flight_bytes
        if self._in_flight == 0:
            self._rest()

    def _rest(self) -> None:
        grown = self._reading.own - self._own_at_rest
        if grown < 0:  # given back
            self._kept = max(self._kept + grown, 0)
        elif not self._loaded_since_rest:
            self._kept = max(self._kept, min(self._kept + grown, self._most_since_rest))
        self._own_at_rest = self._reading.own
        self._most_since_rest = 0
        self._loaded_since_rest = False
