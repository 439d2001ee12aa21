"""The catalogue of experiments: every version that was agreed, and every event since, in SQL.

Nothing is ever changed or deleted. A version may follow another until the experiment begins.
Whoever writes does so alone, and an event is written only if it is allowed: however many gateways,
schedules and people act at once, there is one history.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from pydantic import ValidationError

from data.errors import ExperimentError
from data.manifest import canonical_digest
from serving.experiments.database import act_alone, name_of, open_database, reported
from serving.experiments.lifecycle import ENDED, OPENING, Event, Lifecycle
from serving.experiments.routes import (
    DeploymentKind,
    PutToWork,
    now_us,
    put_to_work,
    stored_deployment,
    turn,
)
from serving.experiments.specification import ExperimentSpecification, specification_of
from serving.experiments.tables import (
    experiment_events,
    experiment_settings,
    experiment_versions,
)

_SALT: Final = "salt"


class UnknownExperimentError(ExperimentError):
    """The catalogue holds no experiment of that name."""


@dataclass(frozen=True)
class Recorded:
    """An event as it was kept.

    Attributes:
        number: 1, 2, … of its experiment.
        event: what was done.
        at_us: when, microseconds since 1970; never before the event before it.
    """

    number: int
    event: Event
    at_us: int


@dataclass(frozen=True)
class Entry:
    """An experiment in the catalogue.

    Attributes:
        version: of its specification.
        lifecycle: where it stands.
        history: what was done to it.
        created_at_us: when this version was agreed.
    """

    version: int
    lifecycle: Lifecycle
    history: tuple[Recorded, ...]
    created_at_us: int


@dataclass(frozen=True)
class Served:
    """The deployment that serves a phase: its id, kind of models, and file's JSON."""

    kind: DeploymentKind
    deployment_id: str
    content: Mapping[str, Any]


class Catalogue:
    """The experiments of one store."""

    def __init__(self, url: str, *, now_us: Callable[[], int] = now_us):
        """Open the store, and make its tables where they are missing.

        Raises:
            ExperimentError: the database cannot be opened.
        """
        self._engine = open_database(url)
        self.name = name_of(self._engine)
        self._now_us = now_us

    def put(self, specification: ExperimentSpecification) -> Entry:
        """Keep a specification; the one that is kept already is not kept twice.

        Raises:
            ExperimentError: the experiment has begun with another, or the database refused.
        """
        name = specification.name
        with (
            reported(self._engine, f"keep experiment {name!r} in"),
            self._engine.begin() as connection,
        ):
            act_alone(connection)
            rows = _versions(connection, name)
            if rows and _specification(rows[-1]) == specification:
                return self._found(connection, name)
            begun = _events(connection, name)
            if begun:
                raise ExperimentError(
                    f"experiment {name!r} began with version {begun[0].version!r} and cannot "
                    "change any more; abandon it, and agree the new one under another name"
                )
            version = rows[-1].version + 1 if rows else 1
            connection.execute(
                experiment_versions.insert().values(
                    name=name,
                    version=version,
                    digest=specification.digest,
                    specification=specification.model_dump(mode="json", exclude={"digest"}),
                    created_at_us=self._now_us(),
                )
            )
            return self._found(connection, name)

    def get(self, name: str) -> Entry:
        """An experiment: the version that began, or the last one that was agreed.

        Raises:
            ExperimentError: there is none of that name, or the database cannot be read.
        """
        with (
            reported(self._engine, f"read experiment {name!r} from"),
            self._engine.connect() as connection,
        ):
            return self._found(connection, name)

    def list(self) -> list[Entry]:
        """All experiments, by name.

        Raises:
            ExperimentError: the database cannot be read.
        """
        names = sa.select(experiment_versions.c.name).distinct().order_by("name")
        with (
            reported(self._engine, "read the experiments of"),
            self._engine.connect() as connection,
        ):
            return [self._found(connection, name) for name in connection.execute(names).scalars()]

    def deployment(self, deployment_id: str) -> PutToWork | None:
        """A deployment that was put to work.

        Raises:
            ExperimentError: the database cannot be read.
        """
        with (
            reported(self._engine, "read the deployments of"),
            self._engine.connect() as connection,
        ):
            return stored_deployment(connection, deployment_id)

    def salt(self) -> str:
        """What every experiment's units are hashed with; made once.

        Experiments that share a layer or a holdout must hash alike, or the same unit is another
        one in each.

        Raises:
            ExperimentError: the database refused.
        """
        stored = sa.select(experiment_settings.c.value).where(experiment_settings.c.name == _SALT)
        with (
            reported(self._engine, "read the salt of"),
            self._engine.begin() as connection,
        ):
            act_alone(connection)
            salt: str | None = connection.execute(stored).scalar()
            if salt is None:
                salt = secrets.token_hex(16)
                connection.execute(
                    experiment_settings.insert().values(
                        name=_SALT, value=salt, created_at_us=self._now_us()
                    )
                )
            return salt

    def record(
        self,
        name: str,
        event: Event,
        *,
        after: int | None = None,
        serves: Served | None = None,
    ) -> Entry:
        """Write an event down, if it is allowed, and in the same moment who answers from then on.

        Where the open phase is served by a deployment, what stops the experiment sends everybody
        to the control, a promotion to the winner, and a resumption deals units again.

        Args:
            name: the experiment.
            event: what is done to it.
            after: how many events whoever decided has seen; None takes those there are.
            serves: the deployment of the phase that the event opens.

        Raises:
            ExperimentError: it is not allowed now, somebody acted meanwhile, or the database
                refused. Nothing is written then.
        """
        with (
            reported(self._engine, f"act on experiment {name!r} in"),
            self._engine.begin() as connection,
        ):
            act_alone(connection)
            entry = self._found(connection, name)
            seen = entry.lifecycle.events
            if after is not None and after != seen:
                raise ExperimentError(
                    f"experiment {name!r} had {after!r} events when this was decided and has "
                    f"{seen!r} now: somebody acted meanwhile; look again, then decide"
                )
            if serves is not None:
                event = event.model_copy(update={"deployment_id": serves.deployment_id})
            after_it = entry.lifecycle.after(event)  # refuses what is not allowed
            if event.action == "start":
                self._check_layer(connection, after_it.specification)
            last_us = entry.history[-1].at_us if entry.history else entry.created_at_us
            # A clock that was set back must not turn the history around.
            at_us = max(self._now_us(), last_us)
            connection.execute(
                experiment_events.insert().values(
                    name=name,
                    number=seen + 1,
                    version=entry.version,
                    event=event.model_dump(mode="json"),
                    created_at_us=at_us,
                )
            )
            if serves is not None:
                put_to_work(
                    connection,
                    serves.kind,
                    serves.deployment_id,
                    name,
                    serves.content,
                    at_us=at_us,
                )
            _turn(connection, after_it, event, at_us)
            return self._found(connection, name)

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.dispose()

    def _found(self, connection: sa.Connection, name: str) -> Entry:
        versions = _versions(connection, name)
        if not versions:
            known = sa.select(experiment_versions.c.name).distinct().order_by("name")
            names = list(connection.execute(known).scalars())
            raise UnknownExperimentError(
                f"there is no experiment {name!r} in {self.name!r}; it knows {names!r}"
            )
        return _entry(versions[-1], _events(connection, name))

    def _check_layer(self, connection: sa.Connection, starts: ExperimentSpecification) -> None:
        place = starts.layer
        if place is None:
            return
        names = sa.select(experiment_events.c.name).distinct().order_by("name")
        for name in connection.execute(names).scalars():
            other = self._found(connection, name).lifecycle
            owned = other.specification.layer
            if other.state in ENDED or owned is None or not place.overlaps(owned):
                continue
            raise ExperimentError(
                f"layer {place.name!r}: {starts.name!r} would own buckets {place.start!r} to "
                f"{place.stop!r}, and {name!r}, which is {other.state!r}, owns {owned.start!r} to "
                f"{owned.stop!r}; give one of them other buckets, or end {name!r}"
            )


def _turn(connection: sa.Connection, here: Lifecycle, event: Event, at_us: int) -> None:
    """Who answers everybody after an event, where the open phase is served."""
    serving = here.current and here.current.deployment_id
    if not serving or event.action in OPENING:
        return
    control = here.specification.control.name
    arm = {"promote": here.promoted, "resume": None}.get(event.action, control)
    turn(connection, serving, arm, by=event.by, reason=event.reason, at_us=at_us)


def _versions(connection: sa.Connection, name: str) -> list[sa.Row[Any]]:
    query = sa.select(experiment_versions).where(experiment_versions.c.name == name)
    return list(connection.execute(query.order_by(experiment_versions.c.version)))


def _events(connection: sa.Connection, name: str) -> list[sa.Row[Any]]:
    query = sa.select(experiment_events).where(experiment_events.c.name == name)
    return list(connection.execute(query.order_by(experiment_events.c.number)))


def _specification(row: sa.Row[Any]) -> ExperimentSpecification:
    where = f"version {row.version!r} of experiment {row.name!r}, as it is stored"
    # What is stored is hashed, not what it reads as: a later matjip may know more of an experiment.
    found = canonical_digest(row.specification)
    if found != row.digest:
        raise ExperimentError(
            f"{where}, hashes to {found!r}, not to its digest {row.digest!r}: it was changed "
            "behind the catalogue; restore the database"
        )
    return specification_of(row.specification, where=where)


def _entry(row: sa.Row[Any], events: Sequence[sa.Row[Any]]) -> Entry:
    specification = _specification(row)
    try:
        history = tuple(
            Recorded(each.number, Event.model_validate(each.event), each.created_at_us)
            for each in events
        )
    except ValidationError as error:
        raise ExperimentError(
            f"experiment {row.name!r} has an event in the store that is none: {error}; restore the "
            "database"
        ) from error
    lifecycle = Lifecycle.of(specification, (each.event for each in history))
    return Entry(row.version, lifecycle, history, row.created_at_us)
