"""Every engine × plan of batches in one interleaved run: real tokens a second of one core.

Each engine runs the same batches of each plan, a few that stand for all. They take turns batch by
batch, so that whatever else the machine does slows all of them alike, and what is counted is
processor time. Quality stands beside the speed: cosines and nearest neighbours of the published
MiniLM in the same engine, against its own fp32.

    python -m bench.engines OUT.json SECONDS
"""

import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from tokenizers import Tokenizer

from bench.corpus import SEED, draw_lengths, fit_texts, korean_sentences, quality_texts
from bench.gemm import measure_gemm
from bench.models import embedding_folder
from bench.progress import say
from bench.source_models import SHAPE
from data.manifest import write_json
from serving.batching.planner import TOKEN_BUDGET, plan_batches
from serving.engines.choice import BASELINE, engines_of, load_embedder, make_engine
from serving.engines.measuring import FAILURES
from serving.engines.protocol import Engine, Floats, TokenIds
from serving.windows import pad
from training.retrieval_parity import measure_retrieval

NAIVE: Final = "naive"
NAIVE_ROWS: Final = 32
EXACT: Final = "torch-fp32"
"""Computes what the source does in fp32; its vectors are what others are compared with."""
PLANNED: Final = f"sorted, {TOKEN_BUDGET} tokens"
TEXTS: Final = 768
"""That batches are planned over: what waits under load, so that sorted ones are alike in length."""
TIMED: Final = {NAIVE: 2, PLANNED: 4}
"""Batches of each plan that are run: of eleven engines two and a half minutes of one core."""
_AT_ONCE: Final = 2
_FIRST: Final = 4
Batch = tuple[TokenIds, TokenIds]


def operations_per_token() -> float:
    """Operations of the encoder's matrix products with weights, for one token.

    Attention's own products, 1% of them at these lengths, are left out.
    """
    hidden, inner = SHAPE["hidden_size"], SHAPE["intermediate_size"]
    return 2.0 * SHAPE["num_hidden_layers"] * (4 * hidden * hidden + 2 * hidden * inner)


def speed_texts(count: int, *, seed: int = SEED) -> list[str]:
    """Korean texts with the lengths of reviews in the timed model's tokens."""
    tokenizer = Tokenizer.from_file(str(embedding_folder("electra-base") / "tokenizer.json"))
    lengths = draw_lengths(count, seed=seed)
    return list(fit_texts(korean_sentences(seed=seed), lengths, tokenizer))


def plans_of(windows: Sequence[Sequence[int]], pad_id: int) -> dict[str, list[Batch]]:
    """The batches of each plan: arrival order by 32, and sorted within a budget of tokens."""
    naive = [
        pad(windows[start : start + NAIVE_ROWS], pad_id)
        for start in range(0, len(windows), NAIVE_ROWS)
    ]
    planned = [
        pad([windows[row] for row in rows], pad_id)
        for rows in plan_batches([len(window) for window in windows], TOKEN_BUDGET)
    ]
    return {NAIVE: naive, PLANNED: planned}


def padding_of(batches: Sequence[Batch]) -> float:
    """Padded over real tokens."""
    return sum(mask.size for _, mask in batches) / sum(int(mask.sum()) for _, mask in batches)


def sample_of(batches: Sequence[Batch], count: int) -> list[Batch]:
    """So many batches that stand for all: of each range of lengths the one padded most like all.

    In random order, so that the first half of them is neither the short-texted nor the others.
    """
    padding = padding_of(batches)
    ordered = sorted(batches, key=lambda batch: float(batch[1].sum()) / len(batch[1]))
    chosen = [
        min(
            ordered[len(ordered) * step // count : len(ordered) * (step + 1) // count],
            key=lambda batch: abs(padding_of([batch]) - padding),
        )
        for step in range(count)
    ]
    Random(SEED).shuffle(chosen)  # noqa: S311  # no secret: a repeatable order
    return chosen


@dataclass
class Pass:
    """One engine going through one plan's batches."""

    name: str
    engine: Engine
    plan: str
    batches: list[Batch]
    batch_s: list[float] = field(default_factory=list)
    batch_tokens: list[int] = field(default_factory=list)

    def step(self, turn: int) -> None:
        """Run one batch."""
        ids, mask = self.batches[turn]
        began = time.process_time()
        self.engine.run(ids, mask)
        self.batch_s.append(time.process_time() - began)
        self.batch_tokens.append(int(mask.sum()))

    @property
    def tokens_per_s(self) -> float:
        """Real tokens per second of processor time."""
        return sum(self.batch_tokens) / sum(self.batch_s)


def run_interleaved(passes: Sequence[Pass], *, until: Callable[[], bool]) -> None:
    """Let all take turns: at least half of their batches, the whole of them if time allows.

    A plan of few batches goes through them evenly spread, so that all end together; a turn's share
    is rounded up, so that half of the turns is half of every plan.
    """
    turns = max(len(each.batches) for each in passes)
    for turn in range(turns):
        if turn >= turns / 2 and until():
            return
        say(f"speed: turn {turn + 1} of {turns}, every engine by every plan")
        for each in passes:
            first, last = (-(-len(each.batches) * (turn + i) // turns) for i in (0, 1))
            for batch in range(first, last):
                each.step(batch)


def measure_quality() -> dict[str, Any]:
    """Each engine of MiniLM against its own fp32; two processes, since nothing is timed here."""
    texts = quality_texts()
    folder = embedding_folder("minilm")
    reference = load_embedder(folder, engine=EXACT).embed(texts)
    names = engines_of(folder)
    say(f"quality: MiniLM's vectors of {len(texts)} texts in fp32 are the reference")
    found = {}
    with ProcessPoolExecutor(_AT_ONCE, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = {name: pool.submit(quality_of, name, reference, texts) for name in names}
        for name, job in jobs.items():
            found[name] = job.result()
            say(f"quality: {name} {found[name]}")
    return found


def quality_of(name: str, reference: Floats, texts: Sequence[str]) -> dict[str, Any]:
    """Cosines and nearest neighbours of one engine's vectors, or why there are none."""
    folder = embedding_folder("minilm")
    try:
        found = load_embedder(folder, engine=name, threads=1).embed(texts)
    except FAILURES as error:
        return {"failure": f"{type(error).__name__}: {error}"}
    return measure_retrieval(reference, found).model_dump()


@dataclass
class Contest:
    """What takes turns, and what could not be made.

    Attributes:
        plans: name → all batches.
        passes: of every engine through the batches that are timed of every plan.
        failures: engine → why it does not run.
    """

    plans: dict[str, list[Batch]]
    passes: list[Pass]
    failures: dict[str, str]


def start_engines(texts: int) -> Contest:
    """Make every engine of ELECTRA-base's shape, and let each run a batch."""
    folder = embedding_folder("electra-base")
    model = load_embedder(folder, engine=BASELINE, threads=1)  # hashes are checked once, here
    windows = model.windows(speed_texts(texts)).ids
    plans = plans_of(windows, model.pad_id)
    timed = {plan: sample_of(batches, TIMED[plan]) for plan, batches in plans.items()}
    first = pad(windows[:_FIRST], model.pad_id)
    contest = Contest(plans, [], {})
    for name in [BASELINE, *engines_of(folder)]:
        try:
            engine = model.engine if name == BASELINE else make_engine(name, folder, threads=1)
            engine.run(*first)  # the first call prepares weights
        except FAILURES as error:
            contest.failures[name] = f"{type(error).__name__}: {error}"
            say(f"speed: {name} does not run: {contest.failures[name]}")
            continue
        contest.passes += [Pass(name, engine, plan, batches) for plan, batches in timed.items()]
        say(f"speed: {name} is ready")
    return contest


def measure_speed(*, ends: float, texts: int = TEXTS) -> dict[str, Any]:
    """Speed of every engine × plan.

    Args:
        ends: by ``time.monotonic``; half of the batches are run whatever the time.
        texts: that batches are planned over.
    """
    gemm = measure_gemm()
    say(f"speed: best products {gemm['peaks']} GOP/s")
    contest = start_engines(texts)
    run_interleaved(contest.passes, until=lambda: time.monotonic() > ends)
    baseline = next(
        each.tokens_per_s for each in contest.passes if (each.name, each.plan) == (BASELINE, NAIVE)
    )
    operations = operations_per_token()
    return {
        "gemm": gemm,
        "texts": {
            "count": texts,
            "mean_tokens": sum(int(mask.sum()) for _, mask in contest.plans[NAIVE]) / texts,
            "padding": {plan: padding_of(batches) for plan, batches in contest.plans.items()},
            "padding_timed": {each.plan: padding_of(each.batches) for each in contest.passes},
        },
        "operations_per_token": operations,
        "rows": [
            {
                "engine": each.name,
                "library": each.engine.name,
                "plan": each.plan,
                "tokens_per_s": each.tokens_per_s,
                "ratio": each.tokens_per_s / baseline,
                "int8_gemm_share": each.tokens_per_s * operations / 1e9 / gemm["peaks"]["int8"],
                "batches": len(each.batch_s),
                "batches_planned": len(each.batches),
                "tokens": sum(each.batch_tokens),
                "cpu_s": sum(each.batch_s),
            }
            for each in contest.passes
        ],
        "failures": contest.failures,
    }


def main(out: str, seconds: str) -> None:
    """Measure within so many seconds if half of the batches fit, and write what was measured."""
    ends = time.monotonic() + float(seconds)
    quality = measure_quality()
    write_json(Path(out), measure_speed(ends=ends) | {"quality": quality})


if __name__ == "__main__":
    main(*sys.argv[1:])
