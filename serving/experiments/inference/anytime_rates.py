"""The difference of two rates at any number of looks and any size, from independent coins.

In: hits and units of both arms. Out: an interval of the difference, challenger minus champion, that
holds at all looks together. Nothing is asymptotic, so it speaks from the first unit on and also
where an arm never varies, as one that fails always does; for that it is wider.

Of each arm a beta mixture of likelihood ratios is a martingale (Robbins 1970), so by Ville's
inequality the rates against which it never exceeds 2/alpha hold the true one at all times with
probability 1 - alpha/2; the arms' intervals together hold the difference.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from scipy import optimize, special

from serving.experiments.inference.exact_rates import Rates
from serving.experiments.inference.fixed_looks import Interval
from serving.experiments.inference.levels import check_level

_PRIOR: Final = 0.5
"""Of both sides (Jeffreys): it favours rates near 0 and 1, which is where errors are."""
_TINY: Final = 1e-12


def anytime_rate(hits: int, units: int, *, alpha: float) -> tuple[float, float]:
    """Where a rate may lie, at all looks together with probability 1 - alpha.

    Raises:
        ExperimentError: alpha is no level, or the hits are none of the units.
    """
    check_level(alpha)
    Rates(hits, units, hits, units)
    mixture = special.betaln(_PRIOR + hits, _PRIOR + units - hits)
    mixture -= special.betaln(_PRIOR, _PRIOR)

    def excess(rate: float) -> float:
        likelihood = special.xlogy(hits, rate) + special.xlog1py(units - hits, -rate)
        return float(mixture - likelihood + np.log(alpha))

    seen = hits / units
    return (
        _end(excess, seen, 0.0) if hits else 0.0,
        _end(excess, seen, 1.0) if hits < units else 1.0,
    )


def anytime_rate_difference(rates: Rates, *, alpha: float) -> Interval:
    """The difference of two rates, at all looks together with probability 1 - alpha.

    Raises:
        ExperimentError: alpha is no level.
    """
    low_on, high_on = anytime_rate(rates.challenger_hits, rates.challenger_units, alpha=alpha / 2)
    low_off, high_off = anytime_rate(rates.champion_hits, rates.champion_units, alpha=alpha / 2)
    return Interval(rates.estimate, low_on - high_off, high_on - low_off)


def _end(excess: Callable[[float], float], seen: float, border: float) -> float:
    """Where the evidence against a rate becomes enough, from the rate that was seen outwards."""
    start = min(max(seen, _TINY), 1.0 - _TINY)
    stop = border + _TINY if border < seen else border - _TINY
    if excess(stop) <= 0.0:
        return border
    return float(optimize.brentq(excess, start, stop, xtol=_TINY))
