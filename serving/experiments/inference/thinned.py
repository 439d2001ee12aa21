"""The confidence sequence at a few hundred looks: of millions of units, in little memory.

What comes in and the formulas are those of ``confidence_sequence``; sums are carried from part to
part of the units, so that every figure is the same to the last bit.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from data.errors import ExperimentError
from serving.experiments.inference.boundaries import best_rho
from serving.experiments.inference.burn_in import too_few_by_sums
from serving.experiments.inference.levels import (
    Alternative,
    Flags,
    Floats,
    Range,
    check_outcomes,
    check_share,
    middle,
)
from serving.experiments.inference.sequences import (
    UNIT_RANGE,
    ConfidenceSequence,
    check_shapes,
    pseudo_outcomes,
    sequence_by_sums,
)

_UNITS_AT_ONCE: Final = 1 << 18


def thinned_sequence(
    challenger: Flags,
    reward: Floats,
    looks: NDArray[np.int64],
    *,
    challenger_share: float,
    alpha: float,
    tuned_for_units: int,
    burn_in: int,
    alternative: Alternative = "two-sided",
    outcome_range: Range = UNIT_RANGE,
    min_effective: float = 0.0,
    units_at_once: int = _UNITS_AT_ONCE,
) -> ConfidenceSequence:
    """The anytime-valid interval of the difference of means, at some looks alone.

    Args:
        challenger: (units,) True where the challenger answered, in order of arrival.
        reward: (units,) the units' mean rewards, within ``outcome_range``.
        looks: (looks,) ascending: after how many units; from 1 to all.
        challenger_share: see ``confidence_sequence``, as all that follow.
        alpha: 1 - the level of the whole sequence.
        tuned_for_units: where the interval is narrowest; set before the experiment.
        burn_in: units that each arm must have before the interval says anything.
        alternative: which ends say something.
        outcome_range: of one outcome; the first guess of an arm's mean is its middle.
        min_effective: effective units that each arm must have besides.
        units_at_once: how many are in work; the results do not depend on it.

    Returns:
        The sequence, its arrays (looks,).

    Raises:
        ExperimentError: an argument or a reward is out of range.
    """
    rho = best_rho(tuned_for_units, alpha, alternative)
    check_share(challenger_share)
    check_outcomes(reward, outcome_range)
    _check(challenger, reward, looks)
    sums = np.zeros((5, 2))
    found: list[Floats] = [np.empty((4, 2, 0))]
    for start in range(0, len(reward), units_at_once):
        part = slice(start, start + units_at_once)
        first, last = np.searchsorted(looks, [start, start + units_at_once], side="right")
        running = _running_sums(
            challenger[part], reward[part], challenger_share, middle(outcome_range), sums
        )
        found.append(running[:, :, looks[first:last] - start - 1])
    units, squares, fourths, (total, total_squares) = np.concatenate(found, axis=-1)
    silent = too_few_by_sums(units, squares, fourths, burn_in=burn_in, min_effective=min_effective)
    widest = outcome_range[1] - outcome_range[0]
    return sequence_by_sums(
        looks.astype(np.int64),
        total,
        total_squares,
        silent=silent[0] | silent[1],
        rho=rho,
        alpha=alpha,
        alternative=alternative,
        mean_range=(-widest, widest),
    )


def _running_sums(
    challenger: Flags, reward: Floats, share: float, first_guess: float, before: Floats
) -> Floats:
    """After each unit of a part (4, 2, m), and into ``before`` (5, 2) those after its last.

    Of each arm, the champion first: units, squared residuals, their squares; then pseudo-outcomes
    and their squares.
    """
    on = challenger.astype(np.float64)
    met = np.stack([1.0 - on, on])
    units = _carried(met, before[0])
    won = met * reward
    guesses = (first_guess + _carried(won, before[1]) - won) / (1.0 + units - met)
    values = pseudo_outcomes(challenger, reward, challenger_share=share, guesses=guesses)
    squares = met * (reward - guesses) ** 2
    return np.stack(
        [
            units,
            _carried(squares, before[2]),
            _carried(squares**2, before[3]),
            _carried(np.stack([values, values**2]), before[4]),
        ]
    )


def _carried(values: Floats, before: Floats) -> Floats:
    """Running sums (2, m) that go on from ``before`` (2,), where their last ones are left."""
    started = values.copy()
    started[:, 0] += before
    running = np.cumsum(started, axis=-1)
    before[:] = running[:, -1]
    return running


def _check(challenger: Flags, reward: Floats, looks: NDArray[np.int64]) -> None:
    check_shapes(challenger, reward)
    if reward.ndim != 1:
        raise ExperimentError(f"reward has the shape {reward.shape!r}; give one value per unit")
    if len(looks) and not (
        looks[0] >= 1 and looks[-1] <= len(reward) and (np.diff(looks) > 0).all()
    ):
        raise ExperimentError(
            f"looks from {int(looks[0])!r} to {int(looks[-1])!r} at {len(reward)!r} units; let "
            "them ascend from at least 1 to at most the last unit"
        )
