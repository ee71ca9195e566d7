"""What Alembic runs: the migrations, on the connection and in the transaction that `fastsock.db.migrate` has opened."""

from __future__ import annotations

from alembic import context

from fastsock.models import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,  # SQLite's too, since the transaction is begun by hand
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
