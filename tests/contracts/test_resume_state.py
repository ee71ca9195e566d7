"""State before + events == state fetched afresh: random histories of people who come, go, talk and resume.

`tests.contracts.resume_world` is the cluster, on a real database, `tests.contracts.resume_client` is a naive client
that believes what it is told. Whatever happened on the way: when all is at rest, what a client has made of its events
is what is in the database.

``FASTSOCK_RESUME_HISTORIES`` says how many histories are played on each database.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from actors import gateway, host, replays
from actors.commands import AddMembers, Delete, Edit, LinkCommand, RemoveMember, Send
from actors.effects import Frame
from actors.gateway import Gateway, Output
from actors.gateway_tables import Topic
from actors.recent import Recent
from fastsock.db.engine import Database
from fastsock.db.log_reads import Page
from fastsock.db.message_log import MessageLog
from fastsock.schemas import frames, names
from fastsock.schemas.log import Entry
from tests.contracts import resume_hosts
from tests.contracts.entries import add_users
from tests.contracts.resume_client import Afresh, Client
from tests.contracts.resume_gateways import Socket
from tests.contracts.resume_hosts import Luck
from tests.contracts.resume_world import World, clear

HISTORIES = int(os.environ.get("FASTSOCK_RESUME_HISTORIES", "30"))
DEVICES = (1, 2, 3, 4, 1, 2)
"""Whose each client is."""


class Step(NamedTuple):
    """What somebody does, who, with what; then how much of what is under way happens, and how well the first of it."""

    what: str
    who: int
    one: int
    other: int
    luck: Luck
    haste: int


KINDS = (
    ["send"] * 8
    + ["connect"] * 4
    + ["edit", "delete", "create", "add", "add", "remove", "leave", "mark_read", "resume", "resume_one"]
    + ["disconnect", "drop", "drop", "kill_host", "kill_gateway", "move", "time", "time", "read", "read", "nothing"]
)
ALL = 9
"""The haste with which everything that is under way happens."""
steps = st.builds(
    Step,
    what=st.sampled_from(KINDS),
    who=st.integers(0, len(DEVICES) - 1),
    one=st.integers(0, 15),
    other=st.integers(0, 15),
    luck=st.sampled_from(["done", "done", "done", "failed", "lost"]),
    haste=st.integers(0, ALL),
)
histories = st.lists(steps, min_size=20, max_size=60)


@pytest.fixture
def small_bounds() -> Iterator[None]:
    """Pages, memories and patience so short that a few entries exceed them.

    And nobody compares heads with the log now and then: what is lost must be missed.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replays, "RESUME_PAGE", 3)
        patch.setattr(replays, "RESUME_AT_ONCE_BYTES", 600)
        patch.setattr(replays, "RESUME_PAGE_BYTES", 900)
        patch.setattr(replays, "MAX_REPLAYS", 2)
        patch.setattr(replays, "MAX_NEW_ENTRIES", 6)
        patch.setattr(replays, "MAX_RESUME_ENTRIES", 12)
        patch.setattr(replays, "Recent", partial(Recent, limit_frames=6))
        patch.setattr(gateway, "MAX_HELD_FRAMES", 2)
        patch.setattr(host, "CATCH_UP_PAGE", 3)
        patch.setattr(host, "COMPARE_HEADS_MS", 10**9)
        patch.setattr(resume_hosts, "CATCH_UP_PAGE", 3)
        yield


class History:
    """The steps of one history, carried out."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clients = [Client(world, user) for user in DEVICES]
        self.said = 0

    async def begin(self) -> None:
        await self.world.create_room(1, "one", [2, 3])
        for place, client in enumerate(self.clients[:4]):
            client.connect(self.world.gateways[place % 2])

    async def step(self, step: Step) -> None:
        world = self.world
        world.trace.append(f"{step}")
        await getattr(self, f"_{step.what}")(self.clients[step.who], step.one, step.other)
        if step.haste == ALL:
            await world.settle()
            await self._everybody_reads()
            return
        luck = step.luck
        pairs = [(each, name) for each in world.gateways for name in world.hosts]
        for turn in range(step.haste):
            place = (step.other + turn * (step.one | 1)) % (len(world.jobs) + len(pairs))
            if place < len(world.jobs):
                await world.run(place, luck)
            else:
                each, name = pairs[place - len(world.jobs)]
                if each.alive():
                    each.poll(name, luck)
            luck = "done"

    async def _everybody_reads(self) -> bool:
        return any([await client.read() for client in self.clients])

    # --- steps ---------------------------------------------------------------------------------------------------

    def _conversation(self, client: Client, one: int) -> str:
        """One that the client knows, or that it could begin."""
        others = [f"user:{user}" for user in range(1, 5)]
        public = [*client.state, *others][one % (len(client.state) + 4)]
        return names.private(public, client.user)

    def _wish(self, client: Client, name: str, command: LinkCommand) -> None:
        self.world.wish(name, command, client.speak())

    def _key(self) -> str:
        self.said += 1
        return f"c:{self.said}"

    async def _send(self, client: Client, one: int, _other: int) -> None:
        key = self._key()
        self._wish(client, self._conversation(client, one), Send(client.user, key, f"said {key}"))

    async def _change(self, client: Client, one: int, other: int, content: str | None) -> None:
        known = [id_ for conversation in client.state.values() for id_ in conversation.messages]
        if not known:
            return
        entry = await self.world.log.get(known[-1 - (one + other) % len(known)])
        assert entry is not None
        target, key = frames.target_of(entry), self._key()
        change = Delete(client.user, key, target) if content is None else Edit(client.user, key, target, content)
        self._wish(client, entry.conversation, change)

    async def _edit(self, client: Client, one: int, other: int) -> None:
        await self._change(client, one, other, f"edited {self.said}")

    async def _delete(self, client: Client, one: int, other: int) -> None:
        await self._change(client, one, other, None)

    async def _create(self, client: Client, one: int, other: int) -> None:
        await self.world.create_room(client.user, f"room {one}", [user for user in range(1, 5) if other >> user & 1])

    async def _room(self, one: int) -> tuple[str, int] | None:
        """A room that exists, and its owner."""
        room_id = one % 3 + 1
        room = await self.world.conversations.room(room_id)
        return None if room is None else (names.room(room_id), room.owner_id)

    async def _add(self, client: Client, one: int, other: int) -> None:
        room = await self._room(one)
        if room is not None:
            self._wish(client, room[0], AddMembers(room[1], self._key(), [other % 4 + 1]))

    async def _remove(self, client: Client, one: int, other: int) -> None:
        room = await self._room(one)
        if room is not None:
            self._wish(client, room[0], RemoveMember(room[1], self._key(), other % 4 + 1))

    async def _leave(self, client: Client, one: int, _other: int) -> None:
        room = await self._room(one)
        if room is not None:
            self._wish(client, room[0], RemoveMember(client.user, self._key(), client.user))

    async def _mark_read(self, client: Client, one: int, other: int) -> None:
        await self.world.conversations.mark_read(client.user, self._conversation(client, one), other)

    async def _connect(self, client: Client, one: int, other: int) -> None:
        if client.socket is None:
            client.connect(self.world.gateways[one % 2], anew=other == 1)

    async def _resume(self, client: Client, _one: int, _other: int) -> None:
        if client.ready:
            client.resume(*client.state)

    async def _resume_one(self, client: Client, one: int, _other: int) -> None:
        if client.ready and client.state:
            client.resume([*client.state][one % len(client.state)])

    async def _disconnect(self, client: Client, _one: int, _other: int) -> None:
        socket = client.lose()
        if socket is not None:
            socket.gateway.disconnect(socket)

    async def _drop(self, client: Client, _one: int, _other: int) -> None:
        """The socket is gone, and its gateway learns of it some time."""
        socket = client.lose()
        if socket is not None:
            self.world.later(f"{socket.connection_id} is found to be gone", partial(self._found_gone, socket))

    @staticmethod
    async def _found_gone(socket: Socket, _luck: Luck) -> None:
        socket.gateway.disconnect(socket)

    async def _kill_host(self, _client: Client, one: int, _other: int) -> None:
        self.world.hosts[f"h{one % 2}"].kill()

    async def _kill_gateway(self, _client: Client, one: int, _other: int) -> None:
        self.world.gateways[one % 2].kill()

    async def _move(self, client: Client, one: int, other: int) -> None:
        name = names.user(client.user) if other % 3 == 0 else self._conversation(client, one)
        self.world.move(name, f"h{other % 2}")

    async def _time(self, _client: Client, one: int, other: int) -> None:
        for host_ in self.world.hosts.values():
            if other % 2:
                host_.revive()
        self.world.pass_time([10, 50, 250, 1_000, 6_000, 35_000][min(one, 5) if one < 10 else 2])

    async def _read(self, client: Client, one: int, _other: int) -> None:
        await client.read(one)

    async def _nothing(self, _client: Client, _one: int, _other: int) -> None: ...

    # --- the end -------------------------------------------------------------------------------------------------

    async def end(self) -> None:
        """Whoever is connected has everything; so has everybody else after a resume, and then markers too."""
        world = self.world
        await world.rest(self._everybody_reads)
        offline = [client for client in self.clients if client.socket is None]
        await self._check([client for client in self.clients if client not in offline], markers=False)
        for client in offline:
            client.connect(world.gateways[0])
        await world.rest(self._everybody_reads)
        await self._check(offline, markers=False)
        for client in self.clients:
            client.resume(*client.state)
        await world.rest(self._everybody_reads)
        await self._check(self.clients, markers=True)
        await self._check_acks()

    async def _check(self, clients: list[Client], *, markers: bool) -> None:
        afresh = Afresh(self.world)
        for client in clients:
            assert client.ready, f"user {client.user} was never greeted"
            assert not client.resuming, f"user {client.user} was never resumed"
            await client.check(afresh, markers=markers)

    async def _check_acks(self) -> None:
        """Everything was answered, and what was acknowledged is where the ack says."""
        for wish in self.world.wishes:
            assert not wish.open, f"never answered: {wish.command}"
            if isinstance(wish.command, Send) and wish.answer is not None:
                entry = await self.world.log.get(wish.answer["message_id"])
                assert entry is not None
                assert (entry.conversation, entry.seq) == (wish.name, wish.answer["seq"])


async def play(database: Database, history: list[Step]) -> None:
    await clear(database)
    world = World(database)
    player = History(world)
    try:
        await player.begin()
        for step in history:
            await player.step(step)
        await player.end()
    except AssertionError as error:
        error.add_note("\n".join(world.trace))
        raise


def played(count: int) -> settings:
    unchecked = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=count, suppress_health_check=unchecked)


@played(HISTORIES)
@given(history=histories)
@pytest.mark.usefixtures("small_bounds")
async def test_state_before_and_events_is_state_fetched_afresh(db: Database, history: list[Step]) -> None:
    await play(db, history)


# --- planted bugs are found --------------------------------------------------------------------------------------


def late_pages(patch: pytest.MonkeyPatch) -> None:
    """Pages of the log begin one entry too late."""
    pages = MessageLog.pages

    async def off_by_one(log: MessageLog, wanted: Sequence[Page]) -> dict[Page, list[Entry]]:
        return {page: entries[1:] or entries for page, entries in (await pages(log, wanted)).items()}

    patch.setattr(MessageLog, "pages", off_by_one)


def forgotten_joins(patch: pytest.MonkeyPatch) -> None:
    """The entry that lets users in does not subscribe their sockets."""
    pass_on = Gateway._pass_on

    def unsubscribed(self: Gateway[Socket], topic: Topic[Socket], frame: Frame, now_ms: int) -> list[Output[Socket]]:
        return pass_on(self, topic, msgspec.structs.replace(frame, subscribe=()), now_ms)

    patch.setattr(Gateway, "_pass_on", unsubscribed)


def forgotten_attachments(patch: pytest.MonkeyPatch) -> None:
    """A host that has forgotten a gateway is not told what it is attached to."""
    patch.setattr(Gateway, "reattach", lambda _self, _owned, _now_ms: [])


@pytest.mark.parametrize("plant", [late_pages, forgotten_joins, forgotten_attachments])
@pytest.mark.usefixtures("small_bounds")
def test_a_planted_bug_is_found(url: str, plant: Callable[[pytest.MonkeyPatch], None]) -> None:
    async def begin() -> Database:
        database = Database(url)
        await add_users(database, len(DEVICES))
        return database

    with asyncio.Runner() as runner, pytest.MonkeyPatch.context() as patch:
        plant(patch)
        database = runner.run(begin())
        found_by = 0

        @settings(played(200), phases=[Phase.generate], database=None, derandomize=True, report_multiple_bugs=False)
        @given(history=histories)
        def look(history: list[Step]) -> None:
            nonlocal found_by
            found_by += 1
            runner.run(play(database, history))

        try:
            with pytest.raises(AssertionError) as caught:
                look()
            print(f"found by history {found_by}: {caught.value}")
        finally:
            runner.run(database.close())
