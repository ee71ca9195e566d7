"""People at the shared server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest_asyncio

from tests.e2e.wire import WITHIN_S, Town
from tests.server import Server


@pytest_asyncio.fixture(scope="session")
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """One HTTP client, so that connections are kept; it follows no redirects."""
    async with httpx.AsyncClient(timeout=WITHIN_S) as client:
        yield client


@pytest_asyncio.fixture
async def town(server: Server, http: httpx.AsyncClient) -> AsyncIterator[Town]:
    """The shared server; the sockets that a test opens there end with the test."""
    town = Town(server, http)
    yield town
    await town.close()
