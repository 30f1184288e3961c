"""Alembic's entry point: runs the migrations in the transaction of the caller."""

from alembic import context

from sendback.store.engine.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
)
context.run_migrations()
