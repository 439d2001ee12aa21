"""Work that a gateway does beside its requests, again and again, in a thread.

What goes wrong is a warning until it goes well again, and never ends the loop. The next turn comes
after a while that is at least as long as the last turn took, so that slow work takes no more than
half a thread.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from data.errors import MatjipError

_log = logging.getLogger(__name__)


class Repeated:
    """One kind of work. Used from one event loop."""

    def __init__(self, work: Callable[[], bool], *, every_s: float, doing: str):
        """Nothing is done before ``run``.

        Args:
            work: one turn, in a thread; True asks for the next one at once.
            every_s: from the end of a turn to the next.
            doing: what it is, for warnings: "guardrails".
        """
        self._work = work
        self._every_s = every_s
        self._doing = doing
        self._turn: asyncio.Future[bool] | None = None
        self._warning: str | None = None

    async def run(self) -> None:
        """Turn after turn, until cancelled."""
        wait_s = self._every_s
        while True:
            await asyncio.sleep(wait_s)
            began = time.monotonic()
            # Shielded, since a thread cannot be cancelled: ``close`` waits for it.
            self._turn = asyncio.ensure_future(asyncio.to_thread(self._work))
            again = False
            try:
                again = await asyncio.shield(self._turn)
            except Exception as error:  # noqa: BLE001  # the next turn may go well
                self._warn(error)
            else:
                self._warning = None
            wait_s = 0.0 if again else max(self._every_s, time.monotonic() - began)

    async def close(self) -> None:
        """Wait for the turn that is under way; ``run`` was cancelled."""
        if self._turn is not None:
            await asyncio.gather(self._turn, return_exceptions=True)

    def warnings(self) -> list[str]:
        """What went wrong in the last turn."""
        return [self._warning] if self._warning else []

    def _warn(self, error: Exception) -> None:
        why = str(error) if isinstance(error, MatjipError) else repr(error)
        warning = f"{self._doing}: {why}"
        if warning != self._warning:
            _log.warning("%s", warning)
        self._warning = warning
