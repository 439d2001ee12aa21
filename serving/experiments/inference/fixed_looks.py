"""Intervals for one look, at a size fixed beforehand; looked at twice they lose their level.

Outcomes of two arms, or of the same items under both arms, come in; an estimate of the difference,
challenger minus champion, with its interval goes out.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from data.errors import ExperimentError
from serving.experiments.inference.levels import Flags, Floats, check_level


@dataclass(frozen=True)
class Interval:
    """An estimate of the difference of means, challenger minus champion, with its interval."""

    estimate: float
    low: float
    high: float


def welch(challenger: Flags, reward: Floats, *, alpha: float) -> Interval:
    """Welch's interval of the difference, for one look at a size fixed beforehand.

    Args:
        challenger: (units,) True where the challenger answered.
        reward: (units,) outcomes of any range.
        alpha: 1 - the interval's level.

    Raises:
        ExperimentError: an arm has fewer than two units, or an outcome is missing or infinite.
    """
    check_level(alpha)
    if challenger.shape != reward.shape or not np.isfinite(reward).all():
        raise ExperimentError(
            f"{challenger.shape!r} arms and {reward.shape!r} outcomes, all of them finite, are to "
            "belong together; leave out units without an outcome"
        )
    on, off = reward[challenger], reward[~challenger]
    if min(len(on), len(off)) < 2:  # noqa: PLR2004  # a variance takes two values
        raise ExperimentError(f"arms of {len(off)} and {len(on)} units; Welch needs two in each")
    estimate = float(on.mean() - off.mean())
    if np.ptp(on) == np.ptp(off) == 0.0:
        # Outcomes that never vary leave nothing to doubt; scipy's answer is NaN.
        return Interval(estimate, estimate, estimate)
    result = stats.ttest_ind(on, off, equal_var=False)
    low, high = result.confidence_interval(1.0 - alpha)
    return Interval(estimate, float(low), float(high))


def paired_bootstrap(
    champion: Floats, challenger: Floats, *, alpha: float, draws: int, seed: int
) -> Interval:
    """Percentile interval of the mean difference where both arms scored the same items.

    Args:
        champion: (items,) scores of the champion.
        challenger: (items,) scores of the challenger on the same items.
        alpha: 1 - the interval's level.
        draws: resamples.
        seed: of the resampling.

    Raises:
        ExperimentError: the arms scored different numbers of items, or none, or a score is
            missing.
    """
    check_level(alpha)
    if champion.shape != challenger.shape or champion.size == 0:
        raise ExperimentError(
            f"{champion.shape!r} and {challenger.shape!r} are not scores of the same items"
        )
    differences = challenger - champion
    if not np.isfinite(differences).all():
        raise ExperimentError(
            f"{int((~np.isfinite(differences)).sum())!r} items have a missing or infinite score; "
            "leave them out of both arms"
        )
    random = np.random.default_rng(seed)
    means = np.asarray([random.choice(differences, differences.size).mean() for _ in range(draws)])
    low, high = np.quantile(means, [alpha / 2, 1.0 - alpha / 2])
    return Interval(float(differences.mean()), float(low), float(high))
