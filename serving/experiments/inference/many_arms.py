"""Several challengers against one control, each by an anytime-valid sequence of its own.

Units come in with the number of the arm that each met; one sequence per challenger goes out, all
over the same units, so that their times are the same.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data.errors import ExperimentError
from serving.experiments.inference.boundaries import best_rho
from serving.experiments.inference.burn_in import too_few
from serving.experiments.inference.levels import (
    Alternative,
    Floats,
    Range,
    check_outcomes,
    check_shares,
    middle,
)
from serving.experiments.inference.sequences import (
    UNIT_RANGE,
    ConfidenceSequence,
    running_mean,
    sequence_of,
)


def arm_sequences(
    arm: NDArray[np.integer],
    reward: Floats,
    *,
    shares: Sequence[float],
    alpha: float,
    tuned_for_units: int,
    burn_in: int,
    family_wise: bool = True,
    alternative: Alternative = "two-sided",
    outcome_range: Range = UNIT_RANGE,
    first_guess: float | None = None,
    guesses: Floats | None = None,
    min_effective: float = 0.0,
) -> tuple[ConfidenceSequence, ...]:
    """The difference of each challenger from the control, after every unit of the experiment.

    A unit of a third arm adds to a comparison what is guessed of it, whose mean is the same
    difference of guesses, so that nothing is bent; it only fills the time.

    Args:
        arm: (…, units) the arm that each unit met, in order of arrival; 0 is the control.
        reward: (…, units) the units' mean rewards, within ``outcome_range``.
        shares: (arms,) the probability of each arm, the control's first.
        alpha: 1 - the level.
        tuned_for_units: units of all arms together at which an interval is narrowest.
        burn_in: units that both arms of a comparison must have before it says anything.
        family_wise: all intervals together keep the level, each at alpha / challengers
            (Bonferroni); False lets each keep it alone.
        alternative: see ``confidence_sequence``.
        outcome_range: see ``confidence_sequence``.
        first_guess: see ``confidence_sequence``.
        guesses: (arms, …, units) each arm's outcome for each unit, guessed from the unit's own
            covariates and from earlier units alone; by default the running means.
        min_effective: see ``confidence_sequence``.

    Returns:
        (arms - 1) sequences, challenger 1 first.

    Raises:
        ExperimentError: an argument, an arm's number or a reward is out of range.
    """
    _check_arms(arm, reward, shares, guesses)
    check_outcomes(reward, outcome_range)
    level = alpha / (len(shares) - 1) if family_wise else alpha
    rho = best_rho(tuned_for_units, level, alternative)
    met = [(arm == number).astype(np.float64) for number in range(len(shares))]
    if guesses is None:
        start = middle(outcome_range) if first_guess is None else first_guess
        guesses = np.stack([running_mean(one, reward, start) for one in met])
    residual = reward - guesses
    silent = [
        too_few(one, off, burn_in=burn_in, min_effective=min_effective)
        for one, off in zip(met, residual, strict=True)
    ]
    means = [
        guess + one / share * off
        for guess, one, share, off in zip(guesses, met, shares, residual, strict=True)
    ]
    widest = outcome_range[1] - outcome_range[0]
    return tuple(
        sequence_of(
            means[number] - means[0],
            silent=silent[number] | silent[0],
            rho=rho,
            alpha=level,
            alternative=alternative,
            mean_range=(-widest, widest),
        )
        for number in range(1, len(shares))
    )


def _check_arms(
    arm: NDArray[np.integer], reward: Floats, shares: Sequence[float], guesses: Floats | None
) -> None:
    check_shares(shares)
    if arm.shape != reward.shape:
        raise ExperimentError(
            f"arm has the shape {arm.shape!r} and reward {reward.shape!r}; give both one value per "
            "unit"
        )
    if arm.size and not (
        np.issubdtype(arm.dtype, np.integer) and 0 <= arm.min() <= arm.max() < len(shares)
    ):
        raise ExperimentError(
            f"arm has {arm.dtype} values from {arm.min()!r} to {arm.max()!r}; number the arms 0 "
            f"(control) to {len(shares) - 1}, as shares does"
        )
    if guesses is not None and (
        guesses.shape != (len(shares), *reward.shape) or not np.isfinite(guesses).all()
    ):
        raise ExperimentError(
            f"guesses has the shape {guesses.shape!r} or a missing value; give one finite guess "
            f"for each of {len(shares)!r} arms and each unit"
        )
