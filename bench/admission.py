"""Adaptive admission against the best fixed limit, and how fast it gives way to another process.

    python -m bench.admission [--seconds 6] [--rounds 3]

The device is made small and repeatable (bench/sleeping_device.py); the machine's own memory is not
filled: batches and the child live within a budget, past which a batch is out of memory.

`admission_share`: tokens a second of adaptive admission over the best of the fixed limits, which
run in turn in each round, medians over the rounds. `admission_settle_s`: a child takes half of the
budget; seconds until what is in flight is within the new bound for good, and until every later
second's throughput lies within a fifth of the later mean.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any, Final

import numpy as np
import psutil

from bench.sleeping_device import BUDGET, MIB, Budget, Device, costs, draw_texts
from serving.batching.admission import Admission
from serving.batching.memory import MemoryReading
from serving.batching.observer import SilentObserver
from serving.batching.runner import BatchRunner
from serving.batching.settings import AdmissionSettings, BatchSettings

RESERVE: Final = 8 * MIB
FIXED: Final = (1, 2, 3, 4, 6, 8)
UNSTEADY: Final = 0.2
_HOLD: Final = """
import sys
held = bytearray(int(sys.argv[1]))
held[::4096] = b"x" * len(held[::4096])
print("held", flush=True)
sys.stdin.read()
"""


class Tokens(SilentObserver):
    """When how many real tokens were answered."""

    def __init__(self) -> None:
        self.done: list[tuple[float, int]] = []
        self.out_of_memory_count = 0

    def batch_done(self, *, tokens: int, **rest: Any) -> None:
        """See ``BatchObserver``."""
        self.done.append((time.monotonic(), tokens))

    def out_of_memory(self, **what: Any) -> None:
        """See ``BatchObserver``."""
        self.out_of_memory_count += 1

    def rate(self, start: float, end: float) -> float:
        """Tokens a second."""
        return sum(count for at, count in self.done if start <= at < end) / (end - start)


def admission_of(memory: Callable[[], MemoryReading], fixed: int | None) -> Admission:
    """Adaptive, or held at a number of batches with memory out of the question."""
    if fixed is None:
        return Admission(memory, settings=AdmissionSettings(reserve_bytes=RESERVE))
    still = MemoryReading(free=2**40, own=0)
    settings = AdmissionSettings(first_batches=fixed, min_batches=fixed, max_batches=fixed)
    return Admission(lambda: still, settings=settings)


async def serve(
    budget: Budget, fixed: int | None, seconds: float, meanwhile: Callable[..., Any] | None = None
) -> tuple[Tokens, float]:
    """Keep a runner under load for some seconds.

    Returns:
        what was answered, and when it began.
    """
    tokens = Tokens()
    admission = admission_of(budget, fixed)
    runner = BatchRunner(
        Device(budget),
        name="device",
        admission=admission,
        costs=costs(),
        settings=BatchSettings(
            workers=max(FIXED), max_batch_tokens=512, max_queue_texts=10**6, max_queue_s=1e6
        ),
        observer=tokens,
    )
    await runner.start()
    random = np.random.default_rng(7)

    async def caller() -> None:
        while True:
            await runner.answer(draw_texts(random, 100))

    callers = [asyncio.create_task(caller()) for _ in range(16)]
    await asyncio.sleep(2.0)  # until it is under way
    began = time.monotonic()
    if meanwhile is not None:
        await meanwhile(admission)
    await asyncio.sleep(seconds - (time.monotonic() - began))
    for each in callers:
        each.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    await runner.drain(10)
    return tokens, began


def warm_up() -> None:
    """What a process takes once for its first batches is not what admission has to share out."""
    asyncio.run(serve(Budget(), 2, 2.0))


def share(seconds: float, rounds: int) -> dict[str, Any]:
    """Adaptive admission against fixed limits, interleaved."""
    rates: dict[str, list[float]] = {}
    failed: dict[str, int] = {}
    for _ in range(rounds):
        for fixed in (None, *FIXED):
            tokens, began = asyncio.run(serve(Budget(), fixed, seconds))
            name = "adaptive" if fixed is None else str(fixed)
            rates.setdefault(name, []).append(tokens.rate(began, began + seconds))
            failed[name] = failed.get(name, 0) + tokens.out_of_memory_count
    medians = {name: median(values) for name, values in rates.items()}
    best = max(value for name, value in medians.items() if name != "adaptive")
    return {
        "admission_share": medians["adaptive"] / best,
        "tokens_per_s": medians,
        "out_of_memory": failed,
    }


def settle(seconds: float) -> dict[str, Any]:
    """Half of the budget goes to a child in the middle of the load."""
    budget = Budget()
    seen: list[tuple[float, int, int]] = []
    before: list[int] = []
    taken_at = 0.0

    async def meanwhile(admission: Admission) -> None:
        nonlocal taken_at
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _HOLD,
            str(BUDGET // 2),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdout.readline()
        for _ in range(20):  # batches come and go: the most of half a second
            before.append(admission.state().in_flight_bytes)
            await asyncio.sleep(0.025)
        budget.child = psutil.Process(process.pid)
        taken_at = time.monotonic()
        while time.monotonic() - taken_at < seconds - 2:
            state = admission.state()
            bound = BUDGET - budget.taken() - RESERVE
            seen.append((time.monotonic() - taken_at, state.in_flight_bytes, bound))
            await asyncio.sleep(0.02)
        budget.child = None
        process.stdin.close()
        await process.wait()

    tokens, _ = asyncio.run(serve(budget, None, seconds, meanwhile))
    within_s = max((at for at, held, bound in seen if held > bound), default=0.0)
    end = seen[-1][0]
    later = tokens.rate(taken_at + end / 2, taken_at + end)
    windows = [start / 4 for start in range(int((end - 1.0) * 4))]
    unsteady = [
        start + 1.0
        for start in windows
        if abs(tokens.rate(taken_at + start, taken_at + start + 1.0) / later - 1) > UNSTEADY
    ]
    return {
        "admission_settle_s": max(within_s, max(unsteady, default=0.0)),
        "in_flight_before_bytes": max(before),
        "bound_after_bytes": seen[0][2],
        "within_bound_s": within_s,
        "steady_s": max(unsteady, default=0.0),
        "tokens_per_s_before": tokens.rate(taken_at - 1.0, taken_at),
        "tokens_per_s_after": later,
        "out_of_memory": tokens.out_of_memory_count,
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    warm_up()
    found = share(options.seconds, options.rounds) | {"settle": settle(10.0)}
    found["admission_settle_s"] = found["settle"]["admission_settle_s"]
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
