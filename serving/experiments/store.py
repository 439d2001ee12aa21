"""The store of exposures and outcomes: what was answered to whom, and how it turned out.

SQLAlchemy 2 Core over SQLite (WAL, synchronous=FULL) or PostgreSQL (psycopg 3). Writing twice what
was written before changes nothing, so a caller may always try again. No review text and no raw
unit is stored: a text stands as its SHA-256, a unit as its salted hash.

    exposures   whatever an arm was asked. An answer's event_id = hash(request_id, item): a request
                id is answered once, for as long as the exposure is here; retention.py moves what
                is old to an archive. Failures and a shadow's answers have ids of their own
    outcomes    an answer may have several; of each metric the latest counts
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson
import sqlalchemy as sa

from data.contract import Sentiment
from data.errors import ExperimentError
from serving.dealing import ArmName
from serving.experiments.assignment import Why
from serving.experiments.database import name_of, open_database, reported
from serving.experiments.tables import REWARD, exposures, insert_or_ignore, outcomes
from serving.experiments.units import UnitOutcomes, per_unit, unit_outcomes, versions_by_arm

_IN_LIMIT: Final = 500
_PROBE: Final = "probe of the store"

FeedbackResult = Literal["stored", "duplicate", "unknown", "conflict", "no_sentiment"]


class RequestIdReusedError(ExperimentError):
    """A request id was answered before with another text, unit or deployment."""


def reused(request_id: str) -> RequestIdReusedError:
    """The error of a request id that serves twice."""
    return RequestIdReusedError(
        f"request id {request_id!r} was answered before with another text, unit or deployment; "
        "send a new X-Request-Id"
    )


Status = Literal["ok", "degraded", "failed"]


def exposure_event_id(request_id: str, item: int) -> str:
    """32 hex digits, the same for the answer to the same item of the same request."""
    return hashlib.sha256(f"{request_id}\0{item}".encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Exposure:
    """One review, or one request to a language model, that one arm was asked.

    Attributes:
        prediction: the answer's JSON, as it was sent; of a language model's answer, which may
            repeat reviews, only its facts and its hash; of a failure, ``{"error": code}``.
        why: why this arm was asked; only what was ``assigned`` by chance is compared.
        status: what came of it.
        cost: of the answer, in whatever unit its owner counts; None where nobody counts.
    """

    request_id: str
    item: int
    experiment_id: str
    deployment_id: str
    unit: str
    arm: ArmName
    model_version: str
    text_sha256: str
    prediction: bytes
    latency_ms: float
    created_at_us: int
    why: Why = "assigned"
    status: Status = "ok"
    cost: float | None = None

    def event_id(self) -> str:
        """32 hex digits: an answer's is its request's and item's.

        Failures and a shadow's answers were sent to nobody, so feedback finds none of them, and a
        request that failed may be sent again under its id.
        """
        if self.why == "mirrored":
            apart = f"{self.request_id}\0{self.item}\0{self.arm}"
        elif self.status == "failed":
            apart = f"{self.request_id}\0{self.item}\0{self.arm}\0{self.created_at_us}"
        else:
            return exposure_event_id(self.request_id, self.item)
        return hashlib.sha256(apart.encode()).hexdigest()[:32]

    def row(self) -> dict[str, Any]:
        """The row of ``exposures``."""
        return {
            "event_id": self.event_id(),
            "request_id": self.request_id,
            "item": self.item,
            "experiment_id": self.experiment_id,
            "deployment_id": self.deployment_id,
            "unit": self.unit,
            "arm": self.arm,
            "model_version": self.model_version,
            "text_sha256": self.text_sha256,
            "prediction": orjson.Fragment(self.prediction),
            "latency_ms": self.latency_ms,
            "created_at_us": self.created_at_us,
            "why": self.why,
            "status": self.status,
            "cost": self.cost,
        }


@dataclass(frozen=True, slots=True)
class Feedback:
    """How one answer turned out: the true sentiment, or a value of a metric (exactly one).

    Attributes:
        reward: the metric's value; of the metric ``reward`` from 0 to 1.
        metric: which one; the true sentiment is always a ``reward``: 1 where it was met.
    """

    request_id: str
    item: int
    created_at_us: int
    event_id: str | None = None
    sentiment: Sentiment | None = None
    reward: float | None = None
    metric: str = REWARD

    def key(self) -> str:
        """The event id; without one, the same feedback sent again is the same event."""
        if self.event_id is not None:
            return self.event_id
        said = self.sentiment if self.reward is None else repr(float(self.reward))
        if self.metric != REWARD:
            said = f"{self.metric}\0{said}"
        return hashlib.sha256(f"{self.request_id}\0{self.item}\0{said}".encode()).hexdigest()[:32]


class ExperimentStore:
    """The two tables. Every write is one transaction, on disk when the call returns."""

    def __init__(self, url: str):
        """Open the store, and make its tables where they are missing.

        Raises:
            ExperimentError: the database cannot be opened.
        """
        self._engine = open_database(url)
        self.name = name_of(self._engine)
        self._insert_exposures = insert_or_ignore(self._engine, exposures)
        self._insert_outcomes = insert_or_ignore(self._engine, outcomes)

    def write(
        self, shown: Sequence[Exposure], feedback: Sequence[Feedback] = ()
    ) -> list[FeedbackResult]:
        """Commit exposures and feedback together; returns what became of each feedback.

        Raises:
            RequestIdReusedError: a request id was answered before with another text, unit or
                deployment; nothing of this call is stored.
            sqlalchemy.exc.SQLAlchemyError: the database refused; nothing of this call is stored.
        """
        with self._engine.begin() as connection:
            self._write_exposures(connection, shown)
            return self._write_feedback(connection, feedback)

    def _write_exposures(self, connection: sa.Connection, shown: Sequence[Exposure]) -> None:
        if not shown:
            return
        rows = [exposure.row() for exposure in shown]
        written = connection.execute(
            self._insert_exposures, rows, execution_options={"preserve_rowcount": True}
        ).rowcount
        if written == len(rows):
            return
        same = ("deployment_id", "unit", "text_sha256")
        before = _by_event_id(connection, exposures, [row["event_id"] for row in rows], same)
        for row in rows:
            if any(before[row["event_id"]][name] != row[name] for name in same):
                raise reused(row["request_id"])

    def _write_feedback(
        self, connection: sa.Connection, feedback: Sequence[Feedback]
    ) -> list[FeedbackResult]:
        if not feedback:
            return []
        answered = _by_event_id(
            connection,
            exposures,
            [exposure_event_id(one.request_id, one.item) for one in feedback],
            ("prediction",),
        )
        columns = ("request_id", "item", "metric", "reward", "label")
        before = _by_event_id(connection, outcomes, [one.key() for one in feedback], columns)
        results: list[FeedbackResult] = []
        rows = []
        for one in feedback:
            answer = answered.get(exposure_event_id(one.request_id, one.item))
            if answer is None:
                results.append("unknown")
                continue
            if one.sentiment is not None and "sentiment" not in answer["prediction"]:
                results.append("no_sentiment")  # a summary, say: only a reward can tell of it
                continue
            said = _said(one, answer["prediction"])
            stored = before.setdefault(one.key(), said)
            if stored is said:
                rows.append({"event_id": one.key(), "created_at_us": one.created_at_us, **said})
                results.append("stored")
            else:
                results.append("duplicate" if stored == said else "conflict")
        if rows:
            connection.execute(self._insert_outcomes, rows)
        return results

    def exposures_with_outcomes(
        self,
        experiment_id: str,
        deployment_id: str,
        *,
        window_days: float | None = None,
        settling_days: float = 0.0,
        closed_by_us: int | None = None,
    ) -> UnitOutcomes:
        """Per unit and arm: answers, outcomes and mean reward, in order of first answer.

        Where an answer has several outcomes, the latest counts.

        Args:
            experiment_id: of the deployment.
            deployment_id: of the deployment.
            window_days: outcomes later than this after their exposure do not count; None counts
                all.
            settling_days: answers sooner than this after their unit's first one do not count; the
                first that is still here, where older ones have gone to an archive.
            closed_by_us: answers whose window was open at this moment do not count; None counts
                them all.

        Raises:
            ExperimentError: the database cannot be read, a unit is no hash, days are out of range.
        """
        units = per_unit(
            experiment_id,
            deployment_id,
            window_days=window_days,
            settling_days=settling_days,
            closed_by_us=closed_by_us,
        )
        with reported(self._engine, "read"), self._engine.connect() as connection:
            rows = connection.execute(units).all()
            versions = connection.execute(versions_by_arm(experiment_id, deployment_id)).all()
        return unit_outcomes(rows, versions)

    def counts(self) -> dict[str, int]:
        """Rows of each table."""
        with self._engine.connect() as connection:
            return {
                table.name: connection.execute(
                    sa.select(sa.func.count()).select_from(table)
                ).scalar_one()
                for table in (exposures, outcomes)
            }

    def ping(self) -> None:
        """Read from the database.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: it cannot be read.
        """
        with self._engine.connect() as connection:
            connection.execute(sa.select(exposures.c.event_id).limit(1)).all()

    def probe(self) -> None:
        """Write and commit, durably, and leave nothing behind: a full disk does not let it.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database refused.
        """
        row = {"event_id": _PROBE, "request_id": _PROBE, "item": 0, "reward": 0.0, "label": None}
        with self._engine.begin() as connection:
            connection.execute(self._insert_outcomes, [row | {"created_at_us": 0}])
            connection.execute(outcomes.delete().where(outcomes.c.event_id == _PROBE))

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.dispose()


def _by_event_id(
    connection: sa.Connection, table: sa.Table, event_ids: Sequence[str], columns: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The named columns of the rows that exist, by event id."""
    wanted = [table.c[name] for name in columns]
    found: dict[str, dict[str, Any]] = {}
    for start in range(0, len(event_ids), _IN_LIMIT):
        some = event_ids[start : start + _IN_LIMIT]
        rows = connection.execute(
            sa.select(table.c.event_id, *wanted).where(table.c.event_id.in_(some))
        )
        for event_id, *values in rows:
            found[event_id] = dict(zip(columns, values, strict=True))
    return found


def _said(feedback: Feedback, prediction: dict[str, Any]) -> dict[str, Any]:
    """The columns of an outcome that decide whether two are the same."""
    if feedback.sentiment is None:
        reward, label = feedback.reward, None
    else:
        reward = float(prediction["sentiment"]["label"] == feedback.sentiment)
        label = {"sentiment": feedback.sentiment}
    return {
        "request_id": feedback.request_id,
        "item": feedback.item,
        "metric": feedback.metric,
        "reward": reward,
        "label": label,
    }
