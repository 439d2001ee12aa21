"""A difference between arms of few units, or of units that hardly differ.

Of rates of what should not happen the interval of bounded means speaks, which holds at every look.
Of the rest an exact method for one look informs where the smaller arm is small (``method_for``);
it decides nothing.
"""

from dataclasses import replace
from typing import Final

import numpy as np

from serving.experiments.findings import TOO_FEW, Finding, Settings
from serving.experiments.inference.anytime_rates import Sum, anytime_mean_difference
from serving.experiments.inference.exact import method_for, permutation_test
from serving.experiments.inference.exact_rates import Rates, rate_difference
from serving.experiments.inference.levels import Flags, Floats
from serving.experiments.report import Said

_MOST_OUTCOMES: Final = 10_000
"""Product of the arms' units up to which exact rates take less than a second."""
_MOST_REARRANGED: Final = 2_000
_DRAWS: Final = 5_000
_ONE_LOOK: Final = Said(
    en="The figures hold for one look and decide nothing.",
    ko="이 수치는 한 번의 확인에만 유효하며 판정에 쓰지 않습니다.",
)


def finding_of_few(on: Flags, each: Floats, settings: Settings, *, coins: bool) -> Finding:
    """What can be said where an asymptotic interval keeps silent.

    Args:
        on: (n,) True where the challenger answered.
        each: (n,) the units' own means.
        settings: the level, and whether exact methods may take their time.
        coins: whether means from 0 to 1 get the interval that holds at every look.
    """
    sizes = (int((~on).sum()), int(on.sum()))
    binary = bool(np.isin(each, (0.0, 1.0)).all())
    if min(sizes) and coins:
        sums = (Sum(float(each[on].sum()), sizes[1]), Sum(float(each[~on].sum()), sizes[0]))
        found = anytime_mean_difference(*sums, alpha=settings.alpha / 2)
        return Finding("coins", found.estimate, found.low, found.high)
    method = method_for("rate" if binary else "mean", min(sizes))
    if not (settings.exact and _exact(method, sizes)):
        return Finding("none", note=TOO_FEW)
    if method == "exact_rates":
        exact = rate_difference(_rates(on, each), alpha=settings.alpha)
        few = Finding("exact_rates", exact.estimate, exact.low, exact.high, exact.p)
    else:
        moved = permutation_test(each[~on], each[on], draws=_DRAWS, seed=0)
        few = Finding("permutation", moved.estimate, p=moved.p)
    return replace(few, note=TOO_FEW + _ONE_LOOK)


def _exact(method: str, sizes: tuple[int, int]) -> bool:
    """Whether an exact method takes these arms, in a second or so."""
    if min(sizes) < 2:  # noqa: PLR2004  # a spread takes two values
        return False
    if method == "exact_rates":
        return sizes[0] * sizes[1] <= _MOST_OUTCOMES
    return method == "permutation" and sum(sizes) <= _MOST_REARRANGED


def _rates(on: Flags, each: Floats) -> Rates:
    hits = [int(each[side].sum()) for side in (on, ~on)]
    return Rates(hits[0], int(on.sum()), hits[1], int((~on).sum()))
