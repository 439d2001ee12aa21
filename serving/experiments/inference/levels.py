"""What every comparison is told first, and checks: level, alternative, shares, outcomes' range."""

import math
from collections.abc import Sequence
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
_SUM_TOLERANCE: Final = 1e-9
"""What adding decimals leaves."""
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


def check_shares(shares: Sequence[float] | Floats) -> Floats:
    """The shares of two or more arms as an array (arms,).

    Raises:
        ExperimentError: there are fewer, one of them is none, or they do not add up to 1.
    """
    values = np.asarray(shares, dtype=np.float64)
    if values.ndim != 1 or values.size < 2:  # noqa: PLR2004  # a comparison takes two
        raise ExperimentError(f"shares={shares!r}; give at least two arms a share each")
    if not (np.isfinite(values).all() and (values > 0.0).all()):
        raise ExperimentError(f"shares={shares!r}; each arm's share must lie between 0 and 1")
    if abs(values.sum() - 1.0) > _SUM_TOLERANCE:
        raise ExperimentError(
            f"shares={shares!r} add up to {float(values.sum())!r}; make them add up to 1"
        )
    return values


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
