"""Bootstrap intervals, paired: every model is resampled with the same counts.

Reviews of one restaurant resemble one another, so restaurants are resampled where the rows have
them, else reviews. A resample is a row of counts (how often each review was drawn), so a figure is
computed for thousands of resamples by a matrix product instead of a loop.

Intervals are expanded percentile intervals (Hesterberg, "What Teachers Should Know about the
Bootstrap", arXiv 1411.5279, section 3.3): the percentiles are moved outward as Student's t with
units - 1 degrees of freedom asks, because plain percentiles are too narrow for few units.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from data.errors import MetricError

Weights = NDArray[np.float32]
"""(resamples, n): how often each review counts in each resample."""
Values = NDArray[np.float64]
Statistic = Callable[[Weights], Values]
"""Weights to one value per resample; NaN where the resample leaves the figure undefined."""

LEAST_RESTAURANTS: Final = 5
"""With fewer, reviews are resampled instead, and the output says so."""
CHUNK: Final = 250
MOST_UNDEFINED: Final = 0.05


@dataclass(frozen=True)
class Resamples:
    """Counts drawn once, and shared by all models.

    Attributes:
        counts: (resamples, n) how often each review was drawn.
        unit: what was drawn.
        units: (n,) the unit that each review belongs to.
    """

    counts: NDArray[np.uint16]
    unit: Literal["restaurant", "review"]
    units: NDArray[np.int64]
    seed: int

    def units_in(self, mask: NDArray[np.bool_]) -> int:
        """How many units the masked reviews come from."""
        return len(np.unique(self.units[mask]))


def draw_resamples(
    restaurants: Sequence[str | None], *, resamples: int = 2000, seed: int = 0
) -> Resamples:
    """Draw restaurants if every review has one and there are at least five, else reviews.

    Args:
        restaurants: restaurant of each review.
        resamples: how many.
        seed: of the generator.

    Raises:
        MetricError: there is nothing to resample.
    """
    count = len(restaurants)
    if count == 0 or resamples < 1:
        raise MetricError(
            f"cannot draw {resamples!r} resamples of {count!r} reviews; need at least 1"
        )
    names = sorted({name for name in restaurants if name is not None})
    generator = np.random.default_rng(seed)
    clustered = len(names) >= LEAST_RESTAURANTS and None not in restaurants
    if clustered:
        number = {name: index for index, name in enumerate(names)}
        units = np.asarray([number[str(name)] for name in restaurants], dtype=np.int64)
    else:
        units = np.arange(count, dtype=np.int64)
    size = int(units.max()) + 1
    drawn = np.empty((resamples, size), dtype=np.uint16)
    for row in range(resamples):
        drawn[row] = np.bincount(generator.integers(0, size, size), minlength=size)
    return Resamples(
        counts=drawn[:, units] if clustered else drawn,
        unit="restaurant" if clustered else "review",
        units=units,
        seed=seed,
    )


def spread(resamples: Resamples, statistic: Statistic) -> Values:
    """The statistic on every resample, (resamples,)."""
    parts = [
        statistic(resamples.counts[start : start + CHUNK].astype(np.float32))
        for start in range(0, len(resamples.counts), CHUNK)
    ]
    return np.concatenate(parts).astype(np.float64)


def point(count: int, statistic: Statistic) -> float:
    """The statistic on the reviews as they are."""
    return float(statistic(np.ones((1, count), dtype=np.float32))[0])


def _defined(values: Values) -> Values:
    defined: Values = values[np.isfinite(values)]
    if len(defined) < (1.0 - MOST_UNDEFINED) * len(values):
        raise MetricError(
            f"the figure is undefined on {len(values) - len(defined)} of {len(values)} resamples; "
            "too few rows of some class for an interval: label more"
        )
    return defined


def interval(values: Values, *, units: int, level: float = 0.95) -> tuple[float, float]:
    """Two-sided expanded percentile interval.

    Args:
        values: the figure, or the difference of two models' figures, per resample.
        units: how many restaurants or reviews were resampled.
        level: coverage.

    Raises:
        MetricError: fewer than two units, or undefined on over 5% of the resamples.
    """
    if units < 2:  # noqa: PLR2004  # one unit has no spread
        raise MetricError("an interval needs at least two reviews or restaurants; label more")
    defined = _defined(values)
    reach = stats.t.ppf(0.5 + level / 2, units - 1) * np.sqrt(units / (units - 1))
    tail = float(stats.norm.cdf(-reach))
    low, high = np.quantile(defined, [tail, 1.0 - tail])
    return float(low), float(high)


def probability_not_below(values: Values, threshold: float, *, units: int) -> float:
    """One-sided p-value against "the true value is at or above the threshold".

    The share of resamples at or above the threshold, moved as ``interval`` moves its percentiles:
    small where the figure is proved to lie below.
    """
    if units < 2:  # noqa: PLR2004  # one unit has no spread
        raise MetricError("a test needs at least two reviews or restaurants; label more")
    defined = _defined(values)
    share = (1 + int((defined >= threshold).sum())) / (1 + len(defined))
    quantile = float(stats.norm.ppf(min(share, 1.0 - 1e-12)))
    return float(stats.t.cdf(quantile * np.sqrt((units - 1) / units), units - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the given order."""
    order = np.argsort(p_values, kind="stable")
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * float(p_values[index])))
        adjusted[int(index)] = highest
    return adjusted
