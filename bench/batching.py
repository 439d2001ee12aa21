"""What the runner costs beside a bare engine, how much it pads, and how it bears 5 x too much.

    python -m bench.batching [--texts 2000] [--overload-seconds 60]

Cost is process CPU time, in turns with the bare engine on the same texts: a small BERT-like encoder
on ONNX Runtime, so fast that what the runner adds is seen. Overload is a constant arrival rate of
five times what the sleeping device (bench/sleeping_device.py) was just measured to answer, with two
seconds to answer in; what is not answered by then counts for nothing.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from bench.sleeping_device import Budget, Device, costs, draw_texts
from data.errors import DeadlineError, EngineError, OverloadError
from serving.batching.admission import Admission
from serving.batching.costs import CostModel
from serving.batching.memory import HostMemory, MemoryReading
from serving.batching.observer import SilentObserver
from serving.batching.planner import run_in_batches
from serving.batching.runner import BatchRunner
from serving.batching.settings import BatchSettings
from serving.engines.onnx_runtime import OnnxRuntimeEngine
from serving.engines.protocol import Outputs
from serving.sentence_encoder import OUTPUT, SentenceEncoder
from serving.windows import Windows

TIMEOUT_S: Final = 2.0
SLOWNESS: Final = 4.0
"""So that five times too much is few enough for the client, in the same event loop."""
TIMES_TOO_MUCH: Final = 5.0
TICK_S: Final = 0.005
ROUNDS: Final = 5


class LengthTexts:
    """A model of texts that say their own length."""

    pad_id = 0

    def __init__(self, engine: OnnxRuntimeEngine) -> None:
        self.engine = engine

    def windows(self, texts: Sequence[str]) -> Windows:
        """One of as many tokens as the text says."""
        count = len(texts)
        return Windows(
            ids=[[1] * int(text) for text in texts],
            text_index=np.arange(count, dtype=np.int64),
            weights=np.ones(count, dtype=np.float32),
            texts=count,
        )

    def answers(self, outputs: Outputs, windows: Windows) -> list[Any]:
        """The vectors."""
        return list(outputs[OUTPUT])


class Padding(SilentObserver):
    """Counts batches and what they held."""

    def __init__(self) -> None:
        self.batches = self.real = self.padded = 0

    def batch_done(self, *, tokens: int, padded_tokens: int, **rest: Any) -> None:
        """See ``BatchObserver``."""
        self.batches += 1
        self.real += tokens
        self.padded += padded_tokens


def small_encoder(path: Path) -> OnnxRuntimeEngine:
    """Four layers of 256, random weights, one thread."""
    import torch
    from transformers import AutoModel, ElectraConfig

    torch.manual_seed(0)
    config = ElectraConfig(
        vocab_size=1_000,
        embedding_size=256,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1_024,
        attn_implementation="eager",
    )
    example = torch.tensor([[2, 5, 6, 3], [2, 8, 3, 0]])
    inputs = ["input_ids", "attention_mask"]
    axes = {name: {0: "batch", 1: "tokens"} for name in inputs} | {OUTPUT: {0: "batch"}}
    torch.onnx.export(
        SentenceEncoder(AutoModel.from_config(config)).eval(),
        (example, (example != 0).long()),
        str(path),
        dynamo=False,
        opset_version=17,
        input_names=inputs,
        output_names=[OUTPUT],
        dynamic_axes=axes,
    )
    return OnnxRuntimeEngine(path, [OUTPUT], threads=1)


async def runner_cpu_s(
    model: LengthTexts, learnt: CostModel, groups: list[list[str]], at_once: int
) -> tuple[float, Padding]:
    """Process CPU seconds for groups of texts, so many callers at a time."""
    padding = Padding()
    runner = BatchRunner(
        model,
        name="small",
        admission=Admission(HostMemory()),
        costs=learnt,
        settings=BatchSettings(workers=1, max_queue_texts=10**6, max_queue_s=1e6),
        observer=padding,
    )
    await runner.start()
    left = iter(groups)

    async def caller() -> None:
        for texts in left:
            answers = await runner.answer(texts)
            assert not any(isinstance(each, EngineError) for each in answers)

    started = time.process_time()
    await asyncio.gather(*(caller() for _ in range(at_once)))
    spent = time.process_time() - started
    await runner.drain(10)
    return spent, padding


def overhead(count: int) -> dict[str, Any]:
    """The runner against the bare engine, in turns."""
    with tempfile.TemporaryDirectory(prefix="batching-") as folder:
        model = LengthTexts(small_encoder(Path(folder) / "model.onnx"))
    texts = draw_texts(np.random.default_rng(3), count)
    ways = {
        "one request": ([texts], 1),
        "64 callers x 1 text": ([[text] for text in texts], 64),
        "16 callers x 16 texts": ([texts[at : at + 16] for at in range(0, count, 16)], 16),
    }
    learnt = CostModel.unfitted()
    spent: dict[str, list[float]] = {name: [] for name in ("bare", *ways)}
    seen: dict[str, Padding] = {}
    for turn in range(ROUNDS + 1):
        started = time.process_time()
        windows = model.windows(texts)
        model.answers(run_in_batches(model.engine, windows.ids, 0, token_budget=1024), windows)
        spent["bare"].append(time.process_time() - started)
        for name, (groups, at_once) in ways.items():
            cpu_s, seen[name] = asyncio.run(runner_cpu_s(model, learnt, groups, at_once))
            spent[name].append(cpu_s)
        if turn == 0:  # costs were still being learnt
            spent = {name: [] for name in spent}
    bare = median(spent["bare"])
    return {
        name: {
            "goodput_share": bare / median(spent[name]),
            "extra_us_per_text": (median(spent[name]) - bare) / count * 1e6,
            "extra_us_per_batch": (median(spent[name]) - bare) / padding.batches * 1e6,
            "batches": padding.batches,
            "padding_ratio": padding.padded / padding.real,
        }
        for name, padding in seen.items()
    } | {"bare_us_per_text": bare / count * 1e6}


async def overload(seconds: float) -> dict[str, Any]:
    """Five times what can be answered, at a constant rate."""
    still = MemoryReading(free=2**40, own=0)
    runner = BatchRunner(
        Device(Budget(), SLOWNESS),
        name="device",
        admission=Admission(lambda: still),
        costs=costs(SLOWNESS),
        settings=BatchSettings(workers=4, max_batch_tokens=512),
    )
    await runner.start()
    random = np.random.default_rng(11)
    capacity = await _capacity(runner, random)
    took: list[float] = []
    ends = {"refused": 0, "late": 0}

    async def call(text: str) -> None:
        started = time.monotonic()
        try:
            await runner.answer([text], timeout_s=TIMEOUT_S)
        except OverloadError:
            ends["refused"] += 1
        except DeadlineError:
            ends["late"] += 1
        else:
            took.append(time.monotonic() - started)

    began = time.monotonic()
    calls: set[asyncio.Task[None]] = set()
    sent = 0
    lags: list[float] = []
    while (now := time.monotonic() - began) < seconds:
        due = int(now * capacity * TIMES_TOO_MUCH) - sent
        for text in draw_texts(random, due):
            task = asyncio.create_task(call(text))
            calls.add(task)
            task.add_done_callback(calls.discard)
        sent += due
        before = time.monotonic()
        await asyncio.sleep(TICK_S)
        lags.append(time.monotonic() - before - TICK_S)
    reasons = runner.reasons()
    await asyncio.gather(*calls)
    await runner.drain(10)
    assert sent == len(took) + sum(ends.values()), "a reply was lost or given twice"
    return {
        "seconds": seconds,
        "capacity_texts_per_s": capacity,
        "sent_per_s": sent / seconds,
        "goodput_share_of_capacity": len(took) / seconds / capacity,
        "answered": len(took),
        **ends,
        "p50_ms": float(np.quantile(took, 0.5)) * 1e3,
        "p99_ms": float(np.quantile(took, 0.99)) * 1e3,
        "client_lag_p99_ms": float(np.quantile(lags, 0.99)) * 1e3,
        "reasons": reasons,
    }


async def _capacity(runner: BatchRunner[float], random: np.random.Generator) -> float:
    """Texts a second with as many waiting as can be."""
    count = 1_500
    await runner.answer(draw_texts(random, 500))
    started = time.monotonic()
    await runner.answer(draw_texts(random, count))
    return count / (time.monotonic() - started)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=2_000)
    parser.add_argument("--overload-seconds", type=float, default=60.0)
    options = parser.parse_args()
    found = {
        "overhead": overhead(options.texts),
        "overload": asyncio.run(overload(options.overload_seconds)),
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
