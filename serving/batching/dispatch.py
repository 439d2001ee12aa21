"""From windows that wait to their outputs: batches are admitted, run and delivered."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic

from data.errors import EngineError, EngineMemoryError
from serving.batching.admission import Admission
from serving.batching.choosing import Choice
from serving.batching.compute import Computed, compute
from serving.batching.costs import CostModel
from serving.batching.health import Health
from serving.batching.lengths import DrainRate
from serving.batching.observer import BatchObserver
from serving.batching.requests import Answer, Request, Row
from serving.batching.retries import Batch, Retries
from serving.batching.settings import BatchSettings
from serving.batching.workers import Job, Workers
from serving.engines.protocol import Engine, Outputs

_OVERDUE = 10.0
"""A batch that takes so many times its predicted seconds is not merely slow."""
_PAUSE_S = 0.1
"""After an error of our own: it may go on failing, and must not take the loop's whole time."""
_log = logging.getLogger(__name__)


class Dispatcher(Generic[Answer]):
    """Keeps the workers busy. Lives in one event loop; only ``compute`` runs elsewhere."""

    def __init__(
        self,
        engine: Engine,
        pad_id: int,
        *,
        name: str,
        admission: Admission,
        costs: CostModel,
        settings: BatchSettings,
        observer: BatchObserver,
        health: Health,
        deliver: Callable[[list[Row[Answer]], Outputs], None],
    ):
        """Wrap what one model's batches need; ``deliver`` takes rows that were answered."""
        self.choice: Choice[Answer] = Choice(
            engine, admission=admission, costs=costs, settings=settings
        )
        self.workers: Workers[Computed] = Workers(settings.workers, name=f"engine-{name}")
        self._engine = engine
        self._pad_id = pad_id
        self._name = name
        self._admission = admission
        self._costs = costs
        self._settings = settings
        self._observer = observer
        self._deliver = deliver
        self._drained = DrainRate()
        self._retries: Retries[Answer] = Retries(
            name=name, costs=costs, observer=observer, health=health
        )
        self._running: dict[int, Batch[Answer]] = {}
        self._jobs: dict[int, Batch[Answer]] = {}
        self._numbers = 0
        self.error = ""
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, rows: Sequence[Row[Answer]]) -> None:
        """Let windows wait for a batch."""
        self.choice.add(rows)
        self._wake.set()

    def drop(self, request: Request[Answer]) -> None:
        """Let go of a request's windows that have not begun."""
        if self.choice.waiting.drop(request):
            self._wake.set()

    def queued_s(self, more_tokens: float = 0.0) -> float:
        """Seconds until what waits and runs, and some more tokens, are done."""
        running = sum(batch.shape.tokens for batch in self._running.values())
        tokens = self.choice.waiting.tokens + running + more_tokens
        measured = self._drained.seconds(time.monotonic(), tokens)
        return self.choice.predicted_s(tokens) if measured is None else measured

    def alone_s(self, tokens: float) -> float | None:
        """Seconds that tokens take at least when nothing else waits; None until that is known.

        Not at a slow pace of late: whoever is refused by it brings no batch that would mend it.
        """
        if not self._costs.settled:
            return None
        return self.choice.predicted_s(tokens) / max(self._costs.pace, 1.0)

    def look_after_workers(self) -> None:
        """Replace threads that are gone, and send their batches again.

        Raises:
            RuntimeError: the system gives no more threads.
        """
        for job in self.workers.lost(self._settings.stuck_s):
            self._observer.worker_died(model=self._name)
            batch = None if job is None else self._jobs.pop(id(job), None)
            if batch is not None and self._running.pop(batch.number, None) is not None:
                self._release(batch)
                self._retries.worker_died(batch)
        self.workers.start()
        self._wake.set()

    def give_up(self) -> None:
        """Let go of batches whose workers do not answer: the runners that follow need the room."""
        for batch in self._running.values():
            self._release(batch)
        self._running.clear()

    async def run(self) -> None:
        """Send batches for ever; cancel it to stop.

        Whatever else ends it would leave every caller without an answer: it is kept as ``error``,
        and tried again.
        """
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                while (batch := self._next()) is not None:
                    await self._send(batch)
            except Exception as error:  # noqa: BLE001 - a bug of ours, or a source of memory readings
                if not self.error:
                    _log.exception("the dispatcher of %s failed; it goes on", self._name)
                self.error = repr(error)
                await asyncio.sleep(_PAUSE_S)
                self._wake.set()
            else:
                self.error = ""

    @property
    def overdue_s(self) -> float:
        """How far the batch that runs least overdue is, when every worker has one; else 0."""
        if len(self._running) < self._settings.workers:
            return 0.0
        now = time.monotonic()
        return min(
            now - batch.sent - _OVERDUE * self._costs.seconds(batch.shape)
            for batch in self._running.values()
        )

    def _next(self) -> Batch[Answer] | None:
        """The next batch to send, if there is one and a worker for it."""
        loaded = self.choice.loaded
        slots = self._settings.workers + (self._settings.prefetch if loaded else 0)
        if len(self._running) >= slots:
            return None
        again = self._retries.next()
        if again is not None and again.alone and self._running:
            self._retries.again(again)
            return None
        if again is not None:
            return again
        oldest = self.choice.oldest()
        if oldest is None or (not loaded and self._wait_for_company(oldest)):
            return None
        return Batch(self.choice.take(oldest))

    def _wait_for_company(self, oldest: Row[Answer]) -> bool:
        company_s = self.choice.company_s(oldest)
        if not company_s:
            return False
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(company_s, self._wake.set)
        return True

    async def _send(self, batch: Batch[Answer]) -> None:
        """Let a batch be run, as soon as it is admitted."""
        if not batch.rows:
            return
        shape = self.choice.shape([row.ids for row in batch.rows])
        try:
            permit = await self._admission.acquire(self._costs.bytes_needed(shape))
        except EngineMemoryError as error:
            batch.shape = shape
            self._retries.failed(batch, error, memory_went=True)
            return
        except BaseException:
            self._retries.again(batch)
            raise
        batch.rows = [row for row in batch.rows if not row.dropped]
        if not batch.rows:
            self._admission.release(permit)
            return
        self._numbers += 1
        now = time.monotonic()
        batch.number, batch.permit = self._numbers, permit
        batch.shape = self.choice.shape([row.ids for row in batch.rows])
        batch.wait_s = now - min(row.arrived for row in batch.rows)
        batch.sent = now
        self._running[batch.number] = batch
        loop = asyncio.get_running_loop()
        job: Job[Computed] = Job(
            partial(
                compute,
                self._engine,
                [row.ids for row in batch.rows],
                self._pad_id,
                longest=batch.shape.longest,
            ),
            lambda result: _call(loop, self._done, batch, job, result),
        )
        self._jobs[id(job)] = batch
        self.workers.submit(job)

    def compute_now(self, windows: list[list[int]]) -> Outputs:
        """Past queue and admission, in the calling thread: for a probe.

        Raises:
            EngineError: the engine failed, or answered with values that are not finite.
        """
        longest = self.choice.shape(windows).longest
        computed = compute(self._engine, windows, self._pad_id, longest=longest)
        if not computed.finite.all():
            raise EngineError("the engine returned NaN or infinite values for a probe")
        return computed.outputs

    def _done(
        self, batch: Batch[Answer], job: Job[Computed], result: Computed | BaseException
    ) -> None:
        self._jobs.pop(id(job), None)
        if self._running.pop(batch.number, None) is None:
            return  # its worker was given up, and another answers
        slowdown = None
        try:  # what was computed goes first: nothing that only counts may lose it
            if isinstance(result, BaseException):
                others = isinstance(result, EngineMemoryError) and self._admission.overcommitted()
                self._retries.failed(batch, result, memory_went=others)
            else:
                self._retries.fitted(batch)
                self._answered(batch, result)
                # While the model still learns what a batch should take, it tells no slow-down.
                if self._costs.settled:
                    slowdown = result.seconds / self._costs.base_seconds(batch.shape)
                self._costs.observe(batch.shape, result.seconds)
                now, tokens = time.monotonic(), batch.shape.tokens
                self._drained.add(now, tokens, loaded=self.choice.loaded)
        finally:
            self._wake.set()
            self._release(batch, slowdown)

    def _release(self, batch: Batch[Answer], slowdown: float | None = None) -> None:
        if batch.permit is not None:
            self._admission.release(batch.permit, slowdown=slowdown)
            self._observer.admission(state=self._admission.state())

    def _answered(self, batch: Batch[Answer], result: Computed) -> None:
        shape = batch.shape
        rows, outputs = batch.rows, result.outputs
        if not result.finite.all():
            bad = [row for row, fine in zip(rows, result.finite, strict=True) if not fine]
            rows = [row for row, fine in zip(rows, result.finite, strict=True) if fine]
            outputs = {name: values[result.finite] for name, values in outputs.items()}
            self._retries.not_finite(bad, alone=shape.rows == 1)
        if rows:
            self._deliver(rows, outputs)
        padded = shape.rows * shape.longest if self._costs.computes_padding else shape.tokens
        self._observer.batch_done(
            model=self._name,
            rows=shape.rows,
            tokens=shape.tokens,
            padded_tokens=padded,
            wait_s=batch.wait_s,
            seconds=result.seconds,
        )


def _call(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *values: object) -> None:
    """From a worker's thread; a loop that is closed meanwhile wants no answer."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *values)
