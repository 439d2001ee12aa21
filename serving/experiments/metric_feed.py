"""The metrics of a deployment as they come in: from the store's new rows to sums per unit.

A look reads what is new (tail.py) and adds it up (tallies.py), so that it costs as much after a
month as after a minute. Only what was dealt by chance counts; in a shadow, what the control
answered and what the others were asked a copy of. Feedback counts within the attribution window,
and of several outcomes of an answer the latest. Whatever has no finite value was not measured.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import sqlalchemy as sa

from serving.experiments.database import reported
from serving.experiments.goals import MetricGoal
from serving.experiments.inference.levels import Floats
from serving.experiments.metric_names import BOUNDED, FROM_ANSWERS
from serving.experiments.metric_values import answer_terms
from serving.experiments.routes import now_us
from serving.experiments.store import exposure_event_id
from serving.experiments.tables import ASSIGNED, FAILED, MIRRORED, REWARD, exposures, outcomes
from serving.experiments.tail import Tail
from serving.experiments.tallies import Numbers, Slots, Tally
from serving.experiments.units import window_us

_IN_LIMIT: Final = 500
_EARLY_US: Final = 60_000_000
"""How far the clocks of gateways may differ."""
_SETTLED_US: Final = 120_000_000
"""After which a request is answered, or given up: until then a slow arm seems to have met fewer."""
_LABELLED: Final = "sentiment_accuracy"
_Row = sa.Row[Any, Any, Any, Any]


class MetricFeed:
    """What is known of one deployment's metrics. Used from one thread at a time.

    Attributes:
        units: that were dealt to each arm.
        settled: place of an arm → its units whose first request came so long ago that any other
            of that time is answered, too: they tell whether units are dealt as they should be.
        tallies: by the goals' labels.
    """

    def __init__(
        self,
        engine: sa.Engine,
        deployment_id: str,
        *,
        arms: Sequence[str],
        goals: Sequence[MetricGoal],
        attribution_days: float,
        shadow: bool = False,
        clock: Callable[[], int] = now_us,
    ):
        """Know nothing yet.

        Args:
            engine: of the store.
            deployment_id: whose rows are read.
            arms: by name, the control first.
            goals: what is measured.
            attribution_days: how late an outcome may come after its answer and still count.
            shadow: the others are asked copies of what the control answers.
            clock: microseconds since 1970.

        Raises:
            ExperimentError: the window is no positive number of days.
        """
        self._engine = engine
        self._deployment_id = deployment_id
        self._arms = tuple(arms)
        self._goals = tuple(goals)
        self._window_us = window_us(attribution_days)
        self._clock = clock
        dealt = exposures.c.why == ASSIGNED
        if shadow:
            dealt &= exposures.c.arm == arms[0]
            dealt |= exposures.c.why == MIRRORED
        self._counts = (exposures.c.deployment_id == deployment_id) & dealt
        self._terms = [goal for goal in goals if goal.name in FROM_ANSWERS]
        self._fed_back = [goal for goal in goals if goal.name not in FROM_ANSWERS]
        self._start_anew()

    def _start_anew(self) -> None:
        self._asks = Tail(exposures, now_us=self._clock)
        self._told = Tail(outcomes, now_us=self._clock)
        self.units = Slots(self._arms)
        self.settled = [0] * len(self._arms)
        self._unsettled: list[tuple[float, int]] = []  # a heap of when units came, and their arms
        self.tallies = {
            goal.label: Tally(
                self.units,
                of_means=goal.name not in FROM_ANSWERS,
                binned=goal.quantile is not None,
                bounded=goal.name in BOUNDED,
            )
            for goal in self._goals
        }
        # Metric and answer → when its latest outcome came, that one's id, and its value.
        self._latest: dict[tuple[str, str], tuple[int, str, float]] = {}

    def read(self, *, most_rows: int) -> bool:
        """Add up what is new, about ``most_rows`` at most; True where there may be more.

        Raises:
            ExperimentError: the database cannot be read.
        """
        if self._asks.went_back or self._told.went_back:
            self._start_anew()
        try:
            with reported(self._engine, "read metrics from"), self._engine.connect() as connection:
                behind = self._read_asks(connection, most_rows)
                if not behind and self._fed_back:
                    behind = self._read_outcomes(connection, most_rows)
        except BaseException:
            # What was read and not added up would be missing for good.
            self._start_anew()
            raise
        # What was not read yet is not late.
        self._settle(self._asks.newest_us if behind else self._clock())
        return behind

    def _settle(self, now_us: int) -> None:
        until_us = now_us - _SETTLED_US
        while self._unsettled and self._unsettled[0][0] <= until_us:
            self.settled[heapq.heappop(self._unsettled)[1]] += 1

    def _slot(self, row: Any) -> int:
        """The slot of an ask's unit."""
        slots = len(self.units)
        slot = self.units.number(row.arm, row.unit)
        if slot == slots:
            # A row is written when the answer is there.
            came_us = row.created_at_us - row.latency_ms * 1e3
            heapq.heappush(self._unsettled, (came_us, self._arms.index(row.arm)))
        return slot

    def _read_asks(self, connection: sa.Connection, most_rows: int) -> bool:
        terms = [term for goal in self._terms for term in answer_terms(goal.name)]
        query = sa.select(
            exposures.c.event_id,
            exposures.c.created_at_us,
            exposures.c.unit,
            exposures.c.arm,
            exposures.c.latency_ms,
            *(term.label(f"term_{place}") for place, term in enumerate(terms)),
        ).where(self._counts, exposures.c.arm.in_(self._arms))
        rows, behind = self._asks.read(connection, query, most_rows=most_rows)
        slots = np.asarray([self._slot(row) for row in rows], dtype=np.int64)
        values = np.asarray([row[5:] for row in rows], dtype=np.float64).reshape(
            len(rows), len(terms)
        )
        for goal, place in zip(self._terms, range(0, len(terms), 2), strict=True):
            numerators, denominators = values[:, place], values[:, place + 1]
            finite = np.isfinite(numerators)
            self.tallies[goal.label].add(slots[finite], numerators[finite], denominators[finite])
        return behind

    def _read_outcomes(self, connection: sa.Connection, most_rows: int) -> bool:
        first = sa.select(sa.func.min(exposures.c.created_at_us)).where(self._counts)
        if not self._told.newest_us:
            began_us = connection.execute(first).scalar()
            if began_us is None:
                return False
            self._told.begin(began_us - _EARLY_US)
        names = {REWARD if goal.name == _LABELLED else goal.name for goal in self._fed_back}
        query = sa.select(outcomes).where(outcomes.c.metric.in_(sorted(names)))
        rows, behind = self._told.read(connection, query, most_rows=most_rows)
        answers = self._answers(connection, rows)
        for goal in self._fed_back:
            self._tell(goal, rows, answers)
        return behind

    def _answers(self, connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> dict[str, _Row]:
        """The answers that outcomes speak of, by event id, as far as they count."""
        wanted = sorted({exposure_event_id(row.request_id, row.item) for row in rows})
        columns = ("event_id", "created_at_us", "unit", "arm", "latency_ms")
        query = sa.select(*(exposures.c[name] for name in columns)).where(
            self._counts, exposures.c.status != FAILED, exposures.c.arm.in_(self._arms)
        )
        return {
            answer.event_id: answer
            for start in range(0, len(wanted), _IN_LIMIT)
            for answer in connection.execute(
                query.where(exposures.c.event_id.in_(wanted[start : start + _IN_LIMIT]))
            )
        }

    def _tell(
        self, goal: MetricGoal, rows: Sequence[sa.Row[Any]], answers: dict[str, _Row]
    ) -> None:
        added, corrected = [], []
        for slot, value, before in self._counted(goal, rows, answers):
            if before is None:
                added.append((slot, value))
            else:
                corrected.append((slot, value - before))
        tally = self.tallies[goal.label]
        for some, tell in ((added, self._add), (corrected, Tally.correct)):
            slots = np.asarray([slot for slot, _ in some], dtype=np.int64)
            tell(tally, slots, np.asarray([value for _, value in some], dtype=np.float64))

    @staticmethod
    def _add(tally: Tally, slots: Numbers, values: Floats) -> None:
        tally.add(slots, values, np.ones_like(values))

    def _counted(
        self, goal: MetricGoal, rows: Sequence[sa.Row[Any]], answers: dict[str, _Row]
    ) -> Iterator[tuple[int, float, float | None]]:
        """Of each outcome that counts: its slot, its value, and the value that it corrects."""
        named = REWARD if goal.name == _LABELLED else goal.name
        for row in rows:
            answer_id = exposure_event_id(row.request_id, row.item)
            answer = answers.get(answer_id)
            if answer is None or row.metric != named or not np.isfinite(row.reward):
                continue
            if goal.name == _LABELLED and row.label is None:
                continue
            too_late = self._window_us is not None and (
                row.created_at_us > answer.created_at_us + self._window_us
            )
            if too_late:
                continue
            said = (row.created_at_us, row.event_id, float(row.reward))
            earlier = self._latest.get((goal.label, answer_id))
            if earlier is None or said[:2] > earlier[:2]:
                self._latest[goal.label, answer_id] = said
                slot = self._slot(answer)
                yield slot, said[2], None if earlier is None else earlier[2]
