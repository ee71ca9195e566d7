"""Alembic's migrations of the database; run by `fastsock.db.migrate`."""
