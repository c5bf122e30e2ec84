"""Runs the migrations on the connection, and inside the transaction, that `greend.store` hands over."""

from alembic import context

from greend.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite alters a table by copying it.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
