"""Migrations: which revision the database is at, and bringing it to another.

These functions block; they may be called with or without a running event loop, and by several processes at once. Each
migration run is one transaction that begins by shutting the others out: by an advisory lock on PostgreSQL, by the write
lock on SQLite. Whoever comes second finds everything done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from fastsock.db.engine import Database

T = TypeVar("T")

ADVISORY_LOCK = 0x6661737473
"""Any number that nobody else uses on the same database: "fasts" in ASCII."""
PATIENCE = "60s"
"""For the lock, and for one statement of a migration."""


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the database forward to ``revision``; nothing happens where it is there already.

    Raises:
        RetryableError: ``storage_unavailable``.

    """
    _run(url, lambda connection: command.upgrade(_config(connection), revision))


def downgrade(url: str, revision: str) -> None:
    """Bring the database back to ``revision``, ``base`` for an empty one; what those tables held is lost.

    Raises:
        RetryableError: ``storage_unavailable``.

    """
    _run(url, lambda connection: command.downgrade(_config(connection), revision))


def current(url: str) -> str | None:
    """The revision that the database is at; None where no migration has run.

    Raises:
        RetryableError: ``storage_unavailable``.

    """
    return _run(url, lambda connection: MigrationContext.configure(connection).get_current_revision())


def _config(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _run(url: str, work: Callable[[Connection], T]) -> T:
    """In a thread of its own, because the driver is asynchronous and the caller may have an event loop running."""

    async def main() -> T:
        database = Database(url, pool_size=1)
        try:
            async with database.transaction(bounded=False) as connection:
                await _shut_others_out(connection)
                return await connection.run_sync(work)
        finally:
            await database.close()

    with ThreadPoolExecutor(1, "migrate") as thread:
        return thread.submit(lambda: asyncio.run(main())).result()


async def _shut_others_out(connection: AsyncConnection) -> None:
    if connection.dialect.name == "postgresql":
        for name in ("lock_timeout", "statement_timeout"):
            await connection.execute(text(f"SET LOCAL {name} = '{PATIENCE}'"))
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
