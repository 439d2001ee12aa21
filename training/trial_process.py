"""A trial's process, seen from outside: started, heard, told to go on, and ended whatever happens.

The other side is training/trial.py. What the trial prints goes to its log; its last line is the
reason where it dies without giving one.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from pydantic import TypeAdapter

from data.manifest import write_text_atomically
from training.trial import GO_ON, Job, Refusal, Rung

_TOLD: Final = 400
_SAID: Final[TypeAdapter[Rung | Refusal]] = TypeAdapter(Rung | Refusal)


class TrialFailedError(Exception):
    """A trial's process ended without its score; the message is why."""


class TimeUpError(Exception):
    """The time for all trials is over."""


@dataclass(frozen=True)
class RunningTrial:
    """A process that climbs the rungs of a job."""

    process: "subprocess.Popen[bytes]"
    results: TextIO
    log: Path

    def next_rung(self, deadline: float) -> Rung:
        """Wait for the next rung's score.

        Args:
            deadline: on the monotonic clock.

        Raises:
            TrialFailedError: the process ended instead.
            TimeUpError: the deadline passed.
        """
        left = max(0.0, deadline - time.monotonic())
        heard, _, _ = select.select([self.results], [], [], left)
        if not heard:
            raise TimeUpError
        line = self.results.readline()
        if not line:
            raise TrialFailedError(_reason(self.process.wait(), self.log))
        said = _SAID.validate_json(line)
        if isinstance(said, Refusal):
            raise TrialFailedError(said.reason[:_TOLD])
        return said

    def go_on(self) -> None:
        """Have it climb the next rung. One that died meanwhile is noticed by ``next_rung``."""
        try:
            os.write(self._input(), f"{GO_ON}\n".encode())
        except BrokenPipeError:
            return

    def _input(self) -> int:
        stream = self.process.stdin
        if stream is None:
            raise TrialFailedError("it was started without an input")
        return stream.fileno()


@contextmanager
def trial_process(job: Job, folder: Path) -> Iterator[RunningTrial]:
    """A trial in a process of its own; it is gone, and its memory with it, when the context ends.

    Args:
        job: what to do.
        folder: for ``job.json`` and ``trial.log``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomically(folder / "job.json", job.model_dump_json(indent=2) + "\n")
    reading, writing = os.pipe()
    with (
        os.fdopen(reading, encoding="utf-8") as results,
        (folder / "trial.log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "training.trial", str(folder / "job.json"), str(writing)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=[writing],
        ) as process,
    ):
        os.close(writing)  # so that the reading end sees the process's death
        try:
            yield RunningTrial(process, results, folder / "trial.log")
        finally:
            process.kill()


def _reason(status: int, log: Path) -> str:
    lines = [
        line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
    ]
    last = next((line for line in reversed(lines) if line), "it printed nothing")
    if status >= 0:
        return last[:_TOLD]
    name = signal.Signals(-status).name
    hint = "; the system does so where memory runs out" if name == "SIGKILL" else ""
    return f"killed by {name}{hint}; its log ends with: {last}"[:_TOLD]
