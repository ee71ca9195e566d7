"""What the contracts of storage are tested with: the same suite on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fastsock.db.engine import Database
from fastsock.db.message_log import MessageLog
from tests.contracts.entries import add_users
from tests.fixtures_database import DatabaseUrl

BACKENDS = ("sqlite", "postgresql")


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, database_url: DatabaseUrl) -> str:
    """The URL of a fresh, migrated database of each kind."""
    return database_url(request.param)


@pytest.fixture
async def db(url: str) -> AsyncIterator[Database]:
    """A fresh, migrated database with the users 1 to 9."""
    database = Database(url)
    await add_users(database, 9)
    yield database
    await database.close()


@pytest.fixture
def log(db: Database) -> MessageLog:
    return MessageLog(db)
