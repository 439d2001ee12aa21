"""Which of the engines that were measured is kept, and why none of the others."""

from collections.abc import Mapping, Sequence
from typing import Final

from rich.table import Table

from data.errors import EngineError
from serving.engines.tuned import EngineChoice, MeasuredEngine, QualityBudget

_INVARIANT_COS: Final = 0.9999
_NEAR: Final = 0.03
"""Speeds that are no further apart than so much of the faster one may change places next time."""


def judge(
    measured: Sequence[MeasuredEngine], budget: QualityBudget
) -> tuple[str, list[MeasuredEngine]]:
    """The fastest engine within the budget, and every engine with the verdict on it.

    Of those within 3% of the fastest, which a second measurement might order otherwise, the one
    whose answers are nearest to the reference's by mean cosine.

    Args:
        measured: the reference first.
        budget: of quality.

    Raises:
        EngineError: none could be measured, or none keeps to the budget.
    """
    fit = [row for row in measured if row.error is None and not broken_limits(row, budget)]
    if not fit:
        reasons = "; ".join(
            f"{row.engine}: {row.error or ', '.join(broken_limits(row, budget))}"
            for row in measured
        )
        raise EngineError(
            f"no engine keeps to the quality budget ({reasons or 'none can run'}); widen it, or "
            "export the model again"
        )
    fastest = max(fit, key=_speed)
    named = {row.engine: row for row in fit}
    best = named[pick({name: (_speed(row), _exactness(row)) for name, row in named.items()})]
    return best.engine, [_judged(row, best, fastest, budget) for row in measured]


def pick(engines: Mapping[str, tuple[float, float]]) -> str:
    """Of the fastest engine and those as good as equally fast, the most exact.

    Args:
        engines: name → speed, and how exact its answers are; higher is better.
    """
    fastest = max(speed for speed, _ in engines.values())
    near = [name for name, (speed, _) in engines.items() if speed >= (1 - _NEAR) * fastest]
    return max(near, key=lambda name: engines[name][::-1])


def broken_limits(row: MeasuredEngine, budget: QualityBudget) -> list[str]:
    """What of the budget an engine breaks, a phrase each."""
    checks = {
        "cos_mean": (row.cos_mean, budget.cos_mean),
        "cos_p1": (row.cos_p1, budget.cos_p1),
        "top10_overlap": (row.top10_overlap, budget.top10_overlap),
        "label_agreement": (row.label_agreement, budget.label_agreement),
    }
    broken = [
        f"{name}={value:.4f} < {least:g}"
        for name, (value, least) in checks.items()
        if value is not None and value < least
    ]
    shift = row.probability_shift
    if shift is not None and shift > budget.probability_shift:
        broken.append(f"probability_shift={shift:.4f} > {budget.probability_shift:g}")
    if budget.batch_invariant:
        if not row.batch_invariant:
            broken.append("its answers depend on batch-mates")
        elif row.alone_cos_min is not None and row.alone_cos_min < _INVARIANT_COS:
            broken.append(f"alone_cos_min={row.alone_cos_min:.5f} < {_INVARIANT_COS:g}")
    return broken


def _speed(row: MeasuredEngine) -> float:
    return row.tokens_per_s or 0.0


def _exactness(row: MeasuredEngine) -> float:
    """Mean cosine to five places: what is left is the order of sums."""
    return -1.0 if row.cos_mean is None else round(row.cos_mean, 5)


def _judged(
    row: MeasuredEngine, best: MeasuredEngine, fastest: MeasuredEngine, budget: QualityBudget
) -> MeasuredEngine:
    if row.error is not None:
        verdict = row.error
    elif row.engine == best.engine:
        verdict = "picked" if best is fastest else _why(best, fastest)
    elif broken := broken_limits(row, budget):
        verdict = ", ".join(broken)
    else:
        verdict = f"{_speed(row) / (_speed(best) or 1.0):.2f} × the speed of {best.engine}"
        if _speed(row) > _speed(best):
            verdict += ", less exact"
    return row.model_copy(update={"verdict": verdict})


def _why(best: MeasuredEngine, fastest: MeasuredEngine) -> str:
    share = _speed(best) / _speed(fastest)
    return (
        f"picked: {share:.3f} × the speed of {fastest.engine}, and more exact: "
        f"cos_mean={_exactness(best):.5f}, not {_exactness(fastest):.5f}"
    )


def table(choice: EngineChoice) -> Table:
    """A choice, for people."""
    shown = Table(
        title=f"{choice.engine} on {choice.hardware.cpu}, reference {choice.reference}",
        caption=f"tokens/s: of all {choice.hardware.cores} cores, or of the GPU",
    )
    for column in ("engine", "tokens/s", "× reference", "latency ms", "peak MiB"):
        shown.add_column(column, justify="left" if column == "engine" else "right")
    for column in ("cos mean", "p1", "min", "top-10", "labels", "Δp", "alone", "verdict"):
        shown.add_column(column, justify="left" if column == "verdict" else "right")
    speeds = {row.engine: row.tokens_per_s for row in choice.measured}
    slow = speeds[choice.reference] or 1.0
    for row in choice.measured:
        if row.error is not None:
            shown.add_row(row.engine, *["–"] * 11, row.verdict, style="red")
            continue
        speed = row.tokens_per_s or 0.0
        shown.add_row(
            row.engine,
            f"{speed:.0f}",
            f"{speed / slow:.2f}",
            f"{row.latency_ms:.1f}",
            f"{row.peak_mib:.0f}",
            *[f"{value:.4f}" for value in (row.cos_mean, row.cos_p1, row.cos_min)],
            f"{row.top10_overlap:.3f}",
            "–" if row.label_agreement is None else f"{row.label_agreement:.4f}",
            "–" if row.probability_shift is None else f"{row.probability_shift:.4f}",
            f"{row.alone_cos_min:.5f}",
            row.verdict,
            style="bold green" if row.engine == choice.engine else "",
        )
    return shown
