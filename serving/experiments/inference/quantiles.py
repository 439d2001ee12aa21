"""Quantiles of two arms: the median, p95 or p99 of a latency, and how far apart they are.

In: one value per answer, and which unit each answer belongs to. Out: each arm's quantile with a
standard error, for ``difference`` (one look) or ``anytime_difference`` (any number of looks); or an
exact interval of the difference, valid at any number of looks, where answers are independent.

The standard error is half the width of an interval between two order statistics, whose ranks lie
as far from the quantile's as the share of values below it is uncertain; where units hold many
values, that share is a ratio metric (Deng, Knoblich, Lu, "Applying the delta method in metric
analytics", KDD 2018, section 4). It is asymptotic: where a tenth of the traffic had left 10 values
beyond the 99th percentile, a nominal 5% at many looks came out as 6%, so 20 are asked for; and its
degrees of freedom are those of so few gaps between values, without which one look at just over 20
had 8%, and with which it has 6%.

The exact interval assumes nothing of the values but that they are independent draws, or at least
that each, given those before, has the same chance of lying below the quantile. Whether a value does
is then a coin of known bias, and a beta mixture of likelihood ratios is a martingale (Robbins 1970;
Howard and Ramdas, "Sequential estimation of quantiles with applications to A/B testing and best-arm
identification", Bernoulli 28(3), 2022). The arms' martingales multiply, and by Ville's
inequality the product stays below 1/alpha at all times with probability 1 - alpha. Ties do no harm:
break them by independent coins, and the counts lie between those of "below" and "at most".
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from data.errors import ExperimentError
from serving.experiments.inference.boundaries import best_rho
from serving.experiments.inference.burn_in import EFFECTIVE
from serving.experiments.inference.fixed_looks import Interval
from serving.experiments.inference.intervals import LEAST_UNITS, ArmEstimate, Arms
from serving.experiments.inference.levels import Flags, Floats
from serving.experiments.inference.ratios import ratio_of, unit_sums

_Z: Final = float(stats.norm.ppf(0.975))
"""The density at a quantile is read between the ends of its 95% interval, as Deng et al. do."""
_SPLITS: Final = 64
"""Ways in which the two arms share the evidence; each is widened to the next, so none is missed."""


def quantile_arms(
    challenger: Flags, values: Floats, *, quantile: float, unit: NDArray[np.integer] | None = None
) -> Arms:
    """Both arms' quantile, with a standard error that knows of units.

    Args:
        challenger: (values,) True where the challenger answered.
        values: (values,) one per answer, of any range.
        quantile: between 0 and 1, like 0.99.
        unit: (values,) the number of each answer's unit, 0 or more; None where every answer is a
            unit of its own.

    Raises:
        ExperimentError: shapes differ, a value is not finite, a unit is in both arms, or an arm has
            too few values or units for this quantile.
    """
    _check(challenger, values, quantile)
    if unit is not None:
        count, on = unit_sums(unit, challenger.astype(np.float64))
        crossed = int(((on > 0) & (on < count)).sum())
        if crossed:
            raise ExperimentError(
                f"{crossed} units have answers of both arms; leave those units out"
            )
    arms = []
    for name, side in (("champion", ~challenger), ("challenger", challenger)):
        numbers = None if unit is None else unit[side]
        arms.append(_quantile_of(values[side], quantile, numbers, name=name))
    return Arms(champion=arms[0], challenger=arms[1])


def anytime_quantile_difference(
    challenger: Flags, values: Floats, *, quantile: float, alpha: float, tuned_for_values: int
) -> Interval:
    """The exact interval of the quantiles' difference, valid at every look, for independent values.

    A look is one call with all the values so far. An end is infinite where the values say nothing
    of it yet; the estimate is NaN where an arm has no value.

    Args:
        challenger: (values,) True where the challenger answered.
        values: (values,) one per answer; answers of one unit are not independent, so take one of
            each unit, or ``quantile_arms`` with ``anytime_difference``.
        quantile: between 0 and 1, like 0.99.
        alpha: 1 - the level of all looks together.
        tuned_for_values: values of each arm at which the interval is narrowest; set beforehand.

    Raises:
        ExperimentError: shapes differ, a value is not finite, or a level is out of range.
    """
    _check(challenger, values, quantile)
    padded, ends = [], []
    for side in (values[~challenger], values[challenger]):
        ordered = np.sort(side)
        padded.append(np.concatenate([[-np.inf], ordered, [np.inf]]))
        ends.append(ordered[_rank(len(side), quantile)] if len(side) else np.nan)
    off, on = padded
    pairs = _ranks(len(off) - 2, len(on) - 2, quantile, alpha, tuned_for_values)
    return Interval(
        estimate=float(ends[1] - ends[0]),
        low=float((on[pairs.low_on] - off[pairs.high_off]).min()),
        high=float((on[pairs.high_on] - off[pairs.low_off]).max()),
    )


def binned_quantile_difference(
    champion: NDArray[np.integer],
    challenger: NDArray[np.integer],
    edges: Floats,
    *,
    quantile: float,
    alpha: float,
    tuned_for_values: int,
) -> Interval:
    """``anytime_quantile_difference`` of values that were counted in bins: as valid, a bin wider.

    Args:
        champion: (bins,) values in each bin.
        challenger: (bins,) likewise.
        edges: (bins + 1,) ascending; bin k holds values of at least edges[k], below edges[k + 1].
        quantile: as there, as all that follow.
        alpha: 1 - the level of all looks together.
        tuned_for_values: values of each arm at which the interval is narrowest; set beforehand.

    Raises:
        ExperimentError: shapes differ, or a level is out of range.
    """
    _check_quantile(quantile)
    if not champion.shape == challenger.shape == (len(edges) - 1,):
        raise ExperimentError(
            f"counts of shapes {champion.shape!r} and {challenger.shape!r} for {len(edges)} edges; "
            "give a count for each pair of neighbours"
        )
    off, on = np.cumsum(champion), np.cumsum(challenger)
    pairs = _ranks(int(off[-1]), int(on[-1]), quantile, alpha, tuned_for_values)
    low_on, high_off = _bin(on, pairs.low_on), _bin(off, pairs.high_off)
    low_off, high_on = _bin(off, pairs.low_off), _bin(on, pairs.high_on)
    lower = np.concatenate([[-np.inf], edges[:-1], [np.inf]])
    upper = np.concatenate([[-np.inf], edges[1:], [np.inf]])
    return Interval(
        estimate=binned_quantile(challenger, edges, quantile)
        - binned_quantile(champion, edges, quantile),
        low=float((lower[low_on] - upper[high_off]).min()),
        high=float((upper[high_on] - lower[low_off]).max()),
    )


def binned_quantile(counts: NDArray[np.integer], edges: Floats, quantile: float) -> float:
    """The middle of the bin that holds the quantile; its finite edge, or NaN without a value."""
    total = np.cumsum(counts)
    if not total[-1]:
        return float("nan")
    place = int(_bin(total, np.asarray([_rank(int(total[-1]), quantile) + 1]))[0]) - 1
    ends = edges[place : place + 2]
    return float(ends[np.isfinite(ends)].mean())


def _bin(total: NDArray[np.integer], rank: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bin, from 1, of the value of each rank; 0 and the last plus 1 for those beyond all."""
    inside = np.searchsorted(total, rank, side="left").astype(np.int64) + 1
    return np.where(rank < 1, 0, np.where(rank > total[-1], len(total) + 1, inside))


def _check_quantile(quantile: float) -> None:
    if not 0.0 < quantile < 1.0:
        raise ExperimentError(f"quantile={quantile!r}; give one between 0 and 1, like 0.99")


def _check(challenger: Flags, values: Floats, quantile: float) -> None:
    _check_quantile(quantile)
    if challenger.shape != values.shape or values.ndim != 1 or challenger.dtype != np.bool_:
        raise ExperimentError(
            f"challenger has shape {challenger.shape!r} and type {challenger.dtype!s} for values "
            f"of shape {values.shape!r}; give True or False for each value"
        )
    if not np.isfinite(values).all():
        raise ExperimentError(
            "a value is not finite; leave out answers that were not measured, and count those that "
            "timed out with the time they were given"
        )


def _quantile_of(
    values: Floats, quantile: float, unit: NDArray[np.integer] | None, *, name: str
) -> ArmEstimate:
    if not len(values):
        raise ExperimentError(f"the {name} has no values; wait for its first answers")
    units = len(values)
    share_error = float(np.sqrt(quantile * (1.0 - quantile) / len(values)))
    estimate = float(np.quantile(values, quantile))
    if unit is not None:
        count, below = unit_sums(unit, (values <= estimate).astype(np.float64))
        units = len(count)
        if units >= LEAST_UNITS:
            # Nought where no unit differs from another: then they tell no more than values do.
            share_error = ratio_of(below, count).standard_error or share_error
    # As many independent values as would leave the share as uncertain, on the rarer side.
    beyond = quantile * (1.0 - quantile) * min(quantile, 1.0 - quantile) / share_error**2
    if units < LEAST_UNITS or beyond < EFFECTIVE:
        raise ExperimentError(
            f"the {name}'s {len(values)} values of {units} units hold as much as {beyond:.1f} "
            f"independent ones beyond quantile {quantile!r}, and its standard error takes "
            f"{EFFECTIVE:g}; wait, or take a quantile nearer the median"
        )
    ends = np.quantile(values, [quantile - _Z * share_error, quantile + _Z * share_error])
    return ArmEstimate(
        units=units,
        estimate=estimate,
        standard_error=float(ends[1] - ends[0]) / (2.0 * _Z),
        # A width that spans the gaps between m independent values varies as a chi with m / 2.
        degrees_of_freedom=min(units - 1.0, _Z * quantile * (1.0 - quantile) / share_error),
    )


def _rank(count: int, quantile: float) -> int:
    """Index of the least value that a share ``quantile`` of the values does not exceed."""
    return min(max(int(np.ceil(quantile * count)) - 1, 0), count - 1)


def _evidence(below: Floats, count: int, quantile: float, concentration: float) -> Floats:
    """Log of the beta mixture against "each value is below with chance ``quantile``"."""
    a, b = concentration * quantile, concentration * (1.0 - quantile)
    return np.asarray(
        special.betaln(a + below, b + count - below)
        - special.betaln(a, b)
        - below * np.log(quantile)
        - (count - below) * np.log1p(-quantile)
    )


def _least_evidence(count: int, quantile: float, concentration: float) -> float:
    """The least that any number of values below can give: convex, so at a neighbour of the mean."""
    near = np.clip(np.floor(count * quantile) + np.arange(-1.0, 3.0), 0.0, float(count))
    return float(_evidence(near, count, quantile, concentration).min())


@dataclass(frozen=True)
class _Ranks:
    """Ranks, from 1, of the values between which the quantiles may lie, one of each split.

    0 is below all values, the number of values plus 1 above all.
    """

    low_off: NDArray[np.int64]
    high_off: NDArray[np.int64]
    low_on: NDArray[np.int64]
    high_on: NDArray[np.int64]


def _ranks(off: int, on: int, quantile: float, alpha: float, tuned_for_values: int) -> _Ranks:
    """Of ``off`` and ``on`` values of champion and challenger."""
    concentration = 1.0 / best_rho(tuned_for_values, alpha) ** 2
    least = [_least_evidence(count, quantile, concentration) for count in (off, on)]
    budget = -float(np.log(alpha))
    splits: Floats = np.linspace(least[1], budget - least[0], _SPLITS + 1, dtype=np.float64)
    low_on, high_on = _between(on, quantile, concentration, splits[1:])
    low_off, high_off = _between(off, quantile, concentration, budget - splits[:-1])
    return _Ranks(low_off, high_off, low_on, high_on)


def _between(
    count: int, quantile: float, concentration: float, budgets: Floats
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the quantile may lie among values so that the evidence stays within each budget.

    Returns:
        (budgets,) ranks of the lower and the upper ends.
    """
    middle = np.full(budgets.shape, min(round(count * quantile), count), dtype=np.int64)
    ends = []
    for border in (-1, count + 1):
        inside, outside = middle.copy(), np.full(budgets.shape, border, dtype=np.int64)
        while (np.abs(outside - inside) > 1).any():
            half = inside + np.trunc((outside - inside) / 2).astype(np.int64)
            fits = _evidence(half.astype(np.float64), count, quantile, concentration) <= budgets
            inside, outside = np.where(fits, half, inside), np.where(fits, outside, half)
        ends.append(inside)
    return ends[0], ends[1] + 1
