"""What alembic runs: the steps, on the connection that `migrations.upgrade` was handed."""

from __future__ import annotations

from alembic import context

from coatcheck.store import schema

context.configure(
    connection=context.config.attributes["connection"], target_metadata=schema.metadata
)
with context.begin_transaction():
    context.run_migrations()
