"""Resumes that something overtakes, step by step; `test_resume_state` meets such things by chance only."""

from __future__ import annotations

import pytest

from actors.commands import AddMembers, RemoveMember, Send
from fastsock.db.engine import Database
from tests.contracts.resume_client import Afresh, Client
from tests.contracts.resume_world import World

ROOM, PAGE = "room:1", "reads ('dm:1:2', 0, 3)"


class Reunion:
    """User 2 has left the room, and comes back to one who has written; this gateway remembers nothing of it."""

    def __init__(self, database: Database) -> None:
        self.world = World(database, hosts=1, gateways=1)
        self.one, self.two = Client(self.world, 1), Client(self.world, 2)

    async def begin(self) -> None:
        gateway = self.world.gateways[0]
        self.one.connect(gateway)
        await self.world.create_room(1, "one", [2])
        self.two.connect(gateway)
        await self.rest()
        socket = self.two.lose()
        assert socket is not None
        gateway.disconnect(socket)
        self.world.wish(ROOM, RemoveMember(1, "c:remove", 2))
        await self.rest()
        for number in range(3):
            self.world.wish("dm:1:2", Send(1, f"c:{number}", f"{number}"))
        await self.rest()
        gateway.gateway._replays._recent.forget("dm:1:2")
        self.two.connect(gateway)

    async def rest(self) -> None:
        await self.world.rest(self.read)

    async def read(self) -> bool:
        return any([await client.read() for client in (self.one, self.two)])

    async def all_but(self, what: str) -> None:
        """Carry out everything that is under way but this, which somebody waits for."""
        [gateway], jobs = self.world.gateways, self.world.jobs
        while (places := [place for place, job in enumerate(jobs) if what not in job.what]) or gateway.poll("h0"):
            if places:
                await self.world.run(places[0])
        await self.read()

    async def end(self) -> None:
        await self.rest()
        for client in (self.one, self.two):
            await client.check(Afresh(self.world), markers=True)


@pytest.fixture
async def reunion(db: Database) -> Reunion:
    reunion = Reunion(db)
    await reunion.begin()
    return reunion


async def test_who_is_let_in_again_during_a_resume_is_not_told_to_have_left(reunion: Reunion) -> None:
    world, two = reunion.world, reunion.two
    await reunion.all_but("resumes")
    await reunion.all_but(PAGE)
    assert [job.what.partition(" ")[2] for job in world.jobs] == [PAGE]
    assert two.resuming
    world.wish(ROOM, AddMembers(1, "c:add", [2]))
    await reunion.all_but(PAGE)
    assert two.state.keys() == {ROOM}, "the entry that lets in comes after a gap: the leaving"
    await reunion.end()
    assert two.state.keys() == {ROOM, "user:1"}
    assert two.state[ROOM].last == 3


async def test_who_is_let_in_again_before_a_resume_is_shown_both(reunion: Reunion) -> None:
    world, two = reunion.world, reunion.two
    await reunion.all_but("resumes")
    world.wish(ROOM, AddMembers(1, "c:add", [2]))
    await reunion.end()
    assert (two.state[ROOM].start, two.state[ROOM].last) == (3, 3), "dropped with the leaving, and begun anew"
