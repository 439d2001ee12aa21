"""The tables of the experiment store, and how each database is opened so that it keeps them.

exposures, outcomes                       what was answered to whom, and how it turned out
experiment_versions, experiment_events    what was agreed, and what was done since
"""

from pathlib import Path
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.schema import CreateIndex, CreateTable

from data.errors import ExperimentError

_BUSY_TIMEOUT_S: Final = 10
_SCHEMA_LOCK: Final = 715_517
_CATALOGUE_LOCK: Final = 715_518
"""Any numbers: what processes that make the tables, or act on experiments, at once agree on in
PostgreSQL."""

metadata = sa.MetaData()
exposures = sa.Table(
    "exposures",
    metadata,
    sa.Column("event_id", sa.String(32), primary_key=True),
    sa.Column("request_id", sa.String(128), nullable=False),
    sa.Column("item", sa.Integer, nullable=False),
    sa.Column("experiment_id", sa.String(200), nullable=False),
    sa.Column("deployment_id", sa.String(32), nullable=False),
    sa.Column("unit", sa.String(64), nullable=False),
    sa.Column("arm", sa.String(16), nullable=False),
    sa.Column("model_version", sa.String(401), nullable=False),
    sa.Column("text_sha256", sa.String(64), nullable=False),
    sa.Column("prediction", sa.JSON, nullable=False),
    sa.Column("latency_ms", sa.Float, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Index("exposures_by_deployment", "experiment_id", "deployment_id"),
)
outcomes = sa.Table(
    "outcomes",
    metadata,
    sa.Column("event_id", sa.String(128), primary_key=True),
    sa.Column("request_id", sa.String(128), nullable=False),
    sa.Column("item", sa.Integer, nullable=False),
    sa.Column("reward", sa.Float, nullable=False),
    sa.Column("label", sa.JSON(none_as_null=True), nullable=True),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Index("outcomes_by_request", "request_id", "item"),
)
experiment_versions = sa.Table(
    "experiment_versions",
    metadata,
    sa.Column("name", sa.String(63), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("specification", sa.JSON, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
)
experiment_events = sa.Table(
    "experiment_events",
    metadata,
    sa.Column("name", sa.String(63), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("event", sa.JSON, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
)


def connect(url: sa.URL) -> sa.Engine:
    """An engine whose commits are on disk when they return.

    Raises:
        ExperimentError: the URL names no durable database that matjip knows.
    """
    if url.get_backend_name() == "postgresql":
        return sa.create_engine(
            url.set(drivername="postgresql+psycopg"),
            json_serializer=_to_json,
            json_deserializer=orjson.loads,
            hide_parameters=True,
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": _BUSY_TIMEOUT_S,
                "options": "-c synchronous_commit=on -c statement_timeout=30000",
            },
        )
    if url.get_backend_name() != "sqlite" or url.database in {None, "", ":memory:"}:
        raise ExperimentError(
            f"{url.render_as_string(hide_password=True)!r} keeps nothing; name a file "
            "(sqlite:///path/to/file.db) or a PostgreSQL database"
        )
    Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(
        url,
        json_serializer=_to_json,
        json_deserializer=orjson.loads,
        hide_parameters=True,
        connect_args={"timeout": _BUSY_TIMEOUT_S},
    )
    sa.event.listen(engine, "connect", _make_durable)
    return engine


def create_tables(engine: sa.Engine) -> None:
    """Make what is missing; safe when several processes do so at once."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
        for table in metadata.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))
            for index in table.indexes:
                connection.execute(CreateIndex(index, if_not_exists=True))


def insert_or_ignore(engine: sa.Engine, table: sa.Table) -> sa.Insert:
    """An insert that leaves a row of the same event id as it is."""
    if engine.dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing(index_elements=["event_id"])
    return sqlite.insert(table).on_conflict_do_nothing(index_elements=["event_id"])


def act_alone(connection: sa.Connection) -> None:
    """Let no other process act on experiments before this transaction has ended.

    Called first in it: what is read from here on is still true when it commits.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CATALOGUE_LOCK)))
    else:
        # The driver begins a transaction only at the first row that is written.
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def cause(error: Exception) -> str:
    """What the database said, without the statement and its values."""
    return str(getattr(error, "orig", None) or type(error).__name__).strip()


def _to_json(value: object) -> str:
    return orjson.dumps(value).decode()


def _make_durable(connection: Any, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # WAL alone may lose the last commits when the power fails; an answer promises that it does not.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()
