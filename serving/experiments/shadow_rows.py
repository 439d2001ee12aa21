"""What a shadow tells: the same texts, answered by the control and, for the log, by another arm.

In: a shadow's deployment. Out: each metric of both answers per unit, and where the answers differ.
Nobody saw the other arm's answers, so nothing was fed back of them; but where the true sentiment
was fed back of the control's answer, the other's can be held against it too.
"""

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import sqlalchemy as sa

from serving.experiments.inference.levels import Floats
from serving.experiments.metric_names import FROM_ANSWERS
from serving.experiments.metric_rows import MetricValues
from serving.experiments.metric_values import answer_terms
from serving.experiments.report import Differing, Disagreement
from serving.experiments.tables import FAILED, REWARD, exposures, outcomes

_EXAMPLES: Final = 20
_MIRRORED: Final = "mirrored"
_LABEL: Final = exposures.c.prediction[("sentiment", "label")].as_string()


@dataclass(frozen=True)
class MirroredCounts:
    """Copies that an arm was asked: of how many units, how many, and those it did not answer."""

    units: int
    asks: int
    failures: int


@dataclass(frozen=True)
class Pairs:
    """A metric of the control's and the other arm's answers to the same requests, per unit (n,)."""

    control: MetricValues
    other: MetricValues

    @classmethod
    def none(cls) -> Self:
        """No pair at all."""
        return cls(MetricValues(np.empty(0), np.empty(0)), MetricValues(np.empty(0), np.empty(0)))

    @property
    def differences(self) -> Floats:
        """(m,) the other's own mean less the control's, of the units where both have one."""
        both = self.control.known & self.other.known
        return np.asarray(self.other.values[both] - self.control.values[both])


def shadow_metrics() -> frozenset[str]:
    """The metrics that a shadow can compare."""
    return frozenset({*FROM_ANSWERS, "sentiment_accuracy"})


def mirrored_counts(connection: sa.Connection, deployment_id: str, arm: str) -> MirroredCounts:
    """How often an arm was asked a copy."""
    failed = sa.func.coalesce(sa.func.sum(sa.case((exposures.c.status == FAILED, 1), else_=0)), 0)
    units = sa.func.count(exposures.c.unit.distinct())
    query = sa.select(units, sa.func.count(), failed).where(
        exposures.c.deployment_id == deployment_id,
        exposures.c.why == _MIRRORED,
        exposures.c.arm == arm,
    )
    return MirroredCounts(*map(int, connection.execute(query).one()))


def pairs_of(
    connection: sa.Connection, deployment_id: str, *, control: str, arm: str, metric: str
) -> Pairs:
    """A metric of ``shadow_metrics`` of both answers, in order of the units' first request."""
    if metric in FROM_ANSWERS:
        above, below = answer_terms(metric)
        ours = _asked(deployment_id, control, above.label("a"), below.label("b"), mirrored=False)
        theirs = _asked(deployment_id, arm, above.label("a"), below.label("b"), mirrored=True)
        terms: tuple[sa.ColumnElement[Any], ...] = (ours.c.a, ours.c.b, theirs.c.a, theirs.c.b)
    else:
        ours = _judged(deployment_id, control)
        theirs = _asked(deployment_id, arm, _LABEL.label("label"), mirrored=True)
        right = [sa.case((side.c.label == ours.c.truth, 1.0), else_=0.0) for side in (ours, theirs)]
        known = sa.case((theirs.c.label.is_not(None), 1), else_=0)
        terms = (right[0], known, right[1] * known, known)
    rows = (
        sa.select(*(sa.func.sum(term) for term in terms))
        .select_from(ours.join(theirs, _same(ours, theirs)))
        .group_by(ours.c.unit)
        .order_by(sa.func.min(ours.c.created_at_us), ours.c.unit)
    )
    found = np.asarray([tuple(row) for row in connection.execute(rows)], dtype=np.float64)
    a, b, c, d = found.reshape(-1, 4).T
    return Pairs(MetricValues(a, b), MetricValues(c, d))


def disagreement(
    connection: sa.Connection, deployment_id: str, *, control: str, arm: str, phase: int
) -> Disagreement:
    """How the control's and the arm's sentiments of the same texts differ."""
    ours = _asked(deployment_id, control, _LABEL.label("label"), mirrored=False)
    theirs = _asked(deployment_id, arm, _LABEL.label("label"), mirrored=True)
    labels = (ours.c.label, theirs.c.label)
    joined = (
        sa.select()
        .select_from(ours.join(theirs, _same(ours, theirs)))
        .where(ours.c.label.is_not(None), theirs.c.label.is_not(None))
    )
    confusion: dict[str, dict[str, int]] = {}
    for one, other, count in connection.execute(
        joined.add_columns(*labels, sa.func.count()).group_by(*labels).order_by(*labels)
    ):
        confusion.setdefault(one, {})[other] = int(count)
    differ = (
        joined.where(ours.c.label != theirs.c.label)
        .add_columns(
            *(ours.c.request_id, ours.c.item, ours.c.text_sha256),
            *(ours.c.prediction, theirs.c.prediction.label("other")),
        )
        .order_by(ours.c.created_at_us.desc(), ours.c.request_id, ours.c.item)
        .limit(_EXAMPLES)
    )
    return Disagreement(
        arm=arm,
        phase=phase,
        pairs=sum(sum(row.values()) for row in confusion.values()),
        agreed=sum(row.get(label, 0) for label, row in confusion.items()),
        confusion=confusion,
        examples=tuple(_example(row) for row in connection.execute(differ)),
    )


def _asked(
    deployment_id: str, arm: str, *columns: sa.ColumnElement[Any], mirrored: bool
) -> sa.Subquery:
    """What an arm was asked, with more columns of it."""
    copied = exposures.c.why == _MIRRORED
    return (
        sa.select(
            exposures.c.request_id,
            exposures.c.item,
            exposures.c.unit,
            exposures.c.created_at_us,
            exposures.c.text_sha256,
            exposures.c.prediction,
            *columns,
        )
        .where(
            exposures.c.deployment_id == deployment_id,
            exposures.c.arm == arm,
            copied if mirrored else ~copied,
        )
        .subquery()
    )


def _judged(deployment_id: str, control: str) -> sa.Subquery:
    """The control's answers whose true sentiment was fed back; the latest counts."""
    place = sa.func.row_number().over(
        partition_by=exposures.c.event_id,
        order_by=[outcomes.c.created_at_us.desc(), outcomes.c.event_id.desc()],
    )
    said = (exposures.c.request_id == outcomes.c.request_id) & (exposures.c.item == outcomes.c.item)
    said &= (outcomes.c.metric == REWARD) & outcomes.c.label.is_not(None)
    answers = (
        sa.select(
            exposures.c.request_id,
            exposures.c.item,
            exposures.c.unit,
            exposures.c.created_at_us,
            _LABEL.label("label"),
            outcomes.c.label[("sentiment",)].as_string().label("truth"),
            place.label("place"),
        )
        .select_from(exposures.join(outcomes, said))
        .where(
            exposures.c.deployment_id == deployment_id,
            exposures.c.arm == control,
            exposures.c.why != _MIRRORED,
        )
        .subquery()
    )
    return sa.select(answers).where(answers.c.place == 1).subquery()


def _same(ours: sa.Subquery, theirs: sa.Subquery) -> sa.ColumnElement[bool]:
    return (ours.c.request_id == theirs.c.request_id) & (ours.c.item == theirs.c.item)


def _example(row: sa.Row[Any]) -> Differing:
    one, other = row.prediction["sentiment"], row.other["sentiment"]
    return Differing(
        request_id=row.request_id,
        item=row.item,
        text_sha256=row.text_sha256,
        control_label=one["label"],
        other_label=other["label"],
        control=one.get("probabilities") or {},
        other=other.get("probabilities") or {},
    )
