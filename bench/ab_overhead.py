"""What assignment and logging add to a request: the same gateway with and without them.

Three gateways in one process (ab_overhead_gateway.py) get requests at a constant rate, in turns,
whatever they answer; latency is counted from when a request was due. The figures are differences of
the quantiles, of an answer that waits for its journal (MATJIP_STORE_ACK=journaled) against one that
is neither dealt nor stored. What the default adds, which waits for the disk, is said beside them.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from bench.ab_figures import AbFigure
from bench.ab_overhead_gateway import MODES
from bench.ab_site import CLIENT_CORE, GATEWAY_CORE, TEXTS, two_arms
from bench.gateway_process import RunningGateway, free_port, on_core
from bench.load_client import ANALYZE, Client, LoadPlan
from serving.deployment import write_deployment

RATE: Final = 40.0
"""Requests a second of each gateway."""
SECONDS: Final = 40.0
BLOCK_S: Final = 10.0
"""Each has figures of its own, and their median counts: a neighbour that takes the core for a
moment spoils one of them."""
WARM_UP_S: Final = 4.0
P50_BAR_MS: Final = 0.3
P99_BAR_MS: Final = 2.0
_SYNCS: Final = 200


def measure(say: Callable[[str], None]) -> dict[str, AbFigure]:
    """Measure both figures."""
    with tempfile.TemporaryDirectory(prefix="ab-overhead-", dir=_disk()) as folder:
        work = Path(folder)
        say("two small models")
        deployment = work / "deployment.json"
        write_deployment(deployment, two_arms(work / "models", "overhead"))
        sync_ms = fsync_ms(work)
        say(f"{len(MODES)} gateways, {RATE:g} requests a second each for {SECONDS:g} s")
        latencies = _load(deployment, work)
    return figures_of(latencies, sync_ms)


def figures_of(latencies_ms: dict[str, np.ndarray], sync_ms: float) -> dict[str, AbFigure]:
    """The figures of the latencies of each mode.

    Args:
        latencies_ms: by mode, of its requests.
        sync_ms: what the disk takes to keep a page, at the median.
    """
    found = {}
    for share, bar_ms in ((50, P50_BAR_MS), (99, P99_BAR_MS)):
        at = {mode: _in_blocks(values, share) for mode, values in latencies_ms.items()}
        added, default = (
            float(np.median(at[mode] - at["bare"])) for mode in ("journaled", "committed")
        )
        found[f"overhead_p{share}_ms"] = AbFigure(
            value=round(added, 3),
            bar=f"<= {bar_ms:g}",
            conditions=(
                f"difference of the {share}th percentiles, the median of {len(at['bare'])} "
                f"stretches of {BLOCK_S:g} s: MATJIP_STORE_ACK=journaled, whose answers wait until "
                "a file has them, which survives SIGKILL but not the power, against neither "
                f"assignment nor store ({float(np.median(at['bare'])):.2f} ms). The default, "
                f"committed, waits for SQLite's fsync (median {sync_ms:.1f} ms on this disk) and "
                f"adds {default:.2f} ms. {len(latencies_ms['bare'])} requests each, one review and "
                f"tiny models, open loop at {RATE:g}/s each, interleaved in one process on one core"
            ),
            met=added <= bar_ms,
        )
    return found


def _in_blocks(latencies_ms: np.ndarray, share: int) -> np.ndarray:
    """A percentile of each stretch of ``BLOCK_S``."""
    blocks = max(1, round(len(latencies_ms) / (RATE * BLOCK_S)))
    return np.array([np.percentile(each, share) for each in np.array_split(latencies_ms, blocks)])


def fsync_ms(folder: Path) -> float:
    """Median milliseconds until a page that was written is on the disk."""
    took = []
    with (folder / "sync").open("wb") as file:
        for _ in range(_SYNCS):
            file.write(b"0" * 4_096)
            file.flush()
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - started) * 1e3)
    return float(np.median(took))


def _disk() -> Path:
    """Where stores lie, not in memory as temporary folders may."""
    folder = Path(__file__).resolve().parent.parent / "var" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _load(deployment: Path, work: Path) -> dict[str, np.ndarray]:
    port, log = free_port(), work / "gateway.log"
    command = ["-m", "bench.ab_overhead_gateway", str(deployment), str(work), str(port)]
    with log.open("wb") as out, on_core(GATEWAY_CORE):
        process = subprocess.Popen(
            [sys.executable, *command],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    try:
        ports = [port + place for place in range(len(MODES))]
        for each in ports:
            RunningGateway(process, each).await_ready(log)
        with on_core(CLIENT_CORE):
            asyncio.run(_send(ports, WARM_UP_S, "w"))
            clients = asyncio.run(_send(ports, SECONDS, "r"))
    finally:
        process.kill()
        process.wait()
    return {mode: _latencies_ms(client) for mode, client in zip(MODES, clients, strict=True)}


async def _send(ports: Sequence[int], seconds: float, prefix: str) -> list[Client]:
    """Requests to every port, their times evenly between the others'."""
    clients = [
        Client(
            LoadPlan(
                port=port,
                path=ANALYZE,
                prefix=prefix,
                texts=list(TEXTS),
                rate=RATE,
                seconds=seconds,
            )
        )
        for port in ports
    ]

    async def run(place: int, client: Client) -> None:
        await asyncio.sleep(place / (RATE * len(clients)))
        await client.run()

    await asyncio.gather(*(run(place, client) for place, client in enumerate(clients)))
    return clients


def _latencies_ms(client: Client) -> np.ndarray:
    failed = [reply for reply in client.replies if reply.problem or reply.latency_ms is None]
    if failed:
        raise RuntimeError(
            f"{len(failed)} of {len(client.replies)} requests failed, the first with "
            f"{failed[0].status} {failed[0].problem!r}; nothing can be said of the overhead"
        )
    return np.array([reply.latency_ms for reply in client.replies])
