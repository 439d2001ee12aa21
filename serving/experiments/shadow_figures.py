"""The evidence of a shadow: both arms' answers to the same requests, compared in pairs.

Each unit gives one value a metric, the other arm's mean less the control's, so whatever makes a
request slow or hard for both falls out of the difference.
"""

from typing import Final

import numpy as np
import sqlalchemy as sa

from serving.experiments.evidence import Evidence
from serving.experiments.findings import TOO_FEW, Finding, Settings
from serving.experiments.goals import MetricGoal
from serving.experiments.inference.anytime_rates import Sum, anytime_mean_difference
from serving.experiments.inference.boundaries import best_rho, squared_boundary
from serving.experiments.inference.burn_in import EFFECTIVE
from serving.experiments.inference.intervals import anytime_p
from serving.experiments.inference.levels import Floats
from serving.experiments.inference.sequences import mean_sequence
from serving.experiments.metric_arrays import PhaseUnits
from serving.experiments.metric_comparison import COINS, adjusted, row_of
from serving.experiments.metric_names import FROM_ANSWERS
from serving.experiments.metric_rows import PhaseReader
from serving.experiments.phase_read import PhaseRead
from serving.experiments.report import ArmRow, MetricRow, Role, Said
from serving.experiments.shadow_rows import Pairs, mirrored_counts, pairs_of, shadow_metrics

_NOT_IN_A_SHADOW: Final = Said(
    en="Not compared in a shadow: nobody saw the arm's answers, or it is a quantile.",
    ko="섀도에서는 비교하지 않습니다. 응답을 본 사람이 없거나 분위수 지표입니다.",
)


def shadow_evidence(
    connection: sa.Connection, read: PhaseRead, reader: PhaseReader, units: PhaseUnits
) -> Evidence:
    """What a shadow shows of every arm."""
    names, goals = read.names, read.specification.metrics
    secondary = read.secondary
    few = read.settings(len(secondary) * (len(names) - 1), secondary=True)
    primary_settings = read.settings(len(names) - 1, secondary=False)
    return Evidence(
        phase=read.phase,
        arms=_arms(connection, read, reader, units),
        versions=units.versions,
        strangers=units.strangers,
        crossed=units.crossed,
        ratio=None,
        missing=None,
        known_units=(),
        primary=tuple(
            _row(connection, read, name, "primary", goals.primary, primary_settings)
            for name in names[1:]
        ),
        secondary=adjusted(
            [
                _row(connection, read, name, role, goal, few)
                for role, goal in secondary
                for name in names[1:]
            ]
        ),
    )


def paired_finding(differences: Floats, settings: Settings) -> Finding:
    """The mean of one difference a unit (n,), at every look."""
    if not len(differences):
        return Finding("none", note=TOO_FEW)
    sequence = mean_sequence(
        differences,
        alpha=settings.alpha,
        tuned_for_units=settings.tuned_for_units,
        burn_in=settings.burn_in,
        min_effective=EFFECTIVE,
    )
    estimate, low, high = (float(x[-1]) for x in (sequence.estimate, sequence.low, sequence.high))
    if not np.isfinite([low, high]).all():
        return Finding("none", difference=estimate, note=TOO_FEW)
    x = len(differences) * best_rho(settings.tuned_for_units, settings.alpha) ** 2
    errors = float(np.sqrt(squared_boundary(np.asarray(x), settings.alpha, "two-sided")))
    radius = high - estimate
    p = anytime_p(abs(estimate) / (radius / errors), float(x), "two-sided") if radius else None
    return Finding("anytime", estimate, low, high, p)


def _row(
    connection: sa.Connection,
    read: PhaseRead,
    arm: str,
    role: Role,
    goal: MetricGoal,
    settings: Settings,
) -> MetricRow:
    if goal.quantile is not None or goal.name not in shadow_metrics():
        pairs = Pairs.none()
        finding = Finding("none", note=_NOT_IN_A_SHADOW)
    else:
        pairs = pairs_of(
            connection,
            read.deployment_id,
            control=read.names[0],
            arm=arm,
            metric=goal.name,
        )
        finding = _compared(goal.name, pairs, settings)
    both = pairs.control.known & pairs.other.known
    sides = [side.of(both) for side in (pairs.control, pairs.other)]
    count = int(both.sum())
    values = [float(side.values.mean()) if count else None for side in sides]
    return row_of(
        goal,
        role,
        arm,
        finding,
        control_value=values[0],
        value=values[1],
        units=(count, count),
        alpha=settings.alpha,
        kind="paired",
    )


def _compared(metric: str, pairs: Pairs, settings: Settings) -> Finding:
    as_coins = metric in COINS
    # An interval of coins may take its place at other looks: each has half of what may go wrong.
    alpha = settings.alpha / 2 if as_coins else settings.alpha
    halved = Settings(alpha, settings.tuned_for_units, settings.burn_in)
    found = paired_finding(pairs.differences, halved)
    both = pairs.control.known & pairs.other.known
    ours, theirs = pairs.control.of(both).values, pairs.other.of(both).values
    if found.method != "none" or not as_coins or not len(ours):
        return found
    # Of each side an interval of its own, so that it does not matter that they are pairs.
    sums = (Sum(float(theirs.sum()), len(theirs)), Sum(float(ours.sum()), len(ours)))
    coins = anytime_mean_difference(*sums, alpha=alpha)
    return Finding("coins", coins.estimate, coins.low, coins.high)


def _arms(
    connection: sa.Connection, read: PhaseRead, reader: PhaseReader, units: PhaseUnits
) -> tuple[ArmRow, ...]:
    asks, failures = int(units.asks.sum()), int(units.failures.sum())
    goal = read.specification.metrics.primary
    known = asks - failures
    if goal.name not in FROM_ANSWERS:
        known = int(reader.metric(goal.name).denominator.sum())
    control = ArmRow(
        name=read.names[0],
        model=read.models[read.names[0]],
        share=1.0,
        units=len(units.arm),
        asks=asks,
        answers=asks - failures,
        failures=failures,
        outcomes=known,
    )
    rows = [control]
    for name in read.names[1:]:
        counts = mirrored_counts(connection, read.deployment_id, name)
        rows.append(
            ArmRow(
                name=name,
                model=read.models[name],
                share=0.0,
                units=counts.units,
                asks=counts.asks,
                answers=counts.asks - counts.failures,
                failures=counts.failures,
                outcomes=0,
            )
        )
    return tuple(rows)
