"""Padding of the batches that the runner really makes, while texts come at their own pace.

Texts arrive one by one, at random times, first near what the engine can do, then faster than that.
Every batch tells the runner's observer its real and padded tokens; the worse of the two stretches
is the figure. MiniLM, so that thousands of batches fit into seconds.

    python -m bench.padding OUT.json ENGINE
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from tokenizers import Tokenizer

from bench.corpus import SEED, draw_lengths, english_sentences, fit_texts
from bench.models import embedding_folder
from data.errors import EngineError
from data.manifest import write_json
from serving.batching.admission import Admission
from serving.batching.costs import CostModel
from serving.batching.memory import HostMemory
from serving.batching.observer import SilentObserver
from serving.batching.runner import BatchRunner
from serving.batching.settings import BatchSettings
from serving.embedder import Vector
from serving.engines.choice import load_embedder

LOADS: Final = {"near capacity": 0.9, "beyond capacity": 2.0}
SECONDS: Final = 6.0


class Counting(SilentObserver):
    """Counts tokens of batches."""

    def __init__(self) -> None:
        self.batches = self.rows = self.tokens = self.padded = 0

    def batch_done(
        self,
        *,
        model: str,
        rows: int,
        tokens: int,
        padded_tokens: int,
        wait_s: float,
        seconds: float,
    ) -> None:
        """See ``BatchObserver``."""
        self.batches += 1
        self.rows += rows
        self.tokens += tokens
        self.padded += padded_tokens

    def facts(self) -> dict[str, float]:
        """What was counted."""
        return {
            "batches": self.batches,
            "rows_per_batch": self.rows / self.batches,
            "ratio": self.padded / self.tokens,
        }


async def _arrive(
    runner: BatchRunner[Vector], texts: Sequence[str], rate: float, seconds: float
) -> None:
    """One text a request, at exponential gaps, whatever was answered before."""
    gaps = np.random.default_rng(SEED).exponential(1.0 / rate, round(rate * seconds))
    began, tasks = time.perf_counter(), []
    for number, due in enumerate(np.cumsum(gaps)):
        await asyncio.sleep(max(0.0, began + float(due) - time.perf_counter()))
        tasks.append(asyncio.create_task(runner.answer([texts[number % len(texts)]])))
    for answers in await asyncio.gather(*tasks):
        if isinstance(answers[0], EngineError):
            raise answers[0]


async def measure_padding(engine: str, *, seconds: float = SECONDS) -> dict[str, Any]:
    """Padded over real tokens at each load."""
    folder = embedding_folder("minilm")
    model = load_embedder(folder, engine=engine, threads=1)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    sentences = english_sentences(seed=SEED) * 8
    texts = list(fit_texts(sentences, draw_lengths(2_000, seed=SEED), tokenizer))
    model.embed(texts[:64])
    began = time.process_time()
    model.embed(texts[:512])
    capacity = 512 / (time.process_time() - began)
    loads: dict[str, Any] = {}
    for name, share in LOADS.items():
        counting = Counting()
        runner: BatchRunner[Vector] = BatchRunner(
            model,
            name="padding",
            admission=Admission(HostMemory()),
            costs=CostModel.unfitted(computes_padding=model.engine.computes_padding),
            settings=BatchSettings(workers=1, max_queue_texts=100_000, max_queue_s=1_000.0),
            observer=counting,
        )
        await runner.start()
        await _arrive(runner, texts, share * capacity, seconds)
        await runner.drain(30.0)
        loads[name] = counting.facts() | {"texts_per_s": share * capacity}
    worst = max(loads, key=lambda name: float(loads[name]["ratio"]))
    return {
        "engine": engine,
        "loads": loads,
        "ratio": loads[worst]["ratio"],
        "conditions": f"{engine}, one text a request at random times, {worst} "
        f"({LOADS[worst]:.0%} of it), {loads[worst]['rows_per_batch']:.0f} texts a batch",
    }


def main(out: str, engine: str) -> None:
    """Measure, and write what was measured."""
    write_json(Path(out), asyncio.run(measure_padding(engine)))


if __name__ == "__main__":
    main(*sys.argv[1:])
