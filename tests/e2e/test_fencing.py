"""Two hosts of a running server that both believe they own one room: only one commits, and clients notice a delay."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from fastsock.db.engine import Database
from fastsock.db.message_log import MessageLog
from fastsock.schemas import names
from fastsock.schemas.log import Entry
from tests.e2e.people import API, Person, until
from tests.e2e.test_two_by_two import survey
from tests.postgres import PostgresServer
from tests.server import Server

pytestmark = pytest.mark.cluster

WITHIN_S = 60.0
TURNS = 10
BURST = 20
"""Messages of each person, and batches of the intruder, while all speak at once."""
PACE_PER_S = 15.0


class Intruder:
    """`tests.e2e.intruder` in a process of its own, which speaks to the host that does not own the room."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.host = ""

    @classmethod
    async def start(cls, data_dir: Path, room: int, user_id: int) -> Intruder:
        about = str(data_dir), str(room), str(user_id)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.e2e.intruder", *about, stdin=PIPE, stdout=PIPE
        )
        intruder = cls(process)
        intruder.host = await intruder._answer()
        return intruder

    async def ask(self, what: list[str] | int) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        await self._process.stdin.drain()
        return await self._answer()

    async def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), WITHIN_S)
        assert line, "the intruder has ended"
        return json.loads(line)

    async def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert await asyncio.wait_for(self._process.wait(), WITHIN_S) == 0


@pytest_asyncio.fixture(params=["sqlite", "postgresql"])
async def two_hosts(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Server, str]]:
    """A server with two hosts, and the address of its database."""
    directory = tmp_path / "fastsock"
    url = f"sqlite+aiosqlite:///{directory / 'data' / 'fastsock.db'}"
    environment = {}
    if request.param == "postgresql":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        url = postgres.create_database()
        environment = {"FASTSOCK_DATABASE_URL": url}
    server = Server(directory, "--hosts", "2", environment=environment)
    await asyncio.to_thread(server.start)
    yield server, url
    await asyncio.to_thread(server.stop)


@dataclass
class Room:
    """A room that two hosts believe they own, its people, who speak to one of them, and the intruder at the other."""

    id: int
    people: list[Person]
    intruder: Intruder
    intruded: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Acks of the intruder, who speaks in the name of the first."""

    async def by_turns(self) -> None:
        for turn in range(TURNS):
            await self.say(self.people[turn % len(self.people)], f"turn {turn}")
            await self.intrude(f"intruder's turn {turn}")

    async def at_once(self) -> None:
        async with asyncio.TaskGroup() as group:
            for person in self.people:
                group.create_task(self._speak(person))
            for batch in range(BURST):
                await self.intrude(*(f"batch {batch}-{number}" for number in range(3)))

    async def say(self, person: Person, text: str) -> None:
        await person.send(text, room_id=self.id)
        await self.acknowledged()

    async def acknowledged(self) -> None:
        await until(lambda: not any(person.outbox for person in self.people), WITHIN_S, "every message acknowledged")

    async def intrude(self, *texts: str) -> None:
        self.intruded |= await self.intruder.ask([*texts])

    async def _speak(self, person: Person) -> None:
        for number in range(BURST):
            await person.send(f"{person.id}-{number}", room_id=self.id)
            await asyncio.sleep(1 / PACE_PER_S)  # a person's pace, below the limit of a socket

    def check_log(self, log: list[Entry]) -> None:
        """No hole, nothing twice, and exactly what was acknowledged, where the ack says."""
        assert [entry.seq for entry in log] == [*range(1, len(log) + 1)]
        stored = {(entry.sender_id, entry.client_msg_id): (entry.id, entry.seq) for entry in log[1:]}
        assert len(stored) == len(log) - 1
        acks = {(person.id, name): ack for person in self.people for name, ack in person.acks.items()}
        acks |= {(self.people[0].id, name): ack for name, ack in self.intruded.items()}
        assert len(acks) == 2 * TURNS + 6 * BURST + 2
        assert stored == {key: (ack["message_id"], ack["seq"]) for key, ack in acks.items()}
        assert not [contradiction for person in self.people for contradiction in person.contradictions]

    async def check_person(self, person: Person, log: list[Entry]) -> None:
        """Everything was shown once and in order, on the one socket, with no more than a request to try again."""
        [stream] = person.devices[0].streams
        await until(lambda: stream.heads.get(f"room:{self.id}") == log[-1].seq, WITHIN_S, f"#{log[-1].seq} is shown")
        assert stream.problems == []
        assert sorted(stream.received) == sorted(entry.id for entry in log[1:])
        assert len(person.devices[0].streams) == 1
        assert all(error["retryable"] for error in person.errors), person.errors


@pytest_asyncio.fixture
async def room(two_hosts: tuple[Server, str]) -> AsyncIterator[Room]:
    server, _ = two_hosts
    async with httpx.AsyncClient(timeout=30) as http:
        people = [await Person(server.url, server.ws_url).sign_up(http, name) for name in ("ann", "bob", "cat")]
        body = {"name": "torn", "member_ids": [person.id for person in people[1:]]}
        made = await http.post(f"{server.url}{API}/chat/rooms", json=body, headers=people[0].headers)
    room_id = made.json()["id"]
    intruder = await Intruder.start(server.data_dir, room_id, people[0].id)
    for person in people:
        await person.open()
    yield Room(room_id, people, intruder)
    for person in people:
        await person.close()
    await intruder.stop()


async def test_two_owners_of_one_room(two_hosts: tuple[Server, str], room: Room) -> None:
    server, url = two_hosts
    await room.by_turns()
    await room.at_once()
    await room.acknowledged()
    await room.intrude("the intruder's last word")
    await room.say(room.people[2], "the last word")  # whoever speaks learns at once what the other has written
    database = Database(url)
    log = await MessageLog(database).after(names.room(room.id), 0, 10_000)
    await database.close()
    room.check_log(log)
    for person in room.people:
        await room.check_person(person, log)
    assert await room.intruder.ask(log[-2].seq) is True, "the other host has shown everything but what came after it"
    fenced = {row["host"]: row["fenced"] for row in (await survey(server))["hosts"]}
    assert len(fenced) == 2
    assert all(times > 0 for times in fenced.values()), fenced
