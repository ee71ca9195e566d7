"""Two hosts that both believe they own every conversation, on one real log: the fence decides, and nobody notices.

Each has a gateway of its own, whose clients send through it alone, as if the network had split the cluster in two.
Beside the log they share nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.commands import Send
from actors.placement import Placement
from fastsock.core.limits import COMPARE_HEADS_MS, LINK_PACE_MAX_MS
from fastsock.db.engine import Database
from tests.contracts.resume_client import Afresh, Client
from tests.contracts.resume_gateways import LiveGateway
from tests.contracts.resume_hosts import Luck
from tests.contracts.resume_world import World, clear

ROOMS = ("room:1", "room:2")


class SplitWorld(World):
    """Each host is alone in its placement, and so is the host of each gateway; all have the same epoch."""

    rest_steps_ms = (50,) * 20 + (1_000,) * (COMPARE_HEADS_MS // 1_000 + 5)
    """Where nobody speaks any more, the log is looked at after so long only."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, gateways=0)
        self.gateways = [LiveGateway(self, self.view(name)) for name in self.hosts]
        self.clients = [Client(self, user) for user in (1, 2, 3, 4)]
        self.said = 0

    def view(self, host: str) -> Placement:
        return Placement(epoch=1, hosts=(host,))

    async def begin(self) -> None:
        for room in ROOMS:
            await self.create_room(1, room, [2, 3, 4])
        await self.rest(self.everybody_reads)
        for place, client in enumerate(self.clients):
            client.connect(self.gateways[place % 2])
        await self.rest(self.everybody_reads)

    async def everybody_reads(self) -> bool:
        return any([await client.read() for client in self.clients])

    def send(self, who: int, room: str) -> None:
        """Say something through the client's own gateway, or through the one of its side, if it has none."""
        client, gateway = self.clients[who], self.gateways[who % 2]
        self.said += 1
        self.wish(room, Send(client.user, f"c:{self.said}", f"said {self.said}"), client.speak() or gateway)

    @property
    def fenced(self) -> int:
        return sum(host.host.counts["fenced"] for host in self.hosts.values() if host.host is not None)

    async def end(self) -> None:
        """No hole, nothing twice, every ack true, nobody refused, everybody shown everything once and in order."""
        await self.rest(self.everybody_reads)
        acknowledged = {}
        for wish in self.wishes:
            assert wish.refusal is None, f"{wish.command} was refused: {wish.refusal}"
            assert wish.answer is not None, f"{wish.command} was never answered"
            acknowledged[wish.name, wish.answer["seq"]] = wish.answer["message_id"], wish.answer["client_msg_id"]
        for room in ROOMS:
            entries = await self.log.after(room, 0, 10_000)
            assert [entry.seq for entry in entries] == [*range(1, len(entries) + 1)], f"{room} has a hole"
            said = {(room, entry.seq): (entry.id, entry.client_msg_id) for entry in entries[1:]}
            assert said == {place: what for place, what in acknowledged.items() if place[0] == room}
        assert len(acknowledged) == len({name for _, name in acknowledged.values()}) == len(self.wishes) == self.said
        afresh = Afresh(self)
        for place, client in enumerate(self.clients):
            if client.socket is None:
                client.connect(self.gateways[place % 2])
        await self.rest(self.everybody_reads)
        for client in self.clients:
            await client.check(afresh, markers=False)
            assert not client.leaps


async def test_both_send_by_turns(db: Database) -> None:
    """Each time the other has written meanwhile, and is fenced unless it was told."""
    await clear(db)
    world = SplitWorld(db)
    await world.begin()
    for turn in range(20):
        world.now_ms += LINK_PACE_MAX_MS
        world.send(turn % 4, ROOMS[0])
        await world.settle()
    assert world.fenced >= 18, "the first finds an empty room, and each host loads it once"
    await world.end()


async def test_both_send_at_once(db: Database) -> None:
    """All at once, in both: what one commits fences the other's batch, which goes again as a whole."""
    await clear(db)
    world = SplitWorld(db)
    await world.begin()
    for turn in range(40):
        world.send(turn % 4, ROOMS[turn % 3 == 0])
    await world.settle()
    assert world.fenced >= 1
    await world.end()


class Step(NamedTuple):
    """What somebody does, who, where; then how much of what is under way happens, and how well the first of it."""

    what: str
    who: int
    one: int
    luck: Luck
    haste: int


ALL = 8
"""The haste with which everything that is under way happens."""
steps = st.builds(
    Step,
    what=st.sampled_from(["send"] * 8 + ["time", "time", "drop", "connect", "connect", "kill_host"]),
    who=st.integers(0, 3),
    one=st.integers(0, 15),
    luck=st.sampled_from(["done", "done", "done", "failed", "lost"]),
    haste=st.integers(0, ALL),
)


async def take(world: SplitWorld, step: Step) -> None:
    """Carry a step out, and what follows it."""
    client = world.clients[step.who]
    match step.what:
        case "send":
            world.send(step.who, ROOMS[step.one % 5 == 0])
        case "time":
            world.pass_time([10, 50, 250, 1_000, 6_000, 35_000][step.one % 6])
        case "connect" if client.socket is None:
            client.connect(world.gateways[step.who % 2])
        case "drop":
            socket = client.lose()
            if socket is not None:
                socket.gateway.disconnect(socket)
        case "kill_host":
            world.hosts[f"h{step.one % 2}"].kill()
    if step.haste == ALL:
        await world.settle()
        await world.everybody_reads()
    else:
        await hurry(world, step)


async def hurry(world: SplitWorld, step: Step) -> None:
    """Let some of what is under way happen, in an order of its own."""
    pairs = list(zip(world.gateways, world.hosts, strict=True))
    for turn in range(step.haste):
        for host in world.hosts.values():
            host.revive()
        luck = "done" if turn else step.luck
        place = (step.one * 3 + turn * (step.who * 2 + 1)) % (len(world.jobs) + len(pairs))
        if place < len(world.jobs):
            await world.run(place, luck)
        else:
            gateway, name = pairs[place - len(world.jobs)]
            gateway.poll(name, luck)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(history=st.lists(steps, min_size=15, max_size=50))
async def test_two_owners_never_both_commit(db: Database, history: list[Step]) -> None:
    await clear(db)
    world = SplitWorld(db)
    await world.begin()
    try:
        for step in history:
            await take(world, step)
        await world.end()
    except AssertionError as error:
        error.add_note("\n".join(world.trace))
        raise
