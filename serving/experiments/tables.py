"""The tables of the experiment store.

exposures, outcomes                       what was asked of which arm, and how it turned out
experiment_versions, experiment_events    what was agreed, and what was done since
deployments, routes                       what was put to work, and who answers everybody now
experiment_settings                       what all experiments share

A change of a table is a file in migrations/versions, and its revision is ``HEAD``.
"""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

HEAD: Final = "outcomes_by_time"
"""The revision that these tables are of."""
ASSIGNED: Final = "assigned"
MIRRORED: Final = "mirrored"
FAILED: Final = "failed"
REWARD: Final = "reward"
"""Values of ``why``, ``status`` and ``metric`` that queries ask for."""

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
    sa.Column("arm", sa.String(63), nullable=False),
    sa.Column("model_version", sa.String(401), nullable=False),
    sa.Column("text_sha256", sa.String(64), nullable=False),
    sa.Column("prediction", sa.JSON, nullable=False),
    sa.Column("latency_ms", sa.Float, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("why", sa.String(20), nullable=False, server_default=ASSIGNED),
    sa.Column("status", sa.String(10), nullable=False, server_default="ok"),
    sa.Column("cost", sa.Float, nullable=True),
    sa.Index("exposures_by_deployment", "experiment_id", "deployment_id"),
    sa.Index("exposures_by_time", "deployment_id", "created_at_us"),
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
    sa.Column("metric", sa.String(63), nullable=False, server_default=REWARD),
    sa.Index("outcomes_by_request", "request_id", "item"),
    sa.Index("outcomes_by_time", "created_at_us"),
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
deployments = sa.Table(
    "deployments",
    metadata,
    sa.Column("deployment_id", sa.String(32), primary_key=True),
    sa.Column("experiment_id", sa.String(200), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("content", sa.JSON, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
)
routes = sa.Table(
    "routes",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("deployment_id", sa.String(32), nullable=False),
    sa.Column("arm", sa.String(63), nullable=True),
    sa.Column("by", sa.String(200), nullable=False),
    sa.Column("reason", sa.String(2_000), nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Index("routes_by_deployment", "deployment_id", "number"),
)
experiment_settings = sa.Table(
    "experiment_settings",
    metadata,
    sa.Column("name", sa.String(63), primary_key=True),
    sa.Column("value", sa.String(2_000), nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
)


def insert_or_ignore(engine: sa.Engine, table: sa.Table) -> sa.Insert:
    """An insert that leaves a row of the same event id as it is."""
    if engine.dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing(index_elements=["event_id"])
    return sqlite.insert(table).on_conflict_do_nothing(index_elements=["event_id"])
