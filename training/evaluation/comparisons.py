"""Paired comparisons of two models on the same reviews: what the gate's verdict is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy import stats

from data.errors import MetricError
from training.evaluation import weighted
from training.evaluation.figures import Figure, all_figures, counted_rows
from training.evaluation.gold import Answers, Gold
from training.evaluation.intervals import (
    Resamples,
    Statistic,
    Values,
    holm,
    interval,
    point,
    probability_not_below,
    spread,
)
from training.evaluation.slices import SLICE_NAMES, Slice

Verdict = Literal["pass", "fail", "inconclusive"]
"""Of the gate and of each check."""
Kind = Literal["parent", "champion", "majority", "lexicon", "tfidf"]
SECONDARY: Final = ("intensity_mae", "emotions_macro_f1", "aspect_macro_f1")


class GatePolicy(BaseModel):
    """What a model may cost. Set before the figures are seen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    figure: str = Field(default="three_class_macro_f1", description="The overall figure.")
    parent_margin: float = Field(default=0.02, gt=0, lt=1)
    champion_margin: float = Field(default=0.05, gt=0, lt=1)
    slice_margin: float = Field(default=0.10, gt=0, lt=1, description="Share correct on a slice.")
    secondary_margin: float = Field(default=0.10, gt=0, lt=1)
    secondary: tuple[str, ...] = SECONDARY
    slices: tuple[str, ...] = SLICE_NAMES
    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="Two-sided; half on each bound.")
    least_rows: int = Field(default=40, ge=2, description="Fewer rows overall are inconclusive.")
    least_slice_rows: int = Field(default=20, ge=2)
    correction: Literal["holm"] = "holm"
    resamples: int = Field(default=2000, ge=100)
    seed: int = 0


@dataclass(frozen=True)
class Evidence:
    """An evaluation read back.

    Attributes:
        values: metrics.json's figures, by model and name.
    """

    gold: Gold
    answers: Mapping[str, Answers]
    values: Mapping[str, Mapping[str, Mapping[str, Any]]]
    resamples: Resamples
    policy: GatePolicy


def _least_reach(better: int, worse: int, count: int, alpha: float) -> float:
    """Half the width of Agresti and Min's interval for a paired difference of proportions."""
    n, b, c = count + 2, better + 0.5, worse + 0.5
    deviation = np.sqrt(max((b + c) - (b - c) ** 2 / n, 0.0)) / n
    return float(stats.norm.ppf(1 - alpha / 2) * deviation)


def _bounds(
    difference: float, values: Values, units: int, reach: float, alpha: float
) -> tuple[float, float]:
    low, high = interval(values, units=units, level=1 - alpha)
    return min(low, difference - reach), max(high, difference + reach)


def non_inferior(low: float, high: float, margin: float) -> Verdict:
    """Pass above -margin, fail below it, else inconclusive; with margin 0, superiority."""
    if low > -margin:
        return "pass"
    return "fail" if high < -margin else "inconclusive"


def _compare_figure(
    evidence: Evidence, name: str, first: str, second: str
) -> tuple[float, Values, int, int, float]:
    """Difference (better is positive), its resamples, rows, units, least reach.

    Raises:
        MetricError: the figure cannot be computed for one of the two.
    """
    figure: Figure = all_figures()[name]
    gold, policy = evidence.gold, evidence.policy
    mask = counted_rows(figure, gold)
    sign = 1.0 if figure.better == "higher" else -1.0
    totals, spreads = [], []
    for model in (first, second):
        answers = evidence.answers[model]
        cell = evidence.values[model][name]
        if cell["value"] is None:
            raise MetricError(f"{name} of {model!r}: {cell['reason']}")
        totals.append(float(cell["value"]))
        spreads.append(spread(evidence.resamples, figure.statistic(gold, answers)))
    reach = 0.0
    if figure.task == "sentiment":
        right = [
            evidence.answers[m].sentiment[mask] == gold.sentiment[mask] for m in (first, second)
        ]
        reach = _least_reach(
            int((right[0] & ~right[1]).sum()),
            int((right[1] & ~right[0]).sum()),
            int(mask.sum()),
            policy.alpha,
        )
    units = evidence.resamples.units_in(mask)
    difference = sign * (totals[0] - totals[1])
    return difference, sign * (spreads[0] - spreads[1]), int(mask.sum()), units, reach


def check(
    evidence: Evidence, kind: Kind, candidate: str, other: str, margin: float
) -> dict[str, Any]:
    """One overall comparison; a figure that cannot be computed fails."""
    policy = evidence.policy
    row: dict[str, Any] = {
        "name": f"{policy.figure}: {candidate} against {other}",
        "kind": kind,
        "difference": None,
        "low": None,
        "high": None,
        "margin": margin,
        "n": 0,
        "verdict": "fail",
    }
    try:
        difference, values, count, units, reach = _compare_figure(
            evidence, policy.figure, candidate, other
        )
        low, high = _bounds(difference, values, units, reach, policy.alpha)
    except MetricError as error:
        return row | {"reason": f"missing figure: {error}"}
    row |= {"difference": difference, "low": low, "high": high, "n": count}
    verdict = non_inferior(low, high, margin)
    if count < policy.least_rows:
        reason = f"{count} rows, the policy asks for {policy.least_rows}"
        return row | {
            "verdict": "fail" if verdict == "fail" else "inconclusive",
            "reason": reason,
        }
    return row | {"verdict": verdict}


def _slice_statistic(part: Slice, gold: Gold, first: Answers, second: Answers) -> Statistic:
    difference = part.correct(gold, first) - part.correct(gold, second)
    return weighted.weighted_mean(difference, part.mask)


def slice_check(
    evidence: Evidence, part: Slice, kind: Kind, candidate: str, other: str
) -> dict[str, Any]:
    """One slice against one other model; its verdict waits for ``corrected``."""
    policy, gold = evidence.policy, evidence.gold
    first, second = evidence.answers[candidate], evidence.answers[other]
    count = int(part.mask.sum())
    row: dict[str, Any] = {
        "name": part.name,
        "kind": kind,
        "difference": None,
        "low": None,
        "high": None,
        "margin": policy.slice_margin,
        "n": count,
        "p": None,
        "p_holm": None,
        "verdict": "too_few",
    }
    if count < policy.least_slice_rows:
        return row
    if not {part.task} <= first.tasks & second.tasks:
        return row | {"verdict": "fail", "reason": f"one of the two does not answer {part.task}"}
    statistic = _slice_statistic(part, gold, first, second)
    right = part.correct(gold, first)[part.mask] - part.correct(gold, second)[part.mask]
    reach = _least_reach(int((right > 0).sum()), int((right < 0).sum()), count, policy.alpha)
    difference, values = point(len(gold), statistic), spread(evidence.resamples, statistic)
    units = evidence.resamples.units_in(part.mask)
    try:
        low, high = _bounds(difference, values, units, reach, policy.alpha)
        p = probability_not_below(values, -policy.slice_margin, units=units)
    except MetricError as error:
        return row | {"reason": str(error)}
    return row | {"difference": difference, "low": low, "high": high, "p": p}


def secondary_check(
    evidence: Evidence, name: str, kind: Kind, candidate: str, other: str
) -> dict[str, Any]:
    """One second figure against one other model; its verdict waits for ``corrected``."""
    policy = evidence.policy
    row: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "difference": None,
        "low": None,
        "high": None,
        "margin": policy.secondary_margin,
        "n": int(counted_rows(all_figures()[name], evidence.gold).sum()),
        "p": None,
        "p_holm": None,
        "verdict": "too_few",
    }
    if row["n"] < policy.least_slice_rows:
        return row
    try:
        difference, values, _, units, reach = _compare_figure(evidence, name, candidate, other)
        low, high = _bounds(difference, values, units, reach, policy.alpha)
        p = probability_not_below(values, -policy.secondary_margin, units=units)
    except MetricError as error:
        return row | {"verdict": "fail", "reason": f"missing figure: {error}"}
    return row | {"difference": difference, "low": low, "high": high, "p": p}


def corrected(rows: list[dict[str, Any]], alpha: float) -> list[dict[str, Any]]:
    """Holm's p and the verdict of each judged row."""
    judged = [row for row in rows if row["p"] is not None]
    for row, p in zip(judged, holm([row["p"] for row in judged]), strict=True):
        row["p_holm"] = p
        # Proved worse needs both: Holm's p, and the wider interval below the margin.
        worse = p < alpha / 2 and row["high"] < -row["margin"]
        row["verdict"] = "fail" if worse else _not_worse(row)
    return rows


def _not_worse(row: Mapping[str, Any]) -> Verdict:
    return "pass" if row["low"] > -row["margin"] else "inconclusive"
