"""One thread that writes for many requests: whatever waits while a commit runs shares the next one.

A request is answered only after its future resolves, so an acknowledged answer is on disk. Nothing
is dropped: a full queue and a database that refuses are both errors of the request.
"""

import logging
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

import sqlalchemy as sa

from data.errors import ExperimentError
from serving.experiments.database import cause
from serving.experiments.store import (
    ExperimentStore,
    Exposure,
    Feedback,
    FeedbackResult,
    RequestIdReusedError,
)

_GROUP_ROWS: Final = 2_000
"""Rows of one commit: enough to share its fsync, few enough that nobody waits long for it."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Write:
    exposures: Sequence[Exposure]
    feedback: Sequence[Feedback]
    done: "Future[list[FeedbackResult]]" = field(default_factory=Future)


class StoreWriter:
    """The only way by which the gateway writes to the store."""

    def __init__(self, store: ExperimentStore, *, max_waiting: int):
        """Start the thread; ``max_waiting`` writes may wait for the next commit."""
        self._store = store
        self._queue: queue.Queue[_Write | None] = queue.Queue(max_waiting)
        self._door = threading.Lock()
        self._closed = False
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def failure(self) -> str | None:
        """Why the last commit failed; None once one has gone well again."""
        return self._failure

    def look(self) -> None:
        """Find out whether the store answers, and keep what was found in ``failure``.

        A store that failed is written to; one that did not is read. Blocks; call it in a thread.
        """
        try:
            (self._store.probe if self._failure else self._store.ping)()
        except Exception as error:  # noqa: BLE001  # whatever it is, the store does not answer
            self._failure = cause(error)
        else:
            self._failure = None

    def submit(
        self, exposures: Sequence[Exposure] = (), feedback: Sequence[Feedback] = ()
    ) -> "Future[list[FeedbackResult]]":
        """Queue one request's rows; the future resolves once they are committed.

        The future raises RequestIdReusedError, or ExperimentError where the database refused.

        Raises:
            ExperimentError: the queue is full or the writer is closed.
        """
        write = _Write(exposures, feedback)
        write.done.set_running_or_notify_cancel()  # from here on nobody can cancel the commit
        with self._door:
            if self._closed:
                raise ExperimentError("the store is closing; send the request to another gateway")
            try:
                self._queue.put_nowait(write)
            except queue.Full as error:
                raise ExperimentError(
                    f"{self._queue.maxsize!r} writes wait for the store already; try again in a "
                    "moment"
                ) from error
        return write.done

    def close(self, timeout_s: float) -> None:
        """Write all that waits, then stop.

        Raises:
            ExperimentError: the store was not done in time.
        """
        with self._door:
            self._closed = True
        deadline = time.monotonic() + timeout_s
        try:
            self._queue.put(None, timeout=timeout_s)
        except queue.Full:
            _log.warning("the store's queue is still full after %s s", timeout_s)
        self._thread.join(max(deadline - time.monotonic(), 0.0))
        if self._thread.is_alive():
            raise ExperimentError(
                f"the store was not drained in {timeout_s!r} s; requests that still wait are not "
                "acknowledged: raise MATJIP_SHUTDOWN_TIMEOUT_S"
            )

    def _work(self) -> None:
        closing = False
        while not closing:
            group, closing = self._next_group()
            if group:
                self._commit(group)

    def _next_group(self) -> tuple[list[_Write], bool]:
        """Wait for one write, then take whatever waits beside it."""
        first = self._queue.get()
        if first is None:
            return [], True
        group, rows = [first], len(first.exposures) + len(first.feedback)
        while rows < _GROUP_ROWS:
            try:
                write = self._queue.get_nowait()
            except queue.Empty:
                return group, False
            if write is None:
                return group, True
            group.append(write)
            rows += len(write.exposures) + len(write.feedback)
        return group, False

    def _commit(self, group: list[_Write]) -> None:
        exposures = [one for write in group for one in write.exposures]
        feedback = [one for write in group for one in write.feedback]
        try:
            results = iter(self._write(exposures, feedback))
        except (RequestIdReusedError, sa.exc.IntegrityError, sa.exc.DataError) as error:
            # One request's rows must not fail the others': each goes alone.
            if len(group) > 1:
                for write in group:
                    self._commit([write])
            else:
                _fail(group, error)
        except sa.exc.SQLAlchemyError as error:
            self._failure = cause(error)
            _log.exception("the experiment store %s refused a commit", self._store.name)
            _fail(group, error)
        except Exception as error:  # noqa: BLE001  # the thread must outlive any surprise
            self._failure = type(error).__name__
            _log.exception("the experiment store %s failed", self._store.name)
            _fail(group, error)
        else:
            self._failure = None
            for write in group:
                write.done.set_result([next(results) for _ in write.feedback])

    def _write(
        self, exposures: Sequence[Exposure], feedback: Sequence[Feedback]
    ) -> list[FeedbackResult]:
        try:
            return self._store.write(exposures, feedback)
        except sa.exc.DBAPIError as error:
            # The server closed the connection, as on a restart: the pool gives a new one, and
            # writing twice changes nothing.
            if not error.connection_invalidated:
                raise
            return self._store.write(exposures, feedback)


def _fail(group: list[_Write], error: Exception) -> None:
    if not isinstance(error, ExperimentError):
        refused = ExperimentError(
            f"the experiment store did not commit: {cause(error)}; nothing of this request is "
            "stored, send it again"
        )
        refused.__cause__ = error
        error = refused
    for write in group:
        write.done.set_exception(error)
