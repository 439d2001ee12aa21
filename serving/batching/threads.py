"""One thread for one part of the way, awaited from the event loop."""

import asyncio
import contextlib
import math
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

from data.errors import EngineError
from serving.batching.workers import Job, Workers

Given = ParamSpec("Given")
Result = TypeVar("Result")


_LOOK_S: Final = 0.1
"""How often a thread that has something to do is looked at."""


class Thread:
    """Runs calls one after the other; the thread is made at the first, and anew if it is gone.

    A ThreadPoolExecutor would wait for ever for a thread that C code ended, also when it exits.
    """

    def __init__(self, name: str):
        """Name it, for those who look at a stack dump."""
        self._name = name
        self._workers: Workers[Any] = Workers(1, name=name)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._look: asyncio.TimerHandle | None = None

    async def call(
        self, function: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs
    ) -> Result:
        """Await a function's result; it is not begun once nobody awaits it.

        Raises:
            EngineError: it ended its thread, by SystemExit or its like or in C code.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Result] = loop.create_future()

        def guarded() -> Result | None:
            if answer.cancelled():
                return None
            try:
                return function(*args, **kwargs)
            except Exception:
                raise
            except BaseException as error:
                raise EngineError(
                    f"a thread was told to end: {error!r}; look for what raised it"
                ) from error

        def done(result: Any) -> None:
            with contextlib.suppress(RuntimeError):  # a loop that is closed wants no answer
                loop.call_soon_threadsafe(_settle, answer, result)

        job: Job[Any] = Job(guarded, done)
        self._answers[id(job)] = answer
        if self._look is None:
            self._look_after(loop)
        self._workers.submit(job)
        try:
            return await answer
        finally:
            del self._answers[id(job)]

    def stop(self) -> None:
        """Let it end after what it does; what waits for it still runs."""
        self._workers.stop()
        if self._look is not None:
            self._look.cancel()

    def _look_after(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make the thread, or a new one if it is gone; while anybody waits, look again soon."""
        for job in self._workers.lost(math.inf):
            answer = self._answers.get(id(job))
            if answer is not None:
                _settle(
                    answer,
                    EngineError(
                        f"the thread {self._name!r} ended in the middle of a call; look for C code "
                        "that ends threads, in the log"
                    ),
                )
        self._workers.start()
        self._look = loop.call_later(_LOOK_S, self._look_again, loop)

    def _look_again(self, loop: asyncio.AbstractEventLoop) -> None:
        self._look = None
        if self._answers:
            self._look_after(loop)


def _settle(answer: "asyncio.Future[Any]", result: Any) -> None:
    if answer.done():
        return
    if isinstance(result, BaseException):
        answer.set_exception(result)
    else:
        answer.set_result(result)
