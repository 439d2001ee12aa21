"""A gateway on a core of its own, started for a measurement; one that serves an embedding model."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx
import psutil

from data.manifest import read_manifest
from serving.embedding_deployment import EmbeddingDeployment, write_embedding_deployment
from serving.embedding_folder import EMBEDDING_KIND

_READY_S: Final = 120.0


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """Processes that are started meanwhile stay on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """A port that was free just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _deployment(folder: Path, work: Path) -> Path:
    path = work / "embedding_deployment.json"
    write_embedding_deployment(
        path,
        EmbeddingDeployment(
            model_name="bench",
            version="1",
            folder=folder.resolve(),
            manifest_digest=read_manifest(folder, EMBEDDING_KIND).digest,
            evidence_id="bench",
            created_at=datetime.now(UTC),
        ),
    )
    return path


class RunningGateway:
    """A gateway process.

    Attributes:
        port: on 127.0.0.1.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int):
        """Wrap a process that was started."""
        self._process = process
        self.port = port

    def cpu_s(self) -> dict[int, float]:
        """Processor seconds that each of its threads has had; the event loop's is the first."""
        threads = psutil.Process(self._process.pid).threads()
        return {thread.id: thread.user_time + thread.system_time for thread in threads}

    @property
    def loop_thread(self) -> int:
        """Number of the event loop's thread."""
        return self._process.pid

    def await_ready(self, log: Path) -> None:
        """Return when it may get traffic.

        Raises:
            RuntimeError: it ended, or took too long; the message has the last of its log.
        """
        ends = time.monotonic() + _READY_S
        while time.monotonic() < ends and self._process.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{self.port}/ready", timeout=2.0).is_success:
                    return
            time.sleep(0.2)
        raise RuntimeError(f"the gateway was not ready: {log.read_text()[-800:]}")


@contextlib.contextmanager
def gateway(
    folder: Path, engine: str, work: Path, *, core: int, max_batch_ms: float
) -> Iterator[RunningGateway]:
    """A ready gateway with one worker and one compute thread, ended on the way out.

    It begins with the cost model that was fitted where this engine was tuned, if it was.

    Args:
        folder: of the embedding model.
        engine: that runs it.
        work: for its files and log.
        core: that it stays on.
        max_batch_ms: what one batch may take.
    """
    settings = {
        "MATJIP_EMBEDDING_ENGINE": engine,
        "MATJIP_MAX_BATCH_MS": str(max_batch_ms),
        "MATJIP_STORE_URL": f"sqlite:///{work / 'experiments.db'}",
    }
    served = ["--embedding-deployment", str(_deployment(folder, work))]
    command = ["-m", "serving.gateway.app", *served]
    with running(command, work, settings, core=core) as gateway:
        yield gateway


@contextlib.contextmanager
def running(
    command: Sequence[str], work: Path, settings: Mapping[str, str], *, core: int
) -> Iterator[RunningGateway]:
    """A ready gateway of one worker and one thread, ended on the way out.

    Args:
        command: Python's arguments; the port comes by setting.
        work: for its log.
        settings: environment variables beside those that every measurement has.
        core: that it stays on.

    Raises:
        RuntimeError: it did not get ready.
    """
    port, log = free_port(), work / "gateway.log"
    ours = {
        "MATJIP_PORT": str(port),
        "MATJIP_WORKERS": "1",
        "MATJIP_ENGINE_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    with log.open("wb") as out, on_core(core):
        process = subprocess.Popen(
            [sys.executable, *command],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | ours | settings,
        )
    try:
        gateway = RunningGateway(process, port)
        gateway.await_ready(log)
        yield gateway
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
