"""vLLM's CPU build, the models that it serves, and the small fakes beside it."""

import contextlib
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest

ROOT = Path(__file__).parents[3]
STARTING: Any = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "starting.py")))


@dataclass
class VllmServer:
    """A vLLM in a process of its own, started as `make serve-llm` starts it."""

    url: str
    log: Path
    process: "subprocess.Popen[bytes]"
    report: Path

    def stop(self) -> None:
        STARTING.end(self.process)

    def kill(self) -> None:
        """At once, with what it started: a group of its own."""
        os.killpg(self.process.pid, signal.SIGKILL)

    def freeze(self) -> None:
        """Its engine stands still, until it is killed; the part that speaks HTTP goes on."""
        for part in psutil.Process(self.process.pid).children(recursive=True):
            part.suspend()

    def last_words(self) -> str:
        """The end of its log: why it failed, if it did."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-80:])

    def callers(self) -> int:
        """How many connections to it are open."""
        port = int(self.url.rpartition(":")[2])
        return sum(
            each.status == psutil.CONN_ESTABLISHED and each.laddr.port == port
            for each in psutil.net_connections("tcp4")
        )

    async def running(self, client: httpx.AsyncClient) -> int:
        """How many requests it is working on at this moment."""
        return int(await self.metric(client, "num_requests_running"))

    async def metric(self, client: httpx.AsyncClient, name: str) -> float:
        """One number of what it tells Prometheus."""
        lines = (await client.get(f"{self.url}/metrics")).text.splitlines()
        [line] = [each for each in lines if each.startswith(f"vllm:{name}{{")]
        return float(line.rpartition(" ")[2])


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base, int8, first and second: a random model that cites evidence, its INT8, two adapters."""
    folder = tmp_path_factory.mktemp("language")
    runpy.run_path(str(ROOT / "tests" / "tiny_language_model.py"))["write_family"](folder, seed=27)
    return folder


@pytest.fixture(scope="session")
def fakes() -> Any:
    """What tests/fake_language.py holds."""
    return SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "fake_language.py")))


@pytest.fixture(scope="module")
def start_vllm() -> Iterator[Callable[..., VllmServer]]:
    """Starts vLLM's CPU build and waits until it answers; about a minute and a half, 3 GB.

    Takes the model's folder, a folder for the log, and options of `serving.vllm_launch serve`. One
    at a time: stop it before the next is started.
    """
    python = Path(STARTING.prepared("MATJIP_TEST_VLLM")) / "bin" / "python"
    started: list[VllmServer] = []

    def start(model: Path, folder: Path, *options: str, port: int | None = None) -> VllmServer:
        port = port or STARTING.free_port()
        log = folder / "vllm.log"
        command = [sys.executable, "-m", "serving.vllm_launch", "serve", str(model)]
        command += ["--profile", "cpu", "--python", str(python), "--port", str(port), *options]
        report = folder / "report.json"
        command += ["--report", str(report)]
        with log.open("wb") as output:
            # A group of its own: what it starts is ended with it, also after a kill.
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=output, stderr=output, start_new_session=True
            )
        server = VllmServer(f"http://127.0.0.1:{port}", log, process, report)
        started.append(server)
        STARTING.wait_until(lambda: _healthy(server.url), process, log, timeout_s=400)
        return server

    yield start
    for server in started:
        server.stop()
        with contextlib.suppress(ProcessLookupError):
            server.kill()


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2).is_success
    except httpx.TransportError:
        return False
