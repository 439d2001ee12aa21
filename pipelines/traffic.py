"""Traffic for a demonstration: held-out reviews, replayed through the real gateway over HTTP."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx

from data.errors import EngineError
from data.manifest import read_labelled_reviews
from serving.deployment import read_deployment
from serving.experiments.store import ExperimentStore
from serving.replay import ReplayResult, replay

START_TIMEOUT_S: Final = 60.0


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def gateway(options: Sequence[str], store_url: str, log: Path) -> Iterator[str]:
    """The gateway in a process of its own while the context lasts; yields its base URL.

    Args:
        options: which deployments it serves.
        store_url: where it records what it answered.
        log: of what it prints.

    Raises:
        EngineError: it does not become ready; the message holds the end of its log.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "serving.gateway.app", *options]
    environment = os.environ | {"MATJIP_PORT": str(port), "MATJIP_STORE_URL": store_url}
    environment.pop("MATJIP_VAR", None)
    with (
        log.open("w", encoding="utf-8") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env=environment) as process,
    ):
        try:
            _wait_until_ready(url, process, log)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    answer = "no answer"
    while time.monotonic() < deadline and process.poll() is None:
        try:
            response = httpx.get(f"{url}/ready", timeout=2.0)
            if response.status_code == httpx.codes.OK:
                return
            answer = response.text
        except httpx.TransportError as error:
            answer = str(error)
        time.sleep(0.2)
    end = log.read_text(encoding="utf-8", errors="replace")[-500:]
    raise EngineError(f"the gateway did not become ready ({answer}); the end of its log: {end}")


def exposures_so_far(deployment: Path, store_url: str) -> int:
    """Answers that the store holds for a deployment."""
    deployed = read_deployment(deployment / "deployment.json")
    store = ExperimentStore(store_url)
    try:
        found = store.exposures_with_outcomes(deployed.experiment_id, deployed.deployment_id)
        return int(found.outcomes.sum())
    finally:
        store.close()


def replay_held_out(
    deployment: Path, split: Path, store_url: str, log: Path, *, requests: int, seed: int
) -> ReplayResult:
    """Serve a deployment, send it held-out reviews and feed back their labels."""
    reviews = list(read_labelled_reviews(split / "test.jsonl"))
    options = ["--deployment", str(deployment / "deployment.json")]
    with gateway(options, store_url, log) as url:
        return replay(url, reviews, requests=requests, seed=seed)
