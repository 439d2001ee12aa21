"""Intervals of a difference that may be looked at, and acted on, after every unit.

Units come in their order of arrival: which arm each met, by a known chance, and its outcome. The
interval after each unit goes out; however often it is looked at, it keeps its level. An asymptotic
confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, "Time-uniform central limit
theory and asymptotic confidence sequences", arXiv 2103.06476, theorem 2.2, the doubly robust
pseudo-outcomes of its section 3, and its one-sided form). "Asymptotic" is why nothing is said
before ``burn_in`` units of each arm, and why rare or heavy-tailed outcomes ask for
``min_effective`` too (burn_in.py): the tests and `make ab-sim` simulate the coverage from there.

The same sequence serves means, proportions (outcomes of 0 and 1), superiority and non-inferiority.
Of a difference that drifts it is an interval of the average so far, which tells nothing of today's.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from data.errors import ExperimentError
from serving.experiments.inference.boundaries import best_rho, squared_boundary
from serving.experiments.inference.burn_in import too_few
from serving.experiments.inference.levels import (
    Alternative,
    Flags,
    Floats,
    Range,
    check_outcomes,
    check_share,
    middle,
)

UNIT_RANGE: Final[Range] = (0.0, 1.0)
UNBOUNDED: Final[Range] = (-math.inf, math.inf)


@dataclass(frozen=True)
class ConfidenceSequence:
    """The interval after each unit.

    Attributes:
        n: (units,) 1 … units.
        estimate: (…, units) difference of means, challenger minus champion.
        low: (…, units) lower ends; before the burn-in the least that the difference can be.
        high: (…, units) upper ends; before the burn-in the greatest that it can be.
    """

    n: NDArray[np.int64]
    estimate: Floats
    low: Floats
    high: Floats


def pseudo_outcomes(
    challenger: Flags,
    reward: Floats,
    *,
    challenger_share: float | Floats,
    first_guess: float = 0.5,
    guesses: Floats | None = None,
) -> Floats:
    """Unbiased guesses of the difference, one per unit (AIPW with predictable guesses).

    Each arm's mean is guessed from the units before only, so a unit's pseudo-outcome has the true
    difference as its expectation, given the past, whatever those guesses are worth. Better guesses
    make its variance, and so the interval, smaller.

    Args:
        challenger: (…, units) True where the challenger answered, in order of arrival.
        reward: (…, units) the units' mean rewards.
        challenger_share: the probability with which a unit met the challenger; an array is one
            for each unit, known before the unit was dealt.
        first_guess: of both arms' means, before their first unit.
        guesses: (2, …, units) what each unit's outcome would be under the champion and under the
            challenger, from its own covariates and from earlier units alone, like
            ``covariates.py`` makes them; by default the running means.

    Raises:
        ExperimentError: shapes do not match, a share leaves an arm empty, a guess is missing.
    """
    check_share(challenger_share)
    check_shapes(challenger, reward, guesses)
    on = challenger.astype(np.float64)
    off = 1.0 - on
    with_champion, with_challenger = (
        [running_mean(arm, reward, first_guess) for arm in (off, on)]
        if guesses is None
        else guesses
    )
    return np.asarray(
        with_challenger
        - with_champion
        + on / challenger_share * (reward - with_challenger)
        - off / (1.0 - challenger_share) * (reward - with_champion)
    )


def running_mean(arm: Floats, reward: Floats, first_guess: float) -> Floats:
    """An arm's mean before each unit (…, units), as if one unit with ``first_guess`` came first.

    Args:
        arm: (…, units) 1 where the arm answered, else 0.
        reward: (…, units) outcomes.
        first_guess: of the arm's mean.
    """
    seen = 1.0 + np.cumsum(arm, axis=-1) - arm
    total = first_guess + np.cumsum(arm * reward, axis=-1) - arm * reward
    return np.asarray(total / seen)


def confidence_sequence(
    challenger: Flags,
    reward: Floats,
    *,
    challenger_share: float | Floats,
    alpha: float,
    tuned_for_units: int,
    burn_in: int,
    running_intersection: bool = False,
    alternative: Alternative = "two-sided",
    outcome_range: Range = UNIT_RANGE,
    first_guess: float | None = None,
    guesses: Floats | None = None,
    min_effective: float = 0.0,
) -> ConfidenceSequence:
    """The anytime-valid interval of the difference of means, after every unit.

    Args:
        challenger: (…, units) True where the challenger answered, in order of arrival.
        reward: (…, units) the units' mean rewards, within ``outcome_range``.
        challenger_share: see ``pseudo_outcomes``.
        alpha: 1 - the level of the whole sequence.
        tuned_for_units: where the interval is narrowest; set before the experiment.
        burn_in: units that each arm must have before the interval says anything.
        running_intersection: let an interval never be wider than an earlier one. Valid too, but
            ends empty (low above high) where the difference drifts.
        alternative: "greater" spends all of alpha on the lower end and leaves the upper one open;
            "less" the other way round.
        outcome_range: of one outcome; ``UNBOUNDED`` for latencies and counts.
        first_guess: see ``pseudo_outcomes``; by default the middle of the range.
        guesses: see ``pseudo_outcomes``.
        min_effective: effective units that each arm must have besides (``burn_in.too_few``); ask
            for ``burn_in.EFFECTIVE`` where shares are uneven, outcomes rare or tails heavy.

    Raises:
        ExperimentError: an argument or a reward is out of range.
    """
    rho = best_rho(tuned_for_units, alpha, alternative)
    check_shapes(challenger, reward, guesses)
    check_outcomes(reward, outcome_range)
    on = challenger.astype(np.float64)
    if guesses is None:
        start = middle(outcome_range) if first_guess is None else first_guess
        guesses = np.stack([running_mean(arm, reward, start) for arm in (1.0 - on, on)])
    values = pseudo_outcomes(challenger, reward, challenger_share=challenger_share, guesses=guesses)
    silent = [
        too_few(arm, reward - guess, burn_in=burn_in, min_effective=min_effective)
        for arm, guess in zip((1.0 - on, on), guesses, strict=True)
    ]
    widest = outcome_range[1] - outcome_range[0]
    found = sequence_of(
        values,
        silent=silent[0] | silent[1],
        rho=rho,
        alpha=alpha,
        alternative=alternative,
        mean_range=(-widest, widest),
    )
    return intersected(found) if running_intersection else found


def mean_sequence(
    values: Floats,
    *,
    alpha: float,
    tuned_for_units: int,
    burn_in: int,
    alternative: Alternative = "two-sided",
    value_range: Range = UNBOUNDED,
    min_effective: float = 0.0,
) -> ConfidenceSequence:
    """The anytime-valid interval of one mean: paired differences, scores of interleaved rankings.

    Args:
        values: (…, units) one value a unit, in order of arrival; its mean, given the past, is what
            the interval is of.
        alpha: 1 - the level of the whole sequence.
        tuned_for_units: where the interval is narrowest; set before the experiment.
        burn_in: units before the interval says anything.
        alternative: see ``confidence_sequence``.
        value_range: of one value.
        min_effective: see ``confidence_sequence``; of values less their running mean.

    Raises:
        ExperimentError: an argument or a value is out of range.
    """
    rho = best_rho(tuned_for_units, alpha, alternative)
    check_outcomes(values, value_range)
    every = np.ones_like(values)
    residual = values - np.cumsum(values, axis=-1) / np.cumsum(every, axis=-1)
    return sequence_of(
        values,
        silent=too_few(every, residual, burn_in=burn_in, min_effective=min_effective),
        rho=rho,
        alpha=alpha,
        alternative=alternative,
        mean_range=value_range,
    )


def sequence_of(
    values: Floats,
    *,
    silent: Flags,
    rho: float,
    alpha: float,
    alternative: Alternative,
    mean_range: Range,
) -> ConfidenceSequence:
    """The sequence around the running mean of ``values`` (…, units), open where ``silent``."""
    return sequence_by_sums(
        np.arange(1, values.shape[-1] + 1, dtype=np.int64),
        np.cumsum(values, axis=-1),
        np.cumsum(values**2, axis=-1),
        silent=silent,
        rho=rho,
        alpha=alpha,
        alternative=alternative,
        mean_range=mean_range,
    )


def sequence_by_sums(
    n: NDArray[np.int64],
    total: Floats,
    squares: Floats,
    *,
    silent: Flags,
    rho: float,
    alpha: float,
    alternative: Alternative,
    mean_range: Range,
) -> ConfidenceSequence:
    """``sequence_of`` after ``n`` (looks,) values: from their sums and those of their squares."""
    estimate = total / n
    variance = np.maximum(squares - n * estimate**2, 0.0) / np.maximum(n - 1, 1)
    x: Floats = n * np.float64(rho**2)
    if alternative == "two-sided":
        # Not by squared_boundary: its order of operations would change the last bit of results.
        radius = np.sqrt(variance * (x + 1) / (n * x) * (np.log(x + 1) - 2 * np.log(alpha)))
    else:
        radius = np.sqrt(variance / n * squared_boundary(x, alpha, alternative))
    least, greatest = mean_range
    low = np.where(silent, least, np.clip(estimate - radius, least, greatest))
    high = np.where(silent, greatest, np.clip(estimate + radius, least, greatest))
    if alternative == "greater":
        high = np.full_like(high, greatest)
    elif alternative == "less":
        low = np.full_like(low, least)
    return ConfidenceSequence(n=n, estimate=estimate, low=low, high=high)


def intersected(sequence: ConfidenceSequence) -> ConfidenceSequence:
    """The same sequence, each interval cut by all before it."""
    return ConfidenceSequence(
        n=sequence.n,
        estimate=sequence.estimate,
        low=np.maximum.accumulate(sequence.low, axis=-1),
        high=np.minimum.accumulate(sequence.high, axis=-1),
    )


def check_shapes(challenger: Flags, reward: Floats, guesses: Floats | None = None) -> None:
    """Refuse units whose arms, outcomes and guesses do not belong together.

    Raises:
        ExperimentError: a shape or a type is another, or a guess is missing.
    """
    if challenger.dtype != np.bool_:
        raise ExperimentError(
            f"challenger is an array of {challenger.dtype}; give True where the challenger answered"
        )
    if challenger.shape != reward.shape:
        raise ExperimentError(
            f"challenger has the shape {challenger.shape!r} and reward {reward.shape!r}; give both "
            "one value per unit"
        )
    if guesses is None:
        return
    if guesses.shape != (2, *reward.shape):
        raise ExperimentError(
            f"guesses has the shape {guesses.shape!r}; give {(2, *reward.shape)!r}, one guess per "
            "arm and unit, the champion's first"
        )
    if not np.isfinite(guesses).all():
        raise ExperimentError(
            f"guesses has {int((~np.isfinite(guesses)).sum())!r} values that are missing or "
            "infinite; guess the arm's running mean where nothing better is known"
        )
