"""The tables as they were before revisions were written down."""

revision = "exposures_and_outcomes"
down_revision = None


def upgrade() -> None:
    """Nothing: a database of this revision has them."""
