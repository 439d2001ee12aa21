"""The tables of a database, brought to those of this version: made, or changed by Alembic.

A database without tables gets them as tables.py has them. An older one is taken through the files
of versions/, each a revision; one that a newer matjip has changed is refused. Whatever is done is
one transaction, and processes that do it at once wait for each other.
"""

from pathlib import Path
from typing import Final

import sqlalchemy as sa

from data.errors import ExperimentError
from serving.experiments.tables import HEAD, metadata

FIRST: Final = "exposures_and_outcomes"
"""The revision of databases that were made before revisions were written down."""
SCRIPTS: Final = Path(__file__).parent
_LOCK: Final = 715_517
"""Any number: what processes agree on in PostgreSQL."""
_NOT_REVISED: Final = ("experiment_versions", "experiment_events")
_VERSION: Final = sa.table("alembic_version", sa.column("version_num"))


def migrate(engine: sa.Engine) -> None:
    """Bring the tables to this version; nothing is done where they are.

    Raises:
        ExperimentError: a newer version of matjip has changed them.
        sqlalchemy.exc.SQLAlchemyError: the database refused; nothing is changed.
    """
    with engine.connect() as connection:
        if _revision(connection) == HEAD:
            return
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        else:
            # The driver begins a transaction only at the first row that is written.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        revision = _revision(connection)  # again, since another process may have been first
        if revision is None:
            metadata.create_all(connection)
            _stamp(connection, HEAD)
        elif revision != HEAD:
            _upgrade(connection, revision)


def _revision(connection: sa.Connection) -> str | None:
    """What the tables are of; None without tables."""
    names = set(sa.inspect(connection).get_table_names())
    if "alembic_version" in names:
        found: str | None = connection.execute(sa.select(_VERSION.c.version_num)).scalar()
        return found
    return FIRST if "exposures" in names else None


def _stamp(connection: sa.Connection, revision: str) -> None:
    # As Alembic makes it: its import costs half a second, which a new database need not wait for.
    connection.exec_driver_sql(
        "CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) NOT NULL, "
        "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
    )
    connection.execute(_VERSION.delete())
    connection.execute(_VERSION.insert().values(version_num=revision))


def _upgrade(connection: sa.Connection, revision: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision not in known:
        raise ExperimentError(
            f"the store's tables are of revision {revision!r}, which this matjip does not know: a "
            "newer one has changed them; install that, or name another store"
        )
    if revision == FIRST:
        _stamp(connection, FIRST)
        # Databases of before the catalogue lack its tables.
        metadata.create_all(
            connection, [metadata.tables[name] for name in _NOT_REVISED], checkfirst=True
        )
    command.upgrade(config, "head")
