"""One metric of every challenger against the control, by the method that fits the metric.

    mean        fed back: each unit's own mean, less what was known of it before (CUPED)
    ratio       of answers: sums over units, which count as one draw each (delta method)
    quantile    of single answers, which know of their units

The primary metric gets the sequence over all units, as a verdict is read off it at any time. The
others get the interval at this look, which holds at every look too, at a level that is shared out
among them. Where an arm has too few units for that: of rates of errors an interval of coins, which
holds at all looks; of the rest an exact method for one look, which informs and decides nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from data.errors import ExperimentError
from serving.experiments.goals import MetricGoal
from serving.experiments.inference.anytime_rates import Sum, anytime_mean_difference
from serving.experiments.inference.burn_in import EFFECTIVE, too_few_by_sums
from serving.experiments.inference.covariates import adjust
from serving.experiments.inference.exact import method_for, permutation_test
from serving.experiments.inference.exact_rates import Rates, rate_difference
from serving.experiments.inference.intervals import Arms, anytime_difference, mean_arms
from serving.experiments.inference.levels import Flags, Floats
from serving.experiments.inference.multiplicity import holm
from serving.experiments.inference.quantiles import quantile_arms
from serving.experiments.inference.ratios import adjusted_ratio_arms, ratio_arms
from serving.experiments.inference.readings import Reading
from serving.experiments.metric_names import FROM_ANSWERS
from serving.experiments.metric_rows import MetricValues, SingleValues
from serving.experiments.report import Kind, Method, MetricRow, Role, Said

COINS: Final = frozenset({"error_rate", "degraded_rate"})
"""Rates of what should not happen: they must speak also of an arm that always fails."""
TOO_FEW: Final = Said(
    en="Too few units, or too few that differ, for an interval that holds at every look.",
    ko="언제 보아도 유효한 구간을 내기에는 단위가 부족하거나 서로 다른 값이 부족합니다.",
)
_ONE_LOOK: Final = Said(
    en="The figures hold for one look and decide nothing.",
    ko="이 수치는 한 번의 확인에만 유효하며 판정에 쓰지 않습니다.",
)
_MOST_OUTCOMES: Final = 10_000
"""Product of the arms' units up to which exact rates take less than a second."""
_MOST_REARRANGED: Final = 2_000
_DRAWS: Final = 5_000
_LEAST_COVERED: Final = 0.05
"""Share of units with a past below which the past foretells nothing worth its noise."""


@dataclass(frozen=True)
class Settings:
    """What all comparisons of a report share.

    Attributes:
        alpha: of one interval.
        tuned_for_units: units of both arms at which it is narrowest.
        burn_in: units that each arm must have.
        exact: whether small arms get an exact method for one look, which takes up to a second.
    """

    alpha: float
    tuned_for_units: int
    burn_in: int
    exact: bool = True


@dataclass(frozen=True)
class Finding:
    """What a method found of a difference, arm less control."""

    method: Method
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    variance_cut: float | None = None
    note: Said | None = None


def kind_of(goal: MetricGoal) -> Kind:
    """How a metric is added up."""
    if goal.quantile is not None:
        return "quantile"
    return "ratio" if goal.name in FROM_ANSWERS else "mean"


def compare_sums(
    on: Flags,
    values: MetricValues,
    before: MetricValues | None,
    settings: Settings,
    *,
    as_ratio: bool,
    coins: bool,
) -> Finding:
    """A mean or a ratio of the units of two arms.

    Args:
        on: (n,) True where the challenger answered.
        values: of those units.
        before: the same metric before the phase.
        settings: the level, and when to begin.
        as_ratio: sums over sums, rather than the mean of the units' own means.
        coins: whether the units' own means, from 0 to 1, speak where arms hardly vary.
    """
    known = values.known
    on = on[known]
    above, below = values.numerator[known], values.denominator[known]
    each = above / below
    # A mean is the ratio of the units' own means to their number.
    terms = (above, below) if as_ratio else (each, np.ones_like(each))
    if not _speaks(on, *terms, settings):
        return _of_few(on, each, settings, coins=coins)
    past = None if before is None else before.of(known)
    arms, cut = _ratio(on, above, below, past) if as_ratio else _mean(on, each, past)
    # An interval of coins may take its place at other looks: each has half of what may go wrong.
    alpha = settings.alpha / 2 if coins else settings.alpha
    return _found(arms, alpha, settings.tuned_for_units, cut)


def compare_quantiles(
    control: int, arm: int, values: SingleValues, quantile: float, settings: Settings
) -> Finding:
    """A quantile of the answers of two arms, by their places."""
    chosen = (values.arm == control) | (values.arm == arm)
    numbers = np.unique(values.unit[chosen], return_inverse=True)[1]
    try:
        arms = quantile_arms(
            values.arm[chosen] == arm, values.values[chosen], quantile=quantile, unit=numbers
        )
        if min(arms.champion.units, arms.challenger.units) < settings.burn_in:
            return Finding("none", note=TOO_FEW)
        return _found(arms, settings.alpha, settings.tuned_for_units, None)
    except ExperimentError as error:
        # Too few values beyond the quantile, or none that differ: a reason to wait, not to fail.
        ko = "이 분위수의 구간을 내기에는 값이나 단위가 부족하거나 값이 모두 같습니다."
        return Finding("none", note=Said(en=str(error), ko=ko))


def row_of(
    goal: MetricGoal,
    role: Role,
    arm: str,
    finding: Finding,
    *,
    control_value: float | None,
    value: float | None,
    units: tuple[int, int],
    alpha: float,
    kind: Kind | None = None,
) -> MetricRow:
    """A finding, read by what was agreed of its metric."""
    difference = finding.difference
    relative = None
    if difference is not None and control_value:
        relative = difference / abs(control_value)
    decides = finding.method in {"sequence", "anytime", "coins"}
    return MetricRow(
        metric=goal.name,
        role=role,
        arm=arm,
        kind=kind or kind_of(goal),
        method=finding.method,
        direction=goal.direction,
        margin=goal.margin,
        quantile=goal.quantile,
        control_value=control_value,
        value=value,
        difference=difference,
        relative=relative,
        low=finding.low,
        high=finding.high,
        level=1.0 - alpha,
        reading=reading_of(finding.low, finding.high, goal) if decides else "undecided",
        p=finding.p,
        variance_cut=finding.variance_cut,
        units=units,
        note=finding.note,
    )


def reading_of(low: float | None, high: float | None, goal: MetricGoal) -> Reading:
    """What one interval shows, as ``inference.readings`` says it of a sequence."""
    least = -np.inf if low is None else low
    most = np.inf if high is None else high
    if goal.direction == "decrease":
        least, most = -most, -least
    if least > 0.0:
        return "better"
    if least > -goal.margin:
        return "not_worse"
    return "worse" if most < -goal.margin else "undecided"


def _speaks(on: Flags, above: Floats, below: Floats, settings: Settings) -> bool:
    """Whether each arm has units enough, and enough that differ, for an asymptotic interval."""
    sums = []
    for side in (~on, on):
        if not side.any():
            return False
        seen = above[side]
        expected = seen.sum() / below[side].sum() * below[side]
        # Rounding must not pass for units that differ.
        rest = np.where(np.isclose(seen, expected, rtol=1e-9, atol=0.0), 0.0, seen - expected)
        sums.append((float(side.sum()), (rest**2).sum(), (rest**4).sum()))
    units, squares, fourths = (np.asarray(column) for column in zip(*sums, strict=True))
    silent = too_few_by_sums(
        units, squares, fourths, burn_in=settings.burn_in, min_effective=EFFECTIVE
    )
    return not silent.any()


def _mean(on: Flags, each: Floats, past: MetricValues | None) -> tuple[Arms, float | None]:
    if past is None or not covers(past):
        return mean_arms(on, each), None
    adjusted = adjust(on, each, past.values)
    return mean_arms(on, adjusted.outcome), adjusted.variance_cut


def _ratio(
    on: Flags, above: Floats, below: Floats, past: MetricValues | None
) -> tuple[Arms, float | None]:
    plain = ratio_arms(on, above, below)
    if past is None or not covers(past) or min(past.known[on].sum(), past.known[~on].sum()) == 0:
        return plain, None
    less = adjusted_ratio_arms(
        on,
        above,
        below,
        covariate_numerator=past.numerator,
        covariate_denominator=past.denominator,
    )
    return less, 1.0 - _variance(less) / _variance(plain)


def _variance(arms: Arms) -> float:
    return arms.champion.standard_error**2 + arms.challenger.standard_error**2


def covers(past: MetricValues) -> bool:
    """Whether enough units have a past, and one that differs, for it to foretell anything."""
    return bool(past.known.mean() >= _LEAST_COVERED and np.ptp(past.values[past.known]) > 0.0)


def _found(arms: Arms, alpha: float, tuned_for_units: int, cut: float | None) -> Finding:
    found = anytime_difference(arms, alpha=alpha, tuned_for_units=tuned_for_units)
    return Finding("anytime", found.estimate, found.low, found.high, found.p, cut)


def _of_few(on: Flags, each: Floats, settings: Settings, *, coins: bool) -> Finding:
    """What can be said where an asymptotic interval keeps silent."""
    sizes = (int((~on).sum()), int(on.sum()))
    binary = bool(np.isin(each, (0.0, 1.0)).all())
    if min(sizes) and coins:
        sums = (Sum(float(each[on].sum()), sizes[1]), Sum(float(each[~on].sum()), sizes[0]))
        found = anytime_mean_difference(*sums, alpha=settings.alpha / 2)
        return Finding("coins", found.estimate, found.low, found.high)
    method = method_for("rate" if binary else "mean", min(sizes))
    if not (settings.exact and _exact(method, sizes)):
        return Finding("none", note=TOO_FEW)
    if method == "exact_rates":
        exact = rate_difference(_rates(on, each), alpha=settings.alpha)
        few = Finding("exact_rates", exact.estimate, exact.low, exact.high, exact.p)
    else:
        moved = permutation_test(each[~on], each[on], draws=_DRAWS, seed=0)
        few = Finding("permutation", moved.estimate, p=moved.p)
    return replace(few, note=TOO_FEW + _ONE_LOOK)


def _exact(method: str, sizes: tuple[int, int]) -> bool:
    """Whether an exact method takes these arms, in a second or so."""
    if min(sizes) < 2:  # noqa: PLR2004  # a spread takes two values
        return False
    if method == "exact_rates":
        return sizes[0] * sizes[1] <= _MOST_OUTCOMES
    return method == "permutation" and sum(sizes) <= _MOST_REARRANGED


def _rates(on: Flags, each: Floats) -> Rates:
    hits = [int(each[side].sum()) for side in (on, ~on)]
    return Rates(hits[0], int(on.sum()), hits[1], int((~on).sum()))


def value_of(name: str, values: MetricValues, which: Flags) -> float | None:
    """A metric of some units: the mean of their own means, or the ratio of their sums."""
    known = which & values.known
    if not known.any():
        return None
    above, below = values.numerator[known], values.denominator[known]
    return float(above.sum() / below.sum() if name in FROM_ANSWERS else (above / below).mean())


def quantile_of(values: SingleValues, arm: int, quantile: float) -> float | None:
    """A quantile of one arm's answers."""
    side = values.values[values.arm == arm]
    return float(np.quantile(side, quantile)) if len(side) else None


def units_of(values: MetricValues, arm: NDArray[np.int64], places: Sequence[int]) -> list[int]:
    """Of each arm, by its place, the units that have a value."""
    return [int((values.known & (arm == place)).sum()) for place in places]


def adjusted(rows: Sequence[MetricRow]) -> tuple[MetricRow, ...]:
    """Rows with the p-values of those that hold at every look corrected by Holm."""
    keys = [f"{row.metric}/{row.quantile}/{row.arm}" for row in rows]
    p = {
        key: row.p
        for key, row in zip(keys, rows, strict=True)
        if row.p is not None and row.method in {"sequence", "anytime"}
    }
    found = holm(p)
    return tuple(
        row.model_copy(update={"adjusted_p": found.get(key)})
        for key, row in zip(keys, rows, strict=True)
    )
