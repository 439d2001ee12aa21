"""How far apart two arms' means are, of values from 0 to 1: exact, at any look, of any size.

Sums and numbers of independent values come in, an interval of the difference goes out. Nothing is
asymptotic, so that it speaks of an arm that never failed and of one that always does, whose
variances say nothing: 30 failures of 30 against none of 30 is a difference of at least 0.6.

The value that a mean of p would have to explain is bet against by a beta mixture of likelihoods
(Robbins 1970, with Jeffreys' prior). Of zeros and ones that is a martingale; of anything between
them it is still one that falls, since exp is convex (Howard, Ramdas, McAuliffe, Sekhon,
"Time-uniform Chernoff bounds via nonnegative supermartingales", Probability Surveys 17, 2020,
lemma 3). The arms' martingales multiply, and by Ville's inequality the product stays below 1/alpha
at all times with probability 1 - alpha.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import special

from data.errors import ExperimentError
from serving.experiments.inference.fixed_looks import Interval
from serving.experiments.inference.levels import Floats, check_level

_PRIOR: Final = 0.5
_SPLITS: Final = 64
"""Ways in which the two arms share the evidence; each is widened to the next, so none is missed."""
_HALVINGS: Final = 40
"""Bisections of an interval of 1: to 1e-12."""


@dataclass(frozen=True)
class BoundedSum:
    """Values of one arm.

    Attributes:
        count: how many.
        total: their sum, from 0 to ``count``.
    """

    count: int
    total: float

    def __post_init__(self) -> None:
        """Refuse what no values from 0 to 1 add up to."""
        if not 0.0 <= self.total <= self.count:  # NaN is neither
            raise ExperimentError(
                f"{self.count!r} values add up to {self.total!r}; give values from 0 to 1"
            )

    @property
    def mean(self) -> float:
        """Of the values; 0 without any."""
        return self.total / self.count if self.count else 0.0


def bounded_difference(champion: BoundedSum, challenger: BoundedSum, *, alpha: float) -> Interval:
    """The interval of the difference of means, challenger minus champion.

    A look is one call with all the values so far.

    Args:
        champion: independent values from 0 to 1, such as one of each unit.
        challenger: likewise.
        alpha: 1 - the level of all looks together, and of both ends.

    Raises:
        ExperimentError: alpha is no level.
    """
    check_level(alpha)
    least = [_evidence(np.asarray(arm.mean), arm) for arm in (champion, challenger)]
    budget = -float(np.log(alpha))
    splits: Floats = np.linspace(
        float(least[1]), budget - float(least[0]), _SPLITS + 1, dtype=np.float64
    )
    low_on, high_on = _between(challenger, splits[1:])
    low_off, high_off = _between(champion, budget - splits[:-1])
    return Interval(
        estimate=challenger.mean - champion.mean if champion.count and challenger.count else np.nan,
        low=float((low_on - high_off).min()),
        high=float((high_on - low_off).max()),
    )


def _evidence(mean: Floats, arm: BoundedSum) -> Floats:
    """Log of the beta mixture against each of the means."""
    hits, misses = arm.total, arm.count - arm.total
    return np.asarray(
        special.betaln(_PRIOR + hits, _PRIOR + misses)
        - special.betaln(_PRIOR, _PRIOR)
        - special.xlogy(hits, mean)
        - special.xlog1py(misses, -mean)
    )


def _between(arm: BoundedSum, budgets: Floats) -> tuple[Floats, Floats]:
    """(budgets,) least and greatest mean against which the evidence stays within each budget."""
    ends = []
    for border in (0.0, 1.0):
        # The evidence is convex and least at the arm's own mean.
        inside, outside = np.full(budgets.shape, arm.mean), np.full(budgets.shape, border)
        for _ in range(_HALVINGS):
            half = 0.5 * (inside + outside)
            fits = _evidence(half, arm) <= budgets
            inside, outside = np.where(fits, half, inside), np.where(fits, outside, half)
        ends.append(outside)  # the wider of the two
    return ends[0], ends[1]
