"""How many units an experiment needs, what it can find, and how long it takes: before it starts.

The difference to be found, the outcomes' spread, the arms' shares and the level come in; samples,
the least difference that can be found, and days go out, for one look at a size fixed beforehand.
stopping.py tells the same of a confidence sequence, which ends by itself.

All of it rests on one number, the variance per unit: the estimate after N units of the whole
experiment has the variance V/N, where V = variance / share, summed over the two arms that are
compared. A covariate that explains the share r^2 of outcomes' variance makes it V * (1 - r^2).
"""

import math
from dataclasses import dataclass
from typing import Final

from scipy import optimize, stats

from data.errors import ExperimentError
from serving.experiments.inference.levels import (
    Alternative,
    check_alternative,
    check_level,
    check_share,
)

EVEN: Final = (0.5, 0.5)
_FARTHEST: Final = 40.0
"""Standard errors; no level or power that a float can tell lies farther out."""


@dataclass(frozen=True)
class FixedSample:
    """The units to collect before the one look.

    Attributes:
        control: units of the control, rounded up.
        challenger: units of the challenger, rounded up.
        total: units of the whole experiment, other arms too, not rounded.
    """

    control: int
    challenger: int
    total: float


def variance_of_means(
    control_sd: float, challenger_sd: float | None = None, *, shares: tuple[float, float] = EVEN
) -> float:
    """Variance per unit of a difference of means.

    Args:
        control_sd: standard deviation of one unit's outcome.
        challenger_sd: by default the same.
        shares: of all units, the control's and the challenger's; below 1 together where the
            experiment has more arms.

    Raises:
        ExperimentError: a deviation is not positive, or a share leaves an arm empty.
    """
    challenger_sd = control_sd if challenger_sd is None else challenger_sd
    for name, deviation in (("control_sd", control_sd), ("challenger_sd", challenger_sd)):
        if not 0.0 < deviation < math.inf:
            raise ExperimentError(
                f"{name}={deviation!r}; give the standard deviation of one unit's outcome, more "
                "than 0, as measured before the experiment"
            )
    for share in shares:
        check_share(share)
    if sum(shares) > 1.0 + 1e-9:  # rounding
        raise ExperimentError(f"shares={shares!r} add up to more than 1; they are of all units")
    return control_sd**2 / shares[0] + challenger_sd**2 / shares[1]


def variance_of_proportions(
    control_rate: float, challenger_rate: float, *, shares: tuple[float, float] = EVEN
) -> float:
    """Variance per unit of a difference of proportions; see ``variance_of_means``.

    Raises:
        ExperimentError: a rate is not between 0 and 1, or a share leaves an arm empty.
    """
    for name, rate in (("control_rate", control_rate), ("challenger_rate", challenger_rate)):
        if not 0.0 < rate < 1.0:
            raise ExperimentError(
                f"{name}={rate!r}; a proportion to plan for lies between 0 and 1, ends left out"
            )
    deviations = (math.sqrt(rate * (1.0 - rate)) for rate in (control_rate, challenger_rate))
    return variance_of_means(*deviations, shares=shares)


def power_at(
    units: float,
    difference: float,
    variance: float,
    *,
    alpha: float,
    alternative: Alternative = "two-sided",
) -> float:
    """Chance that one z-test after ``units`` units of the experiment finds ``difference``.

    Args:
        units: of the whole experiment.
        difference: true difference, challenger minus control; for non-inferiority add the margin.
        variance: per unit, of ``variance_of_means`` or ``variance_of_proportions``.
        alpha: level of the test.
        alternative: that the test is for.

    Raises:
        ExperimentError: an argument is out of range.
    """
    check_level(alpha)
    check_alternative(alternative)
    _check_positive("units", units)
    _check_positive("variance", variance)
    return _power(difference * math.sqrt(units / variance), alpha, alternative)


def _power(signal: float, alpha: float, alternative: Alternative) -> float:
    """Power where the true difference is ``signal`` standard errors."""
    if alternative != "two-sided":
        signal = signal if alternative == "greater" else -signal
        return float(stats.norm.sf(stats.norm.isf(alpha) - signal))
    bar = stats.norm.isf(alpha / 2.0)
    # The far tail counts too: a find in the wrong direction is a find of the test.
    return float(stats.norm.sf(bar - signal) + stats.norm.cdf(-bar - signal))


def signal_for(*, alpha: float, power: float, alternative: Alternative = "two-sided") -> float:
    """How many standard errors the difference must be to be found with ``power``.

    Raises:
        ExperimentError: alpha or power is out of range, or power is no more than alpha.
    """
    check_level(alpha)
    check_alternative(alternative)
    if not alpha < power < 1.0:
        raise ExperimentError(
            f"power={power!r} with alpha={alpha!r}; take a power above alpha and below 1, like 0.8"
        )
    side: Alternative = "two-sided" if alternative == "two-sided" else "greater"
    return float(
        optimize.brentq(
            lambda signal: _power(signal, alpha, side) - power, 0.0, _FARTHEST, xtol=1e-13
        )
    )


def sample_for(
    difference: float,
    variance: float,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    alternative: Alternative = "two-sided",
    margin: float = 0.0,
    shares: tuple[float, float] = EVEN,
) -> FixedSample:
    """The fixed sample that finds a true difference of means or proportions with ``power``.

    Args:
        difference: true difference, challenger minus control.
        variance: per unit, of ``variance_of_means`` or ``variance_of_proportions`` with the same
            shares.
        alpha: level of the test.
        power: chance that the test finds the difference.
        alternative: that the test is for; "greater" for non-inferiority where higher is better.
        margin: loss that is accepted, for non-inferiority: the test is of difference + margin
            (difference - margin for "less"), and a difference of 0 is to be found.
        shares: of all units, the control's and the challenger's.

    Raises:
        ExperimentError: an argument is out of range, or the difference lies on the wrong side.
    """
    _check_positive("variance", variance)
    shift = shifted(difference, margin, alternative)
    signal = signal_for(alpha=alpha, power=power, alternative=alternative)
    standard_errors = signal / shift
    total = variance * standard_errors * standard_errors  # unlike **, says inf where it overflows
    if not math.isfinite(total):
        raise ExperimentError(
            f"difference={difference!r} is too small to be found; plan for one that matters"
        )
    return FixedSample(math.ceil(total * shares[0]), math.ceil(total * shares[1]), total)


def shifted(difference: float, margin: float, alternative: Alternative) -> float:
    """How far the true difference is from what the test would refute.

    Raises:
        ExperimentError: it is on the wrong side of it, or margin does not go with the alternative.
    """
    check_alternative(alternative)
    if not 0.0 <= margin < math.inf:
        raise ExperimentError(f"margin={margin!r}; give the accepted loss, 0 for none")
    if margin and alternative == "two-sided":
        raise ExperimentError(
            f"margin={margin!r} with a two-sided test; non-inferiority is one-sided: take "
            "alternative='greater', or 'less' where lower is better"
        )
    shift = difference - margin if alternative == "less" else difference + margin
    wrong = shift == 0.0 or (alternative == "greater" and shift < 0.0)
    if wrong or (alternative == "less" and shift > 0.0) or not math.isfinite(shift):
        raise ExperimentError(
            f"difference={difference!r} with margin={margin!r} is nothing that a test for "
            f"{alternative!r} can find, however large; plan for a true difference beyond it"
        )
    return shift


def detectable_difference(
    units: float,
    variance: float,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    alternative: Alternative = "two-sided",
) -> float:
    """The least true difference of means that ``units`` units find with ``power``; positive.

    Raises:
        ExperimentError: an argument is out of range.
    """
    _check_positive("units", units)
    _check_positive("variance", variance)
    signal = signal_for(alpha=alpha, power=power, alternative=alternative)
    return signal * math.sqrt(variance / units)


def detectable_lift(
    units: float,
    control_rate: float,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    alternative: Alternative = "two-sided",
    shares: tuple[float, float] = EVEN,
) -> float:
    """The least true lift of a proportion that ``units`` units find with ``power``; positive.

    The challenger's variance moves with its rate, so the lift solves an equation.

    Raises:
        ExperimentError: an argument is out of range, or even a rate of 1 would not be found.
    """
    _check_positive("units", units)
    signal = signal_for(alpha=alpha, power=power, alternative=alternative)

    def excess(lift: float) -> float:
        variance = variance_of_proportions(control_rate, control_rate + lift, shares=shares)
        return lift - signal * math.sqrt(variance / units)

    most = (1.0 - control_rate) * (1.0 - 1e-9)
    least = most * 1e-9
    if excess(most) < 0.0 or excess(least) > 0.0:
        raise ExperimentError(
            f"{units!r} units find no lift of control_rate={control_rate!r} with power={power!r}; "
            "collect more units"
        )
    return float(optimize.brentq(excess, least, most, xtol=1e-14))


def duration_days(units: float, *, units_per_day: float, coverage: float = 1.0) -> float:
    """Days until ``units`` units have met the experiment.

    Args:
        units: of the whole experiment.
        units_per_day: new units a day, not requests: who comes back is no new unit.
        coverage: share of them that meets the experiment.

    Raises:
        ExperimentError: an argument is out of range.
    """
    _check_positive("units", units)
    _check_positive("units_per_day", units_per_day)
    if not 0.0 < coverage <= 1.0:
        raise ExperimentError(f"coverage={coverage!r}; give the share of units, above 0, at most 1")
    return units / (units_per_day * coverage)


def _check_positive(name: str, value: float) -> None:
    if not 0.0 < value < math.inf:
        raise ExperimentError(f"{name}={value!r}; give a finite number above 0")
