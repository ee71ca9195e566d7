"""The database goes away and comes back, under people who are talking."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from fastsock.db.engine import Database
from fastsock.db.message_log import MessageLog
from fastsock.schemas import names
from tests.e2e.people import API, Person, until
from tests.postgres import PostgresServer
from tests.server import Server

pytestmark = pytest.mark.cluster

PATIENCE_S = 30.0
"""`STORAGE_PATIENCE_MS` is 5 s; a loaded machine takes longer to notice."""


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    """One that may be stopped."""
    with PostgresServer(own=True) as running:
        yield running


async def test_an_outage_is_told_and_survived(
    own_postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    url = own_postgres.create_database()
    directory = tmp_path_factory.mktemp("outage") / "fastsock"
    with Server(directory, "--database-url", url) as server:
        async with httpx.AsyncClient(timeout=30) as http:
            ann = await Person(server.url, server.ws_url).sign_up(http, "ann")
            bob = await Person(server.url, server.ws_url).sign_up(http, "bob")
            await ann.open()
            await bob.open()
            await ann.send("before", receiver_id=bob.id)
            await until(lambda: "before" in ann.acks, PATIENCE_S, "the ack of the first message")
            await until(lambda: len(bob.devices[0].stream.received) == 1, PATIENCE_S, "the first message")

            own_postgres.stop()
            await ann.send("during", receiver_id=bob.id)
            await until(lambda: bool(ann.errors), PATIENCE_S, "an error while the database is away")
            assert {error["code"] for error in ann.errors} == {"storage_unavailable"}
            assert ann.errors[0]["client_msg_id"] == "during"
            assert ann.errors[0]["retryable"] is True
            assert isinstance(ann.errors[0]["retry_after_ms"], int)
            response = await http.get(f"{server.url}/readyz")
            assert response.status_code == 503
            assert response.json()["code"] == "storage_unavailable"
            response = await http.get(f"{server.url}{API}/chat/rooms", headers=ann.headers)
            assert (response.status_code, response.json()["code"]) == (503, "storage_unavailable")
            assert "during" not in ann.acks
            assert len(bob.devices[0].stream.received) == 1

            own_postgres.start()
            await until(lambda: "during" in ann.acks, 2 * PATIENCE_S, "the ack of what was sent during the outage")
            await until(lambda: len(bob.devices[0].stream.received) == 2, PATIENCE_S, "what was sent during the outage")
            assert not bob.devices[0].stream.problems
            assert len(ann.devices[0].streams) == 1, "the socket stayed open all the time"
        database = Database(url)
        entries = await MessageLog(database).after(names.dm(ann.id, bob.id), 0, 10)
        await database.close()
        assert [(entry.seq, entry.client_msg_id) for entry in entries] == [(1, "before"), (2, "during")]
        await ann.close()
        await bob.close()
