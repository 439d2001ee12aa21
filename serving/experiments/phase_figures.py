"""Every figure of a phase that its verdict and its report rest on.

In: a connection that sees the store at one moment, and what was agreed. Out: the evidence that
report_rules.py judges, with segments and the primary metric's timeline.

Of a ratio of what goes missing, as of all that is checked before the comparison, the level is that
of the sample ratio.
"""

from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa

from serving.experiments.goals import MetricGoal
from serving.experiments.inference.exact import EXACT_BELOW
from serving.experiments.inference.ratio_report import (
    PhaseCounts,
    PhaseReport,
    RatioRule,
    phase_report,
)
from serving.experiments.inference.sequences import ConfidenceSequence
from serving.experiments.metric_comparison import (
    COINS,
    Finding,
    Settings,
    adjusted,
    compare_quantiles,
    compare_sums,
    kind_of,
    quantile_of,
    row_of,
    units_of,
    value_of,
)
from serving.experiments.metric_names import FROM_ANSWERS
from serving.experiments.metric_rows import Earlier, MetricValues, PhaseReader, PhaseUnits
from serving.experiments.phase_read import PhaseRead
from serving.experiments.primary_sequence import ArmSequence, mean_sequences, ratio_sequences
from serving.experiments.report import ArmRow, MetricRow, Role, SegmentRow, Timeline
from serving.experiments.report_rules import Evidence, Missing
from serving.experiments.segments import segment_counts, segment_rows, segments_of
from serving.experiments.shadow_figures import shadow_evidence
from serving.experiments.specification import ShadowPhase
from serving.experiments.verdict import SequencePoint


@dataclass(frozen=True)
class Figures:
    """What was found."""

    evidence: Evidence
    segments: tuple[SegmentRow, ...] = ()
    timeline: tuple[Timeline, ...] = ()


def figures_of(connection: sa.Connection, read: PhaseRead) -> Figures:
    """All of a phase.

    Raises:
        ExperimentError: a value in the store is none.
    """
    reader = PhaseReader(
        connection,
        experiment_id=read.experiment_id,
        deployment_id=read.deployment_id,
        arms=read.names,
        window_days=read.specification.stopping.attribution_days,
    )
    units = reader.units()
    if isinstance(read.shares, ShadowPhase):
        return Figures(shadow_evidence(connection, read, reader, units))
    return _Split(reader, read, units).figures()


class _Split:
    """A canary or an A/B: units that were dealt among arms."""

    def __init__(self, reader: PhaseReader, read: PhaseRead, units: PhaseUnits):
        self._reader = reader
        self._read = read
        self._units = units
        self._agreed = read.specification
        self._stopping = read.specification.stopping
        self._challengers = read.names[1:]
        goals = self._agreed.metrics.all
        self._earlier: Earlier = reader.earlier(
            [goal.name for goal in goals if goal.quantile is None],
            before_us=read.phase.opened_us,
            not_dealt_by=read.not_dealt_by,
        )

    def figures(self) -> Figures:
        """All of it."""
        goal, units = self._agreed.metrics.primary, self._units
        values = self._reader.metric(goal.name)
        primary, timeline = self._primary(goal, values)
        segments = segments_of(units, self._earlier.asks)
        by_segment: tuple[SegmentRow, ...] = ()
        if goal.quantile is None:
            settings = self._read.settings(1, secondary=True)
            by_segment = segment_rows(
                goal.name, segments, units, values, self._read.names, settings
            )
        evidence = Evidence(
            phase=self._read.phase,
            arms=self._arms(values),
            versions=units.versions,
            strangers=units.strangers,
            crossed=units.crossed,
            ratio=self._ratio(segment_counts(segments, units, self._read.names)),
            missing=None if goal.name in FROM_ANSWERS else self._missing(goal, values),
            known_units=tuple(units_of(values, units.arm, range(len(self._read.names)))),
            primary=primary,
            secondary=self._secondary(),
        )
        return Figures(evidence, by_segment, timeline)

    def _primary(
        self, goal: MetricGoal, values: MetricValues
    ) -> tuple[tuple[MetricRow, ...], tuple[Timeline, ...]]:
        settings = self._read.settings(len(self._challengers), secondary=False)
        if goal.quantile is not None:
            rows = tuple(self._compared(goal, "primary", place, settings) for place in self._places)
            return rows, ()
        if kind_of(goal) == "mean":
            shares = list(self._agreed.shares(self._read.shares).values())
            before = self._earlier.metrics.get(goal.name)
            found = mean_sequences(goal.name, self._units.arm, values, before, shares, settings)
        else:
            arms = len(self._read.names)
            found = ratio_sequences(self._units.arm, values, arms, settings)
        return (
            tuple(
                self._row(goal, "primary", place, one.finding, values, settings)
                for place, one in zip(self._places, found, strict=True)
            ),
            tuple(
                Timeline(arm=name, points=_points(one))
                for name, one in zip(self._challengers, found, strict=True)
            ),
        )

    @property
    def _places(self) -> range:
        return range(1, len(self._read.names))

    def _secondary(self) -> tuple[MetricRow, ...]:
        secondary = self._read.secondary
        settings = self._read.settings(len(secondary) * len(self._challengers), secondary=True)
        return adjusted(
            [
                self._compared(goal, role, place, settings)
                for role, goal in secondary
                for place in self._places
            ]
        )

    def _compared(self, goal: MetricGoal, role: Role, place: int, settings: Settings) -> MetricRow:
        if goal.quantile is not None:
            return self._quantile(goal, role, place, goal.quantile, settings)
        values = self._reader.metric(goal.name)
        both = (self._units.arm == 0) | (self._units.arm == place)
        before = self._earlier.metrics.get(goal.name)
        finding = compare_sums(
            self._units.arm[both] == place,
            values.of(both),
            None if before is None else before.of(both),
            settings,
            as_ratio=goal.name in FROM_ANSWERS,
            coins=goal.name in COINS,
        )
        return self._row(goal, role, place, finding, values, settings)

    def _quantile(
        self, goal: MetricGoal, role: Role, place: int, quantile: float, settings: Settings
    ) -> MetricRow:
        single = self._reader.single_values(goal.name)
        counts = [len(np.unique(single.unit[single.arm == arm])) for arm in (0, place)]
        return row_of(
            goal,
            role,
            self._read.names[place],
            compare_quantiles(0, place, single, quantile, settings),
            control_value=quantile_of(single, 0, quantile),
            value=quantile_of(single, place, quantile),
            units=(counts[0], counts[1]),
            alpha=settings.alpha,
        )

    def _row(
        self,
        goal: MetricGoal,
        role: Role,
        place: int,
        finding: Finding,
        values: MetricValues,
        settings: Settings,
    ) -> MetricRow:
        arm = self._units.arm
        counts = units_of(values, arm, (0, place))
        return row_of(
            goal,
            role,
            self._read.names[place],
            finding,
            control_value=value_of(goal.name, values, arm == 0),
            value=value_of(goal.name, values, arm == place),
            units=(counts[0], counts[1]),
            alpha=settings.alpha,
        )

    def _arms(self, primary: MetricValues) -> tuple[ArmRow, ...]:
        shares = self._agreed.shares(self._read.shares)
        from_answers = self._agreed.metrics.primary.name in FROM_ANSWERS
        rows = []
        for place, name in enumerate(self._read.names):
            met = self._units.arm == place
            asks, failures = int(self._units.asks[met].sum()), int(self._units.failures[met].sum())
            known = asks - failures if from_answers else int(primary.denominator[met].sum())
            rows.append(
                ArmRow(
                    name=name,
                    model=self._read.models[name],
                    share=shares[name],
                    units=int(met.sum()),
                    asks=asks,
                    answers=asks - failures,
                    failures=failures,
                    outcomes=known,
                )
            )
        return tuple(rows)

    def _ratio(self, segments: dict[str, dict[str, int]]) -> PhaseReport:
        counts = {
            name: int((self._units.arm == place).sum())
            for place, name in enumerate(self._read.names)
        }
        shares = self._agreed.shares(self._read.shares)
        phase = PhaseCounts(
            name=f"phase {self._read.phase.number}", shares=shares, counts=counts, segments=segments
        )
        return phase_report(phase, RatioRule(alpha=self._stopping.sample_ratio_alpha))

    def _missing(self, goal: MetricGoal, values: MetricValues) -> Missing:
        answers = (self._units.asks - self._units.failures).astype(np.float64)
        lost = MetricValues(np.maximum(answers - values.denominator, 0.0), answers)
        alpha = self._stopping.sample_ratio_alpha / len(self._challengers)
        settings = Settings(alpha, self._stopping.tuned_for_units, EXACT_BELOW, exact=False)
        gaps = []
        for place, name in zip(self._places, self._challengers, strict=True):
            both = (self._units.arm == 0) | (self._units.arm == place)
            on = self._units.arm[both] == place
            found = compare_sums(on, lost.of(both), None, settings, as_ratio=True, coins=True)
            if found.low is not None and found.high is not None and found.low * found.high > 0.0:
                gaps.append(name)
        ripe, known = self._reader.ripe(goal.name, self._read.now_us)
        return Missing(
            ripe_share=1.0 - known / ripe if ripe else None,
            allowed=self._stopping.max_missing_share,
            gaps=tuple(gaps),
        )


def _points(one: ArmSequence) -> tuple[SequencePoint, ...]:
    looks: ConfidenceSequence = one.looks
    columns = (looks.n, looks.estimate, looks.low, looks.high)
    speaks = one.speaks
    return tuple(
        SequencePoint(n=n, estimate=estimate, low=low, high=high)
        for n, estimate, low, high in zip(*(c[speaks].tolist() for c in columns), strict=True)
    )
