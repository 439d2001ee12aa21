"""The sample-ratio alarm: how often it is silent on 50/50, and how often it catches 51/49.

Nothing comes in; `srm_silent_rate` and `srm_catch_rate` go out. Both are of one and the same alarm,
the one that reports use (RatioRule as it stands), read after each of 100,000 units of each run.

Reading it so often is done by its silent counts: of so many units the alarm is silent exactly while
either arm has at least so many. They are found with the product's own ``log_e_value``, once for all
runs, so that a run is a running sum and a comparison.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bench.ab_figures import AbFigure
from serving.experiments.inference.ratio_report import RatioRule
from serving.experiments.inference.sample_ratio import concentration_for, log_e_value

Whole = NDArray[np.int64]
UNITS: Final = 100_000
SILENT_RUNS: Final = 20_000
CATCH_RUNS: Final = 10_000
SILENT_BAR: Final = 0.998
CATCH_BAR: Final = 0.99
_SEED: Final = 51
_NAIVE_FROM: Final = 100
"""Units from which the naive test beside it may speak, so that its approximation holds."""
_BATCH: Final = 20


@dataclass(frozen=True)
class Alarms:
    """What runs of one share did.

    Attributes:
        at: (runs,) units at the first alarm; 0 where it stayed silent.
        naive: share of the runs in which chi-square at the same level sounded at some look.
    """

    at: Whole
    naive: float

    @property
    def silent(self) -> float:
        """Share of the runs without an alarm."""
        return float((self.at == 0).mean())


def silent_counts(units: int, rule: RatioRule) -> NDArray[np.int32]:
    """(units,) the fewest units of an arm of two equal ones with which the alarm is still silent.

    By bisection, because the evidence only grows while an arm loses units to the other.
    """
    n: Whole = np.arange(1, units + 1, dtype=np.int64)
    concentration = concentration_for(rule.planned_units, arms=2, alpha=rule.alpha)
    low: Whole = np.zeros(units, dtype=np.int64)
    high: Whole = n // 2
    while (low < high).any():
        middle = (low + high) // 2
        log_e = log_e_value(
            np.stack([middle, n - middle], axis=-1), shares=(0.5, 0.5), concentration=concentration
        )
        silent = np.exp(-log_e) > rule.alpha
        high = np.where(silent, middle, high)
        low = np.where(silent, low, np.minimum(middle + 1, high))
    return low.astype(np.int32)


def simulate(share: float, *, runs: int, units: int, rule: RatioRule, seed: int) -> Alarms:
    """Deal units to two arms that are meant to be equal, and read the alarm after each.

    Args:
        share: the true share of the first arm.
        runs: experiments.
        units: of each.
        rule: the alarm's level and tuning.
        seed: of the dealing.
    """
    n = np.arange(1, units + 1, dtype=np.int32)
    least = silent_counts(units, rule)
    naive_least = 0.5 * (n - np.sqrt(n * stats.chi2.isf(rule.alpha, 1)))
    naive_least[: _NAIVE_FROM - 1] = -1.0
    naive_fewest = np.ceil(naive_least).astype(np.int32)
    random = np.random.default_rng(seed)
    at, naive = np.zeros(runs, dtype=np.int64), 0
    for start in range(0, runs, _BATCH):
        rows = min(_BATCH, runs - start)
        dealt = random.random((rows, units), dtype=np.float32) < share
        first = np.cumsum(dealt, axis=-1, dtype=np.int32)
        smaller = np.minimum(first, n - first)
        alarm = smaller < least
        at[start : start + rows] = np.where(alarm.any(axis=-1), alarm.argmax(axis=-1) + 1, 0)
        naive += int((smaller < naive_fewest).any(axis=-1).sum())
    return Alarms(at=at, naive=naive / runs)


def _with_error(share: float, runs: int) -> str:
    return f"{share:.4f} ± {np.sqrt(share * (1 - share) / runs):.4f} (standard error)"


def measure(say: Callable[[str], None]) -> dict[str, AbFigure]:
    """Both figures, in about twenty seconds of one core.

    Args:
        say: is told what begins.
    """
    rule = RatioRule(planned_units=UNITS)
    say(f"sample ratio: {SILENT_RUNS:,} runs of 50/50, read after each of {UNITS:,} units")
    even = simulate(0.5, runs=SILENT_RUNS, units=UNITS, rule=rule, seed=_SEED)
    say(f"sample ratio: {CATCH_RUNS:,} runs of 51/49")
    uneven = simulate(0.51, runs=CATCH_RUNS, units=UNITS, rule=rule, seed=_SEED + 1)
    caught = uneven.at[uneven.at > 0]
    catch = 1.0 - uneven.silent
    alarm = (
        f"Dirichlet-multinomial alarm at level {rule.alpha}, tuned for {rule.planned_units:,} "
        f"units, read after each of {UNITS:,} units"
    )
    return {
        "srm_silent_rate": AbFigure(
            value=even.silent,
            bar=f">= {SILENT_BAR}",
            conditions=(
                f"{alarm}; {SILENT_RUNS:,} runs of 50/50, seed {_SEED}: "
                f"{_with_error(even.silent, SILENT_RUNS)}; chi-square at the same level, read as "
                f"often from {_NAIVE_FROM} units on, was silent in {1 - even.naive:.4f}"
            ),
            met=even.silent >= SILENT_BAR,
        ),
        "srm_catch_rate": AbFigure(
            value=catch,
            bar=f">= {CATCH_BAR}",
            conditions=(
                f"the same alarm; {CATCH_RUNS:,} runs of 51/49, seed {_SEED + 1}: "
                f"{_with_error(catch, CATCH_RUNS)}; half of those caught were by "
                f"{float(np.median(caught)):,.0f} units, nine in ten by "
                f"{float(np.quantile(caught, 0.9)):,.0f}"
            ),
            met=catch >= CATCH_BAR,
        ),
    }
