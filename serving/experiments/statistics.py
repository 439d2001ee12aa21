"""The arithmetic of an A/B comparison. Rewards lie in [0, 1]; one value per unit.

The interval may be looked at after every unit, and acted on at any look, without losing its level:
an asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, "Time-uniform
central limit theory and asymptotic confidence sequences", arXiv 2103.06476, theorem 2.2 and the
doubly robust pseudo-outcomes of its section 3). "Asymptotic" is why nothing is said before
``burn_in`` units of each arm: tests/serving/test_statistics.py simulates the coverage from there.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from data.errors import ExperimentError
from serving.experiments.inference.sample_ratio import sample_ratio_p

__all__ = [
    "ConfidenceSequence",
    "Interval",
    "best_rho",
    "confidence_sequence",
    "paired_bootstrap",
    "pseudo_outcomes",
    "sample_ratio_p",
    "welch",
]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Interval:
    """An estimate of the difference of means, challenger minus champion, with its interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class ConfidenceSequence:
    """The interval after each unit.

    Attributes:
        n: (units,) 1 … units.
        estimate: (…, units) difference of means, challenger minus champion.
        low: (…, units) lower ends; -1 before the burn-in.
        high: (…, units) upper ends; 1 before the burn-in.
    """

    n: NDArray[np.int64]
    estimate: Floats
    low: Floats
    high: Floats


def _check_level(alpha: float) -> None:
    if not 0.0 < alpha < 1.0:
        raise ExperimentError(
            f"alpha={alpha!r} is not a level; take one between 0 and 1, like 0.05"
        )


def _check_share(share: float) -> None:
    if not 0.0 < share < 1.0:
        raise ExperimentError(
            f"the challenger's share is {share!r}, so there is nothing to compare with; give both "
            "arms a share"
        )


def best_rho(units: int, alpha: float) -> float:
    """The mixture's scale that makes the interval narrowest after ``units`` units.

    With x = units * rho^2 the squared width is (x + 1)/x * (log(x + 1) - 2 log alpha); its minimum
    solves x + 1 - log(x + 1) = 1 - 2 log alpha, which Lambert's W_-1 inverts.
    """
    _check_level(alpha)
    if units < 1:
        raise ExperimentError(f"tuned_for_units={units!r}; tune for at least 1 unit")
    x = -float(special.lambertw(-(alpha**2) / np.e, k=-1).real) - 1.0
    return float(np.sqrt(x / units))


def pseudo_outcomes(challenger: Flags, reward: Floats, *, challenger_share: float) -> Floats:
    """Unbiased guesses of the difference, one per unit (AIPW with predictable running means).

    Each arm's mean is guessed from the units before only, so a unit's pseudo-outcome has the true
    difference as its expectation, given the past, whatever those guesses are worth.

    Args:
        challenger: (…, units) True where the challenger answered, in order of arrival.
        reward: (…, units) the units' mean rewards.
        challenger_share: the probability with which a unit met the challenger.
    """
    _check_share(challenger_share)
    on = challenger.astype(np.float64)
    guesses = []
    for arm in (on, 1.0 - on):
        # Before an arm's first unit the guess is one half, as if one such unit had been seen.
        seen = 1.0 + np.cumsum(arm, axis=-1) - arm
        total = 0.5 + np.cumsum(arm * reward, axis=-1) - arm * reward
        guesses.append(total / seen)
    with_challenger, with_champion = guesses
    return np.asarray(
        with_challenger
        - with_champion
        + on / challenger_share * (reward - with_challenger)
        - (1.0 - on) / (1.0 - challenger_share) * (reward - with_champion)
    )


def confidence_sequence(
    challenger: Flags,
    reward: Floats,
    *,
    challenger_share: float,
    alpha: float,
    tuned_for_units: int,
    burn_in: int,
    running_intersection: bool = False,
) -> ConfidenceSequence:
    """The anytime-valid interval of the difference of means, after every unit.

    Args:
        challenger: (…, units) True where the challenger answered, in order of arrival.
        reward: (…, units) the units' mean rewards in [0, 1].
        challenger_share: the probability with which a unit met the challenger.
        alpha: 1 - the level of the whole sequence.
        tuned_for_units: where the interval is narrowest; set before the experiment.
        burn_in: units that each arm must have before the interval says anything.
        running_intersection: let an interval never be wider than an earlier one. Valid too, but
            ends empty (low above high) where the difference drifts.

    Raises:
        ExperimentError: an argument or a reward is out of range.
    """
    rho = best_rho(tuned_for_units, alpha)
    if reward.size and not (
        np.isfinite(reward).all() and 0.0 <= reward.min() <= reward.max() <= 1.0
    ):
        raise ExperimentError(
            "a reward is missing or outside 0 … 1; leave out units without an outcome"
        )
    n = np.arange(1, reward.shape[-1] + 1, dtype=np.int64)
    guesses = pseudo_outcomes(challenger, reward, challenger_share=challenger_share)
    estimate = np.cumsum(guesses, axis=-1) / n
    squares = np.cumsum(guesses**2, axis=-1)
    variance = np.maximum(squares - n * estimate**2, 0.0) / np.maximum(n - 1, 1)
    x = n * rho**2
    radius = np.sqrt(variance * (x + 1) / (n * x) * (np.log(x + 1) - 2 * np.log(alpha)))
    ons = np.cumsum(challenger, axis=-1)
    early = np.minimum(ons, n - ons) < burn_in
    low = np.where(early, -1.0, np.clip(estimate - radius, -1.0, 1.0))
    high = np.where(early, 1.0, np.clip(estimate + radius, -1.0, 1.0))
    if running_intersection:
        low = np.maximum.accumulate(low, axis=-1)
        high = np.minimum.accumulate(high, axis=-1)
    return ConfidenceSequence(n=n, estimate=estimate, low=low, high=high)


def welch(challenger: Flags, reward: Floats, *, alpha: float) -> Interval:
    """Welch's interval of the difference, for one look at a size fixed beforehand.

    Raises:
        ExperimentError: an arm has fewer than two units.
    """
    _check_level(alpha)
    on, off = reward[challenger], reward[~challenger]
    if min(len(on), len(off)) < 2:  # noqa: PLR2004  # a variance takes two values
        raise ExperimentError(f"arms of {len(off)} and {len(on)} units; Welch needs two in each")
    result = stats.ttest_ind(on, off, equal_var=False)
    low, high = result.confidence_interval(1.0 - alpha)
    return Interval(float(on.mean() - off.mean()), float(low), float(high))


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
        ExperimentError: the arms scored different numbers of items, or none.
    """
    _check_level(alpha)
    if champion.shape != challenger.shape or champion.size == 0:
        raise ExperimentError(
            f"{champion.shape!r} and {challenger.shape!r} are not scores of the same items"
        )
    differences = challenger - champion
    random = np.random.default_rng(seed)
    means = np.asarray([random.choice(differences, differences.size).mean() for _ in range(draws)])
    low, high = np.quantile(means, [alpha / 2, 1.0 - alpha / 2])
    return Interval(float(differences.mean()), float(low), float(high))
