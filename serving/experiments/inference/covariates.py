"""Less variance from what was known of a unit before: CUPED, and its sequential form.

In: outcomes and pre-experiment covariates, one column of values per unit. Out: for one look, or
looks by ``anytime_difference``, outcomes from which the part that the covariates foretell is taken
(Deng, Xu, Kohavi, Walker, "Improving the sensitivity of online controlled experiments by utilizing
pre-experiment data", WSDM 2013); for a sequence over units, guesses of every unit's outcome that
only earlier units were asked for, which a doubly robust pseudo-outcome takes in place of running
means (arXiv 2103.06476, section 3).

A covariate must be settled before the unit met an arm. One that the arm can move takes a part of
the effect with it, and nothing in the data tells.
"""

import itertools
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from data.errors import ExperimentError
from serving.experiments.inference.intervals import check_units, mean_arms
from serving.experiments.inference.levels import Flags, Floats

_BLOCK_GROWTH: Final = 1.05
"""A regression serves the next 5% of units: 340 regressions for ten million units, not as many."""
_PRIOR_UNITS: Final = 10
"""Slopes start at zero as if so many units had shown no relation at all."""
_NEGLIGIBLE: Final = 1e-10
"""Eigenvalues of the covariates' correlations below this mean that one follows from others."""


@dataclass(frozen=True)
class Adjustment:
    """Outcomes without what the covariates foretell.

    Attributes:
        outcome: (units,) adjusted; of the same mean over all units as before.
        coefficients: (columns,) the outcome's change per unit of each covariate, then of each flag
            "this covariate is missing", for the covariates that are missing somewhere.
        missing: (covariates,) units that lack each.
        variance_cut: 1 - variance of the adjusted difference / variance of the plain one.
    """

    outcome: Floats
    coefficients: Floats
    missing: NDArray[np.int64]
    variance_cut: float


def adjust(challenger: Flags, outcome: Floats, covariates: Floats) -> Adjustment:
    """CUPED: take from each outcome what its covariates foretell.

    The coefficients are least squares over the units of both arms together. Hand ``outcome`` of
    the answer on to ``mean_arms``, and that to ``difference`` or ``anytime_difference``.

    A unit without a covariate (NaN: it is new) gets the mean of those that have it, and a flag of
    its own, so that new units may have another mean; both are known before it meets an arm. A
    covariate that follows from others, or never varies, takes no part.

    Args:
        challenger: (units,) True where the challenger answered.
        outcome: (units,) the units' outcomes, of any range.
        covariates: (covariates, units), or (units,) for one; NaN where a unit has none.

    Raises:
        ExperimentError: shapes differ, a value is infinite or an outcome missing, a covariate is
            missing everywhere, or there are too few units for so many covariates.
    """
    check_units(challenger, outcome=outcome)
    rows = _rows(covariates, len(outcome))
    absent = np.isnan(rows)
    missing = absent.sum(axis=-1)
    for number, count in enumerate(missing):
        if count == len(outcome):
            raise ExperimentError(
                f"covariate {number} is missing for all {len(outcome)} units; check how it was "
                "joined, or leave it out"
            )
    means = np.nanmean(rows, axis=-1, keepdims=True)
    columns = np.concatenate([np.where(absent, means, rows), absent[missing > 0]])
    if len(outcome) < len(columns) + 3:
        raise ExperimentError(
            f"{len(outcome)} units are too few for {len(columns)} covariates and flags; give fewer "
            "covariates, or wait"
        )
    columns -= columns.mean(axis=-1, keepdims=True)
    coefficients = _least_squares(columns, outcome - outcome.mean())
    adjusted = outcome - coefficients @ columns
    return Adjustment(
        outcome=adjusted,
        coefficients=coefficients,
        missing=missing.astype(np.int64),
        variance_cut=_variance_cut(challenger, outcome, adjusted),
    )


def predictable_guesses(
    arm: NDArray[np.integer],
    outcome: Floats,
    covariates: Floats,
    *,
    arms: int = 2,
    first_guess: float = 0.0,
) -> Floats:
    """What each unit's outcome would be in each arm, guessed from the units before it alone.

    Each guess is a linear regression on the covariates, with a level per arm and slopes that the
    arms share, cut to the range of the outcomes seen so far. It is fitted anew whenever a twentieth
    more units have come. A unit without a covariate (NaN) gets the mean of the earlier units that
    have it, and a flag of its own.

    The guesses may be as poor as they like without harm to the level: a pseudo-outcome made of them
    has the true difference as its expectation, because a unit's arm is drawn after its guesses are
    made. Good guesses make it vary less.

    Args:
        arm: (units,) the number of the arm that answered, 0 … arms - 1, in order of arrival.
        outcome: (units,) the units' outcomes, of any range.
        covariates: (covariates, units), or (units,) for one; NaN where a unit has none.
        arms: how many there are.
        first_guess: of the first unit's outcome, in every arm.

    Returns:
        (arms, units) guesses, as ``confidence_sequence`` (the champion 0, the challenger 1) and
        ``arm_sequences`` (the control 0) take them.

    Raises:
        ExperimentError: shapes differ, a value is infinite or an outcome missing, or an arm's
            number is out of range.
    """
    rows = _rows(covariates, len(outcome))
    if outcome.shape != arm.shape or outcome.ndim != 1 or not np.isfinite(outcome).all():
        raise ExperimentError(
            f"outcome has shape {outcome.shape!r} for arm {arm.shape!r}, or is not finite "
            "everywhere; give one outcome per unit, and leave out units without one"
        )
    if not len(outcome):
        return np.zeros((arms, 0))
    if not np.issubdtype(arm.dtype, np.integer) or arm.min() < 0 or arm.max() >= arms:
        raise ExperimentError(
            f"arm runs from {arm.min()!r} to {arm.max()!r}; give whole numbers from 0 to {arms - 1}"
        )
    columns = _filled_from_the_past(rows)
    starts = _block_starts(len(outcome))
    lengths = np.diff(starts, append=len(outcome))
    first = outcome[0]
    slopes, levels = _regressions(arm, outcome - first, columns, starts, arms)
    foretold = np.zeros(len(outcome))
    for slope, column in zip(slopes.T, columns, strict=True):
        foretold += np.repeat(slope, lengths) * column
    guesses = np.stack([foretold + np.repeat(level, lengths) + first for level in levels])
    # A covariate far out must not take the guess where no outcome was.
    guesses[:, 1:] = np.clip(
        guesses[:, 1:],
        np.minimum.accumulate(outcome)[:-1],
        np.maximum.accumulate(outcome)[:-1],
    )
    guesses[:, 0] = first_guess
    return guesses


def _rows(covariates: Floats, units: int) -> Floats:
    """(covariates, units), checked."""
    rows = np.atleast_2d(np.asarray(covariates, dtype=np.float64))
    if rows.ndim != 2 or rows.shape[-1] != units or not len(rows):  # noqa: PLR2004
        raise ExperimentError(
            f"covariates have shape {np.shape(covariates)!r} for {units} units; give "
            "(covariates, units) with at least one covariate"
        )
    if np.isinf(rows).any():
        raise ExperimentError("a covariate is infinite; give NaN where a unit has none")
    return rows


def _least_squares(columns: Floats, outcome: Floats) -> Floats:
    """Coefficients of centred (columns, units) for a centred outcome; the least of several."""
    scale = np.sqrt((columns**2).mean(axis=-1))
    scale[scale == 0.0] = 1.0
    scaled = columns / scale[:, None]
    inverse = np.linalg.pinv(scaled @ scaled.T / len(outcome), rcond=_NEGLIGIBLE, hermitian=True)
    return np.asarray(inverse @ (scaled @ outcome / len(outcome)) / scale)


def _variance_cut(challenger: Flags, outcome: Floats, adjusted: Floats) -> float:
    variances = []
    for values in (adjusted, outcome):
        arms = mean_arms(challenger, values)
        variances.append(arms.champion.standard_error**2 + arms.challenger.standard_error**2)
    return 1.0 - variances[0] / variances[1] if variances[1] > 0.0 else 0.0


def _filled_from_the_past(rows: Floats) -> Floats:
    """(columns, units): covariates less their first value, gaps filled, then the gaps' flags."""
    absent = np.isnan(rows)
    columns = []
    for row, gaps in zip(rows, absent, strict=True):
        # Any constant may be taken away, a level takes it up; it spares digits of far-off values.
        shifted = np.where(gaps, 0.0, row - (0.0 if gaps.all() else row[np.argmin(gaps)]))
        if gaps.any():
            have = np.cumsum(~gaps) - ~gaps
            shifted[gaps] = ((np.cumsum(shifted) - shifted) / np.maximum(have, 1))[gaps]
        columns.append(shifted)
    columns += [gaps.astype(np.float64) for gaps in absent if gaps.any()]
    return np.stack(columns)


def _block_starts(units: int) -> NDArray[np.int64]:
    """Units at which a new regression takes over: 0, 1, 2 … and then ever rarer."""
    starts, start = [], 0
    while start < units:
        starts.append(start)
        start = max(start + 1, int(start * _BLOCK_GROWTH))
    return np.asarray(starts, dtype=np.int64)


def _regressions(
    arm: NDArray[np.integer],
    outcome: Floats,
    columns: Floats,
    starts: NDArray[np.int64],
    arms: int,
) -> tuple[Floats, Floats]:
    """(blocks, columns) slopes and (arms, blocks) levels, each from the units before its block."""

    def before(values: Floats) -> Floats:
        sums = np.add.reduceat(values, starts)
        return np.concatenate([[0.0], np.cumsum(sums)[:-1]])

    width = len(columns)
    xx = np.empty((len(starts), width, width))
    for i, j in itertools.combinations_with_replacement(range(width), 2):
        xx[:, i, j] = xx[:, j, i] = before(columns[i] * columns[j])
    xy = np.stack([before(column * outcome) for column in columns], axis=-1)
    units, totals, sums = [], [], []
    for number in range(arms):
        on = (arm == number).astype(np.float64)
        units.append(before(on))
        totals.append(before(on * outcome))
        sums.append(np.stack([before(on * column) for column in columns], axis=-1))
        weight = 1.0 / np.maximum(units[-1], 1.0)
        xx -= weight[:, None, None] * sums[-1][:, :, None] * sums[-1][:, None, :]
        xy -= (weight * totals[-1])[:, None] * sums[-1]
    seen = np.maximum(np.sum(units, axis=0), 1.0)
    diagonal = np.maximum(np.einsum("bii->bi", xx), 0.0)
    # Rounding leaves a trace of a column that never varied: it must not pass for variation.
    square = np.stack([before(column**2) for column in columns], axis=-1)
    idle = diagonal <= _NEGLIGIBLE * square
    xx[idle[:, :, None] | idle[:, None, :]] = 0.0
    ridge = np.where(idle, 1.0, diagonal * (_PRIOR_UNITS / seen)[:, None])
    np.einsum("bii->bi", xx)[...] += ridge
    slopes = np.linalg.solve(xx, np.where(idle, 0.0, xy)[..., None])[..., 0]
    rests = [t - np.sum(slopes * s, axis=-1) for t, s in zip(totals, sums, strict=True)]
    # An arm's level starts at that of all arms, as if one such unit had been seen.
    common = np.sum(rests, axis=0) / seen
    levels = [(rest + common) / (n + 1.0) for rest, n in zip(rests, units, strict=True)]
    return slopes, np.stack(levels)
