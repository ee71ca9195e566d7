"""What a plan is made of: what people do, and what goes wrong, each at its time.

An action has drawn all its chances when it was planned, as numbers from 0 to 1 (``pick``) that choose among what there
is when it happens. So it means the same, or almost, when other actions are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from fastsock.schemas import names
from tests.simulation.calls import Process
from tests.simulation.clients import Client
from tests.simulation.gateways import SimGateway
from tests.simulation.world import World

T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """Where actions happen. ``people`` are by their user ids; who never arrives is not there."""

    world: World
    people: dict[int, Client]


def chosen(pick: float, among: Sequence[T]) -> T:
    return among[int(pick * len(among))]


@dataclass(frozen=True, kw_only=True)
class Action:
    """``at_ms`` is since the start of the history."""

    at_ms: int

    @property
    def over_ms(self) -> int:
        """When what it does is over."""
        return self.at_ms

    def do(self, stage: Stage) -> None:
        raise NotImplementedError


# --- people ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Arrive(Action):
    """A person comes, and stays: whenever a socket is lost, another is opened."""

    user: int

    def do(self, stage: Stage) -> None:
        stage.people[self.user].connect()


@dataclass(frozen=True, kw_only=True)
class Talk(Action):
    """A person sends a message to one of their rooms, or to ``other``."""

    user: int
    pick: float
    other: int

    def do(self, stage: Stage) -> None:
        client = stage.people.get(self.user)
        if client is not None:
            members = stage.world.log.members.items()
            rooms = [name for name, users in members if self.user in users and name.startswith("room:")]
            client.send(chosen(self.pick, [*rooms, names.dm(self.user, self.other)]))


@dataclass(frozen=True, kw_only=True)
class Lose(Action):
    """A person's socket ends."""

    user: int

    def do(self, stage: Stage) -> None:
        client = stage.people.get(self.user)
        if client is not None:
            client.lose()


@dataclass(frozen=True, kw_only=True)
class Overflow(Action):
    """A person reads so slowly that the next frame overflows the socket's outbox."""

    user: int

    def do(self, stage: Stage) -> None:
        client = stage.people.get(self.user)
        if client is not None and client.socket is not None:
            client.socket.gateway.slow_down(client.socket)


@dataclass(frozen=True, kw_only=True)
class Manage(Action):
    """The owner of a room adds this user to it, or removes them from it."""

    room: int
    user: int

    def do(self, stage: Stage) -> None:
        room = names.room(self.room)
        members = stage.world.log.members[room]
        owner = next((user for user, (role, _) in members.items() if role == "owner"), 0)
        client = stage.people.get(owner)
        if client is None:
            return
        if self.user in members:
            client.manage(room, remove=self.user)
        else:
            client.manage(room, add=self.user)


# --- faults ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Spell(Action):
    """One kind of bad weather, for a while."""

    fault: str
    rate: float
    for_ms: int

    @property
    def over_ms(self) -> int:
        return self.at_ms + self.for_ms

    def do(self, stage: Stage) -> None:
        stage.world.spell(self.fault, self.rate, self.for_ms)


@dataclass(frozen=True, kw_only=True)
class Stall(Action):
    """The database hangs for a while."""

    for_ms: int

    @property
    def over_ms(self) -> int:
        return self.at_ms + self.for_ms

    def do(self, stage: Stage) -> None:
        stage.world.stall(self.for_ms)


@dataclass(frozen=True, kw_only=True)
class Kill(Action):
    """Processes die, all at once, ``steps`` events after the time: so between any two."""

    steps: int
    victims: tuple[str, ...]
    """Kinds: "host", "writer", "gateway"."""
    pick: float
    back_ms: int

    @property
    def over_ms(self) -> int:
        return self.at_ms + self.back_ms

    def do(self, stage: Stage) -> None:
        if len(self.victims) > 1:
            stage.world.count("deaths together")
        stage.world.in_steps(self.steps, lambda: self._kill(stage.world))

    def _kill(self, world: World) -> None:
        for victim in self.victims:
            if victim == "host":
                chosen(self.pick, [*world.hosts.values()]).kill(self.back_ms)
            elif victim == "writer":
                world.writer.kill(self.back_ms)
            else:
                gateway = chosen(self.pick, world.gateways)
                gateway.kill()
                SimGateway(world, f"{gateway.name}+")


@dataclass(frozen=True, kw_only=True)
class Freeze(Action):
    """A process stops for a while, then goes on with what it knew; it may have been replaced meanwhile.

    One that stops for no time and is replaced at once is a split brain: there are two of it from then.
    ``replaced_ms`` after it froze another takes its name, None: nobody does. The old one lives ``zombie_ms`` from then.
    Gateways are not replaced: their clients go elsewhere.
    """

    steps: int
    victim: str
    pick: float
    for_ms: int
    replaced_ms: int | None
    zombie_ms: int

    @property
    def over_ms(self) -> int:
        return self.at_ms + max(self.for_ms, (self.replaced_ms or 0) + self.zombie_ms)

    def do(self, stage: Stage) -> None:
        stage.world.in_steps(self.steps, lambda: self._freeze(stage.world))

    def _freeze(self, world: World) -> None:
        process: Process | None
        if self.victim == "gateway":
            process = chosen(self.pick, world.gateways)
        else:
            slot = chosen(self.pick, [*world.hosts.values()]) if self.victim == "host" else world.writer
            process = slot.process
        if process is None or process.frozen:
            return
        if self.for_ms:
            world.count(f"frozen {self.victim}s")
            process.freeze(self.for_ms)
        if self.replaced_ms is not None and self.victim != "gateway":

            def replace() -> None:
                if slot.process is process:
                    slot.replace(self.zombie_ms)

            world.after(self.replaced_ms, replace)


@dataclass(frozen=True, kw_only=True)
class Move(Action):
    """A name moves to another host. ``told_ms``: when each host reads of it; None: it has to find out."""

    pick: float
    to: float
    told_ms: tuple[int | None, ...]

    @property
    def over_ms(self) -> int:
        return self.at_ms + max(told_ms or 0 for told_ms in self.told_ms)

    def do(self, stage: Stage) -> None:
        world = stage.world
        users = [names.user(user) for user in sorted(world.log.users)]
        name, host = chosen(self.pick, [*world.log.logs, *users]), chosen(self.to, world.placement.hosts)
        world.pin(name, host)
        for slot, told_ms in zip(world.hosts.values(), self.told_ms, strict=True):
            if told_ms is not None and slot.process is not None:
                slot.process.learn(told_ms)


@dataclass(frozen=True, kw_only=True)
class Blind(Action):
    """A host is cut off from the placement: it goes on by the one it has."""

    pick: float
    for_ms: int

    @property
    def over_ms(self) -> int:
        return self.at_ms + self.for_ms

    def do(self, stage: Stage) -> None:
        world = stage.world
        world.count("split views")
        slot = chosen(self.pick, [*world.hosts.values()])
        world.say(f"{slot.name} cannot read the placement for {self.for_ms} ms")
        slot.blind_until_ms = max(slot.blind_until_ms, world.now_ms + self.for_ms)
