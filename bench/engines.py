"""Every engine × plan of batches in one interleaved run: real tokens a second of one core.

Each engine runs the same texts by each plan. They take turns batch by batch, so that whatever else
the machine does slows all of them alike, and what is counted is processor time. Quality stands
beside the speed: cosines and nearest neighbours of the published MiniLM in the same engine, against
its own fp32.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from tokenizers import Tokenizer

from bench.corpus import SEED, draw_lengths, fit_texts, korean_sentences, quality_texts
from bench.gemm import measure_gemm
from bench.models import embedding_folder
from bench.source_models import SHAPE
from data.errors import MatjipError
from data.manifest import write_json
from serving.batching.planner import TOKEN_BUDGET, plan_batches
from serving.embedder import Embedder
from serving.engines.choice import BASELINE, engines_of, load_embedder
from serving.engines.protocol import Engine, Floats, TokenIds
from serving.windows import pad
from training.retrieval_parity import measure_retrieval

NAIVE: Final = "naive"
NAIVE_ROWS: Final = 32
PLANNED: Final = f"sorted, {TOKEN_BUDGET} tokens"
TEXTS: Final = 192
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
    Random(SEED).shuffle(planned)  # noqa: S311  # no secret: a repeatable order
    return {NAIVE: naive, PLANNED: planned}


def padding_of(batches: Sequence[Batch]) -> float:
    """Padded over real tokens."""
    return sum(mask.size for _, mask in batches) / sum(int(mask.sum()) for _, mask in batches)


@dataclass
class Pass:
    """One engine going through one plan's batches."""

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

    A plan of few batches goes through them evenly spread, so that all end together. Batches are in
    random order: the half of a sorted plan is not its longest texts.
    """
    turns = max(len(each.batches) for each in passes)
    for turn in range(turns):
        if turn >= turns / 2 and until():
            return
        for each in passes:
            first, last = (len(each.batches) * (turn + i) // turns for i in (0, 1))
            for batch in range(first, last):
                each.step(batch)


def quality_of(reference: Floats, embedder: Embedder, texts: Sequence[str]) -> dict[str, float]:
    """Cosines and nearest neighbours against fp32's vectors of the same texts."""
    parity = measure_retrieval(reference, embedder.embed(texts))
    return dict(parity.model_dump())


def measure_engines(*, budget_s: float, texts: int = TEXTS) -> dict[str, Any]:
    """Speed of every engine × plan, and each engine's quality.

    Args:
        budget_s: for the interleaved passes; half of the batches are always run.
        texts: that each pass goes through.
    """
    gemm = measure_gemm()
    folder = embedding_folder("electra-base")
    corpus = speed_texts(texts)
    names = [BASELINE, *engines_of(folder)]
    passes: dict[str, Pass] = {}
    failures: dict[str, str] = {}
    plans: dict[str, list[Batch]] = {}
    for name in names:
        try:
            embedder = load_embedder(folder, engine=name, threads=1)
            plans = plans or plans_of(embedder.windows(corpus).ids, embedder.pad_id)
            embedder.engine.run(*plans[NAIVE][0])  # the first call prepares weights
        except MatjipError as error:
            failures[name] = str(error)
            continue
        passes |= {
            f"{name} / {plan}": Pass(embedder.engine, plan, batches)
            for plan, batches in plans.items()
        }
    ends = time.monotonic() + budget_s
    run_interleaved(list(passes.values()), until=lambda: time.monotonic() > ends)
    speeds = {key: each.tokens_per_s for key, each in passes.items()}
    baseline = speeds[f"{BASELINE} / {NAIVE}"]
    operations = operations_per_token()
    return {
        "gemm": gemm,
        "texts": {
            "count": texts,
            "mean_tokens": sum(map(_tokens, plans[NAIVE])) / texts,
            "padding": {plan: padding_of(batches) for plan, batches in plans.items()},
        },
        "operations_per_token": operations,
        "rows": [
            {
                "engine": key.split(" / ")[0],
                "library": passes[key].engine.name,
                "plan": passes[key].plan,
                "tokens_per_s": speed,
                "ratio": speed / baseline,
                "int8_gemm_share": speed * operations / 1e9 / gemm["peaks"]["int8"],
                "batches": len(passes[key].batch_s),
            }
            for key, speed in speeds.items()
        ],
        "failures": failures,
    }


def measure_quality() -> dict[str, Any]:
    """Each engine of MiniLM against its own fp32."""
    folder = embedding_folder("minilm")
    texts = quality_texts()
    reference = load_embedder(folder, engine=BASELINE).embed(texts)
    answer: dict[str, Any] = {}
    for name in engines_of(folder):
        try:
            answer[name] = quality_of(
                reference, load_embedder(folder, engine=name, threads=1), texts
            )
        except MatjipError as error:
            answer[name] = {"failure": str(error)}
    return answer


def _tokens(batch: Batch) -> int:
    return int(batch[1].sum())


def main(out: str, budget_s: str) -> None:
    """Measure, and write what was measured."""
    quality = measure_quality()
    write_json(Path(out), measure_engines(budget_s=float(budget_s)) | {"quality": quality})


if __name__ == "__main__":
    main(*sys.argv[1:])
