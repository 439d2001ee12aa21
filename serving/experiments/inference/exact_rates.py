"""The difference of two rates at small n: Boschloo's test and Chan & Zhang's exact interval.

Hits and units of two arms come in, the difference with p-value and interval goes out, for one look
at a size fixed beforehand. Both keep their level whatever the true rates are: no outcome's
probability is approximated, and the rate that is not asked for is the worst there is.

``score_interval`` is the approximate one for any size, and what the exact one ranks outcomes by.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from data.errors import ExperimentError
from serving.experiments.inference.levels import check_level

Floats = NDArray[np.float64]
_MOST_OUTCOMES: Final = 40_000
"""Product of the arms' units: at 200 per arm exact methods take three seconds, at 100 under one."""
_SCAN: Final = 0.01
"""Step at which the interval's end is first looked for, from the outside."""
_NUISANCE: Final = 101
"""Rates of the champion that are tried, before the worst one's neighbourhood is tried again."""
_TIE: Final = 1e-9
"""Scores closer than this are the same outcome to the test."""


@dataclass(frozen=True)
class Rates:
    """Hits among units of both arms."""

    challenger_hits: int
    challenger_units: int
    champion_hits: int
    champion_units: int

    def __post_init__(self) -> None:
        for hits, units in (
            (self.challenger_hits, self.challenger_units),
            (self.champion_hits, self.champion_units),
        ):
            if not 0 <= hits <= units or units == 0:
                raise ExperimentError(
                    f"{hits!r} of {units!r} units is no rate; count hits among units"
                )

    @property
    def estimate(self) -> float:
        """Challenger's rate minus champion's."""
        challenger = self.challenger_hits / self.challenger_units
        return challenger - self.champion_hits / self.champion_units

    @property
    def turned(self) -> "Rates":
        """The same with the arms exchanged."""
        return Rates(
            self.champion_hits, self.champion_units, self.challenger_hits, self.challenger_units
        )


@dataclass(frozen=True)
class RateDifference:
    """Challenger's rate minus champion's, with its interval and the p-value of "no difference"."""

    estimate: float
    low: float
    high: float
    p: float


def _scores(
    delta: float, x1: Floats | np.float64, n1: int, x0: Floats | np.float64, n0: int
) -> Floats:
    """How many standard errors the observed difference lies above ``delta``, outcome by outcome.

    The standard error is that of the rates which are as likely as can be while ``delta`` apart; the
    champion's is the middle root of a cubic (Miettinen & Nurminen, Statist. Med. 4, 1985, appendix
    I); their factor N/(N - 1) is in it. Infinite where those rates allow no other outcome.
    """
    n = n1 + n0
    l2 = (n1 + 2 * n0) * delta - n - x1 - x0
    l1 = (n0 * delta - n - 2 * x0) * delta + x1 + x0
    l0 = x0 * delta * (1.0 - delta)
    q = (l2 / (3 * n)) ** 3 - l1 * l2 / (6 * n**2) + l0 / (2 * n)
    p = np.copysign(np.sqrt(np.maximum((l2 / (3 * n)) ** 2 - l1 / (3 * n), 0.0)), q)
    cosine = np.clip(q / np.where(p == 0.0, 1.0, p) ** 3, -1.0, 1.0)
    champion = 2 * p * np.cos((np.pi + np.arccos(cosine)) / 3) - l2 / (3 * n)
    champion = np.clip(champion, max(0.0, -delta), min(1.0, 1.0 - delta))
    challenger = champion + delta
    variance = challenger * (1.0 - challenger) / n1 + champion * (1.0 - champion) / n0
    variance = np.maximum(variance, 0.0) * n / (n - 1)
    off = x1 / n1 - x0 / n0 - delta
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(np.abs(off) < _TIE, 0.0, off / np.sqrt(variance)))


def _score_end(rates: Rates, bound: float) -> float:
    """The lowest difference that the score test does not reject."""
    if rates.estimate <= -1.0:
        return -1.0
    x1, x0 = np.float64(rates.challenger_hits), np.float64(rates.champion_hits)

    def excess(delta: float) -> float:
        units = (rates.challenger_units, rates.champion_units)
        return float(_scores(delta, x1, units[0], x0, units[1])) - bound

    # Bisection, because the score is infinite at -1.
    return float(optimize.bisect(excess, -1.0, rates.estimate, xtol=1e-13))


def score_interval(rates: Rates, *, alpha: float) -> tuple[float, float]:
    """Miettinen & Nurminen's interval of the difference (Statist. Med. 4, 1985).

    At once and for any size, inside -1 … 1, never empty. Its level is that of large samples: with
    15 units in each arm the 95% interval holds the truth in 95.4% on average and in 92.1% at the
    worst rates, with 5 in 97.1% and 85.9%.

    Raises:
        ExperimentError: alpha is not between 0 and 1.
    """
    check_level(alpha)
    bound = float(stats.norm.isf(alpha / 2))
    return _score_end(rates, bound), -_score_end(rates.turned, bound)


def _probabilities(units: int, rate: Floats) -> Floats:
    """(rates, units + 1) binomial probabilities."""
    hits = np.arange(units + 1)
    ways = (
        special.gammaln(units + 1) - special.gammaln(hits + 1) - special.gammaln(units - hits + 1)
    )
    return np.asarray(
        np.exp(
            ways
            + special.xlogy(hits, rate[:, None])
            + special.xlog1py(units - hits, -rate[:, None])
        )
    )


def _tail(delta: float, rates: Rates) -> float:
    """Greatest probability, over all rates ``delta`` apart, of a score at least as high as seen."""
    n1, n0 = rates.challenger_units, rates.champion_units
    x1 = np.arange(n1 + 1, dtype=np.float64)[:, None]
    x0 = np.arange(n0 + 1, dtype=np.float64)[None, :]
    scores = _scores(delta, x1, n1, x0, n0)
    seen = scores[rates.challenger_hits, rates.champion_hits]
    as_high = (scores >= seen - _TIE).astype(np.float64)
    low, high = max(0.0, -delta), min(1.0, 1.0 - delta)
    champion = np.linspace(low, high, _NUISANCE, dtype=np.float64)
    worst = 0.0
    for _ in range(2):  # the second time around the worst of the first
        challenger = _probabilities(n1, np.clip(champion + delta, 0.0, 1.0))
        mass = ((challenger @ as_high) * _probabilities(n0, champion)).sum(axis=-1)
        place, step = int(mass.argmax()), champion[1] - champion[0]
        worst = max(worst, float(mass[place]))
        nearby = champion[place] + np.linspace(-step, step, 21)
        champion = np.clip(nearby, low, high, dtype=np.float64)
    return worst


def _exact_end(rates: Rates, alpha: float) -> float:
    """The lowest difference that the exact one-sided test at alpha / 2 does not reject.

    Its tail probability need not grow steadily, so the end is looked for from the outside.
    """
    inside = -1.0
    for delta in np.arange(-1.0, rates.estimate + _SCAN, _SCAN):
        inside = min(float(delta), rates.estimate)
        if _tail(inside, rates) > alpha / 2:
            break
    if inside == -1.0:
        return -1.0
    outside = max(inside - _SCAN, -1.0)
    while inside - outside > 1e-7:  # noqa: PLR2004
        middle = (inside + outside) / 2
        if _tail(middle, rates) > alpha / 2:
            inside = middle
        else:
            outside = middle
    return outside


def rate_difference(rates: Rates, *, alpha: float) -> RateDifference:
    """The difference of two rates with an exact test and an exact interval.

    The p-value is Boschloo's (Biometrika 57, 1970), the interval inverts two one-sided exact tests
    that rank outcomes by the score (Chan & Zhang, Biometrics 55, 1999), to 1e-7. With 5 units in
    each arm the 95% interval holds the truth in 96.0% at the worst rates. Test and interval rank
    outcomes differently, so at the border of the level one may exclude 0 where the other does not.

    Raises:
        ExperimentError: alpha is not between 0 and 1, or the arms are too large for exact methods
            (their product above 40,000).
    """
    check_level(alpha)
    if rates.challenger_units * rates.champion_units > _MOST_OUTCOMES:
        raise ExperimentError(
            f"arms of {rates.challenger_units!r} and {rates.champion_units!r} units are too large "
            "for exact methods; use score_interval or the confidence sequence"
        )
    hits = np.asarray([rates.challenger_hits, rates.champion_hits])
    units = np.asarray([rates.challenger_units, rates.champion_units])
    return RateDifference(
        estimate=rates.estimate,
        low=_exact_end(rates, alpha),
        high=-_exact_end(rates.turned, alpha),
        p=float(stats.boschloo_exact(np.asarray([hits, units - hits])).pvalue),
    )
