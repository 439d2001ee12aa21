"""Threads that run the engine, watched: one that is gone is noticed and replaced.

Not a ThreadPoolExecutor, which neither says that a thread is gone nor lets go of one that hangs.
"""

import itertools
import queue
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

Result = TypeVar("Result")
_TASKS: Final = Path("/proc/self/task")


@dataclass(eq=False)
class Job(Generic[Result]):
    """One call for a worker.

    Attributes:
        call: runs in a worker's thread.
        done: called there with the result or the exception, exactly once unless the thread goes.
        started: of the monotonic clock, None before.
    """

    call: Callable[[], Result]
    done: Callable[[Result | BaseException], None]
    started: float | None = None


class _Worker(Generic[Result]):
    def __init__(self, jobs: "queue.SimpleQueue[Job[Result] | None]", name: str):
        self.job: Job[Result] | None = None
        self.left = False
        self._jobs = jobs
        self.thread = threading.Thread(target=self._work, name=name, daemon=True)
        self.thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.started = time.monotonic()
            self.job = job
            try:
                result: Result | BaseException = job.call()
            except Exception as error:  # noqa: BLE001 - it is the caller's
                result = error
            except BaseException:  # noqa: BLE001 - SystemExit ends the thread; the watch answers
                return
            self.job = None
            job.done(result)
            if self.left:
                return

    def gone(self) -> bool:
        """A thread that C code ended is still alive to Python: the kernel knows better."""
        if not self.thread.is_alive():
            return True
        native = self.thread.native_id
        on_linux = sys.platform == "linux" and native is not None
        return on_linux and not (_TASKS / str(native)).exists()


class Workers(Generic[Result]):
    """A fixed number of threads; used from one thread, except that jobs' callbacks are not."""

    def __init__(self, count: int, *, name: str):
        """Remember how many; ``start`` makes them.

        Args:
            count: of threads.
            name: their names begin with it.
        """
        self._count = count
        self._name = name
        self._numbers = itertools.count()
        self._jobs: queue.SimpleQueue[Job[Result] | None] = queue.SimpleQueue()
        self._workers: list[_Worker[Result]] = []

    def start(self) -> None:
        """Make the threads that are missing.

        Raises:
            RuntimeError: the system gives no more threads.
        """
        while len(self._workers) < self._count:
            name = f"{self._name}-{next(self._numbers)}"
            self._workers.append(_Worker(self._jobs, name))

    def submit(self, job: Job[Result]) -> None:
        """Let the next free thread run it."""
        self._jobs.put(job)

    def lost(self, stuck_s: float) -> list[Job[Result] | None]:
        """Let go of threads that are gone or hang.

        Args:
            stuck_s: after so long in one job a thread counts as hanging.

        Returns:
            for each of them, the job that it had, if any.
        """
        now = time.monotonic()
        jobs: list[Job[Result] | None] = []
        for worker in list(self._workers):
            job = worker.job
            hangs = job is not None and job.started is not None and now - job.started > stuck_s
            if hangs or worker.gone():
                worker.left = True
                self._workers.remove(worker)
                jobs.append(job)
        return jobs

    def stop(self) -> None:
        """Let every thread end after the job that it has."""
        for _ in self._workers:
            self._jobs.put(None)
        self._workers.clear()
