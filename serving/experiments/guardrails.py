"""What the guardrails and signals of a phase show, at any look: a reading of each, and the ratio.

Every challenger is held against the control. A guardrail is breached where the loss is larger than
its margin at the least that the data leave possible, however often one looked before. All of a
phase's guardrails together are wrong in at most ``stopping.alpha`` of phases, its signals likewise:
each metric of each challenger has an equal part of it (Bonferroni). What is read:

    of answers          the ratio of sums over units (delta method), from 100 units an arm
    fed back            the mean of the units' own means, likewise
    shares and rewards  besides, exactly, the first value of each unit, from 30 units an arm, which
                        speaks of an arm that always fails; both share their part of the level
    quantiles           the first value of each unit, exactly, from 30 units an arm

Whether units are dealt as they were meant to be is told of those that came two minutes ago or more:
an arm that takes its time loses none. In a shadow, what the control answered is held against what
the others would have.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Final

import sqlalchemy as sa

from data.errors import ExperimentError
from serving.deployment import SharedArm
from serving.experiments.assignment import Deployed
from serving.experiments.database import open_database
from serving.experiments.goals import MetricGoal
from serving.experiments.guardrail_readings import (
    GuardrailReading,
    PhaseLook,
    Role,
    SampleRatioReading,
    sentence_of,
)
from serving.experiments.inference.anytime_rates import anytime_mean_difference
from serving.experiments.inference.boundaries import best_rho
from serving.experiments.inference.quantiles import binned_quantile, binned_quantile_difference
from serving.experiments.inference.ratio_report import (
    PhaseCounts,
    PhaseReport,
    RatioRule,
    phase_report,
)
from serving.experiments.metric_feed import MetricFeed
from serving.experiments.metric_names import BOUNDED, FROM_ANSWERS
from serving.experiments.routes import now_us
from serving.experiments.specification import ExperimentSpecification
from serving.experiments.tallies import EDGES, Tally

LEAST_UNITS: Final = 30
"""Of each arm, before the exact bounds are read: they would hold earlier, but a burst of failures
is not many failures."""
_ROWS_AT_ONCE: Final = 50_000

_Ends = tuple[float, float]
_OPEN: Final[_Ends] = (-math.inf, math.inf)


class GuardrailWatch:
    """Looks at one phase, again and again. Used from one thread at a time."""

    def __init__(
        self,
        engine: sa.Engine,
        deployment: Deployed[SharedArm],
        specification: ExperimentSpecification,
        *,
        clock: Callable[[], int] = now_us,
    ):
        """Know nothing of the phase yet.

        Args:
            engine: of the store.
            deployment: that serves the phase.
            specification: of its experiment.
            clock: microseconds since 1970.

        Raises:
            ExperimentError: the deployment serves no phase, or another experiment's.
        """
        phase = deployment.phase
        if phase is None or phase.experiment != specification.name:
            raise ExperimentError(
                f"deployment {deployment.deployment_id!r} serves "
                f"{phase and phase.experiment!r}, so it has no guardrails of "
                f"{specification.name!r}; name a deployment of one of its phases"
            )
        self.deployment_id = deployment.deployment_id
        self._arms = [arm.name for arm in deployment.arms]
        self._shares = {arm.name: arm.share for arm in deployment.arms if arm.share}
        self._shadow = phase.kind == "shadow"
        self._phase = f"phase {phase.number} of {specification.name}"
        self._specification = specification
        self._clock = clock
        metrics = specification.metrics
        roles: dict[Role, tuple[MetricGoal, ...]] = {
            "guardrail": metrics.guardrails,
            "signal": metrics.signals,
        }
        self._roles = {
            role: [goal for goal in goals if not self._shadow or goal.name in FROM_ANSWERS]
            for role, goals in roles.items()
        }
        self._feed = MetricFeed(
            engine,
            deployment.deployment_id,
            arms=self._arms,
            goals=[goal for goals in self._roles.values() for goal in goals],
            attribution_days=specification.stopping.attribution_days,
            shadow=self._shadow,
            clock=clock,
        )
        self._ratio: PhaseReport | None = None

    def look(self, *, most_rows: int = _ROWS_AT_ONCE) -> PhaseLook:
        """Read what is new, and judge all that is known.

        Raises:
            ExperimentError: the database cannot be read.
        """
        behind = self._feed.read(most_rows=most_rows)
        readings = [
            self._read(role, goal, place)
            for role, goals in self._roles.items()
            for goal in goals
            for place in range(1, len(self._arms))
        ]
        return PhaseLook(
            experiment=self._specification.name,
            deployment_id=self.deployment_id,
            looked_at_us=self._clock(),
            behind=behind,
            units=self._feed.units.units(),
            readings=tuple(readings),
            sample_ratio=self._sample_ratio(),
        )

    def _read(self, role: Role, goal: MetricGoal, place: int) -> GuardrailReading:
        tally = self._feed.tallies[goal.label]
        stopping = self._specification.stopping
        alpha = stopping.alpha / (len(self._roles[role]) * (len(self._arms) - 1))
        if goal.quantile is None:
            values = tally.sums.ratio(place), tally.sums.ratio(0)
            low, high = _mean_ends(tally, goal, place, alpha, stopping.tuned_for_units)
        else:
            values = _quantile(tally, place, goal.quantile), _quantile(tally, 0, goal.quantile)
            low, high = _quantile_ends(tally, goal.quantile, place, alpha, stopping.tuned_for_units)
        decrease = goal.direction == "decrease"
        loss = low if decrease else -high
        reading = GuardrailReading(
            role=role,
            metric=goal.label,
            arm=self._arms[place],
            direction=goal.direction,
            margin=goal.margin,
            units=tally.sums.units(place),
            control_units=tally.sums.units(0),
            value=_finite(values[0]),
            control_value=_finite(values[1]),
            estimate=_finite(values[0] - values[1]),
            low=_finite(low),
            high=_finite(high),
            breached=loss > goal.margin,
            sentence="",
        )
        return reading.model_copy(update={"sentence": sentence_of(reading, loss, self._arms[0])})

    def _sample_ratio(self) -> SampleRatioReading | None:
        if self._shadow or len(self._shares) < 2:  # noqa: PLR2004  # a ratio takes two
            return None
        settled = dict(zip(self._arms, self._feed.settled, strict=True))
        counts = {name: settled[name] for name in self._shares}
        rule = RatioRule(alpha=self._specification.stopping.sample_ratio_alpha)
        phase = PhaseCounts(name=self._phase, shares=self._shares, counts=counts)
        self._ratio = phase_report(phase, rule, earlier=self._ratio)
        found = self._ratio.phase
        return SampleRatioReading(p=found.p, broken=self._ratio.alarm, sentence=found.sentence)


def look_at_phase(
    url: str, deployment: Deployed[SharedArm], specification: ExperimentSpecification
) -> PhaseLook:
    """One look at all that a store has of a phase, as a report shows it.

    Raises:
        ExperimentError: the deployment serves no phase of the experiment, or the store cannot be
            opened or read.
    """
    engine = open_database(url)
    try:
        watch = GuardrailWatch(engine, deployment, specification)
        look = watch.look()
        while look.behind:
            look = watch.look()
        return look
    finally:
        engine.dispose()


def _mean_ends(tally: Tally, goal: MetricGoal, place: int, alpha: float, tuned_for: int) -> _Ends:
    exact = goal.name in BOUNDED
    level = alpha / 2 if exact else alpha
    found = tally.sums.look(place, alpha=level, rho=_rho(tuned_for, level))
    ends = (found.low, found.high)
    control, challenger = tally.first(0), tally.first(place)
    if not exact or control is None or challenger is None:
        return ends
    if min(control.units, challenger.units) < LEAST_UNITS:
        return ends
    first = anytime_mean_difference(challenger, control, alpha=level)
    # Two intervals of nearly the same thing: each end is the sharper one's.
    low, high = max(ends[0], first.low), min(ends[1], first.high)
    return (low, max(low, high)) if goal.direction == "decrease" else (min(low, high), high)


def _quantile_ends(
    tally: Tally, quantile: float, place: int, alpha: float, tuned_for: int
) -> _Ends:
    control, challenger = tally.bins[0], tally.bins[place]
    if min(control.sum(), challenger.sum()) < LEAST_UNITS:
        return _OPEN
    found = binned_quantile_difference(
        control,
        challenger,
        EDGES,
        quantile=quantile,
        alpha=alpha,
        tuned_for_values=max(tuned_for // 2, 1),
    )
    return found.low, found.high


def _quantile(tally: Tally, place: int, quantile: float) -> float:
    return binned_quantile(tally.bins[place], EDGES, quantile)


@lru_cache(maxsize=256)
def _rho(tuned_for_units: int, alpha: float) -> float:
    return best_rho(tuned_for_units, alpha, "greater")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
