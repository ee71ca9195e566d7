"""What several kinds of tests share: databases, and a server that runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.fixtures_database import database_url, migrated_postgres, migrated_sqlite, postgres
from tests.server import Server

__all__ = ["database_url", "migrated_postgres", "migrated_sqlite", "postgres"]

settings.register_profile("fastsock", deadline=None, print_blob=True)
settings.load_profile("fastsock")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One running FastSock on SQLite, for every test that does not break it."""
    with Server(tmp_path_factory.mktemp("server") / "fastsock", "--hosts", "1") as running:
        yield running


@pytest.fixture(scope="session")
def server_url(request: pytest.FixtureRequest) -> str:
    """The address of a running FastSock; ``FASTSOCK_TEST_SERVER`` names one that runs already."""
    given = os.environ.get("FASTSOCK_TEST_SERVER")
    if given:
        return given
    running: Server = request.getfixturevalue("server")
    return running.url


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """Where tests leave pictures and tables for people; git ignores it."""
    directory = Path(__file__).parent.parent / "artifacts"
    directory.mkdir(exist_ok=True)
    return directory
