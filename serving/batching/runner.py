"""Texts in, answers out, asynchronously: many callers' texts share batches, in their own order.

    texts ─ read (thread) ─ wait ─ plan ─ admit ─ compute (workers) ─ decode (thread) ─ answers

The three threaded parts overlap; everything between them happens in one event loop, without locks.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Final, Generic

from data.errors import DeadlineError, EngineError, OverloadError
from serving.batching.admission import Admission
from serving.batching.costs import CostModel
from serving.batching.decoder import Decoder, checked_answers
from serving.batching.dispatch import Dispatcher
from serving.batching.health import Health
from serving.batching.observer import BatchObserver, SilentObserver
from serving.batching.reader import Reader
from serving.batching.requests import Answer, Request, Row
from serving.batching.settings import BatchSettings
from serving.batching.threads import Thread
from serving.text_model import TextModel

_PROBE: Final = "."
_PROBE_TIMEOUT_S: Final = 1.5
_SURE_SHARE: Final = 0.75
"""Of the allowed time: sorting by length lets later texts pass, so a wait is known to a quarter."""
_OVERDUE_S: Final = 1.0
_MIB: Final = 2**20


class BatchRunner(Generic[Answer]):
    """One model, answering many callers at once. Used from one event loop."""

    def __init__(
        self,
        model: TextModel[Answer],
        *,
        name: str,
        admission: Admission,
        costs: CostModel,
        settings: BatchSettings | None = None,
        observer: BatchObserver | None = None,
    ):
        """Wrap a model; ``start`` makes the threads.

        Args:
            model: that answers.
            name: for metrics and threads.
            admission: shared by all runners of the process.
            costs: of this model's engine on this machine.
            settings: limits.
            observer: told what happens.

        Raises:
            EngineError: the costs are of an engine that treats padding otherwise.
        """
        if costs.computes_padding != model.engine.computes_padding:
            raise EngineError(
                f"costs.computes_padding={costs.computes_padding!r}, but the engine "
                f"{model.engine.name!r} has {model.engine.computes_padding!r}; calibrate this "
                "engine, or pass CostModel.unfitted(computes_padding=engine.computes_padding)"
            )
        self._model = model
        self._name = name
        self._admission = admission
        self._costs = costs
        self._settings = settings or BatchSettings()
        self._observer: BatchObserver = observer or SilentObserver()
        self._health = Health()
        self._decoder: Decoder[Answer] = Decoder(model, name=name, health=self._health)
        self._dispatcher: Dispatcher[Answer] = Dispatcher(
            model.engine,
            model.pad_id,
            name=name,
            admission=admission,
            costs=costs,
            settings=self._settings,
            observer=self._observer,
            health=self._health,
            deliver=self._decoder.deliver,
        )
        self._reader: Reader[Answer] = Reader(
            model.windows,
            name=name,
            settings=self._settings,
            health=self._health,
            ready=self._add,
        )
        self._prober = Thread(f"probe-{name}")
        self._tasks: list[asyncio.Task[None]] = []
        self._open: set[Request[Answer]] = set()
        self._texts = 0
        self._draining = False
        self._no_thread = ""

    async def start(self) -> None:
        """Make the threads and begin to answer.

        Raises:
            EngineError: it was started before.
        """
        if self._tasks:
            raise EngineError(f"runner {self._name!r} was started already; make another")
        self._dispatcher.workers.start()
        self._tasks = [
            asyncio.create_task(self._dispatcher.run(), name=f"dispatch-{self._name}"),
            asyncio.create_task(self._watch(), name=f"watch-{self._name}"),
        ]

    async def answer(
        self, texts: Sequence[str], *, timeout_s: float | None = None
    ) -> list[Answer | EngineError]:
        """Answer texts, in their order.

        A text that cannot be answered has its own ``EngineError``; the others their answers. If
        the caller is cancelled, what has not begun is dropped.

        Args:
            texts: any number, of any length.
            timeout_s: for all of them.

        Raises:
            OverloadError: at once, when too much waits already or the runner is closing.
            DeadlineError: the time is up.
        """
        if not texts:
            return []
        self.refuse_if_full(texts, timeout_s)
        request: Request[Answer] = Request(list(texts), asyncio.get_running_loop().create_future())
        if timeout_s is not None:
            request.deadline = time.monotonic() + timeout_s
        self._open.add(request)
        self._texts += len(texts)
        try:
            async with asyncio.timeout(timeout_s):
                await self._reader.read(request)
                await request.done
        except TimeoutError as error:
            self._observer.rejected(model=self._name, reason="deadline")
            raise DeadlineError(
                f"{request.left} of {len(texts)} texts had no answer after {timeout_s!r} s; allow "
                "more time or send fewer texts"
            ) from error
        except asyncio.CancelledError:
            self._observer.rejected(model=self._name, reason="cancelled")
            raise
        finally:
            self._close(request)
        return request.in_order()

    async def drain(self, timeout_s: float) -> None:
        """Take no more texts, answer what is open, and end the threads.

        Args:
            timeout_s: what is still open then is answered with ``OverloadError``.
        """
        self._draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._open:
                    await asyncio.wait([request.done for request in self._open])
                    await asyncio.sleep(0)  # the callers close their requests
        for request in list(self._open):
            if not request.done.done():
                request.done.set_exception(self._closing())
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._dispatcher.workers.stop()
        self._dispatcher.give_up()
        self._reader.stop()
        self._prober.stop()
        await self._decoder.stop()

    def reasons(self) -> list[str]:
        """Why it cannot answer now; empty when it can."""
        reasons = []
        if not self._tasks:
            reasons.append("not started")
        if self._draining:
            reasons.append("draining")
        reasons += [
            f"{task.get_name()} ended: {task.exception()!r}"
            for task in self._tasks
            if task.done() and not task.cancelled()
        ]
        if self._no_thread:
            reasons.append(f"no worker thread can be made: {self._no_thread}")
        if self._dispatcher.error:
            reasons.append(f"dispatching fails: {self._dispatcher.error}")
        failing = self._health.reason()
        if failing is not None:
            reasons.append(failing)
        if self._dispatcher.overdue_s > _OVERDUE_S:
            reasons.append("every worker hangs in a batch")
        least = self._costs.bytes_needed(self._dispatcher.choice.usual_shape())
        if self._admission.stalled():
            reasons.append("admission stands still: no batch begins or ends and some wait")
        elif not self._admission.has_room(least):
            reasons.append(f"memory is gone: one text needs {least / _MIB:,.0f} MiB")
        unread = self._admission.unread()
        return reasons if unread is None else [*reasons, unread]

    def _add(self, rows: list[Row[Answer]]) -> None:
        self._dispatcher.add(rows)
        self._count_queue()

    def read_failed(self, error: Exception) -> None:
        """Count a failure to read texts before they are asked about, as one of its own."""
        self._health.failed(error)

    def refuse_if_full(self, texts: Sequence[str], timeout_s: float | None) -> None:
        """Raise what ``answer`` would at once: for who prepares texts before asking.

        Beside others it is refused that would probably be late. Where nothing waits it is never
        easier to answer than now: only what is late for sure would be thrown away half done.

        Raises:
            OverloadError: too much waits already, or it would be late, or the runner is closing.
        """
        if self._draining or not self._tasks:
            self._observer.rejected(model=self._name, reason="draining")
            raise self._closing()
        unread, own = self._reader.unread_tokens, self._reader.tokens(texts)
        before_s = self._dispatcher.queued_s(unread) if self._texts else 0.0
        full = self._texts + len(texts) > self._settings.max_queue_texts
        if self._texts and (full or before_s > self._settings.max_queue_s):
            self._observer.rejected(model=self._name, reason="queue_full")
            raise OverloadError(
                f"{self._texts} texts wait already, about {before_s:.1f} s of work; come again "
                "later or send fewer texts",
                retry_after_s=max(before_s / 2, 0.1),
            )
        if timeout_s is None:
            return
        if self._texts:
            needed_s, allowed_s = self._dispatcher.queued_s(unread + own), _SURE_SHARE * timeout_s
        else:
            needed_s, allowed_s = self._dispatcher.alone_s(own) or 0.0, timeout_s / _SURE_SHARE
        if needed_s > allowed_s:
            self._observer.rejected(model=self._name, reason="too_late")
            raise OverloadError(
                f"{len(texts)} texts would take about {needed_s:.1f} s beside {self._texts} that "
                f"wait, and timeout_s={timeout_s!r}; send fewer texts at once or allow more time",
                retry_after_s=max(needed_s - allowed_s, 0.1),
            )

    def _closing(self) -> OverloadError:
        return OverloadError(
            f"runner {self._name!r} is closing; ask the one that takes its place",
            retry_after_s=1.0,
        )

    def _close(self, request: Request[Answer]) -> None:
        request.closed = True
        self._open.discard(request)
        self._texts -= len(request.texts)
        if request.left:
            self._dispatcher.drop(request)
        request.done.cancel()
        self._count_queue()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._settings.watch_interval_s)
            try:
                self._dispatcher.look_after_workers()
                self._no_thread = ""
            except RuntimeError as error:
                self._no_thread = str(error)
            if self._health.should_probe(self._settings.probe_interval_s):
                await self._probe()

    async def _probe(self) -> None:
        """Answer one short text past all queues: whether it is the engine, or the texts."""

        def answer() -> None:
            windows = self._model.windows([_PROBE])
            checked_answers(self._model, self._dispatcher.compute_now(windows.ids), windows)

        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                await self._prober.call(answer)
        except Exception as error:  # noqa: BLE001 - whatever the model raises
            self._health.failed(error)
            self._health.failing = True
        else:
            self._health.succeeded()

    def _count_queue(self) -> None:
        waiting = self._dispatcher.choice.waiting
        self._observer.queue(
            model=self._name, texts=self._texts, rows=len(waiting), tokens=waiting.tokens
        )
