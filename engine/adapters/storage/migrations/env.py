"""Run by Alembic: with the connection it is given, or as SQL text for a named dialect."""

from __future__ import annotations

from alembic import context

from engine.adapters.storage.schema import METADATA

connection = context.config.attributes.get("connection")
if connection is None:
    context.configure(
        dialect_name=context.config.get_main_option("dialect") or "sqlite",
        target_metadata=METADATA,
        as_sql=True,
        literal_binds=True,
    )
else:
    context.configure(connection=connection, target_metadata=METADATA, render_as_batch=True)

with context.begin_transaction():
    context.run_migrations()
