"""Arms of any name; why an arm was asked, what came of it and what it cost; metrics by name."""

import sqlalchemy as sa
from alembic import op

revision = "arms_of_any_name"
down_revision = "exposures_and_outcomes"


def upgrade() -> None:
    """Add what is new; what is stored was dealt by chance, answered, and fed back as a reward."""
    if op.get_bind().dialect.name == "postgresql":  # SQLite does not count a text's characters
        op.alter_column("exposures", "arm", type_=sa.String(63))
    why = sa.Column("why", sa.String(20), nullable=False, server_default="assigned")
    status = sa.Column("status", sa.String(10), nullable=False, server_default="ok")
    op.add_column("exposures", why)
    op.add_column("exposures", status)
    op.add_column("exposures", sa.Column("cost", sa.Float, nullable=True))
    op.create_index("exposures_by_time", "exposures", ["deployment_id", "created_at_us"])
    metric = sa.Column("metric", sa.String(63), nullable=False, server_default="reward")
    op.add_column("outcomes", metric)
    op.create_table(
        "deployments",
        sa.Column("deployment_id", sa.String(32), primary_key=True),
        sa.Column("experiment_id", sa.String(200), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("content", sa.JSON, nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "routes",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("deployment_id", sa.String(32), nullable=False),
        sa.Column("arm", sa.String(63), nullable=True),
        sa.Column("by", sa.String(200), nullable=False),
        sa.Column("reason", sa.String(2_000), nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
    )
    op.create_index("routes_by_deployment", "routes", ["deployment_id", "number"])
    op.create_table(
        "experiment_settings",
        sa.Column("name", sa.String(63), primary_key=True),
        sa.Column("value", sa.String(2_000), nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
    )
