"""Admission and running out of memory on a GPU's real memory: what a runner makes of both.

``admission``: another process takes half of the free memory and gives it back; the limit must
follow both ways, and every text have its answer. ``out_of_memory``: so little is left free that
batches of the size that the cost model allows do not fit; the runner must answer every text all
the same. Without a GPU the same code runs on a small budget of the host's memory.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import psutil
import torch

from bench.gpu_model import LengthModel, draw_texts
from bench.sleeping_device import BUDGET, Budget
from data.errors import EngineMemoryError
from serving.batching.admission import Admission
from serving.batching.costs import CostFile, CostModel
from serving.batching.memory import GpuMemory, MemoryReading, MemorySource
from serving.batching.observer import SilentObserver
from serving.batching.planner import run_in_batches
from serving.batching.runner import BatchRunner
from serving.batching.settings import AdmissionSettings, BatchSettings
from serving.engines.protocol import Engine, Outputs, TokenIds
from serving.engines.torch_cuda import TorchCudaEngine
from serving.likeness import cosines
from serving.text_encoder import TextEncoder

MIB: Final = 2**20
LEFT_FREE: Final = 512 * MIB
LARGE_BATCH_TOKENS: Final = 131_072
TEXTS: Final = 6_000
_NEAR: Final = 0.1
_WAIT_S: Final = 20.0
_CHUNK: Final = 256 * MIB
_HOLD: Final = """
import sys
count = int(sys.argv[1])
if sys.argv[2] == "gpu":
    import torch
    held = torch.zeros(count, dtype=torch.uint8, device="cuda")
    torch.cuda.synchronize()
else:
    held = bytearray(count)
    held[::4096] = b"x" * len(held[::4096])
print("held", flush=True)
sys.stdin.read()
"""


class Told(SilentObserver):
    """Counts batches, and those that were out of memory."""

    def __init__(self) -> None:
        self.batches = self.out_of_memory_count = 0

    def batch_done(self, **what: Any) -> None:
        """See ``BatchObserver``."""
        self.batches += 1

    def out_of_memory(self, **what: Any) -> None:
        """See ``BatchObserver``."""
        self.out_of_memory_count += 1


class Cramped:
    """A CPU engine that asks for more than any machine has when a batch is large."""

    batch_invariant = True
    computes_padding = False
    length_buckets: tuple[int, ...] = ()
    max_rows: int | None = None

    def __init__(self, engine: Engine, most_tokens: int) -> None:
        self._engine, self._most_tokens = engine, most_tokens
        self.name = engine.name

    def run(self, input_ids: TokenIds, attention_mask: TokenIds) -> Outputs:
        """See ``Engine.run``."""
        if int(attention_mask.sum()) > self._most_tokens:
            try:
                torch.empty(1 << 50)
            except RuntimeError as error:
                raise EngineMemoryError(str(error)) from error
        return self._engine.run(input_ids, attention_mask)


def too_little(computes_padding: bool) -> CostModel:  # noqa: FBT001  # as CostFile has it
    """A cost model that takes a batch to need next to nothing."""
    return CostModel(
        CostFile(
            computes_padding=computes_padding,
            bytes_of=(MIB, 0.0, 1.0, 0.0),
            byte_margin=1.0,
            seconds_of=(1e-3, 0.0, 1e-7, 0.0),
            measured=0,
        )
    )


async def _until(true: Callable[[], bool], seconds: float) -> float | None:
    """Seconds until something is true; None where it was not in time."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        if true():
            return time.monotonic() - begun
        await asyncio.sleep(0.02)
    return None


async def _follow(
    admission: Admission, budget: Budget | None, memory: MemorySource
) -> dict[str, Any]:
    """Let a process take half of what is free, and give it back."""
    free = memory().free
    taken = free // 2 if budget is None else BUDGET // 2
    before = admission.limit_bytes()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _HOLD,
        str(taken),
        "gpu" if budget is None else "cpu",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    said = await process.stdout.readline()
    if budget is not None:
        budget.child = psutil.Process(process.pid)
    try:
        held = said.strip() == b"held"
        # The other process's context and libraries take some hundred MiB more.
        shrunk = before - taken * (1 - _NEAR)
        shrink_s = await _until(lambda: admission.limit_bytes() <= shrunk, _WAIT_S)
        during = admission.limit_bytes()
        await asyncio.sleep(1.0)
    finally:
        if budget is not None:
            budget.child = None
        process.stdin.close()
        await process.wait()
    back = before - taken * _NEAR
    grow_s = await _until(lambda: admission.limit_bytes() >= back, _WAIT_S)
    return {
        "held": held,
        "free_bytes": free,
        "taken_bytes": taken,
        "limit_before": before,
        "limit_during": during,
        "limit_after": admission.limit_bytes(),
        "shrink_s": shrink_s,
        "grow_s": grow_s,
    }


def measure_admission(model: TextEncoder, vocabulary: int, *, device: str) -> dict[str, Any]:
    """How the limit follows when half of the free memory goes and comes back, under load."""
    engine = TorchCudaEngine(model, precision="fp16", device=device)
    served = LengthModel(engine, vocabulary)
    for text in ("39", "128", "39"):
        run_in_batches(engine, served.windows([text] * 8).ids, 0, token_budget=1024)
    budget = None if device != "cpu" else Budget()
    memory: Callable[[], MemoryReading] = budget or GpuMemory()
    told = Told()
    counts = {"asked": 0, "answered": 0, "failed": 0}

    async def serve() -> dict[str, Any]:
        reserve = 8 * MIB if budget else 256 * MIB
        admission = Admission(memory, settings=AdmissionSettings(reserve_bytes=reserve))
        runner = BatchRunner(
            served,
            name="gpu",
            admission=admission,
            costs=too_little(computes_padding=False),
            settings=BatchSettings(max_queue_texts=10**6, max_queue_s=1e6),
            observer=told,
        )
        await runner.start()

        async def caller(number: int) -> None:
            while True:
                texts = draw_texts(64 if budget is None else 2, seed=number)
                counts["asked"] += len(texts)
                for answer in await runner.answer(texts):
                    counts["failed" if isinstance(answer, Exception) else "answered"] += 1
                if stop.is_set():
                    return
                if budget is not None:
                    await asyncio.sleep(0.05)

        stop = asyncio.Event()
        callers = [asyncio.create_task(caller(number)) for number in range(4)]
        await asyncio.sleep(1.0)
        found = await _follow(admission, budget, memory)
        stop.set()
        await asyncio.gather(*callers)
        await runner.drain(10)
        return found

    found = asyncio.run(serve())
    return found | counts | {"batches": told.batches, "out_of_memory": told.out_of_memory_count}


def fill(left: int, memory: MemorySource) -> list[torch.Tensor]:
    """Tensors that leave no more than so much of the GPU free."""
    torch.cuda.empty_cache()
    held = []
    while (room := memory().free - left) > _CHUNK // 16:
        # In large pieces at first: a piece is one allocation, and there are a hundred GiB.
        size = room // 2 if room > 2 * _CHUNK else min(room, _CHUNK)
        try:
            held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
        except torch.OutOfMemoryError:  # NVML counts as free what CUDA keeps for itself
            break
    return held


def measure_out_of_memory(model: TextEncoder, vocabulary: int, *, device: str) -> dict[str, Any]:
    """Whether every text is answered, and as if alone, where large batches do not fit."""
    on_gpu = device != "cpu"
    engine: Engine = TorchCudaEngine(model, precision="fp16", device=device)
    texts = draw_texts(TEXTS if on_gpu else 60, seed=3)
    served = LengthModel(engine, vocabulary)
    expected = _alone(engine, served, texts)
    held: list[torch.Tensor] = []
    reading = GpuMemory() if on_gpu else None
    if reading is not None:
        held = fill(LEFT_FREE, reading)
    else:
        served = LengthModel(Cramped(engine, most_tokens=200), vocabulary)
    free = reading().free if reading is not None else 0
    told = Told()
    try:
        answers = asyncio.run(_answer_all(served, texts, told))
    finally:
        held.clear()
        if on_gpu:
            torch.cuda.empty_cache()
    failed = [answer for answer in answers if isinstance(answer, Exception)]
    alike = 0.0
    if not failed:
        alike = float(cosines(np.asarray(expected), np.asarray(answers)).min())
    return {
        "asked": len(texts),
        "answered": len(answers) - len(failed),
        "failed": [str(error) for error in failed[:3]],
        "out_of_memory": told.out_of_memory_count,
        "batches": told.batches,
        "cos_min": alike,
        "free_bytes": free,
    }


async def _answer_all(served: LengthModel, texts: Sequence[str], told: Told) -> list[Any]:
    still = MemoryReading(free=2**40, own=0)
    runner = BatchRunner(
        served,
        name="gpu",
        # Admission would keep such batches out: it is told that there is no end of memory.
        admission=Admission(lambda: still),
        costs=too_little(computes_padding=False),
        settings=BatchSettings(
            workers=2,
            max_batch_tokens=LARGE_BATCH_TOKENS,
            min_batch_tokens=LARGE_BATCH_TOKENS,
            max_batch_rows=4_096,
            max_batch_ms=1e6,
            max_queue_texts=10**6,
            max_queue_s=1e6,
        ),
        observer=told,
    )
    await runner.start()
    try:
        return await runner.answer(texts, timeout_s=120.0)
    finally:
        await runner.drain(10)


def _alone(engine: Engine, served: LengthModel, texts: Sequence[str]) -> list[Any]:
    windows = served.windows(texts)
    return served.answers(run_in_batches(engine, windows.ids, 0, token_budget=2_048), windows)
