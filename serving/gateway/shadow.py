"""A shadow: what callers asked of the control is asked of the other arms too, and nobody is told.

Mirrored work begins once the caller has the answer, one request at a time, and only while callers
leave room. It waits in a short queue: what finds that full is dropped and counted, so the arms of a
shadow are compared on what was mirrored, never on all that was asked.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, Protocol

from data.errors import OverloadError
from serving.dealing import BUCKETS, PhasePlan
from serving.experiments.buckets import bucket_of
from serving.gateway.limits import Refusal
from serving.gateway.live import Live, Stage
from serving.gateway.metrics import GatewayMetrics

_LOOK_S: Final = 0.005
_log = logging.getLogger(__name__)


class Phased(Protocol):
    """A deployment of any kind."""

    @property
    def deployment_id(self) -> str:
        """32 hex digits."""

    @property
    def phase(self) -> PhasePlan | None:
        """Which phase of an experiment it serves."""


@dataclass(frozen=True)
class _Job:
    work: Callable[[], Awaitable[None]]
    place: ExitStack


def is_mirrored(deployment: Phased, request_id: str) -> bool:
    """Whether a shadow's other arms are asked too; the same for a request sent again."""
    phase = deployment.phase
    if phase is None or phase.kind != "shadow":
        return False
    bucket = bucket_of(f"mirrored/{deployment.deployment_id}", request_id)
    return bucket < round(phase.mirrored * BUCKETS)


class Shadow:
    """Mirrored requests that wait or are answered again. Used from one event loop."""

    def __init__(
        self,
        stage: Stage[Any, Any],
        *,
        most: int,
        room: Callable[[], bool],
        metrics: GatewayMetrics,
    ):
        """Hold the parts; ``start`` begins to answer.

        Args:
            stage: whose deployments are mirrored.
            most: requests that may wait.
            room: whether callers leave any.
            metrics: where what is dropped is counted.
        """
        self._stage = stage
        self._room = room
        self._metrics = metrics
        self._queue: asyncio.Queue[_Job] = asyncio.Queue(most)
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        metrics.shadow_waiting.set_function(self._queue.qsize)

    def start(self) -> None:
        """Begin to answer what is offered."""
        self._task = asyncio.create_task(self._run(), name="shadow")

    async def offer(self, live: Live[Any, Any], work: Callable[[], Awaitable[None]]) -> None:
        """Let a request's work wait, if there is room; called once its caller has the answer.

        Args:
            live: what answered the caller.
            work: asks the other arms; raises OverloadError, or Refusal where the store refuses.
        """
        if self._closing or self._task is None:
            return self._drop("shutdown")
        if live is not self._stage.live:
            return self._drop("replaced")
        if self._queue.full():
            return self._drop("queue_full")
        place = ExitStack()
        place.enter_context(live.hold())
        self._queue.put_nowait(_Job(work, place))
        return None

    async def drain(self, timeout_s: float) -> None:
        """Take no more, answer what waits, and drop what is left then."""
        self._closing = True
        if self._task is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._queue.join()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        while not self._queue.empty():
            self._queue.get_nowait().place.close()
            self._drop("shutdown")

    async def room(self) -> None:
        """Return once callers leave room."""
        while not self._room():
            await asyncio.sleep(_LOOK_S)

    async def _run(self) -> None:
        while True:
            job = await self._queue.get()
            with job.place:
                await self._answer(job)
            self._queue.task_done()

    async def _answer(self, job: _Job) -> None:
        try:
            await self.room()
            await job.work()
        except OverloadError:
            self._drop("overloaded")
        except Refusal as refusal:
            self._drop(refusal.code)
        except Exception as error:  # noqa: BLE001  # no caller may notice, whatever this is
            # Its text may repeat a review.
            _log.error("a mirrored request failed: unforeseen %s", type(error).__name__)
            self._drop("internal")

    def _drop(self, reason: str) -> None:
        self._metrics.not_mirrored.labels(reason).inc()
