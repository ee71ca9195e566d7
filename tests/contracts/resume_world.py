"""A cluster in one process on a real database: pure hosts and gateways, and calls between them that come when told to.

The very `Host`, `Uplinks` and `Gateway` that run on Ray, on a real `MessageLog` and `Conversations`. Whatever takes
time in a cluster (a call to a host, a read, a commit, a page that a socket takes) is a `Job` here: nothing happens
until the test runs it, in any order, and each may fail, or be carried out and have its answer lost. Reads take two
jobs, one that reads and one that brings what was read, so that answers come late. Time is virtual.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from sqlalchemy import text

from actors.commands import Attend, Envelope, LinkCommand
from actors.link import Batch
from actors.placement import Placement
from actors.uplinks import decode_items, encode_items
from fastsock.db.conversations import Conversations
from fastsock.db.engine import Database
from fastsock.db.message_log import MessageLog
from fastsock.schemas import names
from fastsock.schemas.log import Entry
from fastsock.services.reads import GatewayReads
from tests.contracts.resume_gateways import Api, LiveGateway, Wish
from tests.contracts.resume_hosts import Answer, LiveHost, Luck

T = TypeVar("T")


@dataclass(eq=False)
class Job:
    """Something under way."""

    what: str
    run: Callable[[Luck], Awaitable[None]]
    routine: bool = False
    """Whether it comes again and again, and is no sign that something happens."""


class Peer(Protocol):
    """Who sends batches to hosts."""

    @property
    def peer(self) -> str: ...

    def alive(self) -> bool: ...

    def pushed(self, host: str, number: int, answer: Answer | None) -> None:
        """What the host said to that batch; None: nothing came back."""
        ...


async def clear(database: Database) -> None:
    """Empty every table but the users', and count rooms from 1 again, so that a history can be played once more."""
    async with database.transaction() as connection:
        for table in ("log", "members", "markers", "rooms", "id_blocks"):
            await connection.execute(text(f"DELETE FROM {table}"))  # noqa: S608 - constants
        if database.dialect == "postgresql":
            await connection.execute(text("SELECT setval(pg_get_serial_sequence('rooms', 'id'), 1, false)"))
        else:
            await connection.execute(text("DELETE FROM sqlite_sequence WHERE name = 'rooms'"))


class World:
    """The processes, the database, and what is under way between them."""

    rest_steps_ms: tuple[int, ...] = (50,) * 20 + (500,) * 50
    """So long nothing may happen before all is at rest: longer than links pause and requests wait."""

    def __init__(self, database: Database, hosts: int = 2, gateways: int = 2) -> None:
        self.log = MessageLog(database)
        self.conversations = Conversations(database)
        self.reads = GatewayReads(database)
        self.now_ms = 1_000_000
        self.jobs: list[Job] = []
        self.trace: list[str] = []
        self.wishes: list[Wish] = []
        self._incarnations = 0
        self.placement = Placement(epoch=1, hosts=tuple(f"h{number}" for number in range(hosts)))
        self.hosts = {name: LiveHost(self, name) for name in self.placement.hosts}
        self.api = Api(self)
        self.gateways: list[LiveGateway] = []
        self.gateways = [LiveGateway(self, self.placement) for _ in range(gateways)]

    def view(self, host: str) -> Placement:  # noqa: ARG002 - a split world has a view for each
        """The placement as this host would read it."""
        return self.placement

    def incarnation(self) -> str:
        self._incarnations += 1
        return str(self._incarnations)

    # --- what is under way ---------------------------------------------------------------------------------------

    def later(self, what: str, run: Callable[[Luck], Awaitable[None]], *, routine: bool = False) -> None:
        self.jobs.append(Job(what, run, routine))

    async def run(self, which: int, luck: Luck = "done") -> bool:
        """Let one of the things under way happen; whether it was more than routine."""
        job = self.jobs.pop(which)
        if not job.routine:
            self.trace.append(f"    {job.what}" + ("" if luck == "done" else f" ({luck})"))
        await job.run(luck)
        return not job.routine

    def read(
        self,
        what: str,
        question: Callable[[], Awaitable[T]],
        told: Callable[[T], None],
        failed: Callable[[], None],
        *,
        routine: bool = False,
    ) -> None:
        """Ask the database: one job reads, another brings the answer."""

        async def ask(luck: Luck) -> None:
            found = None if luck == "failed" else await question()

            async def answer(luck: Luck) -> None:
                if found is None or luck != "done":
                    failed()
                else:
                    told(found)

            self.later(f"{what}: answer", answer, routine=routine)

        self.later(what, ask, routine=routine)

    def push(self, sender: Peer, host: str, batch: Batch[Envelope], epoch: int) -> None:
        """Send a batch to a host."""
        body, target = encode_items(batch.items), self.hosts[host]

        async def arrive(luck: Luck) -> None:
            answer = None
            if luck != "failed" and target.host is not None:
                answer = target.receive(sender.peer, batch.number, epoch, decode_items(body))
            if sender.alive():
                sender.pushed(host, batch.number, answer if luck == "done" else None)

        self.later(f"{sender.peer} -> {host}: {', '.join(f'{item.to} {item.command}' for item in batch.items)}", arrive)

    # --- what people and operators do ------------------------------------------------------------------------------

    def move(self, name: str, host: str) -> None:
        """Let a name live elsewhere; the hosts learn of it one after the other."""
        pins = {**self.placement.pins, name: host}
        self.placement = Placement(epoch=self.placement.epoch + 1, hosts=self.placement.hosts, pins=pins)
        for each in self.hosts.values():
            each.learn()

    async def create_room(self, owner: int, name: str, members: list[int]) -> Entry:
        """As `fastsock.services.rooms` does it."""
        [entry_id] = await self.log.lease_ids(1)
        entry = await self.conversations.create_room(owner, name, members, entry_id, self.now_ms)
        for user in dict.fromkeys((owner, *members)):
            self.api.tell(names.user(user), Attend(entry.conversation, since=0))
        return entry

    def wish(self, name: str, command: LinkCommand, gateway: LiveGateway | None = None) -> Wish:
        """Ask an actor, until it answers."""
        wish = Wish(name, command)
        self.wishes.append(wish)
        self.ask(wish, gateway)
        return wish

    def ask(self, wish: Wish, gateway: LiveGateway | None = None) -> None:
        wish.again_at_ms = None
        wish.gateway = self.gateways[0] if gateway is None else gateway
        wish.gateway.perform(wish.gateway.gateway.request(wish.name, wish.command, wish, self.now_ms))

    # --- time ----------------------------------------------------------------------------------------------------

    def pass_time(self, step_ms: int) -> None:
        self.now_ms += step_ms
        for host in self.hosts.values():
            host.tick()
        for gateway in self.gateways:
            gateway.tick()
        self.api.flush()
        for wish in self.wishes:
            if wish.again_at_ms is not None and wish.again_at_ms <= self.now_ms:
                self.ask(wish)

    async def settle(self) -> bool:
        """Carry out everything that is under way, without a fault; whether there was more than routine."""
        busy = False
        while True:
            for host in self.hosts.values():
                host.revive()
            if self.jobs:
                busy |= await self.run(0)
            elif any(gateway.poll(host) for gateway in self.gateways for host in self.hosts):
                busy = True
            else:
                return busy

    async def rest(self, busy: Callable[[], Awaitable[bool]]) -> None:
        """Let time pass without faults until nothing happens any more; ``busy`` does what clients do, if anything."""
        for _ in range(100):
            for step_ms in self.rest_steps_ms:
                if await self.settle() | await busy():
                    break
                self.pass_time(step_ms)
            else:
                return
        raise AssertionError("never at rest: " + "; ".join(job.what for job in self.jobs))
