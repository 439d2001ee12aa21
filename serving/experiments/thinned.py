"""The confidence sequence at a few hundred looks: millions of units in the memory of one million.

What comes in and the formulas are those of ``confidence_sequence``; sums are carried from part to
part of the units, so that every figure is the same to the last bit.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from data.errors import ExperimentError
from serving.experiments.statistics import ConfidenceSequence, best_rho

Floats = NDArray[np.float64]
_UNITS_AT_ONCE: Final = 1 << 20


@dataclass
class _Sums:
    """What the units so far add up to: of each arm (champion first), and of pseudo-outcomes."""

    units: list[float] = field(default_factory=lambda: [0.0, 0.0])
    rewards: list[float] = field(default_factory=lambda: [0.0, 0.0])
    values: float = 0.0
    squares: float = 0.0


def thinned_sequence(
    challenger: NDArray[np.bool_],
    reward: Floats,
    looks: NDArray[np.int64],
    *,
    challenger_share: float,
    alpha: float,
    tuned_for_units: int,
    burn_in: int,
    units_at_once: int = _UNITS_AT_ONCE,
) -> ConfidenceSequence:
    """The anytime-valid interval of the difference of means, at some looks alone.

    Args:
        challenger: (units,) True where the challenger answered, in order of arrival.
        reward: (units,) the units' mean rewards in [0, 1].
        looks: (looks,) ascending: after how many units; from 1 to all.
        challenger_share: the probability with which a unit met the challenger.
        alpha: 1 - the level of the whole sequence.
        tuned_for_units: where the interval is narrowest; set before the experiment.
        burn_in: units that each arm must have before the interval says anything.
        units_at_once: how many are in work; the results do not depend on it.

    Returns:
        The sequence, its arrays (looks,).

    Raises:
        ExperimentError: an argument or a reward is out of range.
    """
    rho = best_rho(tuned_for_units, alpha)
    _check(challenger, reward, looks, challenger_share)
    sums, found = _Sums(), []
    for start in range(0, len(reward), units_at_once):
        part = slice(start, start + units_at_once)
        first, last = np.searchsorted(looks, [start, start + units_at_once], side="right")
        places = looks[first:last] - start - 1
        found.append(_after(challenger[part], reward[part], places, challenger_share, sums))
    values, squares, ons = np.concatenate(found, axis=-1) if found else np.empty((3, 0))
    n = looks.astype(np.int64)
    estimate = values / n
    variance = np.maximum(squares - n * estimate**2, 0.0) / np.maximum(n - 1, 1)
    x = n * rho**2
    radius = np.sqrt(variance * (x + 1) / (n * x) * (np.log(x + 1) - 2 * np.log(alpha)))
    early = np.minimum(ons, n - ons) < burn_in
    return ConfidenceSequence(
        n=n,
        estimate=estimate,
        low=np.where(early, -1.0, np.clip(estimate - radius, -1.0, 1.0)),
        high=np.where(early, 1.0, np.clip(estimate + radius, -1.0, 1.0)),
    )


def _check(
    challenger: NDArray[np.bool_], reward: Floats, looks: NDArray[np.int64], share: float
) -> None:
    if challenger.shape != reward.shape or reward.ndim != 1:
        raise ExperimentError(
            f"challenger has the shape {challenger.shape!r} and reward {reward.shape!r}; give both "
            "one value per unit"
        )
    if not 0.0 < share < 1.0:
        raise ExperimentError(
            f"the challenger's share is {share!r}, so there is nothing to compare with; give both "
            "arms a share"
        )
    if reward.size and not (0.0 <= reward.min() <= reward.max() <= 1.0):  # NaN is neither
        raise ExperimentError(
            "a reward is missing or outside 0 … 1; leave out units without an outcome"
        )
    if len(looks) and not (
        looks[0] >= 1 and looks[-1] <= len(reward) and (np.diff(looks) > 0).all()
    ):
        raise ExperimentError(
            f"looks from {int(looks[0])!r} to {int(looks[-1])!r} at {len(reward)!r} units; let "
            "them ascend from at least 1 to at most the last unit"
        )


def _after(
    challenger: NDArray[np.bool_],
    reward: Floats,
    places: NDArray[np.int64],
    share: float,
    sums: _Sums,
) -> Floats:
    """At ``places`` in a part: sums of pseudo-outcomes, of their squares, of challengers (3, p)."""
    on = challenger.astype(np.float64)
    off = 1.0 - on
    guesses: list[Floats] = []
    counts: Floats = on
    for arm, of_arm in enumerate((off, on)):
        counts, sums.units[arm] = _carried(of_arm, sums.units[arm])
        won = of_arm * reward
        totals, sums.rewards[arm] = _carried(won, sums.rewards[arm])
        # Before an arm's first unit the guess is one half, as if one such unit had been seen.
        guesses.append((0.5 + totals - won) / (1.0 + counts - of_arm))
    with_champion, with_challenger = guesses
    values = (
        with_challenger
        - with_champion
        + on / share * (reward - with_challenger)
        - off / (1.0 - share) * (reward - with_champion)
    )
    total, sums.values = _carried(values, sums.values)
    squares, sums.squares = _carried(values**2, sums.squares)
    return np.stack([total[places], squares[places], counts[places]])


def _carried(values: Floats, before: float) -> tuple[Floats, float]:
    """Running sums that go on from ``before``, and the last of them."""
    started = values.copy()
    started[0] += before
    running = np.cumsum(started)
    return running, float(running[-1])
