"""A part that fails takes the gateway out of traffic within 2 s, and back within 10 s of recovery.

The gateway is a process of its own; its parts fail while a file says so. Nobody asks anything but
`/ready` once it is not: traffic goes elsewhere, so it has to find out by itself that all is well.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from serving.deployment import write_deployment
from serving.embedding_deployment import write_embedding_deployment
from serving.gateway.settings import ServingSettings

pytestmark = pytest.mark.services
UNREADY_S, READY_S = 2.0, 10.0
DEADLINE_S = 3.0
GIB = 2**30
ASK = {
    "/v1/embeddings": {"input": ["국물 맛있어요", "별로"]},
    "/v1/analyze": {"reviews": [{"text": "국물이 맛있어요"}, {"text": "별로"}]},
}
FAULTS = {
    "memory": "no room",
    "nan": "NaN",
    "exit": "thread",
    "vanish": "thread",
    "tokenizer": "the tokenizer broke",
    "taken": "memory is gone",
}


def seconds_until(site: Any, *, ready: bool, within_s: float) -> float:
    """How long `/ready` takes to say so."""
    started = time.monotonic()
    while site.is_ready() != ready:
        assert time.monotonic() - started < within_s
        time.sleep(0.05)
    return time.monotonic() - started


@contextmanager
def asked_in_turn(site: Any, route: str) -> Iterator[list[httpx.Response]]:
    """One request after the other until the block ends; gives the list of what came back."""
    answers: list[httpx.Response] = []
    done = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=site.client.base_url, timeout=60) as client:
            while not done.is_set():
                answers.append(client.post(route, json=ASK[route]))

    caller = threading.Thread(target=ask)
    caller.start()
    try:
        yield answers
    finally:
        done.set()
        caller.join(60)


@pytest.fixture
def fault(tmp_path: Path) -> Path:
    """What the parts of the gateway are to do; empty for nothing."""
    path = tmp_path / "fault"
    path.write_text("")
    return path


@pytest.fixture
def faulty(
    start_site: Any, fault: Path, embeddings: Any, classifiers: Any, tmp_path: Path
) -> Iterator[Any]:
    """A gateway of both kinds of model, which fail as `fault` says."""
    write_embedding_deployment(tmp_path / "embedding.json", embeddings[0])
    write_deployment(tmp_path / "deployment.json", classifiers[0])
    program = str(Path(__file__).with_name("faulty_gateway.py")), str(fault)
    options = ["--embedding-deployment", tmp_path / "embedding.json"]
    options += ["--deployment", tmp_path / "deployment.json"]
    with start_site(*options, program=program, deadline_s=DEADLINE_S) as site:
        yield site


def metric(site: Any, name: str) -> float:
    """A metric, all its series together."""
    lines = site.client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"matjip_{name}"))


def assert_each_has_one_answer(answers: list[httpx.Response], statuses: set[int]) -> None:
    assert {answer.status_code for answer in answers} <= statuses
    assert answers
    assert len({answer.headers["X-Request-Id"] for answer in answers}) == len(answers)
    assert all(int(each.headers["Retry-After"]) >= 1 for each in answers if each.is_error)


@pytest.mark.parametrize("route", ASK)
def test_a_fault_is_seen_in_time_and_so_is_its_end(faulty: Any, fault: Path, route: str) -> None:
    for name, says in FAULTS.items():
        assert faulty.client.post(route, json=ASK[route]).status_code == 200
        with asked_in_turn(faulty, route) as answers:
            fault.write_text(name)
            seconds_until(faulty, ready=False, within_s=UNREADY_S)
        assert says in faulty.client.get("/ready").json()["reasons"][0]
        assert faulty.client.get("/health").status_code == 200
        answers.append(faulty.client.post(route, json=ASK[route]))
        assert_each_has_one_answer(answers, {200, 503})
        fault.write_text("")
        seconds_until(faulty, ready=True, within_s=READY_S)


@pytest.mark.parametrize("route", ASK)
def test_a_thread_that_dies_under_load_is_replaced_unseen(
    faulty: Any, fault: Path, route: str
) -> None:
    for deaths, name in enumerate(("exit once", "vanish once"), start=1):
        with asked_in_turn(faulty, route) as answers, asked_in_turn(faulty, route) as others:
            fault.write_text(name)
            seen = -1
            while metric(faulty, "worker_deaths_total") < deaths or len(answers) < seen + 20:
                seen = len(answers) if seen < 0 else seen
                assert faulty.is_ready()
                time.sleep(0.05)
        assert_each_has_one_answer(answers + others, {200})
        assert metric(faulty, "worker_deaths_total") == deaths


def test_what_may_be_in_flight_follows_the_memory_that_another_process_takes(
    start_site: Any, embeddings: Any, tmp_path: Path
) -> None:
    """By what the machine says at the same moment: its other processes come and go meanwhile."""
    free = psutil.virtual_memory().available
    if free < 5 * GIB:
        pytest.skip(f"{free / GIB:.1f} GiB of memory are free, and the test wants 5")
    write_embedding_deployment(tmp_path / "embedding.json", embeddings[0])
    with (
        start_site("--embedding-deployment", tmp_path / "embedding.json") as site,
        asked_in_turn(site, "/v1/embeddings") as answers,
    ):
        wait_until_limit_is_right(site, UNREADY_S)
        with memory_taken(3 * GIB):
            wait_until_limit_is_right(site, UNREADY_S)
            assert site.is_ready()
        wait_until_limit_is_right(site, READY_S)
    assert_each_has_one_answer(answers, {200})


def wait_until_limit_is_right(site: Any, within_s: float) -> None:
    """What may be in flight is what the machine has left, but for the reserve."""
    end = time.monotonic() + within_s
    reserve = ServingSettings().reserve_mib * 2**20
    while (
        abs(metric(site, "admission_limit_bytes") + reserve - psutil.virtual_memory().available)
        > GIB / 2
    ):
        assert time.monotonic() < end
        time.sleep(0.05)


@contextmanager
def memory_taken(size: int) -> Iterator[None]:
    """Another process holds so many bytes."""
    take = f"held = bytearray(b'.') * {size}; print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", take], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield
        process.stdin.write(b"\n")
