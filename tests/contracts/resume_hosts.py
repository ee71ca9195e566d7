"""Hosts of `tests.contracts.resume_world`: what `actors.runtime.host_actor` is on Ray."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec

from actors.appender import AppendBatch
from actors.commands import Envelope
from actors.host import Host
from actors.uplinks import Accepted, Behind, Stale
from fastsock.core.limits import CATCH_UP_PAGE
from fastsock.schemas.log import Append, Outcome

if TYPE_CHECKING:
    from tests.contracts.resume_world import World

T = TypeVar("T")
Luck = Literal["done", "failed", "lost"]
"""How a call goes: it is answered; it never arrives; it is carried out, and its answer is lost."""
Answer = Accepted | Stale | Behind

_batches = msgspec.msgpack.Decoder(AppendBatch)


class LiveHost:
    """A host's process. ``host`` is None while it is dead."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.host: Host | None = None
        self.revive()

    def revive(self) -> None:
        if self.host is None:
            self.host = Host(self.name, self.world.incarnation(), self.world.view(self.name))
            self._pump()

    def kill(self) -> None:
        """End it between two steps; what it had sent to the database may still come there."""
        self.host = None

    def tick(self) -> None:
        if self.host is not None:
            self.host.tick(self.world.now_ms)
            self._pump()

    def receive(self, sender: str, number: int, epoch: int, items: list[Envelope]) -> Answer:
        assert self.host is not None
        answer = self.host.receive(sender, number, epoch, items, self.world.now_ms)
        if isinstance(answer, Behind):
            self.learn()
        self._pump()
        return answer

    def learn(self) -> None:
        """Read the placement when its turn comes."""
        host = self.host

        async def read(luck: Luck) -> None:
            if luck == "failed":
                self.learn()
            elif host is not None and host is self.host:
                host.move(self.world.view(self.name), self.world.now_ms)
                self._pump()

        self.world.later(f"{self.name} reads the placement", read)

    def _pump(self) -> None:  # noqa: C901 - a list of all that a host may offer
        """Start whatever the host offers."""
        world, host = self.world, self.host
        assert host is not None
        now, log = world.now_ms, world.log
        host.take_woken()
        append = host.next_append(0, now)
        if append is not None:
            self._append(host, _batches.decode(append[1]).groups)

        def ask(
            what: str,
            question: Callable[[], Awaitable[T]],
            told: Callable[[T], None],
            failed: Callable[[], None],
            *,
            routine: bool = False,
        ) -> None:
            alive = self._if_alive(host, told), self._if_alive_then(host, failed)
            world.read(f"{host.peer} {what}", question, *alive, routine=routine)

        if (wanted := host.next_load(now)) is not None:
            load = wanted
            ask(
                f"loads {load}",
                lambda: world.conversations.load(load),
                lambda states: host.loaded(states, world.now_ms),
                lambda: host.load_failed(world.now_ms),
            )
        if (topics := host.next_check(now)) is not None:
            check = topics
            ask(
                f"checks {check}",
                lambda: log.heads(check),
                lambda heads: host.checked(heads, world.now_ms),
                lambda: host.check_failed(world.now_ms),
                routine=True,
            )
        if (page := host.next_read(now)) is not None:
            about = page.topic, page.since, CATCH_UP_PAGE
            ask(
                f"reads {about}",
                lambda: log.after(*about),
                host.read,
                lambda: host.read_failed(world.now_ms),
            )
        if (keys := host.next_recall(now)) is not None:
            recall = keys
            ask(
                f"recalls {recall}",
                lambda: log.by_keys(recall),
                lambda found: host.recalled(found, world.now_ms),
                lambda: host.recall_failed(world.now_ms),
            )
        if (count := host.next_lease(now)) is not None:
            lease = count
            ask("leases ids", lambda: log.lease_ids(lease), host.ids.leased, lambda: host.ids.failed(world.now_ms))
        for other in host.uplinks.hosts:
            taken = host.next_forward(other, now)
            if taken is not None:
                world.push(_Forwarder(self, host), other, *taken)
        if host.placement_suspect:
            host.placement_suspect = False
            self.learn()

    def _if_alive(self, host: Host, told: Callable[[T], None]) -> Callable[[T], None]:
        def tell(found: T) -> None:
            if host is self.host:
                told(found)
                self._pump()

        return tell

    def _if_alive_then(self, host: Host, failed: Callable[[], None]) -> Callable[[], None]:
        tell = self._if_alive(host, lambda _nothing: failed())
        return lambda: tell(None)

    def _append(self, host: Host, groups: list[Append]) -> None:
        world = self.world

        async def commit(luck: Luck) -> None:
            outcomes = None if luck == "failed" else await world.log.append(groups)
            failed = self._if_alive_then(host, lambda: host.append_failed(0, world.now_ms))
            told: Callable[[list[list[Outcome]]], None] = self._if_alive(
                host, lambda found: host.appended(0, found, world.now_ms)
            )

            async def answer(luck: Luck) -> None:
                if outcomes is None or luck != "done":
                    failed()
                else:
                    told(outcomes)

            world.later(f"{host.peer} is told {outcomes}", answer)

        about = ", ".join(f"{group.conversation} after {group.expected_head}" for group in groups)
        world.later(f"{host.peer} appends {about}", commit)


@dataclass
class _Forwarder:
    """A host, as one that sends batches to others."""

    live: LiveHost
    host: Host

    @property
    def peer(self) -> str:
        return self.host.peer

    def alive(self) -> bool:
        return self.live.host is self.host

    def pushed(self, host: str, number: int, answer: Answer | None) -> None:
        now = self.live.world.now_ms
        if answer is None:
            self.host.uplinks.failed(host, number, now)
        else:
            self.host.forwarded(host, number, answer, now)
        self.live._pump()
