"""Two gateways, two hosts, real sockets; on SQLite and on PostgreSQL; with and without something being killed.

On PostgreSQL also with a writer inside of each host instead of a persistence actor.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.scenario import check, gather_cast, talk
from tests.postgres import PostgresServer
from tests.server import Server

pytestmark = pytest.mark.cluster

REPORTED_WITHIN_S = 30.0
KILL_AFTER_S = 2.0
"""From the first message to the first kill: some 600 of the 2,000 messages are on their way by then."""


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "postgresql beside-hosts"])
def two_by_two(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, str]]:
    """A server with two gateways and two hosts, and the address of its database."""
    backend, _, writers = request.param.partition(" ")
    directory = tmp_path_factory.mktemp(backend) / "fastsock"
    if backend == "sqlite":
        url = f"sqlite+aiosqlite:///{directory / 'data' / 'fastsock.db'}"
        environment = {}
    else:
        postgres: PostgresServer = request.getfixturevalue("postgres")
        url = postgres.create_database()
        environment = {"FASTSOCK_DATABASE_URL": url}
    shape = ["--gateways", "2", "--hosts", "2", "--writers", writers or "1"]
    with Server(directory, *shape, environment=environment) as server:
        yield server, url


async def survey(server: Server) -> dict[str, Any]:
    """What ``fastsock top --json`` says."""
    command = [sys.executable, "-m", "fastsock", "top", "--json", "--data-dir", str(server.data_dir)]
    result = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=True)
    figures: dict[str, Any] = json.loads(result.stdout)
    return figures


async def sockets_of_gateways(server: Server, expected: int) -> list[int]:
    """How many sockets each gateway holds, once they say that they hold so many together: they report every 2 s."""
    give_up_at = asyncio.get_running_loop().time() + REPORTED_WITHIN_S
    while True:
        gateways = (await survey(server))["gateways"]
        counts = [gateway["sockets"] for gateway in gateways]
        if sum(counts) == expected or asyncio.get_running_loop().time() > give_up_at:
            assert sum(counts) == expected
            return counts


async def test_everybody_gets_every_message_once_and_in_order(two_by_two: tuple[Server, str]) -> None:
    server, url = two_by_two
    cast = await gather_cast(server.url, server.ws_url, "calm")
    try:
        counts = await sockets_of_gateways(server, 26)
        assert len(counts) == 2
        assert all(count > 0 for count in counts)
        await talk(cast)
        await check(cast, url, undisturbed=True)
    finally:
        for person in cast.everybody:
            await person.close()


async def test_nothing_is_lost_when_a_host_persistence_and_a_gateway_are_killed(two_by_two: tuple[Server, str]) -> None:
    server, url = two_by_two
    cast = await gather_cast(server.url, server.ws_url, "storm")
    before = await survey(server)

    async def kill_three() -> None:
        victims = [before[kind][0]["pid"] for kind in ("hosts", "writers", "gateways")]
        for pid in dict.fromkeys(victims):  # a writer beside a host is the host
            await asyncio.sleep(KILL_AFTER_S)  # the scenario: one after the other, in the middle of the talk
            os.kill(pid, signal.SIGKILL)

    try:
        await talk(cast, kill_three)
        await check(cast, url, undisturbed=False)
        after = await survey(server)
        assert after["hosts"][0]["pid"] != before["hosts"][0]["pid"]
        assert after["writers"][0]["pid"] != before["writers"][0]["pid"]
        beside = {writer["pid"] for writer in after["writers"]} & {host["pid"] for host in after["hosts"]}
        assert len(beside) == (len(after["hosts"]) if len(after["writers"]) > 1 else 0)
        assert sum(len(device.streams) for person in cast.everybody for device in person.devices) > 26
    finally:
        for person in cast.everybody:
            await person.close()
