"""Two language models on the same items: what the language gate's verdict is made of.

An interval of paired resamples says pass, fail or inconclusive. Where two models hardly differ the
bootstrap has nothing to vary, so the interval is never narrower than Agresti and Min's for paired
proportions (Statistics in Medicine 24, 2005), with an item's difference in the place of a
discordant pair: 40 equal answers do not prove that fewer than 2% differ.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy import stats

from data.errors import MetricError
from training.evaluation.comparisons import Verdict, non_inferior
from training.evaluation.intervals import Resamples, Values, interval, probability_not_below
from training.evaluation.language.figures import OVERLAP_PARTS, Figure, all_figures
from training.evaluation.language.measuring import Measured, direction, measured, paired
from training.evaluation.language.tally import Tally

Kind = Literal["parent", "champion", "null", "parent over null"]
SECONDARY: Final = (
    *("category_macro_f1", "state_f1", "sentiment_macro_f1", "sentence_chrf", "bullets_chrf"),
    "summary_category_macro_f1",
)
"""Few, because Holm's correction divides by their number: with twice as many, the intervals of a
dozen restaurants could prove none of them worse."""
LIMITS: Final = {"parsed": 1.0, "obeyed": 1.0, "cited": 1.0, "drift": 0.05} | {
    "summary_evidence_verbatim": 1.0
}


class LanguageGatePolicy(BaseModel):
    """What a language model may cost. Set before the figures are seen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    figure: str = Field(default="task_score", description="The overall figure.")
    parent_margin: float = Field(default=0.02, gt=0, lt=1)
    champion_margin: float = Field(default=0.05, gt=0, lt=1)
    null_figure: str = Field(
        default="category_macro_f1", description="Must be proved better than every null baseline's."
    )
    secondary: tuple[str, ...] = SECONDARY
    secondary_margin: float = Field(default=0.10, gt=0, lt=1)
    limits: dict[str, float] = Field(
        default=LIMITS, description="Least value of a figure; greatest, where less is better."
    )
    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="Two-sided; half on each bound.")
    least_items: int = Field(default=40, ge=2, description="Fewer items overall are inconclusive.")
    least_secondary_items: int = Field(default=10, ge=2)
    correction: Literal["holm"] = "holm"
    resamples: int = Field(default=10_000, ge=100)
    seed: int = 0


@dataclass(frozen=True)
class Evidence:
    """An evaluation of language models read back."""

    tallies: Mapping[str, Tally]
    resamples: Resamples
    policy: LanguageGatePolicy


def check(
    evidence: Evidence, name: str, kind: Kind, first: str, second: str, margin: float
) -> dict[str, Any]:
    """One figure of one model against another's; a figure that cannot be computed fails."""
    policy = evidence.policy
    row: dict[str, Any] = {
        "name": f"{name}: {first} against {second}",
        "kind": kind,
        "difference": None,
        "low": None,
        "high": None,
        "margin": margin,
        "n": 0,
        "recovery": None,
        "verdict": "fail",
    }
    try:
        row |= compared(evidence, name, first, second, recover=margin > 0)
    except MetricError as error:
        return row | {"reason": f"missing figure: {error}"}
    verdict = non_inferior(row["low"], row["high"], margin)
    if row["n"] < policy.least_items:
        reason = f"{row['n']} items, the policy asks for {policy.least_items}"
        return row | {
            "verdict": "fail" if verdict == "fail" else "inconclusive",
            "reason": reason,
        }
    return row | {"verdict": verdict}


def secondary_check(
    evidence: Evidence, name: str, kind: Kind, first: str, second: str
) -> dict[str, Any]:
    """One second figure; its verdict waits for Holm's correction.

    A figure that neither was asked for, or of too few items, is not judged; one that only the
    second model has fails.
    """
    policy = evidence.policy
    row: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "difference": None,
        "low": None,
        "high": None,
        "margin": policy.secondary_margin,
        "n": 0,
        "recovery": None,
        "p": None,
        "p_holm": None,
        "verdict": "too_few",
    }
    figure = all_figures()[name]
    try:
        before = measured(figure, evidence.tallies[second], evidence.resamples)
    except MetricError as error:
        return row | {"reason": f"{second}: {error}"}
    row["n"] = int(before.counted.sum())
    if row["n"] < policy.least_secondary_items:
        return row
    try:
        return row | compared(evidence, name, first, second, recover=True, tested=True)
    except MetricError as error:
        return row | {"verdict": "fail", "reason": f"missing figure: {error}"}


def compared(
    evidence: Evidence, name: str, first: str, second: str, *, recover: bool, tested: bool = False
) -> dict[str, Any]:
    """Paired difference (better is positive) with its bounds, items, and what was recovered.

    Args:
        evidence: an evaluation.
        name: of a figure.
        first: the model that is judged.
        second: the one it is held against.
        recover: give the first's share of the second's figure too.
        tested: give the p-value against "not worse beyond the margin" too.

    Raises:
        MetricError: the figure cannot be computed for one of the two.
    """
    figure, policy, drawn = all_figures()[name], evidence.policy, evidence.resamples
    mine = measured(figure, evidence.tallies[first], drawn)
    other = measured(figure, evidence.tallies[second], drawn)
    sign = direction(figure)
    found = paired(mine, other, sign, drawn, level=1 - policy.alpha)
    if found["low"] is None:
        raise MetricError(f"{name} of {first!r} and {second!r}: {found['reason']}")
    counted = mine.counted | other.counted
    reach = _least_reach(
        _item_scores(figure, evidence.tallies[first])[counted]
        - _item_scores(figure, evidence.tallies[second])[counted],
        policy.alpha,
    )
    row = {
        "difference": found["difference"],
        "low": min(found["low"], found["difference"] - reach),
        "high": max(found["high"], found["difference"] + reach),
        "n": int(counted.sum()),
    }
    if recover and figure.better == "higher":
        row["recovery"] = recovery(mine, other, drawn, policy.alpha, reach)
    if tested:
        row["p"] = probability_not_below(
            sign * (mine.resampled - other.resampled),
            -policy.secondary_margin,
            units=drawn.units_in(counted),
        )
    return row


def recovery(
    first: Measured, second: Measured, drawn: Resamples, alpha: float, reach: float
) -> dict[str, Any]:
    """The first's figure as a share of the second's, with its interval; nothing is rounded.

    Args:
        first: the model that is judged.
        second: the one it is held against.
        drawn: the resamples.
        alpha: two-sided.
        reach: half the least width of the interval of their difference.

    Raises:
        MetricError: the second's figure is 0, so there is nothing to recover.
    """
    if second.value <= 0:
        raise MetricError(
            f"the figure to recover is {second.value!r}; compare with a model that scores"
        )
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(second.resampled > 0, first.resampled / second.resampled, np.nan)
    units = drawn.units_in(first.counted | second.counted)
    low, high = interval(shares, units=units, level=1 - alpha)
    value, least = first.value / second.value, reach / second.value
    return {"value": value, "low": min(low, value - least), "high": max(high, value + least)}


def limit_check(evidence: Evidence, name: str, limit: float, model: str) -> dict[str, Any]:
    """Whether a figure keeps to its limit, as it stands: a form is obeyed or it is not."""
    figure = all_figures()[name]
    row: dict[str, Any] = {"name": name, "value": None, "limit": limit, "verdict": "fail"}
    try:
        value = measured(figure, evidence.tallies[model], evidence.resamples).value
    except MetricError as error:
        return row | {"reason": f"missing figure: {error}"}
    kept = value >= limit if figure.better == "higher" else value <= limit
    verdict: Verdict = "pass" if kept else "fail"
    return row | {"value": value, "verdict": verdict}


def _item_scores(figure: Figure, tally: Tally) -> Values:
    """(items,) the figure of each item alone, as a share or an F1; 0 where it has none."""
    pooled = np.sum([tally.table(each, figure.parts) for each in figure.measures], axis=0)
    above = 2 * pooled[:, 0] if figure.parts == OVERLAP_PARTS else pooled[:, 0]
    below = above + pooled[:, 1:].sum(axis=1) if figure.parts == OVERLAP_PARTS else pooled[:, 1]
    return np.asarray(np.divide(above, below, out=np.zeros_like(above), where=below > 0))


def _least_reach(differences: Values, alpha: float) -> float:
    """Half the width of Agresti and Min's interval, of paired differences from -1 to 1."""
    n = len(differences) + 2
    squares, total = float((differences**2).sum()) + 1.0, float(differences.sum())
    deviation = np.sqrt(max(squares - total**2 / n, 0.0)) / n
    return float(stats.norm.ppf(1 - alpha / 2) * deviation)
