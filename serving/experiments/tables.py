"""The tables of the experiment store.

exposures, outcomes                       what was answered to whom, and how it turned out
experiment_versions, experiment_events    what was agreed, and what was done since
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

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


def insert_or_ignore(engine: sa.Engine, table: sa.Table) -> sa.Insert:
    """An insert that leaves a row of the same event id as it is."""
    if engine.dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing(index_elements=["event_id"])
    return sqlite.insert(table).on_conflict_do_nothing(index_elements=["event_id"])
