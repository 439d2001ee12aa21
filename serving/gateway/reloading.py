"""New deployments under way: files looked at on SIGHUP, or every so often, and swapped in.

The deploy step writes its file whole or not at all, so whatever is read is a whole deployment.
"""

import asyncio
import contextlib
import hashlib
import signal
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from serving.gateway.live import SwapResult
from serving.gateway.metrics import GatewayMetrics


@dataclass(frozen=True)
class DeploymentFiles:
    """Where the deployments stand that a gateway serves; without a file, nothing is swapped."""

    sentiment: Path | None = None
    embedding: Path | None = None
    language: Path | None = None

    @property
    def with_arms(self) -> tuple[Path, ...]:
        """Those that may serve a phase of an experiment."""
        return tuple(file for file in (self.sentiment, self.language) if file is not None)


@dataclass
class Watched:
    """One file.

    Attributes:
        kind: of deployment, for the metrics.
        path: of the file.
        swap: puts what it says to work.
        seen: the digest of what it said last.
    """

    kind: str
    path: Path
    swap: Callable[[], Awaitable[SwapResult]]
    seen: str | None = None


class Reloader:
    """Looks at deployment files. Used from one event loop."""

    def __init__(self, watched: Sequence[Watched], *, metrics: GatewayMetrics, poll_s: float):
        """Watch these files; ``poll_s`` of 0 looks only when asked."""
        self._watched = watched
        self._metrics = metrics
        self._poll_s = poll_s
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Look at every file now, changed or not."""
        self._asked.set()

    def listen(self) -> None:
        """Take SIGHUP for being asked, where this is the process's main thread."""
        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.ask)

    async def run(self) -> None:
        """Look whenever asked or due, for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s or None):
                    await self._asked.wait()
            asked = self._asked.is_set()
            self._asked.clear()
            for one in self._watched:
                digest = await asyncio.to_thread(_digest, one.path)
                # A file that was refused is tried again only once it changes, or when asked.
                if asked or digest != one.seen:
                    one.seen = digest
                    self._metrics.swaps.labels(one.kind, await one.swap()).inc()


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return f"unreadable: {error.strerror}"
