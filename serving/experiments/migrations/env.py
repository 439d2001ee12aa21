"""What Alembic runs: the revisions, over the connection that ``migrate`` holds."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
