"""Five times what the gateway can do, for a whole minute: refused at once, answered in full.

The gateway has its settings' defaults, one core, and a client on the other, each in a process of
its own. Requests come at a constant rate whatever becomes of them; latency counts from when a
request was due. What other processes take of the gateway's core counts for neither side.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import psutil
import pytest

from bench.load_client import LoadPlan
from serving.embedding_deployment import write_embedding_deployment
from serving.gateway.settings import ServingSettings

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]
OVERLOAD, MINUTE_S = 5.0, 60.0
GOODPUT_SHARE = 0.8
DEADLINE_S = ServingSettings().deadline_s
AT_ONCE_S = 1.0
TEXT = "국물정말맛있어요 " * 498
"""One window of the model's whole length in a body of 12 kB: a minute sends far more than GROWN."""
GROWN_BYTES = 16 * 2**20
"""Batches come and go by up to 10 MiB at any load."""


class Core:
    """A processor core, and the one process whose share of it counts."""

    def __init__(self, number: int, process: psutil.Process):
        self._number, self._process = number, process
        self._before = self._now()

    def _now(self) -> tuple[float, float]:
        times = psutil.cpu_times(percpu=True)[self._number]
        busy = sum(times[:8]) - times.idle - times.iowait
        own = self._process.cpu_times()
        return time.monotonic(), busy - own.user - own.system

    def left_s(self) -> float:
        """Seconds since this was made, without those that others took."""
        (began, others), (now, more) = self._before, self._now()
        return (now - began) - max(0.0, more - others)


def start_load(plan: LoadPlan, folder: Path) -> "subprocess.Popen[bytes]":
    (folder / "plan.json").write_text(plan.model_dump_json(), encoding="utf-8")
    command = [sys.executable, "-m", "bench.load_client"]
    return subprocess.Popen([*command, str(folder / "plan.json"), str(folder / "replies.json")])


def capacity(url: httpx.URL, core: Core, seconds: float, callers: int = 16) -> float:
    """Answers a second to callers who each ask again once they are answered."""

    async def call(client: httpx.AsyncClient, until: float) -> int:
        answered = 0
        while time.monotonic() < until:
            reply = await client.post("/v1/embeddings", json={"input": TEXT})
            if reply.status_code == 429:  # before the gateway knows how fast it is
                await asyncio.sleep(int(reply.headers["Retry-After"]))
            else:
                assert reply.status_code == 200
                answered += 1
        return answered

    async def measure() -> int:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            until = time.monotonic() + seconds
            return sum(await asyncio.gather(*(call(client, until) for _ in range(callers))))

    return asyncio.run(measure()) / core.left_s()


def test_a_minute_of_five_times_too_much(
    start_site: Any, slow_embedding: Any, tmp_path: Path
) -> None:
    path = tmp_path / "embedding.json"
    write_embedding_deployment(path, slow_embedding)
    cores = sorted(os.sched_getaffinity(0))
    held_bytes, ready_s = [], []
    with start_site("--embedding-deployment", path, core=cores[0]) as site:
        url = site.client.base_url
        capacity(url, Core(cores[0], site.process), 5.0)  # what is slow only once
        can = capacity(url, Core(cores[0], site.process), 10.0)
        plan = LoadPlan(
            port=site.port,
            texts=[TEXT],
            rate=OVERLOAD * can,
            seconds=MINUTE_S,
            patience_s=DEADLINE_S + 5.0,
            core=cores[-1],
        )
        minute = Core(cores[0], site.process)
        ends, left_s = time.monotonic() + MINUTE_S, 0.0
        with start_load(plan, tmp_path) as load:
            while load.poll() is None:
                asked = time.monotonic()
                assert site.is_ready()
                ready_s.append(time.monotonic() - asked)
                if time.monotonic() < ends:
                    held_bytes.append(site.resident_bytes())
                    left_s = minute.left_s()
                time.sleep(0.5)
        asked = time.monotonic()
        assert site.client.post("/v1/embeddings", json={"input": TEXT}).status_code == 200
        assert time.monotonic() - asked < AT_ONCE_S
        assert site.is_ready()
    assert load.returncode == 0
    said = orjson.loads((tmp_path / "replies.json").read_bytes())
    replies, totals = said["replies"], said["totals"]
    good = [reply for reply in replies if reply["status"] == 200]
    in_time = [each for each in good if each["at_s"] + each["latency_ms"] / 1e3 <= MINUTE_S]
    goodput = len(in_time) / left_s
    grown = np.median(held_bytes[-20:]) - np.median(held_bytes[10:30])
    # One answer for each: 200, or 429 that says when to come again.
    assert Counter(each["status"] for each in replies).keys() == {200, 429}
    assert (totals["lost"], totals["duplicated"], totals["wrong"]) == (0, 0, 0)
    assert totals["refused_with_retry_after"] == totals["refused"] > 0
    assert goodput >= GOODPUT_SHARE * can
    assert np.percentile([each["latency_ms"] / 1e3 for each in good], 99) <= DEADLINE_S
    assert max(ready_s) < AT_ONCE_S
    assert grown < GROWN_BYTES < len(replies) * len(TEXT.encode())
