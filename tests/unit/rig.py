"""A host with everything it needs around it, synchronous: a log in memory, peers that push and poll, and a clock."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from actors.appender import AppendBatch
from actors.commands import Envelope, LinkCommand
from actors.effects import Answer, CaughtUp, Delivery, Failed, Frame
from actors.host import Host
from actors.placement import Placement
from actors.uplinks import Accepted, Behind, Stale
from fastsock.core.limits import CATCH_UP_PAGE
from fastsock.schemas.log import Append, Outcome
from tests.simulation.memory_log import MemoryLog

_batches = msgspec.msgpack.Decoder(AppendBatch)
_deliveries: msgspec.msgpack.Decoder[Delivery] = msgspec.msgpack.Decoder(Delivery)

ALONE = Placement(epoch=1, hosts=("h0",))


class Rig:
    """One host on a log that other rigs may share.

    ``pump`` carries out all that the host offers; the parts of it can be taken one by one to come between.
    """

    def __init__(
        self,
        log: MemoryLog | None = None,
        placement: Placement = ALONE,
        name: str = "h0",
        incarnation: str = "1",
        writers: int = 1,
    ) -> None:
        self.log = MemoryLog(range(1, 10)) if log is None else log
        self.writers = writers
        self.host = Host(name, incarnation, placement, writers)
        self.now_ms = 1_000_000
        self.lease()
        self._numbers: dict[str, int] = {}
        self._requests = 0
        self._sessions: dict[str, tuple[str, int]] = {}

    # --- peers -------------------------------------------------------------------------------------------------------

    def receive(self, peer: str, *envelopes: Envelope, epoch: int | None = None) -> Accepted | Stale | Behind:
        """Push a batch of envelopes as this peer."""
        self._numbers[peer] = self._numbers.get(peer, 0) + 1
        epoch = self.host.placement.epoch if epoch is None else epoch
        return self.host.receive(peer, self._numbers[peer], epoch, list(envelopes), self.now_ms)

    def tell(self, peer: str, name: str, command: LinkCommand) -> None:
        assert isinstance(self.receive(peer, Envelope(name, 0, command)), Accepted)

    def ask(self, peer: str, name: str, command: LinkCommand) -> int:
        """Push a request; returns its number."""
        self._requests += 1
        assert isinstance(self.receive(peer, Envelope(name, self._requests, command)), Accepted)
        return self._requests

    def poll(self, peer: str) -> list[Delivery]:
        """Everything that waits for this peer."""
        deliveries: list[Delivery] = []
        while True:
            session, acknowledged = self._sessions.get(peer, ("", 0))
            session, batch = self.host.poll(peer, session, acknowledged, self.now_ms)
            if batch is None:
                self._sessions[peer] = (session, self._sessions.get(peer, ("", 0))[1])
                return deliveries
            self._sessions[peer] = (session, batch.number)
            deliveries += map(_deliveries.decode, batch.items)

    def session(self, peer: str) -> str:
        return self.host.poll(peer, "", 0, self.now_ms)[0]

    # --- what the host offers ----------------------------------------------------------------------------------------

    def lease(self) -> None:
        count = self.host.next_lease(self.now_ms)
        if count is not None:
            self.host.ids.leased(self.log.lease_ids(count))

    def take(self, writer: int = 0) -> list[Append] | None:
        """The groups of the batch that the host sends to the writer now."""
        taken = self.host.next_append(writer, self.now_ms)
        return None if taken is None else _batches.decode(taken[1]).groups

    def append(self, writer: int = 0) -> list[list[Outcome]] | None:
        """Commit the batch that the host has for this writer now; the outcomes, or None if there is no batch."""
        groups = self.take(writer)
        if groups is None:
            return None
        outcomes = self.log.append(groups)
        self.host.appended(writer, outcomes, self.now_ms)
        return outcomes

    def load(self) -> list[str] | None:
        wanted = self.host.next_load(self.now_ms)
        if wanted is not None:
            self.host.loaded(self.log.load(wanted), self.now_ms)
        return wanted

    def check(self) -> list[str] | None:
        topics = self.host.next_check(self.now_ms)
        if topics is not None:
            self.host.checked(self.log.heads(topics), self.now_ms)
        return topics

    def read(self) -> bool:
        read = self.host.next_read(self.now_ms)
        if read is not None:
            self.host.read(self.log.after(read.topic, read.since, CATCH_UP_PAGE))
        return read is not None

    def recall(self) -> list[tuple[int, str]] | None:
        keys = self.host.next_recall(self.now_ms)
        if keys is not None:
            self.host.recalled(self.log.by_keys(keys), self.now_ms)
        return keys

    def pump(self) -> None:
        """Let the database answer everything, until the host wants nothing more."""
        busy = True
        while busy:
            self.lease()
            busy = self.check() is not None or self.read() or self.load() is not None
            busy |= self.recall() is not None
            busy |= sum(self.append(writer) is not None for writer in range(self.writers)) > 0

    def settle(self, *peers: str) -> list[Delivery]:
        """Pump, then poll the peers."""
        self.pump()
        return [delivery for peer in peers for delivery in self.poll(peer)]

    def pass_time(self, step_ms: int) -> None:
        self.now_ms += step_ms
        self.host.tick(self.now_ms)


def seqs(deliveries: list[Delivery], topic: str) -> list[int]:
    """The numbers of this topic's frames, in the order in which they came."""
    return [delivery.seq for delivery in deliveries if isinstance(delivery, Frame) and delivery.topic == topic]


def answers(deliveries: list[Delivery]) -> dict[int, Any]:
    """What each request was answered: its JSON, or the code of its failure. Each once."""
    found: dict[int, Any] = {}
    for delivery in deliveries:
        if isinstance(delivery, Answer | Failed):
            assert delivery.request not in found, f"request {delivery.request} was answered twice"
        if isinstance(delivery, Answer):
            found[delivery.request] = json.loads(delivery.payload)
        elif isinstance(delivery, Failed):
            found[delivery.request] = delivery.failure.code
    return found


def caught_up(deliveries: list[Delivery]) -> list[tuple[str, int]]:
    return [(delivery.topic, delivery.head) for delivery in deliveries if isinstance(delivery, CaughtUp)]
