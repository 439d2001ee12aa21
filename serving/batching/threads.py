"""One thread for one part of the way, awaited from the event loop."""

import asyncio
import contextlib
import math
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from data.errors import EngineError
from serving.batching.workers import Job, Workers

Given = ParamSpec("Given")
Result = TypeVar("Result")


class Thread:
    """Runs calls one after the other; the thread is made at the first, and anew if it is gone.

    A ThreadPoolExecutor would wait for ever for a thread that C code ended, also when it exits.
    """

    def __init__(self, name: str):
        """Name it, for those who look at a stack dump."""
        self._workers: Workers[Any] = Workers(1, name=name)

    async def call(
        self, function: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs
    ) -> Result:
        """Await a function's result; it is not begun once nobody awaits it.

        Raises:
            EngineError: it raised SystemExit or its like, which must not end the event loop.
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

        self._workers.lost(math.inf)
        self._workers.start()
        self._workers.submit(Job(guarded, done))
        return await answer

    def stop(self) -> None:
        """Let it end after what it does; what waits for it still runs."""
        self._workers.stop()


def _settle(answer: "asyncio.Future[Any]", result: Any) -> None:
    if answer.done():
        return
    if isinstance(result, BaseException):
        answer.set_exception(result)
    else:
        answer.set_result(result)
