"""The catalogue of experiments: every version that was agreed, and every event since, in SQL.

Nothing is ever changed or deleted. A version may follow another until the experiment begins.
Whoever writes does so alone, and an event is written only if it is allowed: however many gateways,
schedules and people act at once, there is one history.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError

from data.errors import ExperimentError
from serving.experiments.database import act_alone, name_of, open_database, reported
from serving.experiments.lifecycle import ENDED, Event, Lifecycle
from serving.experiments.specification import ExperimentSpecification, specification_of
from serving.experiments.tables import experiment_events, experiment_versions


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


def _now_us() -> int:
    return time.time_ns() // 1_000


class Catalogue:
    """The experiments of one store."""

    def __init__(self, url: str, *, now_us: Callable[[], int] = _now_us):
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
            if rows and rows[-1].digest == specification.digest:
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

    def record(self, name: str, event: Event, *, after: int | None = None) -> Entry:
        """Write an event down, if it is allowed.

        Args:
            name: the experiment.
            event: what is done to it.
            after: how many events whoever decided has seen; None takes those there are.

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
            after_it = entry.lifecycle.after(event)  # refuses what is not allowed
            if event.action == "start":
                self._check_layer(connection, after_it.specification)
            last_us = entry.history[-1].at_us if entry.history else entry.created_at_us
            connection.execute(
                experiment_events.insert().values(
                    name=name,
                    number=seen + 1,
                    version=entry.version,
                    event=event.model_dump(mode="json"),
                    # A clock that was set back must not turn the history around.
                    created_at_us=max(self._now_us(), last_us),
                )
            )
            return self._found(connection, name)

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.dispose()

    @contextmanager
    def _reading(self, doing: str) -> Iterator[sa.Connection]:
        with reported(self._engine, doing), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _alone(self, doing: str) -> Iterator[sa.Connection]:
        with reported(self._engine, doing), self._engine.begin() as connection:
            act_alone(connection)
            yield connection

    def _found(self, connection: sa.Connection, name: str) -> Entry:
        versions = _versions(connection, name)
        if not versions:
            known = sa.select(experiment_versions.c.name).distinct().order_by("name")
            names = list(connection.execute(known).scalars())
            raise ExperimentError(
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


def _versions(connection: sa.Connection, name: str) -> list[sa.Row[Any]]:
    query = sa.select(experiment_versions).where(experiment_versions.c.name == name)
    return list(connection.execute(query.order_by(experiment_versions.c.version)))


def _events(connection: sa.Connection, name: str) -> list[sa.Row[Any]]:
    query = sa.select(experiment_events).where(experiment_events.c.name == name)
    return list(connection.execute(query.order_by(experiment_events.c.number)))


def _entry(row: sa.Row[Any], events: Sequence[sa.Row[Any]]) -> Entry:
    where = f"version {row.version!r} of experiment {row.name!r}, as it is stored"
    specification = specification_of(row.specification, where=where)
    if specification.digest != row.digest:
        raise ExperimentError(
            f"{where}, hashes to {specification.digest!r}, not to its digest {row.digest!r}: it "
            "was changed behind the catalogue; restore the database"
        )
    try:
        history = tuple(
            Recorded(each.number, Event.model_validate(each.event), each.created_at_us)
            for each in events
        )
    except ValidationError as error:
        raise ExperimentError(f"{where}, has an event that is none: {error}") from error
    lifecycle = Lifecycle.of(specification, (each.event for each in history))
    return Entry(row.version, lifecycle, history, row.created_at_us)
