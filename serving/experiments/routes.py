"""What is put to work, and who answers everybody of it: deployments, and a log of routes.

A deployment deals its units among its arms until a route sends everybody to one of them: to the
control when an experiment is stopped, to the winner when it is promoted. Routes are only ever
added, and a deployment's last one counts. Gateways ask for it every second (gateway/routing.py), so
a route takes hold within that, and needs nothing to be loaded.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import sqlalchemy as sa

from data.errors import ExperimentError
from serving.experiments.database import act_alone, name_of, open_database, reported
from serving.experiments.tables import deployments, routes

DeploymentKind = Literal["sentiment", "language"]
_LONGEST: Final = 2_000


def now_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1_000


@dataclass(frozen=True)
class Route:
    """Who answers everybody of a deployment.

    Attributes:
        number: of all routes, from 1 on.
        deployment_id: whose.
        arm: that answers everybody; None where units are dealt.
        by: a person, or the part that did it.
        reason: why.
        at_us: when, in microseconds since 1970.
    """

    number: int
    deployment_id: str
    arm: str | None
    by: str
    reason: str
    at_us: int


@dataclass(frozen=True)
class PutToWork:
    """A deployment that was put to work.

    Attributes:
        deployment_id: 32 hex digits.
        experiment_id: whose.
        kind: of models.
        content: the deployment file's JSON.
        at_us: when, in microseconds since 1970.
    """

    deployment_id: str
    experiment_id: str
    kind: DeploymentKind
    content: Mapping[str, Any]
    at_us: int


class Routes:
    """The deployments and routes of one store."""

    def __init__(self, url: str, *, clock: Callable[[], int] = now_us):
        """Open the store.

        Raises:
            ExperimentError: the database cannot be opened.
        """
        self._engine = open_database(url)
        self.name = name_of(self._engine)
        self._clock = clock

    def now(self, deployment_id: str) -> Route | None:
        """A deployment's last route; None where its units have always been dealt.

        Raises:
            ExperimentError: the database cannot be read.
        """
        with reported(self._engine, "read the routes of"), self._engine.connect() as connection:
            return last_route(connection, deployment_id)

    def all(self, *, limit: int = 1_000) -> list[Route]:
        """The last routes of all deployments, the newest first.

        Raises:
            ExperimentError: the database cannot be read.
        """
        query = sa.select(routes).order_by(routes.c.number.desc()).limit(limit)
        with reported(self._engine, "read the routes of"), self._engine.connect() as connection:
            return [_route(row) for row in connection.execute(query)]

    def turn(self, deployment_id: str, arm: str | None, *, by: str, reason: str) -> Route:
        """Send everybody of a deployment to an arm, or deal them again; done once if asked twice.

        Raises:
            ExperimentError: no such deployment was put to work, it has no such arm, or the
                database refused.
        """
        with (
            reported(self._engine, f"turn deployment {deployment_id!r} in"),
            self._engine.begin() as connection,
        ):
            act_alone(connection)
            return turn(connection, deployment_id, arm, by=by, reason=reason, at_us=self._clock())

    def put(
        self, kind: DeploymentKind, deployment_id: str, experiment_id: str, content: Any
    ) -> None:
        """Write down that a deployment is put to work; one that was is not written twice.

        Raises:
            ExperimentError: the database refused.
        """
        with (
            reported(self._engine, f"write down deployment {deployment_id!r} in"),
            self._engine.begin() as connection,
        ):
            act_alone(connection)
            put_to_work(
                connection, kind, deployment_id, experiment_id, content, at_us=self._clock()
            )

    def get(self, deployment_id: str) -> PutToWork | None:
        """A deployment that was put to work.

        Raises:
            ExperimentError: the database cannot be read.
        """
        with (
            reported(self._engine, "read the deployments of"),
            self._engine.connect() as connection,
        ):
            return stored_deployment(connection, deployment_id)

    def latest(self, kind: DeploymentKind) -> PutToWork | None:
        """The deployment of a kind that was put to work last.

        Raises:
            ExperimentError: the database cannot be read.
        """
        newest = (deployments.c.created_at_us.desc(), deployments.c.deployment_id)
        query = sa.select(deployments).where(deployments.c.kind == kind)
        with (
            reported(self._engine, "read the deployments of"),
            self._engine.connect() as connection,
        ):
            return _put(connection.execute(query.order_by(*newest).limit(1)).first())

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.dispose()


def stored_deployment(connection: sa.Connection, deployment_id: str) -> PutToWork | None:
    """``Routes.get`` within a transaction."""
    query = sa.select(deployments).where(deployments.c.deployment_id == deployment_id)
    return _put(connection.execute(query).first())


def last_route(connection: sa.Connection, deployment_id: str) -> Route | None:
    """A deployment's last route, within a transaction."""
    query = sa.select(routes).where(routes.c.deployment_id == deployment_id)
    row = connection.execute(query.order_by(routes.c.number.desc()).limit(1)).first()
    return None if row is None else _route(row)


def turn(
    connection: sa.Connection,
    deployment_id: str,
    arm: str | None,
    *,
    by: str,
    reason: str,
    at_us: int,
) -> Route:
    """``Routes.turn`` within a transaction that ``act_alone`` has begun."""
    known = connection.execute(
        sa.select(deployments.c.content).where(deployments.c.deployment_id == deployment_id)
    ).scalar()
    if known is None:
        raise ExperimentError(
            f"deployment {deployment_id!r} was never put to work, so nobody is answered by it; "
            "name one that a gateway serves"
        )
    names = [each["name"] for each in known["arms"]]
    if arm is not None and arm not in names:
        raise ExperimentError(
            f"arm={arm!r} is none of deployment {deployment_id!r}; it has {names!r}"
        )
    last = last_route(connection, deployment_id)
    if last.arm == arm if last else arm is None:
        return last or Route(0, deployment_id, None, by, reason, at_us)
    newest = connection.execute(
        sa.select(sa.func.max(routes.c.number), sa.func.max(routes.c.created_at_us))
    ).one()
    route = Route(
        number=(newest[0] or 0) + 1,
        deployment_id=deployment_id,
        arm=arm,
        by=by,
        reason=reason[:_LONGEST],
        # A clock that was set back must not turn the history around.
        at_us=max(at_us, newest[1] or 0),
    )
    connection.execute(
        routes.insert().values(
            number=route.number,
            deployment_id=deployment_id,
            arm=arm,
            by=by,
            reason=route.reason,
            created_at_us=route.at_us,
        )
    )
    return route


def put_to_work(
    connection: sa.Connection,
    kind: DeploymentKind,
    deployment_id: str,
    experiment_id: str,
    content: Any,
    *,
    at_us: int,
) -> None:
    """``Routes.put`` within a transaction that ``act_alone`` has begun."""
    known = sa.select(deployments.c.kind).where(deployments.c.deployment_id == deployment_id)
    if connection.execute(known).first() is None:
        newest = connection.execute(sa.select(sa.func.max(deployments.c.created_at_us))).scalar()
        connection.execute(
            deployments.insert().values(
                deployment_id=deployment_id,
                experiment_id=experiment_id,
                kind=kind,
                content=content,
                created_at_us=max(at_us, (newest or 0) + 1),
            )
        )


def _route(row: sa.Row[Any]) -> Route:
    return Route(row.number, row.deployment_id, row.arm, row.by, row.reason, row.created_at_us)


def _put(row: sa.Row[Any] | None) -> PutToWork | None:
    if row is None:
        return None
    return PutToWork(row.deployment_id, row.experiment_id, row.kind, row.content, row.created_at_us)
