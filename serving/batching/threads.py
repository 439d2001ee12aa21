"""One thread for one part of the way, awaited from the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from data.errors import EngineError

Given = ParamSpec("Given")
Result = TypeVar("Result")


class Thread:
    """Runs calls one after the other; the thread itself is made at the first."""

    def __init__(self, name: str):
        """Name it, for those who look at a stack dump."""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def call(
        self, function: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs
    ) -> Result:
        """Await a function's result.

        Raises:
            EngineError: it raised SystemExit or its like, which must not end the event loop.
        """

        def guarded() -> Result:
            try:
                return function(*args, **kwargs)
            except Exception:
                raise
            except BaseException as error:
                raise EngineError(
                    f"a thread was told to end: {error!r}; look for what raised it"
                ) from error

        return await asyncio.get_running_loop().run_in_executor(self._pool, guarded)

    def stop(self) -> None:
        """Let it end after what it does; what waits for it still runs."""
        self._pool.shutdown(wait=False)
