"""Ratio metrics of units that hold many events: right answers ÷ answers, clicks ÷ sessions.

In: per unit the sum of the numerator and of the denominator. Out: each arm's ratio with its
delta-method standard error (Deng, Knoblich, Lu, "Applying the delta method in metric analytics",
KDD 2018, section 3), so that a user's many answers count as one draw, for ``difference`` (one look)
or ``anytime_difference`` (any number of looks); the same interval after every unit; or one value
per unit, numerator - ratio * denominator (Budylin, Drutsa, Katsev, Tsoy, "Consistent transformation
of ratio metrics for efficient online controlled experiments", WSDM 2018).

What each promises. ``ratio_sequence`` and ``anytime_difference`` speak of the ratios themselves,
whatever the denominators do, and are asymptotic: early looks promise nothing. ``linearised`` values
run through any sequence of means, with its guarantee and with CUPED's guesses, but that speaks of
mean(numerator) - r * mean(denominator), challenger minus champion, r being the ratio that was fixed
beforehand. Its sign and its zero are the ratios' where r is the champion's true ratio, or where the
arms have the same mean denominator. Where neither holds, as when the challenger makes people send
more texts and r is off by e, it differs by e times the difference of the mean denominators though
the ratios do not: check the denominators as a metric of their own. (r cannot be followed from the
units seen so far: its error then enters every value alike, and the interval does not know.)
"""

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from data.errors import ExperimentError
from serving.experiments.inference.boundaries import best_rho, squared_boundary
from serving.experiments.inference.burn_in import EFFECTIVE, too_few
from serving.experiments.inference.intervals import (
    LEAST_UNITS,
    ArmEstimate,
    Arms,
    check_units,
    mean_of,
)
from serving.experiments.inference.levels import Alternative, Flags, Floats
from serving.experiments.inference.sequences import ConfidenceSequence

_SPARSE: Final = 4
"""Numbers of units beyond so many per event are renumbered instead of counted out."""


def unit_sums(unit: NDArray[np.integer], *values: Floats) -> tuple[Floats, ...]:
    """The number of events of each unit, then the sum of each of ``values`` over them.

    Args:
        unit: (events,) the number of each event's unit, 0 or more, such as ``np.unique``'s inverse.
        values: (events,) arrays to add up.

    Returns:
        (units,) arrays, by rising number, of the units that have an event.

    Raises:
        ExperimentError: a shape differs, or a unit's number is negative or no integer.
    """
    if unit.ndim != 1 or not np.issubdtype(unit.dtype, np.integer) or (unit < 0).any():
        raise ExperimentError(
            f"unit has shape {unit.shape!r} and type {unit.dtype!s}; give each event the number of "
            "its unit, 0 or more"
        )
    for array in values:
        if array.shape != unit.shape:
            raise ExperimentError(
                f"values of shape {array.shape!r} for {len(unit)} events; give one value per event"
            )
    if len(unit) and int(unit.max()) >= _SPARSE * len(unit):
        unit = np.unique(unit, return_inverse=True)[1]
    counts = np.bincount(unit)
    present = counts > 0
    sums: list[Floats] = [np.bincount(unit, weights=v)[present].astype(float) for v in values]
    return (counts[present].astype(np.float64), *sums)


def capped_sums(numerator: Floats, denominator: Floats, *, most: float) -> tuple[Floats, Floats]:
    """Sums in which no unit weighs more than ``most`` events: a bot's thousands count as so many.

    A unit above it keeps its own ratio. The arms' ratio of capped sums weighs busy units less than
    the ratio of all events does; where units differ in the metric by how busy they are it is
    another number, so say that it is capped.

    Args:
        numerator: (units,) each unit's sum.
        denominator: (units,) each unit's count, 0 or more.
        most: fixed before the experiment, as from the busiest 1% of people the month before; chosen
            after a look at the results it is a choice of the result.

    Returns:
        Both sums (units,), for ``ratio_arms`` and ``ratio_sequence``.

    Raises:
        ExperimentError: shapes differ, a value is not finite, a denominator is negative, or
            ``most`` is not above zero.
    """
    _check_sums(numerator, denominator)
    if not most > 0.0:
        raise ExperimentError(
            f"most={most!r}; give the events that one unit may weigh at most, above 0"
        )
    weight = np.ones(len(denominator))
    np.divide(most, denominator, out=weight, where=denominator > most)
    return numerator * weight, denominator * weight


def ratio_of(numerator: Floats, denominator: Floats) -> ArmEstimate:
    """Sum of numerators ÷ sum of denominators over (units,), with its delta-method error."""
    ratio, values = _influence(numerator, denominator)
    return replace(mean_of(values), estimate=ratio)


def ratio_arms(challenger: Flags, numerator: Floats, denominator: Floats) -> Arms:
    """Both arms' ratio of sums.

    Args:
        challenger: (units,) True where the challenger answered.
        numerator: (units,) each unit's sum, of any sign.
        denominator: (units,) each unit's sum or count, 0 or more; some above 0 in each arm.

    Raises:
        ExperimentError: shapes differ, a value is not finite, a denominator is negative, or an
            arm's are all zero, or it has fewer than two units.
    """
    check_units(challenger, numerator=numerator, denominator=denominator)
    off = ~challenger
    return Arms(
        champion=ratio_of(numerator[off], denominator[off]),
        challenger=ratio_of(numerator[challenger], denominator[challenger]),
    )


def adjusted_ratio_arms(
    challenger: Flags,
    numerator: Floats,
    denominator: Floats,
    *,
    covariate_numerator: Floats,
    covariate_denominator: Floats,
) -> Arms:
    """Both arms' ratio of sums, less what the same ratio before the experiment foretells (CUPED).

    The coefficient is that of the linearised ratio on the linearised covariate, over both arms. A
    unit that is new has zero in both covariates, and so takes no part in them. One covariate that
    is no ratio has ones as its denominator.

    Args:
        challenger: (units,) True where the challenger answered.
        numerator: (units,) each unit's sum during the experiment.
        denominator: (units,) each unit's sum or count during the experiment.
        covariate_numerator: (units,) each unit's sum before the experiment; 0 if it is new.
        covariate_denominator: (units,) each unit's sum or count before it; 0 if it is new.

    Raises:
        ExperimentError: as ``ratio_arms``, of either ratio.
    """
    plain = {"numerator": numerator, "denominator": denominator}
    before = {
        "covariate_numerator": covariate_numerator,
        "covariate_denominator": covariate_denominator,
    }
    check_units(challenger, **plain, **before)
    if min(covariate_denominator[on].sum() for on in (~challenger, challenger)) <= 0.0:
        raise ExperimentError(
            "covariate_denominator is 0 for all units of an arm: they are new, so nothing "
            "foretells their ratio; use ratio_arms"
        )
    _, values = _influence(*plain.values())
    expected, covariates = _influence(*before.values())
    spread = float(covariates @ covariates)
    slope = float(values @ covariates) / spread if spread > 0.0 else 0.0
    arms = []
    for on in (~challenger, challenger):
        ratio, rest = _influence(numerator[on], denominator[on])
        earlier, known = _influence(covariate_numerator[on], covariate_denominator[on])
        estimate = ratio - slope * (earlier - expected)
        arms.append(replace(mean_of(rest - slope * known), estimate=estimate))
    return Arms(champion=arms[0], challenger=arms[1])


def linearised(
    numerator: Floats, denominator: Floats, *, ratio: float, mean_denominator: float
) -> Floats:
    """One value per unit, (numerator - ratio * denominator) / mean_denominator.

    Args:
        numerator: (units,) each unit's sum.
        denominator: (units,) each unit's sum or count.
        ratio: the champion's, known before the experiment began, as from the month before.
        mean_denominator: per unit, known before too; it only brings the values to the ratio's
            scale, which is off by as much as this is off the challenger's mean.

    Raises:
        ExperimentError: a value is not finite, or the mean denominator is not above zero.
    """
    if not (np.isfinite(ratio) and np.isfinite(mean_denominator) and mean_denominator > 0.0):
        raise ExperimentError(
            f"ratio={ratio!r} and mean_denominator={mean_denominator!r}; give what was seen before "
            "the experiment, a number and a number above zero"
        )
    _check_sums(numerator, denominator)
    return np.asarray((numerator - ratio * denominator) / mean_denominator)


def ratio_sequence(
    challenger: Flags,
    numerator: Floats,
    denominator: Floats,
    *,
    alpha: float,
    tuned_for_units: int,
    burn_in: int,
    min_effective: float = EFFECTIVE,
    alternative: Alternative = "two-sided",
) -> ConfidenceSequence:
    """``anytime_difference`` of the ratios after every unit, in one pass.

    Args:
        challenger: (units,) True where the challenger answered, in order of arrival.
        numerator: (units,) each unit's sum, of any sign.
        denominator: (units,) each unit's sum or count, 0 or more.
        alpha: 1 - the level of the whole sequence.
        tuned_for_units: units of both arms at which the interval is narrowest; set beforehand.
        burn_in: units that each arm must have before the interval says anything; 100 or more.
        min_effective: effective units that each arm must have besides (``burn_in.too_few``); 0 lets
            an arm whose every answer was right so far pass for one that is never wrong.
        alternative: see ``confidence_sequence``.

    Returns:
        The sequence; without ends (infinite) before the burn-in, its estimate NaN while an arm has
        no ratio.

    Raises:
        ExperimentError: shapes differ, a value is not finite, a denominator is negative, alpha is
            no level, or the burn-in is below two.
    """
    _check_sums(numerator, denominator)
    if challenger.shape != numerator.shape or challenger.dtype != np.bool_:
        raise ExperimentError(
            f"challenger has shape {challenger.shape!r} and type {challenger.dtype!s} for "
            f"{len(numerator)} units; give True or False for each unit"
        )
    if burn_in < LEAST_UNITS:
        raise ExperimentError(f"burn_in={burn_in!r}; an arm's variance takes two units or more")
    n = np.arange(1, len(numerator) + 1, dtype=np.int64)
    x: Floats = n * np.float64(best_rho(tuned_for_units, alpha, alternative) ** 2)
    estimate, variance = np.zeros(len(n)), np.zeros(len(n))
    silent = np.zeros(len(n), dtype=np.bool_)
    for sign, on in ((-1.0, ~challenger), (1.0, challenger)):
        ratio, spread = _running_ratio(on, numerator, denominator)
        expected = ratio * denominator
        # Rounding must not pass for units that differ.
        same = np.isclose(numerator, expected, rtol=1e-9, atol=0.0)
        residual = np.where(same, 0.0, numerator - expected)
        estimate += sign * ratio
        variance += spread
        silent |= np.isnan(ratio) | too_few(
            on.astype(np.float64),
            np.nan_to_num(residual),
            burn_in=burn_in,
            min_effective=min_effective,
        )
    radius = np.sqrt(variance * squared_boundary(x, alpha, alternative))
    low = np.where(silent | (alternative == "less"), -np.inf, estimate - radius)
    high = np.where(silent | (alternative == "greater"), np.inf, estimate + radius)
    return ConfidenceSequence(n=n, estimate=estimate, low=low, high=high)


def _check_sums(numerator: Floats, denominator: Floats) -> None:
    if numerator.shape != denominator.shape or numerator.ndim != 1:
        raise ExperimentError(
            f"numerator has shape {numerator.shape!r} and denominator {denominator.shape!r}; give "
            "one of each per unit"
        )
    if not (np.isfinite(numerator).all() and np.isfinite(denominator).all()):
        raise ExperimentError(
            "a numerator or denominator is not finite; leave out units without an outcome"
        )
    if len(denominator) and denominator.min() < 0.0:
        raise ExperimentError(
            f"a denominator is {float(denominator.min())!r}; it counts something, so give 0 or more"
        )


def _influence(numerator: Floats, denominator: Floats) -> tuple[float, Floats]:
    """The ratio of sums, and per unit what it moves the ratio by, times the number of units."""
    _check_sums(numerator, denominator)
    mean = float(denominator.mean()) if len(denominator) else 0.0
    if mean <= 0.0:
        raise ExperimentError(
            f"all {len(denominator)} denominators of an arm are zero, so it has no ratio; wait for "
            "its first event"
        )
    ratio = float(numerator.mean()) / mean
    return ratio, (numerator - ratio * denominator) / mean


def _running_ratio(on: Flags, numerator: Floats, denominator: Floats) -> tuple[Floats, Floats]:
    """An arm's ratio after each unit, and the ratio's variance."""
    above, below = np.where(on, numerator, 0.0), np.where(on, denominator, 0.0)
    units = np.cumsum(on).astype(np.float64)
    total = np.cumsum(below)
    total[total == 0.0] = np.nan
    ratio = np.cumsum(above) / total
    squares = np.cumsum(above**2) - 2.0 * ratio * np.cumsum(above * below)
    squares += ratio**2 * np.cumsum(below**2)
    # The mean of numerator - ratio * denominator is zero, so its squares are its variance.
    variance = np.maximum(squares, 0.0) * units / np.maximum(units - 1.0, 1.0) / total**2
    return ratio, variance
