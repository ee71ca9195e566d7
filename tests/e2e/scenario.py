"""The scenario that everything has to survive: 20 people, 5 rooms, 10 pairs, 2,000 messages.

And one who belongs to nothing and must hear nothing. What is checked afterwards is checked against the database.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx

from fastsock.db.engine import Database
from fastsock.db.message_log import MessageLog
from fastsock.schemas import names
from fastsock.schemas.log import Entry
from tests.e2e.people import API, Person, until

PEOPLE = 20
ROOMS = 5
PAIRS = 10
MESSAGES = 2_000
ROOM_SIZE = 8
TWO_DEVICES = 5
"""The first so many people have two devices."""
PACE_PER_S = 15.0
"""Messages of one person: below the limit of 20/s for one socket."""
ANSWER_WITHIN_S = 60.0


@dataclass
class Cast:
    """The people, what they talk in, and the one who is not part of it."""

    people: list[Person]
    outsider: Person
    rooms: dict[int, list[Person]]
    pairs: list[tuple[Person, Person]]

    @property
    def everybody(self) -> list[Person]:
        return [*self.people, self.outsider]

    def conversations(self) -> dict[str, list[Person]]:
        rooms = {str(names.room(room)): members for room, members in self.rooms.items()}
        return rooms | {str(names.dm(one.id, other.id)): [one, other] for one, other in self.pairs}


async def gather_cast(base_url: str, ws_url: str, tag: str) -> Cast:
    """Sign everybody up, open their sockets, make the rooms."""
    async with httpx.AsyncClient(timeout=30) as http:
        people = [await Person(base_url, ws_url).sign_up(http, f"{tag}{number}") for number in range(PEOPLE)]
        outsider = await Person(base_url, ws_url).sign_up(http, f"{tag}outsider")
        await asyncio.gather(*(person.open(2 if place < TWO_DEVICES else 1) for place, person in enumerate(people)))
        await outsider.open()
        rng = random.Random(tag)
        rooms = {}
        for number in range(ROOMS):
            members = rng.sample(people, ROOM_SIZE)
            body = {"name": f"room {number}", "member_ids": [member.id for member in members[1:]]}
            response = await http.post(f"{base_url}{API}/chat/rooms", json=body, headers=members[0].headers)
            assert response.status_code == 200, response.text
            rooms[response.json()["id"]] = members
    shuffled = rng.sample(people, PEOPLE)
    return Cast(people, outsider, rooms, [(shuffled[2 * pair], shuffled[2 * pair + 1]) for pair in range(PAIRS)])


async def talk(
    cast: Cast, disturb: Callable[[], Awaitable[None]] | None = None, pace_per_s: float = PACE_PER_S
) -> None:
    """Everybody says their share of the messages, while ``disturb`` breaks things; then everything is acknowledged."""
    partner = {one.id: other for pair in cast.pairs for one, other in (pair, pair[::-1])}
    rooms_of: dict[int, list[int]] = {person.id: [] for person in cast.people}
    for room, members in cast.rooms.items():
        for member in members:
            rooms_of[member.id].append(room)

    async def speak(person: Person) -> None:
        rng = random.Random(person.id)
        for number in range(MESSAGES // PEOPLE):
            name = f"{person.id}-{number}"
            if rooms_of[person.id] and rng.random() < 0.6:
                await person.send(name, room_id=rng.choice(rooms_of[person.id]))
            else:
                await person.send(name, receiver_id=partner[person.id].id)
            await asyncio.sleep(1 / pace_per_s)

    async with asyncio.TaskGroup() as group:
        for person in cast.people:
            group.create_task(speak(person))
        if disturb is not None:
            group.create_task(_run(disturb))
    await until(lambda: not any(person.outbox for person in cast.people), ANSWER_WITHIN_S, "every message acknowledged")


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    await work()


async def check(cast: Cast, database_url: str, *, undisturbed: bool) -> None:
    """Everything that was promised; ``undisturbed`` says that no socket was cut, so each saw every message."""
    database = Database(database_url)
    log = MessageLog(database)
    stored = {name: await _whole(log, name) for name in cast.conversations()}
    await database.close()
    _check_database(cast, stored)
    for name, members in cast.conversations().items():
        head = stored[name][-1].seq
        for person in members:
            public = names.public(name, person.id)
            for device in person.devices:
                await until(
                    lambda: device.stream.heads.get(public) == head,  # noqa: B023 - awaited before the next
                    ANSWER_WITHIN_S,
                    f"user {person.id} is shown {name} up to {head}",
                )
    await asyncio.sleep(0.5)  # whatever comes too often or to the wrong one would come now
    _check_streams(cast, stored, undisturbed=undisturbed)


async def _whole(log: MessageLog, conversation: str) -> list[Entry]:
    entries: list[Entry] = []
    while page := await log.after(conversation, len(entries), 1_000):
        entries += page
    return entries


def _check_database(cast: Cast, stored: dict[str, list[Entry]]) -> None:
    """Guarantees 1 to 3: no hole, and exactly what was acknowledged, where the ack says."""
    for name, entries in stored.items():
        assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1)), f"{name} has a hole"
    messages = [entry for entries in stored.values() for entry in entries if entry.kind == "message"]
    in_database = {(entry.sender_id, entry.client_msg_id): (entry.id, entry.seq) for entry in messages}
    assert len(in_database) == len(messages), "a message is stored twice"
    acknowledged = {
        (person.id, name): (ack["message_id"], ack["seq"])
        for person in cast.people
        for name, ack in person.acks.items()
    }
    assert len(acknowledged) == MESSAGES
    assert acknowledged == in_database
    assert not [contradiction for person in cast.people for contradiction in person.contradictions]


def _check_streams(cast: Cast, stored: dict[str, list[Entry]], *, undisturbed: bool) -> None:
    """Guarantees 1 and 4, seen by every socket; and whoever is not a member is shown nothing."""
    problems = [
        problem
        for person in cast.everybody
        for device in person.devices
        for stream in device.streams
        for problem in stream.problems
    ]
    assert not problems, problems[:5]
    mine: dict[int, set[int]] = {person.id: set() for person in cast.everybody}
    for name, members in cast.conversations().items():
        for person in members:
            mine[person.id] |= {entry.id for entry in stored[name] if entry.kind == "message"}
    for person in cast.everybody:
        for device in person.devices:
            shown = {message for stream in device.streams for message in stream.received}
            assert shown <= mine[person.id], f"user {person.id} was shown what is not theirs"
            if undisturbed:
                assert len(device.streams) == 1
                assert shown == mine[person.id], f"user {person.id}: {len(shown)} of {len(mine[person.id])} messages"
    assert not cast.outsider.devices[0].stream.received
