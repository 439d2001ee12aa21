"""The experiment store as the gateway uses it: an answer is sent once its rows are safe.

Safe is on the store's disk. With MATJIP_STORE_ACK=journaled it is in a journal for analyses
(experiments/journal.py), and the store follows: such an answer waits for no disk, and survives the
end of the process, but not a power cut within the milliseconds until the store's commit.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import Final

import sqlalchemy as sa

from data.errors import ExperimentError
from serving.experiments.clock import SteadyClock
from serving.experiments.database import cause
from serving.experiments.journal import Journal, Segment
from serving.experiments.store import (
    ExperimentStore,
    Exposure,
    Feedback,
    FeedbackResult,
    RequestIdReusedError,
    reused,
)
from serving.experiments.writer import StoreWriter
from serving.gateway.limits import Refusal
from serving.gateway.settings import ServingSettings

_log = logging.getLogger(__name__)
_LOOK_S = 1.0
_REMEMBERED: Final = 20_000
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
        self._journal: Journal | None = None
        self._recent: dict[str, tuple[str, str, str]] = {}

    def now_us(self) -> int:
        """The time that events are stored with."""
        return self._clock.now_us()

    async def open(self) -> None:
        """Open the store; what goes wrong becomes a reason of ``/ready``."""
        self._reasons = []
        try:
            self._store = await asyncio.to_thread(ExperimentStore, self._settings.store_url)
            if self._settings.store_ack == "journaled":
                self._journal = self._journal or Journal(self._settings.journal_folder)
                await self._recover()
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
                if self._journal and self._journal.has_refused and not self._writer.failure:
                    with contextlib.suppress(ExperimentError):  # the next look may go well
                        await self._recover()

    async def close(self) -> None:
        """Commit what waits, and close the store."""
        if self._writer is not None:
            await asyncio.to_thread(self._writer.close, self._settings.shutdown_timeout_s)
        if self._journal is not None:
            self._journal.close()
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

    async def keep(self, exposures: Sequence[Exposure]) -> None:
        """Wait until exposures are safe; see the settings' ``store_ack``.

        Raises:
            Refusal: 409 the request id was used for something else, 503 the store refuses.
        """
        if self._journal is None or self._writer is None:
            await self.commit(exposures)
            return
        if self._writer.failure:
            raise Refusal(
                503,
                "store_unavailable",
                f"the experiment store does not commit: {self._writer.failure}; send it again",
                retry_after_s=1,
            )
        self._refuse_if_reused(exposures)
        try:
            # The file comes second: what finds the queue full is acknowledged to nobody.
            written = self._writer.submit(exposures)
            segment = self._journal.append(exposures)
        except ExperimentError as error:
            raise Refusal(503, "store_unavailable", str(error), retry_after_s=1) from error
        written.add_done_callback(partial(_settle, self._journal, segment))

    def _refuse_if_reused(self, exposures: Sequence[Exposure]) -> None:
        """The store would find out, but only after the answer: so much is remembered here.

        Raises:
            Refusal: 409, a request of late was answered under this id with something else.
        """
        for one in exposures:
            said = (one.deployment_id, one.unit, one.text_sha256)
            if self._recent.setdefault(one.event_id(), said) != said:
                raise Refusal(
                    409, "request_id_reused", str(reused(one.request_id)), field="X-Request-Id"
                )
        while len(self._recent) > _REMEMBERED:
            del self._recent[next(iter(self._recent))]

    async def _recover(self) -> None:
        """Commit what the journal of this or of an ended process still holds.

        Raises:
            ExperimentError: the store refuses, or a file cannot be read.
        """
        journal, store = self._journal, self._store
        if journal is None or store is None:
            return
        try:
            count = await asyncio.to_thread(journal.recover, store.write)
        except (sa.exc.SQLAlchemyError, OSError) as error:
            raise ExperimentError(
                f"cannot bring the journal to the experiment store: {cause(error)}; it is kept, "
                "and tried again"
            ) from error
        if count:
            _log.warning("%d requests were brought from the journal to the store", count)


def _settle(journal: Journal, segment: Segment, written: "Future[list[FeedbackResult]]") -> None:
    error = written.exception()
    if isinstance(error, RequestIdReusedError):
        _log.warning("an answer is not stored: %s", error)
    journal.settle(segment, committed=error is None or isinstance(error, RequestIdReusedError))
