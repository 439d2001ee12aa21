"""The difference of two means of values from 0 to 1, at any number of looks and any size.

In: sums and units of both arms. Out: an interval of the difference, challenger minus champion, that
holds at all looks together. Nothing is asymptotic, so it speaks from the first unit on and also
where an arm never varies, as one that fails always does; for that it is wider.

Of coins a beta mixture of likelihood ratios is a martingale (Robbins 1970), so by Ville's
inequality the rates against which it never exceeds 2/alpha hold the true one at all times with
probability 1 - alpha/2; the arms' intervals together hold the difference. A likelihood ratio
(q/p)^x ((1-q)/(1-p))^(1-x) is convex in x, so its expectation at mean p is at most 1 for any x from
0 to 1, not for coins alone: sums may be of shares.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import optimize, special

from data.errors import ExperimentError
from serving.experiments.inference.fixed_looks import Interval
from serving.experiments.inference.levels import check_level

_PRIOR: Final = 0.5
"""Of both sides (Jeffreys): it favours means near 0 and 1, which is where errors are."""
_TINY: Final = 1e-12


@dataclass(frozen=True)
class Sum:
    """A sum of values from 0 to 1, one of each unit."""

    total: float
    units: int

    def __post_init__(self) -> None:
        if not (self.units >= 1 and 0.0 <= self.total <= self.units):
            raise ExperimentError(
                f"total={self.total!r} of {self.units!r} units; add up one value from 0 to 1 for "
                "each of at least one unit"
            )


def anytime_mean(values: Sum, *, alpha: float) -> tuple[float, float]:
    """Where a mean may lie, at all looks together with probability 1 - alpha.

    Raises:
        ExperimentError: alpha is no level.
    """
    check_level(alpha)
    total, rest = values.total, values.units - values.total
    mixture = special.betaln(_PRIOR + total, _PRIOR + rest) - special.betaln(_PRIOR, _PRIOR)

    def excess(mean: float) -> float:
        likelihood = special.xlogy(total, mean) + special.xlog1py(rest, -mean)
        return float(mixture - likelihood + np.log(alpha))

    seen = min(max(total / values.units, _TINY), 1.0 - _TINY)
    return _end(excess, seen, 0.0), _end(excess, seen, 1.0)


def anytime_mean_difference(challenger: Sum, champion: Sum, *, alpha: float) -> Interval:
    """The difference of two means, at all looks together with probability 1 - alpha.

    Raises:
        ExperimentError: alpha is no level.
    """
    low_on, high_on = anytime_mean(challenger, alpha=alpha / 2)
    low_off, high_off = anytime_mean(champion, alpha=alpha / 2)
    estimate = challenger.total / challenger.units - champion.total / champion.units
    return Interval(estimate, low_on - high_off, high_on - low_off)


def _end(excess: Callable[[float], float], seen: float, border: float) -> float:
    """Where the evidence against a mean becomes enough, from the one that was seen outwards."""
    stop = abs(border - _TINY)
    if excess(stop) <= 0.0:
        return border
    return float(optimize.brentq(excess, seen, stop, xtol=_TINY))
