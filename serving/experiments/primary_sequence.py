"""The primary metric after ever more units: one confidence sequence a challenger.

In: the units' values in their order of arrival. Out: the interval at up to 200 looks, the last one
of all units, as a verdict reads it. The challengers share the level (Bonferroni).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.experiments.inference.boundaries import best_rho, squared_boundary
from serving.experiments.inference.burn_in import EFFECTIVE
from serving.experiments.inference.covariates import adjust, predictable_guesses
from serving.experiments.inference.intervals import anytime_p
from serving.experiments.inference.levels import Flags, Floats, Range
from serving.experiments.inference.many_arms import arm_sequences
from serving.experiments.inference.ratios import ratio_sequence
from serving.experiments.inference.sequences import UNBOUNDED, UNIT_RANGE, ConfidenceSequence
from serving.experiments.inference.thinned import thinned_sequence
from serving.experiments.metric_comparison import TOO_FEW, Finding, Settings, covers
from serving.experiments.metric_names import FROM_FEEDBACK
from serving.experiments.metric_rows import MetricValues

_LOOKS: Final = 200


@dataclass(frozen=True)
class ArmSequence:
    """A challenger's intervals.

    Attributes:
        looks: the sequence at some numbers of units, the last one at all.
        speaks: (looks,) where an interval says more than that any difference is possible.
        finding: what it says now.
    """

    looks: ConfidenceSequence
    speaks: Flags
    finding: Finding


def mean_sequences(
    name: str,
    arm: NDArray[np.int64],
    values: MetricValues,
    before: MetricValues | None,
    shares: Sequence[float],
    settings: Settings,
) -> list[ArmSequence]:
    """Of a metric that is fed back: the units' own means.

    Args:
        name: the metric's.
        arm: (n,) the place of each unit's arm, in order of arrival; the control's is 0.
        values: (n,) of the metric.
        before: (n,) of the same metric, before the phase.
        shares: of the arms, the control's first.
        settings: the level of each interval, and when to begin.

    Raises:
        ExperimentError: a reward or an accuracy is not within 0 … 1.
    """
    known = values.known
    arm, reward = arm[known], values.values[known]
    past = None if before is None else before.of(known)
    if past is not None and not covers(past):
        past = None
    outcome_range: Range = UNIT_RANGE if name in FROM_FEEDBACK else UNBOUNDED
    looks = _looks(len(reward))
    if past is None and len(shares) == 2 and outcome_range == UNIT_RANGE:  # noqa: PLR2004
        found = thinned_sequence(
            arm == 1,
            reward,
            looks,
            challenger_share=shares[1],
            alpha=settings.alpha,
            tuned_for_units=settings.tuned_for_units,
            burn_in=settings.burn_in,
            min_effective=EFFECTIVE,
        )
        return [_read(found, settings, outcome_range, None)]
    sequences = _arm_sequences(arm, reward, past, shares, settings, outcome_range)
    cuts = [_cut(arm, place, reward, past) for place in range(1, len(shares))]
    return [
        _read(_at(whole, looks), settings, outcome_range, cut)
        for whole, cut in zip(sequences, cuts, strict=True)
    ]


def _arm_sequences(
    arm: NDArray[np.int64],
    reward: Floats,
    past: MetricValues | None,
    shares: Sequence[float],
    settings: Settings,
    outcome_range: Range,
) -> Sequence[ConfidenceSequence]:
    first_guess = 0.5 if outcome_range == UNIT_RANGE else float(reward[0]) if len(reward) else 0.0
    if outcome_range != UNIT_RANGE:
        # A guess far off would widen all that follows, so the first unit is only asked for one.
        arm, reward = arm[1:], reward[1:]
        past = None if past is None else past.of(np.arange(len(reward) + 1) > 0)
    guesses = None
    if past is not None:
        guesses = predictable_guesses(
            arm, reward, past.values, arms=len(shares), first_guess=first_guess
        )
    return arm_sequences(
        arm,
        reward,
        shares=shares,
        alpha=settings.alpha,
        tuned_for_units=settings.tuned_for_units,
        burn_in=settings.burn_in,
        family_wise=False,
        outcome_range=outcome_range,
        first_guess=first_guess,
        guesses=guesses,
        min_effective=EFFECTIVE,
    )


def ratio_sequences(
    arm: NDArray[np.int64], values: MetricValues, arms: int, settings: Settings
) -> list[ArmSequence]:
    """Of a metric that follows from answers: sums over sums, of the units of two arms at a time."""
    found = []
    for place in range(1, arms):
        both = values.known & ((arm == 0) | (arm == place))
        some = values.of(both)
        whole = ratio_sequence(
            arm[both] == place,
            some.numerator,
            some.denominator,
            alpha=settings.alpha,
            tuned_for_units=settings.tuned_for_units,
            burn_in=settings.burn_in,
        )
        found.append(_read(_at(whole, _looks(int(both.sum()))), settings, UNBOUNDED, None))
    return found


def _cut(
    arm: NDArray[np.int64], place: int, reward: Floats, past: MetricValues | None
) -> float | None:
    if past is None:
        return None
    both = (arm == 0) | (arm == place)
    if min((arm == 0).sum(), (arm == place).sum()) < 2 or not past.of(both).known.any():  # noqa: PLR2004
        return None
    return adjust(arm[both] == place, reward[both], past.values[both]).variance_cut


def _looks(units: int) -> NDArray[np.int64]:
    """Even on a logarithmic scale, the last one always."""
    if not units:
        return np.empty(0, dtype=np.int64)
    return np.unique(np.geomspace(1, units, min(units, _LOOKS)).round().astype(np.int64))


def _at(sequence: ConfidenceSequence, looks: NDArray[np.int64]) -> ConfidenceSequence:
    # A sequence may be shorter than the units that were looked at, by the one it began from.
    place = np.unique(np.minimum(looks, len(sequence.n))) - 1 if len(sequence.n) else looks[:0]
    return ConfidenceSequence(
        sequence.n[place], sequence.estimate[place], sequence.low[place], sequence.high[place]
    )


def _read(
    looks: ConfidenceSequence, settings: Settings, outcome_range: Range, cut: float | None
) -> ArmSequence:
    widest = outcome_range[1] - outcome_range[0]
    speaks = np.isfinite(looks.estimate) & ((looks.low > -widest) | (looks.high < widest))
    return ArmSequence(looks, speaks, _finding(looks, speaks, settings, cut))


def _finding(
    looks: ConfidenceSequence, speaks: Flags, settings: Settings, cut: float | None
) -> Finding:
    if not len(looks.n) or not np.isfinite(looks.estimate[-1]):
        return Finding("none", note=TOO_FEW)
    estimate, low, high = (float(x[-1]) for x in (looks.estimate, looks.low, looks.high))
    if not speaks[-1]:
        return Finding("sequence", estimate, note=TOO_FEW, variance_cut=cut)
    rho = best_rho(settings.tuned_for_units, settings.alpha)
    x = float(looks.n[-1]) * rho**2
    errors = np.sqrt(squared_boundary(np.asarray(x), settings.alpha, "two-sided"))
    # An end that the range cut off is nearer than it would be.
    radius = max(estimate - low, high - estimate)
    p = anytime_p(abs(estimate) / (radius / float(errors)), x, "two-sided") if radius else None
    return Finding("sequence", estimate, low, high, p, cut)
