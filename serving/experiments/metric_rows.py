"""What the store says of a phase: every unit that met an arm by chance, and each metric of it.

In: a store and a deployment. Out: arrays with one entry per unit and arm, in the order in which
units first came, so that all metrics of one read belong together. Sums are made by the database:
a million answers are as many rows there, and as many numbers here, but never objects.

A metric's value before the phase is a covariate. It is of what was answered and fed back before
the phase opened, and never by this experiment's own arms: a unit keeps its arm from one phase to
the next, so what an earlier phase did to it is part of the effect.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from data.errors import ExperimentError
from serving.experiments.metric_arrays import Earlier, MetricValues, PhaseUnits, SingleValues
from serving.experiments.metric_names import FROM_ANSWERS
from serving.experiments.metric_values import answer_terms
from serving.experiments.tables import ASSIGNED, FAILED, REWARD, exposures, outcomes
from serving.experiments.units import window_us

_ROWS_AT_ONCE: Final = 50_000
_ACCURACY: Final = "sentiment_accuracy"


class PhaseReader:
    """One deployment of a store, as it is at one moment."""

    def __init__(
        self,
        connection: sa.Connection,
        *,
        experiment_id: str,
        deployment_id: str,
        arms: Sequence[str],
        window_days: float | None,
    ):
        """Read through a connection that ``at_one_moment`` has opened.

        Args:
            connection: of the store.
            experiment_id: of the deployment.
            deployment_id: of the deployment.
            arms: the deployment's arms, the control first.
            window_days: how late after its answer an outcome still counts; None: ever.

        Raises:
            ExperimentError: the window is no positive number of days.
        """
        self._connection = connection
        self._arms = tuple(arms)
        self._window_us = window_us(window_days)
        self.deployment_id = deployment_id
        self._dealt = (
            (exposures.c.experiment_id == experiment_id)
            & (exposures.c.deployment_id == deployment_id)
            & (exposures.c.why == ASSIGNED)
        )
        self._known = exposures.c.arm.in_(self._arms)

    def units(self) -> PhaseUnits:
        """Everybody that met an arm, and how often."""
        failed = sa.func.sum(sa.case((exposures.c.status == FAILED, 1), else_=0))
        first = sa.func.min(exposures.c.created_at_us)
        rows = self._per_unit([exposures.c.arm, first, sa.func.count(), failed])
        arm, first_us, asks, failures = self._columns(rows, 4, arm_first=True)
        met = self._by_unit(exposures.c.unit).having(sa.func.count(exposures.c.arm.distinct()) > 1)
        crossed = sa.select(sa.func.count()).select_from(met.subquery())
        versions = (
            sa.select(exposures.c.arm, exposures.c.model_version).where(self._dealt).distinct()
        )
        found = sorted(tuple(row) for row in self._connection.execute(versions))
        return PhaseUnits(
            arm=arm.astype(np.int64),
            first_us=first_us.astype(np.int64),
            asks=asks.astype(np.int64),
            failures=failures.astype(np.int64),
            crossed=int(self._connection.execute(crossed).scalar_one()),
            strangers=tuple(sorted({name for name, _ in found} - set(self._arms))),
            versions={
                arm: tuple(version for name, version in found if name == arm) for arm in self._arms
            },
        )

    def metric(self, name: str) -> MetricValues:
        """A metric of every unit, in the order of ``units``."""
        rows: sa.Executable
        if name in FROM_ANSWERS:
            above, below = answer_terms(name)
            rows = self._per_unit([sa.func.sum(above), sa.func.sum(below)])
        else:
            said = self._outcomes(name, self._dealt & self._known)
            rows = (
                sa.select(sa.func.sum(said.c.reward), sa.func.count(said.c.reward))
                .where(said.c.place == 1)
                .group_by(said.c.unit, said.c.arm)
                .order_by(sa.func.min(said.c.created_at_us), said.c.unit, said.c.arm)
            )
        return MetricValues(*self._columns(rows, 2))

    def single_values(self, name: str) -> SingleValues:
        """A metric of every answer; only answers that have one."""
        number = sa.func.dense_rank().over(order_by=exposures.c.unit)
        if name in FROM_ANSWERS:
            above, below = answer_terms(name)
            rows = sa.select(exposures.c.arm, above, number).where(
                self._dealt, self._known, below > 0
            )
        else:
            said = self._outcomes(name, self._dealt & self._known)
            rows = sa.select(
                said.c.arm, said.c.reward, sa.func.dense_rank().over(order_by=said.c.unit)
            ).where(said.c.place == 1, said.c.reward.is_not(None))
        arm, values, unit = self._columns(rows, 3, arm_first=True)
        return SingleValues(values, arm.astype(np.int64), unit.astype(np.int64))

    def ripe(self, name: str, now_us: int) -> MetricValues:
        """Per unit, in no order: of answers whose outcome can come no more, those that have one."""
        late = now_us - (self._window_us or 0)
        answered = (exposures.c.status != FAILED) & (exposures.c.created_at_us <= late)
        said = self._outcomes(name, self._dealt & self._known & answered)
        counts: list[sa.ColumnElement[Any]] = [sa.func.count(said.c.reward), sa.func.count()]
        rows = sa.select(*counts).where(said.c.place == 1).group_by(said.c.unit, said.c.arm)
        return MetricValues(*self._columns(rows, 2))

    def earlier(
        self, names: Collection[str], *, before_us: int, not_dealt_by: Collection[str]
    ) -> Earlier:
        """What the units were asked, and how it turned out, before the phase.

        The whole store is read for it once a metric: earlier phases may be of any experiment.

        Args:
            names: metrics.
            before_us: when the phase opened.
            not_dealt_by: deployments that do not count, as their arms are this experiment's.
        """
        past = exposures.c.created_at_us < before_us
        past &= exposures.c.why != "mirrored"
        past &= exposures.c.deployment_id.not_in([self.deployment_id, *not_dealt_by])
        asks = sa.select(exposures.c.unit, sa.func.count().label("b"), sa.literal(0).label("a"))
        asked = self._aligned(asks.where(past).group_by(exposures.c.unit)).denominator
        some = names if asked.any() else ()
        return Earlier(
            asks=asked.astype(np.int64),
            metrics={name: self._aligned(self._before(name, past, before_us)) for name in some},
        )

    def _before(self, name: str, past: sa.ColumnElement[bool], before_us: int) -> sa.Select[Any]:
        """Per unit a metric's sum ``a`` and its divisor ``b``, of the past."""
        if name in FROM_ANSWERS:
            above, below = answer_terms(name)
            sums = (sa.func.sum(above).label("a"), sa.func.sum(below).label("b"))
            return sa.select(exposures.c.unit, *sums).where(past).group_by(exposures.c.unit)
        said = self._outcomes(name, past, before_us=before_us)
        sums = (sa.func.sum(said.c.reward).label("a"), sa.func.count(said.c.reward).label("b"))
        return sa.select(said.c.unit, *sums).where(said.c.place == 1).group_by(said.c.unit)

    def _aligned(self, before: sa.Select[Any]) -> MetricValues:
        """The past's sums in the order of ``units``; 0 where a unit has no past."""
        past = before.subquery()
        met = self._by_unit(
            exposures.c.unit, exposures.c.arm, sa.func.min(exposures.c.created_at_us).label("first")
        ).group_by(exposures.c.arm)
        dealt = met.where(self._known).subquery()
        rows = (
            sa.select(sa.func.coalesce(past.c.a, 0.0), sa.func.coalesce(past.c.b, 0))
            .select_from(dealt.outerjoin(past, dealt.c.unit == past.c.unit))
            .order_by(dealt.c.first, dealt.c.unit, dealt.c.arm)
        )
        return MetricValues(*self._columns(rows, 2))

    def _by_unit(self, *columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
        return sa.select(*columns).where(self._dealt).group_by(exposures.c.unit)

    def _per_unit(self, columns: Sequence[sa.ColumnElement[Any]]) -> sa.Select[Any]:
        first = sa.func.min(exposures.c.created_at_us)
        return (
            sa.select(*columns)
            .where(self._dealt, self._known)
            .group_by(exposures.c.unit, exposures.c.arm)
            .order_by(first, exposures.c.unit, exposures.c.arm)
        )

    def _outcomes(
        self, name: str, where: sa.ColumnElement[bool], *, before_us: int | None = None
    ) -> sa.Subquery:
        """Each exposure with its outcomes of a metric; of ``place`` 1 is the one that counts."""
        belongs = exposures.c.request_id == outcomes.c.request_id
        belongs &= (exposures.c.item == outcomes.c.item) & (exposures.c.status != FAILED)
        belongs &= outcomes.c.metric == (REWARD if name == _ACCURACY else name)
        if name == _ACCURACY:
            belongs &= outcomes.c.label.is_not(None)
        if self._window_us is not None:
            belongs &= outcomes.c.created_at_us <= exposures.c.created_at_us + self._window_us
        if before_us is not None:
            belongs &= outcomes.c.created_at_us < before_us
        place = sa.func.row_number().over(
            partition_by=exposures.c.event_id,
            order_by=[outcomes.c.created_at_us.desc(), outcomes.c.event_id.desc()],
        )
        columns = (exposures.c.unit, exposures.c.arm, exposures.c.created_at_us, outcomes.c.reward)
        joined = exposures.outerjoin(outcomes, belongs)
        return sa.select(*columns, place.label("place")).select_from(joined).where(where).subquery()

    def _columns(
        self, rows: sa.Executable, width: int, *, arm_first: bool = False
    ) -> list[NDArray[np.float64]]:
        """The rows' columns as arrays of floats; an arm's name as its place."""
        places = {name: place for place, name in enumerate(self._arms)}
        parts: list[NDArray[np.float64]] = [np.empty((width, 0))]
        result = self._connection.execute(rows, execution_options={"yield_per": _ROWS_AT_ONCE})
        for some in result.partitions():
            columns: list[Any] = list(zip(*some, strict=True))
            if arm_first:
                columns[0] = [places[name] for name in columns[0]]
            # A sum of nothing is None: the unit has no value.
            parts.append(
                np.asarray([[v or 0 for v in column] for column in columns], dtype=np.float64)
            )
        columns = list(np.concatenate(parts, axis=1))
        if not all(np.isfinite(column).all() for column in columns):
            raise ExperimentError(
                f"the store holds a value of deployment {self.deployment_id!r} that is not finite; "
                "find the metric that was fed back as NaN or infinity, and delete that row"
            )
        return columns


@contextmanager
def at_one_moment(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection whose reads all see the store as it was at the first of them."""
    with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        else:
            # Its driver begins no transaction for what only reads.
            connection.exec_driver_sql("BEGIN")
        yield connection
        connection.rollback()
