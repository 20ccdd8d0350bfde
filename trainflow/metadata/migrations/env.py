"""Alembic's entry: runs on the connection it is given, inside the caller's transaction."""

from alembic import context

from trainflow.metadata.models import METADATA

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=METADATA, render_as_batch=True, transactional_ddl=False)
context.run_migrations()
