"""Texts in, answers out, asynchronously: many callers' texts share batches, in their own order.

    texts ─ tokenise (thread) ─ wait ─ plan ─ admit ─ compute (workers) ─ decode (thread) ─ answers

The three threaded parts overlap; everything between them happens in one event loop, without locks.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, Generic, TypeVar

from data.errors import DeadlineError, EngineError, OverloadError
from serving.batching.admission import Admission
from serving.batching.costs import CostModel, shape_of
from serving.batching.dispatch import Dispatcher
from serving.batching.health import Health
from serving.batching.observer import BatchObserver, SilentObserver
from serving.batching.requests import Answer, Request, Row, Text, gathered, rows_of
from serving.batching.settings import BatchSettings
from serving.engines.protocol import Outputs
from serving.text_model import TextModel
from serving.windows import Windows

Result = TypeVar("Result")
_PROBE: Final = "."
_STARVED_S: Final = 1.0


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
        """
        self._model = model
        self._name = name
        self._admission = admission
        self._costs = costs
        self._settings = settings or BatchSettings()
        self._observer: BatchObserver = observer or SilentObserver()
        self._health = Health()
        self._dispatcher: Dispatcher[Answer] = Dispatcher(
            model.engine,
            model.pad_id,
            name=name,
            admission=admission,
            costs=costs,
            settings=self._settings,
            observer=self._observer,
            health=self._health,
            deliver=self._deliver,
        )
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._open: set[Request[Answer]] = set()
        self._texts = 0
        self._unread_chars = 0
        self._tokens_per_char = 0.5
        self._draining = False
        self._no_thread = ""

    async def start(self) -> None:
        """Make the threads and begin to answer.

        Raises:
            EngineError: it was started before.
        """
        if self._tasks:
            raise EngineError(f"runner {self._name!r} runs already; make another to start again")
        for part in ("read", "answer", "probe"):
            self._pools[part] = ThreadPoolExecutor(1, thread_name_prefix=f"{part}-{self._name}")
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
        self._refuse_if_full(texts, timeout_s)
        loop = asyncio.get_running_loop()
        request: Request[Answer] = Request(list(texts), loop.create_future())
        self._open.add(request)
        self._texts += len(texts)
        try:
            async with asyncio.timeout(timeout_s):
                await self._read(request)
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
        return [answer for answer in request.answers if answer is not None]

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
                    await asyncio.sleep(0)
        for request in list(self._open):
            if not request.done.done():
                request.done.set_exception(self._closing())
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._dispatcher.workers.stop()
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)

    def reasons(self) -> list[str]:
        """Why it cannot answer now; empty when it can."""
        reasons = []
        if not self._tasks:
            reasons.append("not started")
        if self._draining:
            reasons.append("draining")
        if self._no_thread:
            reasons.append(f"no worker thread can be made: {self._no_thread}")
        failing = self._health.reason()
        if failing is not None:
            reasons.append(failing)
        if self._dispatcher.overdue_s > 1.0:
            reasons.append("every worker hangs in a batch")
        least = self._costs.bytes_needed(shape_of([round(self._dispatcher.lengths.mean)]))
        if not self._admission.has_room(least):
            reasons.append(f"memory is gone: one text needs {least / 2**20:,.0f} MiB")
        return reasons

    def _refuse_if_full(self, texts: Sequence[str], timeout_s: float | None) -> None:
        if self._draining or not self._tasks:
            self._observer.rejected(model=self._name, reason="draining")
            raise self._closing()
        if not self._texts:
            return  # however large, it is never easier to answer than now
        own = sum(map(len, texts)) * self._tokens_per_char
        before_s = self._dispatcher.queued_s(self._unread_chars * self._tokens_per_char)
        full = self._texts + len(texts) > self._settings.max_queue_texts
        if full or before_s > self._settings.max_queue_s:
            self._observer.rejected(model=self._name, reason="queue_full")
            raise OverloadError(
                f"{self._texts} texts wait already, about {before_s:.1f} s of work; come again "
                "later or send fewer texts",
                retry_after_s=max(before_s / 2, 0.1),
            )
        needed_s = self._dispatcher.queued_s(self._unread_chars * self._tokens_per_char + own)
        if timeout_s is not None and needed_s > timeout_s:
            self._observer.rejected(model=self._name, reason="too_late")
            raise OverloadError(
                f"the answer would take about {needed_s:.1f} s and timeout_s={timeout_s!r}; come "
                "again later or allow more time",
                retry_after_s=max(needed_s - timeout_s, 0.1),
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

    async def _read(self, request: Request[Answer]) -> None:
        """Tokenise a request's texts a few at a time, so that others have their turn between."""
        chars = sum(map(len, request.texts))
        self._unread_chars += chars
        try:
            for first, texts in _chunks(request.texts, self._settings):
                read = sum(map(len, texts))
                await self._read_some(request, first, texts)
                self._unread_chars -= read
                chars -= read
        finally:
            self._unread_chars -= chars

    async def _read_some(self, request: Request[Answer], first: int, texts: list[str]) -> None:
        try:
            windows = await self._in("read", partial(self._model.windows, texts))
            rows = rows_of(request, first, windows, time.monotonic())
        except Exception as error:  # noqa: BLE001 - a tokenizer may raise anything
            if len(texts) > 1:
                middle = len(texts) // 2
                await self._read_some(request, first, texts[:middle])
                await self._read_some(request, first + middle, texts[middle:])
                return
            self._health.failed(error)
            request.settle(first, _own("tokenizer", error))
            return
        tokens = sum(len(row.ids) for row in rows)
        ratio = tokens / max(sum(map(len, texts)), 1)
        self._tokens_per_char += 0.05 * (min(ratio, 4.0) - self._tokens_per_char)
        self._dispatcher.add(rows)
        self._count_queue()

    def _deliver(self, rows: list[Row[Answer]], outputs: Outputs) -> None:
        """Keep the outputs of windows, and decode the texts that have all of theirs."""
        ready: list[Text[Answer]] = []
        for place, row in enumerate(rows):
            if row.dropped:
                continue
            row.text.outputs[row.window] = {name: each[place] for name, each in outputs.items()}
            row.text.left -= 1
            if row.text.left == 0:
                ready.append(row.text)
        if ready:
            self._decode(ready)

    def _decode(self, texts: list[Text[Answer]]) -> None:
        outputs, windows = gathered(texts)
        call = partial(_answers, self._model, outputs, windows)
        future = asyncio.ensure_future(self._in("answer", call))
        future.add_done_callback(partial(self._decoded, texts))

    def _decoded(
        self, texts: list[Text[Answer]], future: "asyncio.Future[Sequence[Answer]]"
    ) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._health.succeeded()
            for text, answer in zip(texts, future.result(), strict=True):
                text.request.settle(text.index, answer)
        elif len(texts) > 1:
            middle = len(texts) // 2
            self._decode(texts[:middle])
            self._decode(texts[middle:])
        else:
            self._health.failed(error)
            texts[0].fail(_own("decoder", error))

    async def _in(self, part: str, call: Callable[[], Result]) -> Result:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pools[part], _guarded, call)

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
            _answers(self._model, self._dispatcher.compute_now(windows.ids), windows)

        try:
            async with asyncio.timeout(self._settings.probe_interval_s):
                await self._in("probe", answer)
        except Exception as error:  # noqa: BLE001 - whatever the engine raises
            self._health.failed(error)
            self._health.failing = True
        else:
            self._health.succeeded()

    def _count_queue(self) -> None:
        waiting = self._dispatcher.waiting
        self._observer.queue(
            model=self._name, texts=self._texts, rows=len(waiting), tokens=waiting.tokens
        )


def _chunks(texts: list[str], settings: BatchSettings) -> Iterator[tuple[int, list[str]]]:
    first, chars = 0, 0
    for place, text in enumerate(texts):
        full = place - first >= settings.tokenize_texts
        if place > first and (full or chars + len(text) > settings.tokenize_chars):
            yield first, texts[first:place]
            first, chars = place, 0
        chars += len(text)
    yield first, texts[first:]


def _answers(model: TextModel[Answer], outputs: Outputs, windows: Windows) -> Sequence[Answer]:
    answers = model.answers(outputs, windows)
    if len(answers) != windows.texts:
        raise EngineError(
            f"the model gave {len(answers)!r} answers for {windows.texts!r} texts; mend `answers`"
        )
    return answers


def _guarded(call: Callable[[], Result]) -> Result:
    """SystemExit in a thread must not end the event loop that waits for it."""
    try:
        return call()
    except Exception:
        raise
    except BaseException as error:
        raise EngineError(
            f"a thread was told to end: {error!r}; look for what raised it"
        ) from error


def _own(part: str, error: BaseException) -> EngineError:
    if isinstance(error, EngineError):
        return error
    own = EngineError(
        f"the {part} failed on this text: {type(error).__name__}: {error}; report it with the text"
    )
    own.__cause__ = error
    return own
