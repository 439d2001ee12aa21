"""How far a running mean may stray by chance, at any time at all: the normal mixture's boundary.

The level and the number of units to be sharpest at come in; the mixture's scale rho, and the bound
in squared standard errors, go out.
"""

import numpy as np
from scipy import optimize, special

from data.errors import ExperimentError
from serving.experiments.inference.levels import (
    Alternative,
    Floats,
    check_alternative,
    check_level,
)


def best_rho(units: int, alpha: float, alternative: Alternative = "two-sided") -> float:
    """The mixture's scale that makes the interval narrowest after ``units`` units.

    With x = units * rho^2 the squared width is (x + 1)/x * (log(x + 1) - 2 log alpha); its minimum
    solves x + 1 - log(x + 1) = 1 - 2 log alpha, which Lambert's W_-1 inverts. The one-sided width
    is minimised by search.

    Raises:
        ExperimentError: there is no unit to tune for, or alpha is no level.
    """
    check_level(alpha)
    check_alternative(alternative)
    if units < 1:
        raise ExperimentError(f"tuned_for_units={units!r}; tune for at least 1 unit")
    if alternative == "two-sided":
        x = -float(special.lambertw(-(alpha**2) / np.e, k=-1).real) - 1.0
    else:
        found = optimize.minimize_scalar(
            lambda log_x: float(squared_boundary(np.exp(log_x), alpha, alternative)),
            bounds=(-5.0, 10.0),
            method="bounded",
        )
        x = float(np.exp(found.x))
    return float(np.sqrt(x / units))


def squared_boundary(x: Floats, alpha: float, alternative: Alternative) -> Floats:
    """How many squared standard errors the mean may be off, at any time, with level alpha.

    Args:
        x: (…,) units so far times rho squared.
        alpha: chance that the mean is ever farther off.
        alternative: both sides together, or one of them.

    Source: arXiv 2103.06476, theorem 2.2; one-sided Howard, Ramdas, McAuliffe, Sekhon,
    "Time-uniform, nonparametric, nonasymptotic confidence sequences" (2021), the normal mixture's
    closed form.
    """
    if alternative == "two-sided":
        return np.asarray((x + 1) / x * (np.log(x + 1) - 2 * np.log(alpha)))
    return np.asarray(2 * (x + 1) / x * np.log1p(np.sqrt(x + 1) / (2 * alpha)))
