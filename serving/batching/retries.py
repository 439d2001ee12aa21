"""Batches that failed go in again, halved: what is wrong with one text stays its own."""

from collections import deque
from dataclasses import dataclass
from typing import Final, Generic

from data.errors import EngineError, EngineMemoryError
from serving.batching.admission import Permit
from serving.batching.costs import CostModel
from serving.batching.health import Health
from serving.batching.observer import BatchObserver, RetryReason
from serving.batching.requests import Answer, Row, own_error
from serving.batching.shapes import Shape

_TRIES_ALONE: Final = 2
_MEMORY_TRIES_ALONE: Final = 3
_DEATHS: Final = 2
_UNKNOWN: Final = Shape(0, 0, 0, 0)


@dataclass(eq=False, slots=True)
class OutOfMemory:
    """A batch that did not fit, until it is known whether it was too large.

    Attributes:
        shape: of the batch.
        rows: of it, that have not fitted in one of its halves so far.
    """

    shape: Shape
    rows: int


@dataclass(eq=False)
class Batch(Generic[Answer]):
    """Windows that go together.

    Attributes:
        rows: of them.
        half_of: the batch that ran out of memory.
        deaths: workers that were lost with it.
        alone: runs when nothing else does, so that all memory is its own.
        shape: costs are predicted from it.
        permit: of admission.
        number: it is running under.
        sent: to the workers, of the monotonic clock.
        wait_s: of the row that waited longest.
    """

    rows: list[Row[Answer]]
    half_of: OutOfMemory | None = None
    deaths: int = 0
    alone: bool = False
    shape: Shape = _UNKNOWN
    permit: Permit | None = None
    number: int = 0
    sent: float = 0.0
    wait_s: float = 0.0


class Retries(Generic[Answer]):
    """Decides what becomes of a batch that was not answered; used from one thread."""

    def __init__(
        self, *, name: str, costs: CostModel, observer: BatchObserver, health: Health
    ) -> None:
        """Start with nothing to do."""
        self._name = name
        self._costs = costs
        self._observer = observer
        self._health = health
        self._batches: deque[Batch[Answer]] = deque()

    def next(self) -> Batch[Answer] | None:
        """The batch to go in again first, without what nobody waits for any more."""
        while self._batches:
            batch = self._batches.popleft()
            batch.rows = [row for row in batch.rows if not row.dropped]
            if batch.rows:
                return batch
        return None

    def again(self, batch: Batch[Answer]) -> None:
        """Let a batch that never ran go first."""
        self._batches.appendleft(batch)

    def fitted(self, batch: Batch[Answer]) -> None:
        """A batch did not run out of memory.

        A larger one was too large only once all of it has fitted in halves: where a text does not
        fit even alone, it was not the size, and no others' batches need be smaller for it.
        """
        whole = batch.half_of
        if whole is None:
            return
        whole.rows -= len(batch.rows)
        if not whole.rows:
            self._costs.out_of_memory(whole.shape)

    def failed(
        self, batch: Batch[Answer], error: BaseException, *, memory_went: bool = False
    ) -> None:
        """A batch raised: halve it, or try its one row again, or answer with the error.

        Args:
            batch: that failed.
            error: of the engine, or of admission.
            memory_went: to others; a shape that does not fit now is then no cap for later.
        """
        memory = isinstance(error, EngineMemoryError)
        whole = None
        if memory:
            if not memory_went:
                whole = OutOfMemory(batch.shape, len(batch.rows))
            self._observer.out_of_memory(
                model=self._name, rows=batch.shape.rows, tokens=batch.shape.longest
            )
        else:
            self._health.failed(error)
        reason: RetryReason = "memory" if memory else "error"
        rows = batch.rows
        if len(rows) > 1 and (memory or not self._health.failing):
            self._halve(rows, reason, whole)
            return
        for row in rows:
            row.attempts += 1
            tries = _MEMORY_TRIES_ALONE if memory else _TRIES_ALONE
            if row.attempts < tries and not self._health.failing:
                self._put([Batch([row], alone=memory)], reason)
                continue
            if memory:
                self._health.failed(error)
            row.text.fail(own_error("engine", error))

    def not_finite(self, rows: list[Row[Answer]], *, alone: bool) -> None:
        """A value that is not finite is its row's own once its batch-mates are ruled out.

        While the engine fails on the probe too, it is no row's own: none is tried alone.

        Args:
            rows: whose outputs hold one.
            alone: the row had no batch-mates.
        """
        if not alone and not self._health.failing:
            self._put([Batch([row]) for row in rows], "not_finite")
            return
        error = EngineError(
            "the engine returned NaN or infinite values for this text; the model file is damaged "
            "or its precision overflows: serve the fp32 export and quantise again"
        )
        self._health.failed(error)
        for row in rows:
            row.text.fail(error)

    def worker_died(self, batch: Batch[Answer]) -> None:
        """Its thread is gone: another answers it, unless it ends every thread that it meets."""
        batch.deaths += 1
        error = EngineError(
            f"the worker thread was lost {batch.deaths} times with this text; look for what ended "
            "it in the log"
        )
        self._health.failed(error)
        if batch.deaths < _DEATHS:
            again = Batch(batch.rows, half_of=batch.half_of, deaths=batch.deaths)
            self._put([again], "worker_died")
        elif len(batch.rows) > 1:
            self._halve(batch.rows, "worker_died")
        else:
            batch.rows[0].text.fail(error)

    def _halve(
        self, rows: list[Row[Answer]], reason: RetryReason, whole: OutOfMemory | None = None
    ) -> None:
        middle = len(rows) // 2
        # A poisonous row among many may end one thread in each half of a half, not two.
        halves = [
            Batch(half, half_of=whole, deaths=_DEATHS - 1)
            for half in (rows[:middle], rows[middle:])
        ]
        self._put(halves, reason)

    def _put(self, batches: list[Batch[Answer]], reason: RetryReason) -> None:
        self._batches.extend(batches)
        for batch in batches:
            self._observer.retried(model=self._name, rows=len(batch.rows), reason=reason)
