"""What every comparison is told first, and checks: level, alternative, shares, outcomes' range."""

import math
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from data.errors import ExperimentError

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Range = tuple[float, float]
"""The least and the greatest that an outcome can be."""
Alternative = Literal["two-sided", "greater", "less"]
"""Which ends say something: both, the lower alone, the upper alone; scipy's names."""
ALTERNATIVES: Final[tuple[Alternative, ...]] = ("two-sided", "greater", "less")


def check_level(alpha: float) -> None:
    """Refuse an alpha that is no level.

    Raises:
        ExperimentError: it is not between 0 and 1.
    """
    if not 0.0 < alpha < 1.0:
        raise ExperimentError(
            f"alpha={alpha!r} is not a level; take one between 0 and 1, like 0.05"
        )


def check_share(share: float | Floats) -> None:
    """Refuse a share that leaves an arm empty; an array is one share per unit.

    Raises:
        ExperimentError: a share is not between 0 and 1.
    """
    # Compared this way round, so that NaN is refused too.
    if not np.all((np.asarray(share) > 0.0) & (np.asarray(share) < 1.0)):
        raise ExperimentError(
            f"the challenger's share is {share!r}, so there is nothing to compare with; give both "
            "arms a share"
        )


def check_alternative(alternative: str) -> None:
    """Refuse an alternative that scipy would not know either.

    Raises:
        ExperimentError: it is none of ``ALTERNATIVES``.
    """
    if alternative not in ALTERNATIVES:
        raise ExperimentError(
            f"alternative={alternative!r} is unknown; take one of {', '.join(ALTERNATIVES)}"
        )


def middle(outcome_range: Range) -> float:
    """The middle of a range; a first guess of an outcome.

    Raises:
        ExperimentError: the range is empty, or has no middle.
    """
    low, high = outcome_range
    if not low < high:
        raise ExperimentError(
            f"outcome_range={outcome_range!r} is empty; give the least outcome, then the greatest"
        )
    if math.isinf(low) or math.isinf(high):
        raise ExperimentError(
            f"outcome_range={outcome_range!r} has no middle to begin from; pass first_guess, like "
            "the metric's mean before the experiment"
        )
    return 0.5 * (low + high)


def check_outcomes(outcome: Floats, outcome_range: Range) -> None:
    """Refuse outcomes that are missing, infinite or out of their range.

    Raises:
        ExperimentError: one of them is.
    """
    low, high = outcome_range
    if outcome.size and not (
        np.isfinite(outcome).all() and low <= outcome.min() <= outcome.max() <= high
    ):
        raise ExperimentError(
            f"a reward is missing or outside {low:g} … {high:g} (least {np.min(outcome)!r}, "
            f"greatest {np.max(outcome)!r}); leave out units without an outcome, or give the "
            "metric's own outcome_range"
        )
