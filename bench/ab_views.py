"""What a look at simulated traffic shows, and what the product says of it.

One experiment's traffic and a moment come in. Out comes what the store would hold of it by then,
as the arrays that ``decide`` reads (the tests hold them against a real store), and, by name,
p-values of other analyses of the same look: the product's for ratios and latencies, and those that
a careless analyst would take.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

from bench.ab_archive import deployment
from bench.ab_traffic import Flags, Floats, Ints, Traffic
from data.errors import ExperimentError
from serving.experiments.decision_rule import DecisionRule
from serving.experiments.hashes import Hashes
from serving.experiments.inference.intervals import (
    Arms,
    anytime_difference,
    difference,
    mean_arms,
)
from serving.experiments.inference.quantiles import quantile_arms
from serving.experiments.inference.ratios import capped_sums, ratio_arms
from serving.experiments.units import UnitOutcomes
from serving.experiments.verdict import Verdict, decide

ALPHA: Final = 0.05
BURN_IN: Final = 100
"""Units of each arm, as a rule has it by default."""
TUNED_FOR: Final = 2_000
MOST_ANSWERS: Final = 50.0
"""What a unit may weigh in the capped ratio. Fixed before any simulation: one person in 400 of
ab_traffic's asks more (median 3, sigma 1), a bot always does."""
QUANTILE: Final = 0.9


@dataclass(frozen=True)
class View:
    """What is known at one moment.

    Attributes:
        traffic: all of it.
        counted: (answers,) whether an answer counts by the rule.
        known: (answers,) whether it counts and its outcome is known.
        units: what the store says.
    """

    traffic: Traffic
    counted: Flags
    known: Flags
    units: UnitOutcomes


def view(traffic: Traffic, day: float, rule: DecisionRule) -> View:
    """What the store holds ``day`` days after the start, of the answers that the rule counts."""
    window = np.inf if rule.attribution_days is None else rule.attribution_days
    counted = (traffic.at <= day) & (traffic.age >= rule.settling_days)
    if rule.closed_windows_only:
        counted &= traffic.at <= day - window
    known = counted & (traffic.known_at <= np.minimum(traffic.at + window, day))
    units = len(traffic.on)
    exposures = np.bincount(traffic.unit[counted], minlength=units)
    outcomes = np.bincount(traffic.unit[known], minlength=units)
    right = np.bincount(traffic.unit[known], weights=traffic.right[known], minlength=units)
    # By unit, then by time: where a unit's answers begin, its first one stands.
    firsts = np.flatnonzero(counted)[np.cumsum(exposures)[exposures > 0] - exposures[exposures > 0]]
    came = np.flatnonzero(exposures)[np.argsort(traffic.at[firsts], kind="stable")]
    reward = np.full(len(came), np.nan)
    np.divide(right[came], outcomes[came], out=reward, where=outcomes[came] > 0)
    seen = unit_outcomes(
        traffic.unit_id[came],
        on=traffic.on[came],
        reward=reward,
        exposures=exposures[came],
        outcomes=outcomes[came],
    )
    return View(traffic=traffic, counted=counted, known=known, units=seen)


def unit_outcomes(
    unit: Hashes, *, on: Flags, reward: Floats, exposures: Ints, outcomes: Ints
) -> UnitOutcomes:
    """The only place where ab-sim makes the product's arrays by hand."""
    return UnitOutcomes(
        unit=unit,
        arm=on.astype(np.uint8),
        arms=("champion", "challenger"),
        reward=reward,
        exposures=exposures,
        outcomes=outcomes,
        labelled=np.zeros(len(unit), dtype=np.int64),
        failed=np.zeros(len(unit), dtype=np.int64),
        versions={"champion": ("sentiment/1",), "challenger": ("sentiment/2",)},
    )


def verdict_of(seen: View, rule: DecisionRule) -> Verdict:
    """What the product decides."""
    return decide(seen.units, deployment(), rule)


def _sums(seen: View) -> tuple[Flags, Floats, Floats]:
    """By unit that has an outcome: its arm, right answers, and answers with an outcome."""
    traffic = seen.traffic
    units = len(traffic.on)
    answers = np.bincount(traffic.unit[seen.known], minlength=units).astype(np.float64)
    right = np.bincount(
        traffic.unit[seen.known], weights=traffic.right[seen.known], minlength=units
    )
    some = answers > 0
    return traffic.on[some], right[some], answers[some]


def _anytime_p(arms: Callable[[], Arms]) -> float:
    """NaN before the burn-in, and where the product says that there is too little."""
    try:
        made = arms()
        if min(made.champion.units, made.challenger.units) < BURN_IN:
            return np.nan
        return anytime_difference(made, alpha=ALPHA, tuned_for_units=TUNED_FOR).p
    except ExperimentError:
        return np.nan


def ratio_p(seen: View) -> float:
    """Right answers ÷ answers, clustered by unit, valid at every look."""
    return _anytime_p(lambda: ratio_arms(*_sums(seen)))


def capped_ratio_p(seen: View) -> float:
    """The same, no unit weighing more than ``MOST_ANSWERS``."""
    on, right, answers = _sums(seen)
    return _anytime_p(lambda: ratio_arms(on, *capped_sums(right, answers, most=MOST_ANSWERS)))


def ratio_once_p(seen: View) -> float:
    """The ratio for one look that was fixed beforehand."""
    return difference(ratio_arms(*_sums(seen)), alpha=ALPHA).p


def latency_p(seen: View) -> float:
    """The 90th percentile of latencies, clustered by unit, valid at every look."""
    traffic, counted = seen.traffic, seen.counted
    unit = traffic.unit[counted]
    return _anytime_p(
        lambda: quantile_arms(
            traffic.on[unit], traffic.latency_ms[counted], quantile=QUANTILE, unit=unit
        )
    )


def per_answer_p(seen: View) -> float:
    """The careless analysis: Welch's test at one look, as if each answer were a user."""
    traffic = seen.traffic
    on = traffic.on[traffic.unit[seen.known]]
    return difference(mean_arms(on, traffic.right[seen.known]), alpha=ALPHA).p


def gaps_per_answer_p(seen: View) -> float:
    """Whether outcomes go missing unevenly, by Fisher's exact test of answers at one look."""
    on = seen.traffic.on[seen.traffic.unit]
    table = [
        [int((seen.known & arm).sum()), int((seen.counted & ~seen.known & arm).sum())]
        for arm in (on, ~on)
    ]
    return float(stats.fisher_exact(table).pvalue)


ANALYSES: Final[dict[str, Callable[[View], float]]] = {
    "ratio": ratio_p,
    "capped ratio": capped_ratio_p,
    "ratio, one look": ratio_once_p,
    "latency": latency_p,
    "per answer": per_answer_p,
    "gaps per answer": gaps_per_answer_p,
}
"""Name → p-value of a look."""


def p_values(seen: View, names: Sequence[str]) -> list[float]:
    """One p-value per name of ``ANALYSES``; NaN where there is too little to say."""
    return [ANALYSES[name](seen) for name in names]
