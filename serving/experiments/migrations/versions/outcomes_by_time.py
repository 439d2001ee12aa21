"""Outcomes by time: guardrails read those that are new, every second."""

from alembic import op

revision = "outcomes_by_time"
down_revision = "arms_of_any_name"


def upgrade() -> None:
    """Add the index."""
    op.create_index("outcomes_by_time", "outcomes", ["created_at_us"])
