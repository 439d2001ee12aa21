"""Every contestant × batch size on a GPU: real tokens a second, share of the roofline, quality."""

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

import numpy as np
import torch

from bench.gpu_contestants import REFERENCE, Contestant
from bench.gpu_model import Batch, Sizes
from bench.gpu_roofline import roofline_s
from serving.batching.planner import plan_batches, run_in_batches
from serving.engines.measuring import FAILURES, gpu_clock
from serving.engines.protocol import Engine, Floats
from serving.likeness import cosines, neighbour_overlap
from serving.windows import pad

NAIVE: Final = "32 in arrival order"
NAIVE_ROWS: Final = 32
QUALITY_WINDOWS: Final = 512
QUALITY_TOKENS: Final = 4_096
Say = Callable[[str], None]


@dataclass
class Plan:
    """One way to batch the windows.

    Attributes:
        lengths: of each batch's windows.
    """

    name: str
    batches: list[Batch]
    lengths: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.lengths = [mask.sum(1).tolist() for _, mask in self.batches]

    @property
    def tokens(self) -> int:
        """Real ones."""
        return sum(map(sum, self.lengths))

    @property
    def padding(self) -> float:
        """Padded over real tokens."""
        return sum(mask.size for _, mask in self.batches) / self.tokens


def plans_of(windows: Sequence[Sequence[int]], budgets: Sequence[int]) -> list[Plan]:
    """In arrival order by 32, and sorted within each budget of padded tokens."""
    plans = [
        Plan(
            NAIVE,
            [
                pad(windows[start : start + NAIVE_ROWS], 0)
                for start in range(0, len(windows), NAIVE_ROWS)
            ],
        )
    ]
    lengths = [len(window) for window in windows]
    for budget in budgets:
        rows = plan_batches(lengths, budget)
        plans.append(
            Plan(
                f"sorted, {budget:,} tokens",
                [pad([windows[at] for at in each], 0) for each in rows],
            )
        )
    return plans


def measure_speeds(
    entered: dict[str, Contestant],
    windows: Sequence[Sequence[int]],
    budgets: Sequence[int],
    sizes: Sizes,
    peaks: dict[str, Any],
    *,
    rounds: int,
    ends: float,
    say: Say,
) -> dict[str, Any]:
    """Measure one contestant after another: they do not fit on a small GPU together.

    Args:
        entered: by name, the reference first.
        windows: token ids.
        budgets: padded tokens of a batch.
        sizes: of the model.
        peaks: as ``measure_peaks`` found them.
        rounds: that each batch is run after a warm-up; the median counts.
        ends: ``time.monotonic()`` after which no contestant begins.
        say: told each row.
    """
    plans = plans_of(windows, budgets)
    rows: list[dict[str, Any]] = []
    failures: dict[str, str] = {}
    reference: Floats | None = None
    for name, contestant in entered.items():
        if time.monotonic() > ends:
            failures[name] = "no time was left for it"
            continue
        try:
            begun = time.monotonic()
            engine = contestant.make()
            answers = _answers(engine, windows[:QUALITY_WINDOWS])
            reference = answers if name == REFERENCE else reference
            quality = {} if reference is None else quality_of(reference, answers)
            prepared_s = time.monotonic() - begun
            for plan in plans:
                if on_gpu := torch.cuda.is_initialized():
                    torch.cuda.reset_peak_memory_stats()
                seconds = _plan_seconds(engine, plan, rounds, ends)
                bound = sum(
                    roofline_s(sizes, each, contestant.precision, peaks) for each in plan.lengths
                )
                row = {
                    "engine": name,
                    "library": engine.name,
                    "plan": plan.name,
                    "precision": contestant.precision,
                    "tokens_per_s": plan.tokens / seconds,
                    "roofline_share": bound / seconds,
                    "batch_ms": 1e3 * seconds / len(plan.batches),
                    "padding": plan.padding if engine.computes_padding else 1.0,
                    "prepared_s": prepared_s,
                    "peak_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
                    **quality,
                }
                rows.append(row)
                say(f"  {name}, {plan.name}: {row['tokens_per_s']:,.0f} real tokens/s, "
                    f"{row['roofline_share']:.1%} of the roofline")  # fmt: skip
        except FAILURES as error:
            failures[name] = f"{type(error).__name__}: {error}"
            say(f"  {name}: {failures[name]}")
        engine = None  # type: ignore[assignment]
        _give_back()
    return {
        "rows": rows,
        "failures": failures,
        "windows": len(windows),
        "mean_tokens": float(np.mean([len(window) for window in windows])),
        "rounds": rounds,
    }


def quality_of(reference: Floats, answers: Floats) -> dict[str, float]:
    """Cosines with float32's answers, and nearest neighbours that are the same."""
    if not np.isfinite(answers).all():
        raise ValueError("it answers with NaN or infinite values")
    alike = cosines(reference, answers)
    return {
        "cos_mean": float(alike.mean()),
        "cos_p1": float(np.percentile(alike, 1)),
        "cos_min": float(alike.min()),
        "top10_overlap": neighbour_overlap(reference, answers),
    }


def _answers(engine: Engine, windows: Sequence[Sequence[int]]) -> Floats:
    outputs = run_in_batches(engine, windows, 0, token_budget=QUALITY_TOKENS)
    return np.concatenate([each.reshape(len(each), -1) for each in outputs.values()], axis=1)


def _plan_seconds(engine: Engine, plan: Plan, rounds: int, ends: float) -> float:
    """Seconds of all batches, each the median of its rounds; the host waits for each.

    Two rounds before do not count: shapes are compiled and recorded in them.
    """
    spent: list[list[float]] = [[] for _ in plan.batches]
    for turn in range(2 + rounds):
        if turn > 2 and time.monotonic() > ends:  # noqa: PLR2004
            break
        for batch, seconds in zip(plan.batches, spent, strict=True):
            begun = gpu_clock()
            engine.run(*batch)
            took = gpu_clock() - begun
            if turn >= 2:  # noqa: PLR2004
                seconds.append(took)
    return sum(map(median, spent))


def _give_back() -> None:
    gc.collect()
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
