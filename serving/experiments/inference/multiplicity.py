"""Many metrics, one verdict: p-values and e-values adjusted for how many were asked.

A dict of metric → value comes in, a dict of the same keys goes out; a metric is significant where
its adjusted p-value is at most the level, or its adjusted e-value at least 1/level.

- No false claim at all (family-wise): ``holm``, ``e_holm``. Any dependence between metrics.
- Few false claims among those made (false discovery rate): ``benjamini_hochberg``, ``e_bh``.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from data.errors import ExperimentError

Floats = NDArray[np.float64]


def _p_values(p: Mapping[str, float]) -> Floats:
    for name, value in p.items():
        if not 0.0 <= value <= 1.0:
            raise ExperimentError(
                f"the p-value of {name!r} is {value!r}; it lies between 0 and 1, and a metric "
                "without one is left out"
            )
    return np.asarray(list(p.values()), dtype=np.float64)


def _e_values(e: Mapping[str, float]) -> Floats:
    for name, value in e.items():
        if not value >= 0.0:
            raise ExperimentError(
                f"the e-value of {name!r} is {value!r}; it is 0 or more, and a metric without one "
                "is left out"
            )
    return np.asarray(list(e.values()), dtype=np.float64)


def _named(names: Mapping[str, float], values: Floats) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values (Scand. J. Statist. 6, 1979): family-wise, any dependence.

    Anytime-valid p-values stay so. An empty dict gives an empty one.

    Raises:
        ExperimentError: a value is not a p-value.
    """
    values = _p_values(p)
    order = np.argsort(values, kind="stable")
    still_open = np.arange(values.size, 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * still_open), 1.0)
    return _named(p, adjusted)


def benjamini_hochberg(p: Mapping[str, float], *, any_dependence: bool = False) -> dict[str, float]:
    """Benjamini & Hochberg's adjusted p-values (J. R. Statist. Soc. B 57, 1995).

    Args:
        p: metric → p-value.
        any_dependence: hold for metrics that depend on one another in any way, at a price
            (Benjamini & Yekutieli, Ann. Statist. 29, 2001). Without it they must be independent
            or positively dependent.

    Raises:
        ExperimentError: a value is not a p-value.
    """
    values = _p_values(p)
    if not values.size:
        return {}
    method = "by" if any_dependence else "bh"
    return _named(p, stats.false_discovery_control(values, method=method))


def e_holm(e: Mapping[str, float]) -> dict[str, float]:
    """Family-wise adjusted e-values, any dependence.

    The closure of the arithmetic mean: the smallest mean over all sets of metrics that hold this
    one, which is this one with some of the smallest (Vovk & Wang, "E-values: calibration,
    combination and applications", Ann. Statist. 49, 2021, algorithm 1). Never below what Holm makes
    of 1/e.

    Raises:
        ExperimentError: a value is negative or missing.
    """
    values = _e_values(e)
    ascending = np.sort(values)
    # means[i, k]: metric i with the k smallest of those strictly below it; more would not lower it.
    sums = np.concatenate([[0.0], np.cumsum(ascending)])[: values.size]
    means = (values[:, None] + sums) / np.arange(1, values.size + 1)
    allowed = np.arange(values.size) <= np.searchsorted(ascending, values)[:, None]
    return _named(e, np.where(allowed, means, np.inf).min(axis=1, initial=np.inf))


def e_bh(e: Mapping[str, float]) -> dict[str, float]:
    """The level at which the e-BH procedure first claims each metric: its adjusted p-value.

    False discovery rate at most that level under any dependence (Wang & Ramdas, "False discovery
    rate control with e-values", J. R. Statist. Soc. B 84, 2022): claim the k largest of K where
    the k-th largest is at least K / (k * level).

    Raises:
        ExperimentError: a value is negative or missing.
    """
    values = _e_values(e)
    if not values.size:
        return {}
    with np.errstate(divide="ignore", over="ignore"):
        as_p = np.minimum(1.0 / values, 1.0)
    return _named(e, stats.false_discovery_control(as_p, method="bh"))
