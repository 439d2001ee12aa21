"""The experiment store as the gateway uses it: an answer is sent once its rows are on disk."""

import asyncio
import logging
from collections.abc import Sequence

from data.errors import ExperimentError
from serving.experiments.clock import SteadyClock
from serving.experiments.store import (
    ExperimentStore,
    Exposure,
    Feedback,
    FeedbackResult,
    RequestIdReusedError,
)
from serving.experiments.writer import StoreWriter
from serving.gateway.limits import Refusal
from serving.gateway.settings import ServingSettings

_log = logging.getLogger(__name__)
_LOOK_S = 1.0
_NOT_READY = "the gateway is not ready; /ready says why"


class Record:
    """One store for all that a gateway answers. Used from one event loop."""

    def __init__(self, settings: ServingSettings):
        """Hold the settings; ``open`` opens the store."""
        self._settings = settings
        self._store: ExperimentStore | None = None
        self._writer: StoreWriter | None = None
        self._reasons = ["the experiment store is not open yet"]
        self._look: asyncio.Future[None] | None = None
        self._silent = False
        self._clock = SteadyClock()

    def now_us(self) -> int:
        """The time that events are stored with."""
        return self._clock.now_us()

    async def open(self) -> None:
        """Open the store; what goes wrong becomes a reason of ``/ready``."""
        self._reasons = []
        try:
            self._store = await asyncio.to_thread(ExperimentStore, self._settings.store_url)
        except ExperimentError as error:
            _log.error("not ready: %s", error)
            self._reasons = [str(error)]
        else:
            self._writer = StoreWriter(self._store, max_waiting=self._settings.store_queue)

    async def watch(self) -> None:
        """Look at the store every second, for ever: what fails is a reason until it is mended."""
        while True:
            await asyncio.sleep(_LOOK_S)
            if self._writer is None:
                await self.open()
                continue
            if self._look is None:
                self._look = asyncio.ensure_future(asyncio.to_thread(self._writer.look))
            done, _ = await asyncio.wait({self._look}, timeout=_LOOK_S)
            self._silent = not done
            if done:
                self._look = None

    async def close(self) -> None:
        """Commit what waits, and close the store."""
        if self._writer is not None:
            await asyncio.to_thread(self._writer.close, self._settings.shutdown_timeout_s)
        if self._store is not None:
            self._store.close()

    def reasons(self) -> list[str]:
        """Why the gateway should get no traffic; empty if it may."""
        failure = self._writer.failure if self._writer else None
        return [
            *self._reasons,
            *([f"the experiment store failed: {failure}"] if failure else []),
            *(["the experiment store does not answer"] if self._silent and not failure else []),
        ]

    def refuse_unless_open(self, *others: str) -> None:
        """Refuse a request before any work is done for it.

        Args:
            others: reasons of the caller's own not to answer.

        Raises:
            Refusal: 503, the store is not open, or there is another reason.
        """
        if self._writer is None or others:
            raise Refusal(503, "not_ready", _NOT_READY, retry_after_s=5)

    async def commit(
        self, exposures: Sequence[Exposure] = (), feedback: Sequence[Feedback] = ()
    ) -> list[FeedbackResult]:
        """Wait until the rows are on disk; what the store refuses, the request answers for.

        Raises:
            Refusal: 409 the request id was used for something else, 503 the store refused.
        """
        if self._writer is None:
            raise Refusal(503, "not_ready", _NOT_READY, retry_after_s=5)
        try:
            return await asyncio.wrap_future(self._writer.submit(exposures, feedback))
        except RequestIdReusedError as error:
            raise Refusal(409, "request_id_reused", str(error), field="X-Request-Id") from error
        except ExperimentError as error:
            raise Refusal(503, "store_unavailable", str(error), retry_after_s=1) from error
