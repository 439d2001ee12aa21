"""From two arms' estimates to the interval of their difference, challenger minus champion.

In: per arm an estimate that behaves, for many units, like the mean of one value per unit (a mean,
CUPED's mean, a ratio, a quantile), with its standard error. Out: the difference at one look that
was fixed beforehand (Welch's t), or at any number of looks (an asymptotic confidence sequence).

The second is the interval of Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, "Time-uniform central
limit theory and asymptotic confidence sequences", arXiv 2103.06476 (equation 9 of its version 7),
at the look's own variance. It rests on the estimate being a mean of one value per unit but for a
rest that vanishes faster than log log n / n: true of smooth functions of means, so of ratios, and
of quantiles where the density is above zero. "Asymptotic" means that early looks promise nothing:
begin at some hundred units per arm, of which some twenty differ from the rest (burn_in.py).
"""

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from scipy import stats

from data.errors import ExperimentError
from serving.experiments.inference.boundaries import best_rho, squared_boundary
from serving.experiments.inference.levels import (
    Alternative,
    Flags,
    Floats,
    check_alternative,
    check_level,
)

LEAST_UNITS: Final = 2
"""A variance takes two values."""


@dataclass(frozen=True)
class ArmEstimate:
    """What one arm says of a metric.

    Attributes:
        units: units that were assigned and answered, not their answers.
        estimate: of the metric, in its own unit.
        standard_error: of the estimate, in the same unit.
        degrees_of_freedom: of the standard error; units - 1 where it is one of a mean.
    """

    units: int
    estimate: float
    standard_error: float
    degrees_of_freedom: float


@dataclass(frozen=True)
class Arms:
    """Both arms' estimates of one metric."""

    champion: ArmEstimate
    challenger: ArmEstimate


@dataclass(frozen=True)
class Difference:
    """A difference of arms, challenger minus champion.

    Attributes:
        estimate: of the difference.
        standard_error: of the estimate.
        low: lower end of the interval.
        high: upper end of the interval.
        p: p-value of no difference (or none in the alternative's direction), valid where the
            interval is.
    """

    estimate: float
    standard_error: float
    low: float
    high: float
    p: float


def check_units(challenger: Flags, **values: Floats) -> None:
    """Refuse arrays of which no comparison can be made.

    Args:
        challenger: (units,) True where the challenger answered.
        values: (units,) arrays by name; all must be finite.

    Raises:
        ExperimentError: a shape differs, a value is not finite, or an arm has fewer than two units.
    """
    if challenger.ndim != 1 or challenger.dtype != np.bool_:
        raise ExperimentError(
            f"challenger has shape {challenger.shape!r} and type {challenger.dtype!s}; give one "
            "True or False per unit"
        )
    for name, array in values.items():
        if array.shape != challenger.shape:
            raise ExperimentError(
                f"{name} has shape {array.shape!r} and challenger {challenger.shape!r}; give one "
                "value per unit"
            )
        strange = np.flatnonzero(~np.isfinite(array))
        if len(strange):
            raise ExperimentError(
                f"{name}[{int(strange[0])}]={float(array[strange[0]])!r} and {len(strange) - 1} "
                "more are not finite; leave out units without an outcome"
            )
    on = int(challenger.sum())
    if min(on, len(challenger) - on) < LEAST_UNITS:
        raise ExperimentError(
            f"arms of {len(challenger) - on} and {on} units; a comparison needs two units in each"
        )


def mean_of(values: Floats) -> ArmEstimate:
    """The mean of (units,) values, with its standard error."""
    return ArmEstimate(
        units=len(values),
        estimate=float(values.mean()),
        standard_error=float(values.std(ddof=1) / np.sqrt(len(values))),
        degrees_of_freedom=len(values) - 1.0,
    )


def mean_arms(challenger: Flags, outcome: Floats) -> Arms:
    """Both arms' means of one value per unit.

    Args:
        challenger: (units,) True where the challenger answered.
        outcome: (units,) the units' outcomes, of any range.

    Raises:
        ExperimentError: shapes differ, a value is not finite, or an arm has fewer than two units.
    """
    check_units(challenger, outcome=outcome)
    return Arms(champion=mean_of(outcome[~challenger]), challenger=mean_of(outcome[challenger]))


def difference(arms: Arms, *, alpha: float, alternative: Alternative = "two-sided") -> Difference:
    """Welch's interval of the difference, for one look at a size fixed beforehand.

    Args:
        arms: both arms' estimates.
        alpha: 1 - the interval's level.
        alternative: "greater" spends all of alpha on the lower end and leaves the upper one open;
            "less" the other way round.

    Raises:
        ExperimentError: alpha is no level, or there is no standard error to go by.
    """
    check_level(alpha)
    check_alternative(alternative)
    estimate, error = _estimate(arms)
    degrees = _degrees_of_freedom(arms)
    sides = 2.0 if alternative == "two-sided" else 1.0
    return _with_ends(
        estimate,
        error,
        radius=float(stats.t.isf(alpha / sides, degrees)) * error,
        p=float(sides * stats.t.sf(_towards(estimate, alternative) / error, degrees)),
        alternative=alternative,
    )


def relative_difference(
    arms: Arms, *, alpha: float, alternative: Alternative = "two-sided"
) -> Difference:
    """The lift, challenger / champion - 1, for one look at a size fixed beforehand.

    The interval is made of the difference of logarithms (delta method), so that it never says that
    a lift could be below -100%; ``standard_error`` is the lift's.

    Args:
        arms: both arms' estimates, above zero.
        alpha: 1 - the interval's level.
        alternative: see ``difference``.

    Raises:
        ExperimentError: an estimate is not above zero, or as ``difference`` says.
    """
    _estimate(arms)
    if min(arms.champion.estimate, arms.challenger.estimate) <= 0.0:
        raise ExperimentError(
            f"a lift takes estimates above zero, and these are {arms.champion.estimate!r} and "
            f"{arms.challenger.estimate!r}; report the difference instead"
        )
    logs = Arms(champion=_log(arms.champion), challenger=_log(arms.challenger))
    found = difference(logs, alpha=alpha, alternative=alternative)
    ratio = arms.challenger.estimate / arms.champion.estimate
    return Difference(
        estimate=ratio - 1.0,
        standard_error=ratio * found.standard_error,
        low=float(np.expm1(found.low)),
        high=float(np.expm1(found.high)),
        p=found.p,
    )


def anytime_difference(
    arms: Arms, *, alpha: float, tuned_for_units: int, alternative: Alternative = "two-sided"
) -> Difference:
    """The interval of the difference that may be looked at as often as one likes.

    A look is one call with all the units so far; the module's docstring says what is promised.
    ``p`` is the alpha at which the interval would end at zero.

    Args:
        arms: both arms' estimates from all the units so far.
        alpha: 1 - the level of all looks together.
        tuned_for_units: units of both arms at which the interval is narrowest; set beforehand.
        alternative: see ``difference``; set beforehand too.

    Raises:
        ExperimentError: alpha is no level, or there is no standard error to go by.
    """
    rho = best_rho(tuned_for_units, alpha, alternative)
    estimate, error = _estimate(arms)
    x = np.asarray((arms.champion.units + arms.challenger.units) * rho**2)
    return _with_ends(
        estimate,
        error,
        radius=error * float(np.sqrt(squared_boundary(x, alpha, alternative))),
        p=anytime_p(_towards(estimate, alternative) / error, float(x), alternative),
        alternative=alternative,
    )


def anytime_p(z: float, x: float, alternative: Alternative) -> float:
    """``squared_boundary`` solved for alpha: the level at which the interval would end at zero."""
    half = 0.5 * max(z, 0.0) ** 2 * x / (x + 1)
    if alternative == "two-sided":
        return float(np.exp(min(0.0, 0.5 * np.log1p(x) - half)))
    # expm1 overflows where p is nought to every digit.
    return float(min(1.0, np.sqrt(x + 1) / (2 * np.expm1(min(half, 700.0))))) if half else 1.0


def _towards(estimate: float, alternative: Alternative) -> float:
    """How far the estimate lies in the alternative's direction."""
    return {"two-sided": abs(estimate), "greater": estimate, "less": -estimate}[alternative]


def _with_ends(
    estimate: float, error: float, *, radius: float, p: float, alternative: Alternative
) -> Difference:
    return Difference(
        estimate=estimate,
        standard_error=error,
        low=-math.inf if alternative == "less" else estimate - radius,
        high=math.inf if alternative == "greater" else estimate + radius,
        p=p,
    )


def _estimate(arms: Arms) -> tuple[float, float]:
    """The difference and its standard error."""
    for name, arm in (("champion", arms.champion), ("challenger", arms.challenger)):
        if not (np.isfinite(arm.estimate) and np.isfinite(arm.standard_error)):
            raise ExperimentError(
                f"the {name}'s estimate is {arm!r}; give finite numbers (are outcomes that large?)"
            )
        if arm.units < LEAST_UNITS:
            raise ExperimentError(f"the {name} has {arm.units!r} units; a comparison needs two")
    error = float(np.hypot(arms.champion.standard_error, arms.challenger.standard_error))
    if error == 0.0:
        raise ExperimentError(
            "no value differs from another within either arm, so nothing says how uncertain the "
            f"means are ({arms.champion.units} and {arms.challenger.units} units); wait for more "
            "units, or compare proportions by an exact method"
        )
    return arms.challenger.estimate - arms.champion.estimate, error


def _degrees_of_freedom(arms: Arms) -> float:
    """Welch and Satterthwaite's."""
    # Shares of the variance, so that neither tiny nor huge units of measure under- or overflow.
    error = np.hypot(arms.champion.standard_error, arms.challenger.standard_error)
    both = (arms.champion, arms.challenger)
    return float(1.0 / sum((a.standard_error / error) ** 4 / a.degrees_of_freedom for a in both))


def _log(arm: ArmEstimate) -> ArmEstimate:
    return replace(
        arm,
        estimate=float(np.log(arm.estimate)),
        standard_error=arm.standard_error / arm.estimate,
    )
