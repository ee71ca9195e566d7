"""Two hosts that may both believe they own everything, one log, peers that poll in vain, a database that fails and a
writer whose answers are lost, in any order that Hypothesis finds.

Whatever happens: the log has no hole and no fork, nothing is shown that is not in it, nothing is answered that it does
not hold, nobody is answered twice, and when all is quiet every table is empty.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors import link
from actors.appender import AppendBatch
from actors.commands import (
    AddMembers,
    Attach,
    CatchUp,
    Connect,
    Detach,
    Disconnect,
    Envelope,
    LinkCommand,
    RemoveMember,
    Send,
)
from actors.effects import Answer, CaughtUp, Delivery, Failed, Frame
from actors.host import Host
from actors.placement import Placement
from actors.topics import Read
from actors.uplinks import Accepted
from fastsock.core.limits import CATCH_UP_PAGE, COMPARE_HEADS_MS, ID_BLOCK, PASSIVATE_AFTER_MS, PEER_GONE_MS
from fastsock.schemas import frames
from fastsock.schemas.log import Append, Outcome
from tests.simulation.memory_log import MemoryLog

_batches = msgspec.msgpack.Decoder(AppendBatch)
_deliveries: msgspec.msgpack.Decoder[Delivery] = msgspec.msgpack.Decoder(Delivery)

NAMES = ("h0", "h1")
PEERS = ("g1", "g2")
CONVERSATIONS = ("room:1", "room:2", "dm:1:2")
USERS = st.integers(1, 4)
HOW = st.sampled_from(["done", "done", "done", "blind", "fail", "hang"])
"""How a call goes: it is answered, its answer is lost, it never arrives, or it is not answered yet."""


@dataclass
class Wires:
    """What is under way between one host and the rest of the world."""

    host: Host
    append: list[Append] | None = None
    landed: list[list[Outcome]] | None = None
    """What the log has answered to ``append``, where it has; the host has not been told."""
    load: list[str] | None = None
    check: list[str] | None = None
    read: Read | None = None
    numbers: dict[str, int] = field(default_factory=dict)
    sessions: dict[str, tuple[str, int]] = field(default_factory=dict)
    asked: dict[str, dict[int, tuple[int, str]]] = field(default_factory=dict)
    """For each peer, the requests of its present session: ``(sender, key)``."""
    answered: dict[str, set[int]] = field(default_factory=dict)
    attached: set[tuple[str, str]] = field(default_factory=set)
    """The topics that each peer has attached in its present session."""


class HostsOnOneLog(RuleBasedStateMachine):
    @initialize(hosts=st.integers(1, 2), bound=st.sampled_from([12, 60, 1_000]))
    def start(self, hosts: int, bound: int) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(link, "MAX_DOWNLINK_ITEMS", bound)
        self.log = MemoryLog(range(1, 5))
        self.log.create_room(1, 1, [2, 3])
        self.log.create_room(2, 2, [])
        self.now_ms = 1_000_000
        self.incarnations = 0
        self.key = 0
        self.request = 0
        self.epoch = 1
        self.last: dict[tuple[str, str], int] = {}
        """For each peer and topic, the last number that it has seen without a gap, and below, what it holds."""
        self.held: dict[tuple[str, str], set[int]] = {}
        self.wires = [self.born(name) for name in NAMES[:hosts]]
        self.ghosts: list[list[Append]] = []
        """What hosts had sent to the writer before they died."""
        """Where such a thing was committed later: nobody is told of it but who asks again."""

    def placement(self, name: str) -> Placement:
        """A host that believes that everything is its own: the worst of views."""
        return Placement(epoch=self.epoch, hosts=(name,))

    def born(self, name: str) -> Wires:
        self.incarnations += 1
        host = Host(name, str(self.incarnations), self.placement(name))
        host.ids.leased(self.log.lease_ids(ID_BLOCK))
        return Wires(host)

    def pick(self, place: int) -> Wires:
        return self.wires[place % len(self.wires)]

    def push(self, wires: Wires, peer: str, *envelopes: Envelope, repeat: bool = False) -> None:
        number = wires.numbers[peer] = wires.numbers.get(peer, 0) + 1
        epoch = wires.host.placement.epoch
        for _ in range(1 + repeat):
            said = wires.host.receive(peer, number, epoch, list(envelopes), self.now_ms)
            assert isinstance(said, Accepted)

    # --- what peers do -----------------------------------------------------------------------------------------------

    @rule(
        place=st.integers(0, 1),
        peer=st.sampled_from(PEERS),
        user=USERS,
        what=st.integers(0, 9),
        repeat=st.booleans(),
        other=USERS,
        name=st.sampled_from(CONVERSATIONS),
        again=st.booleans(),
    )
    def ask(
        self, place: int, peer: str, user: int, what: int, repeat: bool, other: int, name: str, again: bool
    ) -> None:
        wires = self.pick(place)
        self.key += 0 if again and self.key else 1
        key = f"c:{self.key}"
        command: LinkCommand = Send(user, key, f"{user} says {self.key}")
        if what == 0:
            command = AddMembers(user, key, [other])
        elif what == 1:
            command = RemoveMember(user, key, other)
        self.request += 1
        if peer in wires.sessions:
            wires.asked.setdefault(peer, {})[self.request] = (user, key)
        self.push(wires, peer, Envelope(name, self.request, command), repeat=repeat)

    @rule(place=st.integers(0, 1), peer=st.sampled_from(PEERS), name=st.sampled_from(CONVERSATIONS))
    def attach(self, place: int, peer: str, name: str) -> None:
        wires = self.pick(place)
        if peer in wires.sessions:
            wires.attached.add((peer, name))
            self.push(wires, peer, Envelope(name, 0, Attach(self.last.get((peer, name), 0))))

    @rule(place=st.integers(0, 1), peer=st.sampled_from(PEERS), name=st.sampled_from(CONVERSATIONS))
    def detach(self, place: int, peer: str, name: str) -> None:
        wires = self.pick(place)
        wires.attached.discard((peer, name))
        self.push(wires, peer, Envelope(name, 0, Detach()))

    @rule(place=st.integers(0, 1), peer=st.sampled_from(PEERS), user=USERS, come=st.booleans())
    def socket(self, place: int, peer: str, user: int, come: bool) -> None:
        command = Connect("c") if come else Disconnect("c")
        self.push(self.pick(place), peer, Envelope(f"user:{user}", 0, command))

    @rule(place=st.integers(0, 1), peer=st.sampled_from(PEERS), lost=st.booleans())
    def poll(self, place: int, peer: str, lost: bool) -> None:
        self.poll_once(self.pick(place), peer, lost=lost)

    def poll_once(self, wires: Wires, peer: str, *, lost: bool = False) -> bool:
        known, acknowledged = wires.sessions.get(peer, ("", 0))
        session, batch = wires.host.poll(peer, known, acknowledged, self.now_ms)
        if lost:
            return True
        if session != known:
            acknowledged = 0
            wires.asked[peer] = {}
            wires.answered[peer] = set()
        if batch is not None and batch.number > acknowledged:
            acknowledged = batch.number
            for item in batch.items:
                self.delivered(wires, peer, _deliveries.decode(item))
        wires.sessions[peer] = (session, acknowledged)
        if session != known:
            for _, name in [place for place in sorted(wires.attached) if place[0] == peer]:
                self.attach(self.wires.index(wires), peer, name)
        return batch is not None or session != known

    def delivered(self, wires: Wires, peer: str, delivery: Delivery) -> None:
        if isinstance(delivery, Frame):
            self.shown(peer, delivery)
        elif isinstance(delivery, Answer | Failed):
            asked = wires.asked[peer].get(delivery.request)
            if asked is None:
                return  # it was asked before this session
            assert delivery.request not in wires.answered[peer], f"{delivery} comes a second time"
            wires.answered[peer].add(delivery.request)
            if isinstance(delivery, Answer):
                user, key = asked
                entry = self.log._by_key[user, key]
                assert json.loads(delivery.payload)["seq"] == entry.seq, "the answer tells of something else"
        elif isinstance(delivery, CaughtUp):
            assert delivery.head <= self.log.heads([delivery.topic])[delivery.topic]

    def shown(self, peer: str, frame: Frame) -> None:
        log = self.log.logs.get(frame.topic, [])
        assert frame.seq <= len(log), "shown before it was in the log"
        assert frame.payload == frames.frame_of(log[frame.seq - 1]), "shown as something else"
        place = (peer, frame.topic)
        last, held = self.last.get(place, 0), self.held.setdefault(place, set())
        held.add(frame.seq)
        while last + 1 in held:
            last += 1
        self.last[place] = last
        self.held[place] = {seq for seq in held if seq > last}

    # --- what the database and the writer do -------------------------------------------------------------------------

    @rule(place=st.integers(0, 1), how=HOW)
    def append(self, place: int, how: str) -> None:
        """Send a batch; or, where one is on its way, let it land, lose it before or after, or tell the host."""
        wires = self.pick(place)
        if wires.append is None:
            taken = wires.host.next_append(0, self.now_ms)
            wires.append = None if taken is None else _batches.decode(taken[1]).groups
            if how == "hang":
                return
        if wires.append is None:
            return
        if how != "fail" and wires.landed is None:
            wires.landed = self.log.append(wires.append)
        landed = wires.landed
        if how == "hang":
            return
        wires.append = wires.landed = None
        if how == "done":
            assert landed is not None
            wires.host.appended(0, landed, self.now_ms)
        else:
            wires.host.append_failed(0, self.now_ms)

    @rule(place=st.integers(0, 1))
    def refuse_epoch(self, place: int) -> None:
        wires = self.pick(place)
        if wires.append is not None:
            wires.append = wires.landed = None
            wires.host.epoch_refused(0, self.now_ms)

    @rule(place=st.integers(0, 1), how=HOW)
    def load(self, place: int, how: str) -> None:
        wires = self.pick(place)
        if wires.load is None:
            wires.load = wires.host.next_load(self.now_ms)
        if wires.load is None or how == "hang":
            return
        wanted, wires.load = wires.load, None
        if how == "fail":
            wires.host.load_failed(self.now_ms)
        else:
            wires.host.loaded(self.log.load(wanted), self.now_ms)

    @rule(place=st.integers(0, 1), how=HOW)
    def check(self, place: int, how: str) -> None:
        wires = self.pick(place)
        if wires.check is None:
            wires.check = wires.host.next_check(self.now_ms)
        if wires.check is None or how == "hang":
            return
        topics, wires.check = wires.check, None
        if how == "fail":
            wires.host.check_failed(self.now_ms)
        else:
            wires.host.checked(self.log.heads(topics), self.now_ms)

    @rule(place=st.integers(0, 1), how=HOW)
    def read(self, place: int, how: str) -> None:
        wires = self.pick(place)
        if wires.read is None:
            wires.read = wires.host.next_read(self.now_ms)
        if wires.read is None or how == "hang":
            return
        read, wires.read = wires.read, None
        if how == "fail":
            wires.host.read_failed(self.now_ms)
        else:
            wires.host.read(self.log.after(read.topic, read.since, CATCH_UP_PAGE))

    # --- what happens to hosts ----------------------------------------------------------------------------------------

    @rule(step_ms=st.sampled_from([1, 20, 1_000, 5_000, PEER_GONE_MS]))
    def pass_time(self, step_ms: int) -> None:
        self.now_ms += step_ms
        for wires in self.wires:
            wires.host.tick(self.now_ms)

    @rule(place=st.integers(0, 1))
    def kill(self, place: int) -> None:
        """A host dies and starts anew; what it had sent to the writer may be committed all the same, at any time."""
        place %= len(self.wires)
        wires = self.wires[place]
        if wires.append is not None and wires.landed is None:
            self.ghosts.append(wires.append)
        self.wires[place] = self.born(wires.host.name)
        self.wires[place].attached = wires.attached

    @precondition(lambda self: self.ghosts)
    @rule()
    def haunt(self) -> None:
        ghost = self.ghosts.pop(0)
        self.log.append(ghost)

    @rule(skip=st.booleans())
    def move(self, skip: bool) -> None:
        """The next placement, or the one after; nothing changes hands, since everybody owns everything."""
        self.epoch += 1 + skip
        for wires in self.wires:
            wires.host.move(self.placement(wires.host.name), self.now_ms)

    # --- what must hold -----------------------------------------------------------------------------------------------

    @invariant()
    def no_hole_no_fork(self) -> None:
        if not hasattr(self, "log"):
            return
        keys: set[tuple[int, str]] = set()
        for log in self.log.logs.values():
            assert [entry.seq for entry in log] == list(range(1, len(log) + 1))
            times = [entry.at_ms for entry in log]
            assert times == sorted(times)
            for entry in log:
                assert (entry.sender_id, entry.key) not in keys, "stored twice"
                keys.add((entry.sender_id, entry.key))

    @precondition(lambda self: hasattr(self, "wires"))
    @invariant()
    def deadlines_are_not_missed(self) -> None:
        """Whatever the host offers after a tick of its own time, it had announced."""
        for wires in self.wires:
            host = wires.host
            if host.next_deadline_ms() is None:
                assert not host._activations
                assert not host._downlinks

    def teardown(self) -> None:
        """All is well again: everybody is answered and shown everything, and then everything is forgotten."""
        if not hasattr(self, "wires"):
            return
        self.patch.undo()
        for wires in self.wires:
            self.heal(wires)
        for wires in self.wires:
            self.forget(wires)

    def heal(self, wires: Wires) -> None:
        for _ in range(60 + COMPARE_HEADS_MS // 500):
            self.now_ms += 500
            wires.host.tick(self.now_ms)
            place = self.wires.index(wires)
            for step in (self.append, self.check, self.load, self.read):
                step(place, how="done")
            for peer in PEERS:
                while self.poll_once(wires, peer):
                    pass
                for attached, topic in wires.attached:
                    if attached == peer and self.held.get((peer, topic)):
                        self.push(wires, peer, Envelope(topic, 0, CatchUp(self.last[peer, topic])))
        for peer in PEERS:
            assert wires.answered.get(peer, set()) >= set(wires.asked.get(peer, {})), "somebody was never answered"
        host = wires.host
        for peer, topic in wires.attached:
            last, head = self.last.get((peer, topic), 0), len(self.log.logs.get(topic, []))
            assert last == head, f"{peer} has {topic} up to #{last} of #{head}"
        assert host.stats()["entries_waiting"] == 0
        assert host.stats()["loading"] == 0
        assert not host._owed
        assert not host._local
        assert (host.next_append(0, self.now_ms), host.next_load(self.now_ms)) == (None, None)
        assert (host.next_check(self.now_ms), host.next_read(self.now_ms)) == (None, None)

    def forget(self, wires: Wires) -> None:
        host = wires.host
        for step_ms in (PEER_GONE_MS, 20_000, PASSIVATE_AFTER_MS):
            self.now_ms += step_ms
            host.tick(self.now_ms)
        assert len(host._activations) == 0
        assert len(host._timers) == 0
        assert len(host._topics) == 0
        assert not host._downlinks
        assert host.next_deadline_ms() is None


TestHosts = HostsOnOneLog.TestCase
TestHosts.settings = settings(
    max_examples=25,
    stateful_step_count=60,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)


@pytest.mark.parametrize("seed", range(40))
def test_a_long_history(seed: int) -> None:
    """The same machine for 600 steps: what needs many of them together is found by no short history."""
    rng = random.Random(seed)
    world = HostsOnOneLog()
    world.start(1 + seed % 2, rng.choice([12, 60, 1_000]))
    rooms = CONVERSATIONS if seed % 3 else CONVERSATIONS[:1]
    hows = ["done"] * rng.randint(1, 6) + ["blind", "fail", "hang", "hang"]
    rare = rng.choice([0.0, 0.05, 0.5])

    def somewhere() -> dict[str, int]:
        return {"place": rng.randint(0, 1)}

    def peer() -> dict[str, str]:
        return {"peer": rng.choice(PEERS)}

    def how() -> dict[str, str]:
        return {"how": rng.choice(hows)}

    def ask() -> None:
        people = {"user": rng.randint(1, 3), "other": rng.randint(1, 4), "what": rng.randint(0, 40)}
        twice = {"repeat": rng.random() < 0.1, "again": rng.random() < 0.1}
        world.ask(name=rng.choice(rooms), **somewhere(), **peer(), **people, **twice)

    often = [
        ask,
        ask,
        lambda: world.poll(**somewhere(), **peer(), lost=rng.random() < 0.2),
        lambda: world.attach(**somewhere(), **peer(), name=rng.choice(rooms)),
        lambda: world.append(**somewhere(), **how()),
        lambda: world.append(**somewhere(), **how()),
        lambda: world.load(**somewhere(), **how()),
        lambda: world.check(**somewhere(), **how()),
        lambda: world.read(**somewhere(), **how()),
        lambda: world.pass_time(step_ms=rng.choice([1, 20, 20, 500])),
    ]
    seldom = [
        lambda: world.detach(**somewhere(), **peer(), name=rng.choice(rooms)),
        lambda: world.socket(**somewhere(), **peer(), user=rng.randint(1, 4), come=rng.random() < 0.6),
        lambda: world.refuse_epoch(**somewhere()),
        lambda: world.pass_time(step_ms=rng.choice([1_000, 5_000, PEER_GONE_MS])),
        lambda: world.move(skip=rng.random() < 0.3),
        lambda: world.kill(**somewhere()),
        lambda: world.haunt() if world.ghosts else None,
    ]
    try:
        for _ in range(600):
            rng.choice(seldom if rng.random() < rare / 5 else often)()
        world.no_hole_no_fork()
    finally:
        world.teardown()
