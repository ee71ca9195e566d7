"""Databases for tests: the fixtures that ``tests/conftest.py`` gives to all of them.

``database_url("postgresql")`` and ``database_url("sqlite")`` give the URL of a fresh, migrated database; a database is
migrated once in a session and copied from then on.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fastsock.db import migrate
from tests.postgres import NoPostgresError, PostgresServer

DatabaseUrl = Callable[[str], str]
"""From "postgresql" or "sqlite" to the URL of a fresh, migrated database."""


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the whole session; whoever stops or kills servers starts one of their own."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(PostgresServer())
        except NoPostgresError as error:
            pytest.skip(str(error))
        yield server


@pytest.fixture(scope="session")
def migrated_postgres(postgres: PostgresServer) -> str:
    """The URL of a migrated database to be copied; nobody may be connected to it meanwhile."""
    url = postgres.create_database()
    migrate.upgrade(url)
    return url


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file to be copied."""
    file = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    migrate.upgrade(f"sqlite+aiosqlite:///{file}")
    return file


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DatabaseUrl]:
    """A factory of databases, which are removed after the test."""
    made: list[tuple[PostgresServer, str]] = []

    def make(backend: str) -> str:
        if backend == "sqlite":
            file = tmp_path / f"fastsock-{len(list(tmp_path.glob('fastsock-*.db')))}.db"
            shutil.copy(request.getfixturevalue("migrated_sqlite"), file)
            return f"sqlite+aiosqlite:///{file}"
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.create_database(template=request.getfixturevalue("migrated_postgres"))
        made.append((server, url))
        return url

    yield make
    for server, url in made:
        server.drop_database(url)
