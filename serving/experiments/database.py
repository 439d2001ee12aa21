"""The database of experiments: how it is opened so that it keeps what it was given, and its errors.

An address comes in, an engine with every table goes out: SQLite (WAL, synchronous=FULL), or
PostgreSQL through psycopg 3. Whatever a database says is told without statements, values or
passwords.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy.pool import ConnectionPoolEntry

from data.errors import ExperimentError
from serving.experiments.migrations import migrate

DEFAULT_URL: Final = "sqlite:///var/serving/experiments.db"
_NO_FILES: Final = frozenset({None, "", ":memory:"})
"""SQLite's databases that are gone with their process."""
_BUSY_TIMEOUT_S: Final = 10
_CATALOGUE_LOCK: Final = 715_518
"""Any number: what processes that act on experiments at once agree on in PostgreSQL."""


def open_database(url: str, *, must_exist: bool = False) -> sa.Engine:
    """An engine whose commits are on disk when they return, its tables those of this version.

    Args:
        url: sqlite:///path/to/file.db, or postgresql://user:password@host/database.
        must_exist: refuse a file that is not there, instead of making it.

    Raises:
        ExperimentError: it names no durable database that matjip knows, or cannot be opened.
    """
    try:
        address = sa.make_url(url)
    except sa.exc.ArgumentError as error:
        raise ExperimentError(
            "the store's address is none that SQLAlchemy reads (it is not shown: it may hold a "
            "password); write sqlite:///path/to/file.db or postgresql://…"
        ) from error
    name = address.render_as_string(hide_password=True)
    on_file = address.get_backend_name() == "sqlite" and address.database not in _NO_FILES
    if must_exist and on_file and not Path(str(address.database)).is_file():
        raise ExperimentError(
            f"there is no store at {name!r}; name the one that the gateway writes"
        )
    try:
        engine = _connect(address)
        migrate(engine)
    except (sa.exc.SQLAlchemyError, OSError) as error:
        raise ExperimentError(
            f"cannot open the experiment store {name!r}: {cause(error)}; check MATJIP_STORE_URL, "
            "and that the database is up and its disk has room"
        ) from error
    return engine


def name_of(engine: sa.Engine) -> str:
    """The address of a database, without its password."""
    return engine.url.render_as_string(hide_password=True)


@contextmanager
def reported(engine: sa.Engine, doing: str) -> Iterator[None]:
    """Errors of the database as ``ExperimentError``.

    Args:
        engine: whose.
        doing: what cannot be done then: "read", "act on experiment 'a' in".
    """
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        raise ExperimentError(
            f"cannot {doing} the experiment store {name_of(engine)!r}: {cause(error)}; check that "
            "the database is up and its disk has room, then try again (nothing is lost)"
        ) from error


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


def _connect(url: sa.URL) -> sa.Engine:
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
    if url.get_backend_name() != "sqlite" or url.database in _NO_FILES:
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


def _to_json(value: object) -> str:
    return orjson.dumps(value).decode()


def _make_durable(connection: Any, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # WAL alone may lose the last commits when the power fails; an answer promises that it does not.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()
