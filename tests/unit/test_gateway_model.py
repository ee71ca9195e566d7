"""The gateway against a naive model: any order of everything that can happen, and what each socket was shown.

The model is one list per conversation. What the world may do to the gateway: sockets come and go; memberships are read
from the database at one time and arrive at another; frames are lost, repeated and reordered; invitations overtake
frames, and come twice; hosts forget everything; links are full; sockets resume from anywhere at any time, and what that
needs of the database arrives late, or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actors import gateway as gw
from actors import replays
from actors.commands import Attach, CatchUp, Connect, Detach, Disconnect, Envelope
from actors.effects import Answer, CaughtUp, Delivery, Failure, Frame, Invite
from actors.recent import Recent
from fastsock.core.limits import DETACH_LINGER_MS
from fastsock.schemas.log import Standing, Subscription

USERS = (1, 2, 3)
ROOMS = ("room:1", "room:2")
PAGE = 3
"""Entries of a catch-up; small, so that one does not suffice."""
FULL = Failure("overloaded", "full", 500)
HOLD_MS = 200
MANY, FEW = 12, 6
"""Entries that a resume replays, of a conversation that the client knows or does not know."""


@pytest.fixture(autouse=True, scope="module")
def small_limits() -> Iterator[None]:
    """Limits that a few entries reach."""
    with pytest.MonkeyPatch.context() as patch:
        for name, limit in (
            ("MAX_RESUME_ENTRIES", MANY),
            ("MAX_NEW_ENTRIES", FEW),
            ("MAX_REPLAYS", 2),
            ("RESUME_PAGE", PAGE),
            ("RESUME_PAGE_BYTES", 20),
            ("RESUME_AT_ONCE_BYTES", 20),
        ):
            patch.setattr(replays, name, limit)
        yield


@dataclass(eq=False)
class Asked:
    """A resume, from its frame to ``session.resumed``."""

    socket: Socket
    wanted: dict[str, int]
    heads: dict[str, int] = field(default_factory=dict)
    members: dict[str, dict[int, int]] = field(default_factory=dict)
    too_old: set[str] = field(default_factory=set)


@dataclass
class Entry:
    joins: tuple[int, ...] = ()
    leaves: tuple[int, ...] = ()


@dataclass(eq=False)
class Socket:
    """A client's socket and all that it was shown."""

    number: int
    user: int
    ready: bool = False
    last: dict[str, int] = field(default_factory=dict)
    resuming: bool = False
    resumed: bool = False
    ended: set[str] = field(default_factory=set)
    """What it has been shown the end of, for its user."""

    def __repr__(self) -> str:
        return f"socket {self.number} of user {self.user}"


class Host:
    """One host, as naive as can be: what is attached, and what is on its way down."""

    def __init__(self) -> None:
        self.attached: set[str] = set()
        self.down: list[Delivery] = []
        self.connected: set[tuple[str, str]] = set()


class GatewayMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.gateway: gw.Gateway[Socket] = gw.Gateway(HOLD_MS)
        self.gateway._replays._recent = Recent(limit_bytes=150, limit_frames=15)
        self.now_ms = 0
        self.asked: list[Asked] = []
        self.pages: list[gw.ReadPage] = []
        self.fed: list[Socket] = []
        self.logs: dict[str, list[Entry]] = {room: [] for room in ROOMS}
        self.host = Host()
        self.full = False
        self.sockets: list[Socket] = []
        self.numbers = 0
        self.wanted: list[int] = []
        self.read: list[tuple[int, list[Subscription]]] = []
        self.lossy = False
        """Whether a frame was lost that no later one told of."""
        for room in ROOMS:
            self.logs[room].append(Entry(joins=(1,)))

    # --- the truth -----------------------------------------------------------------------------------------------

    def members(self, room: str, upto: int | None = None) -> dict[int, int]:
        """Who belongs after entry ``upto``, and since which entry."""
        members: dict[int, int] = {}
        for seq, entry in enumerate(self.logs[room][:upto], 1):
            members.update(dict.fromkeys(entry.joins, seq))
            for user in entry.leaves:
                members.pop(user, None)
        return members

    def append(self, room: str, entry: Entry) -> None:
        self.logs[room].append(entry)
        seq = len(self.logs[room])
        if room in self.host.attached:
            self.host.down.append(self.frame(room, seq))
        for user in entry.joins:
            if f"user:{user}" in self.host.attached:
                self.host.down.append(Invite(user, room, seq - 1))

    def frame(self, room: str, seq: int) -> Frame:
        entry = self.logs[room][seq - 1]
        return Frame(room, seq, f"{room}#{seq}".encode(), entry.joins, entry.leaves)

    # --- outputs -------------------------------------------------------------------------------------------------

    def perform(self, outputs: list[gw.Output[Socket]]) -> None:  # noqa: C901, PLR0912 - a table of outputs
        for output in outputs:
            match output:
                case gw.Submit(envelope):
                    if self.full:
                        self.perform(self.gateway.refused(envelope, FULL, self.now_ms))
                    else:
                        self.host_takes(envelope)
                case gw.LoadSubscriptions(user):
                    assert user not in self.wanted, f"the memberships of {user} are wanted twice"
                    self.wanted.append(user)
                case gw.Ready(socket, conversations):
                    assert not socket.ready, f"{socket} is greeted twice"
                    socket.ready = True
                    socket.last = {conversation: seq for conversation, seq, _ in conversations}
                case gw.Write(sockets, payload):
                    room, _, seq = payload.decode().partition("#")
                    for socket in list(sockets):
                        self.shown(socket, room, int(seq))
                case gw.ReadPage():
                    assert output not in self.pages, f"{output} is read twice at once"
                    self.pages.append(output)
                case gw.Feed(socket, payloads):
                    assert socket not in self.fed, f"{socket} is fed twice at once"
                    self.fed.append(socket)
                    for payload in payloads:
                        room, _, seq = payload.decode().partition("#")
                        self.shown(socket, room, int(seq))
                case gw.Resumed():
                    self.told(output)
                case other:
                    raise AssertionError(f"unexpected: {other}")

    def told(self, resumed: gw.Resumed[Socket]) -> None:
        """The resume is over: its streams stand where it says, and nothing is missing that it does not name."""
        socket, asked = resumed.socket, resumed.context
        assert isinstance(asked, Asked)
        assert socket.resuming, f"{socket} has not asked for a resume"
        socket.resuming = False
        seen = {name: socket.last.get(name) for name in resumed.reached}
        assert seen == resumed.reached, f"{socket} has seen {seen}, and is told {resumed.reached}"
        assert set(resumed.oldest) == asked.too_old, f"{socket} should reload {asked.too_old}, not {resumed.oldest}"
        assert all(1 <= oldest <= len(self.logs[name]) + 1 for name, oldest in resumed.oldest.items())
        assert all(socket.user not in asked.members[name] for name in resumed.left)
        socket.ended.update(resumed.left)

    def host_takes(self, envelope: Envelope) -> None:
        host, name = self.host, envelope.to
        match envelope.command:
            case Attach(since):
                host.attached.add(name)
                if name in self.logs and len(self.logs[name]) > since:
                    self.page(name, since)
                if envelope.request:
                    host.down.append(Answer(envelope.request, b"null"))
            case Detach():
                host.attached.discard(name)
            case CatchUp(since):
                if name in host.attached:
                    self.page(name, since)
            case Connect(connection_id):
                host.connected.add((name, connection_id))
            case Disconnect(connection_id):
                host.connected.discard((name, connection_id))
            case other:
                raise AssertionError(f"unexpected: {other}")

    def page(self, room: str, since: int) -> None:
        seqs = range(since + 1, min(since + PAGE, len(self.logs[room])) + 1)
        self.host.down += [self.frame(room, seq) for seq in seqs]
        last = seqs[-1] if seqs else since
        self.host.down.append(CaughtUp(room, last + 1 if len(seqs) == PAGE else last))

    def shown(self, socket: Socket, room: str, seq: int) -> None:
        """What a socket may be shown: the next entry, or the one that lets its user in; while its user belongs."""
        assert socket in self.sockets, f"{socket} has ended, and was shown {room}#{seq}"
        assert socket.ready, f"{socket} was shown {room}#{seq} before its greeting"
        entry = self.logs[room][seq - 1]
        comes_again = room in socket.ended and socket.user in entry.joins
        if room in socket.last and not comes_again:
            assert seq == socket.last[room] + 1, f"{socket} was shown {room}#{seq} after #{socket.last[room]}"
        else:
            assert socket.user in entry.joins, f"{socket} was shown {room}#{seq}, which does not let it in"
        belongs = socket.user in self.members(room, seq) or socket.user in entry.leaves
        comes_back = any(socket.user in later.joins for later in self.logs[room][seq:])
        assert belongs or comes_back, f"{socket} was shown {room}#{seq}, and its user does not belong"
        socket.last[room] = seq
        if socket.user in entry.leaves:
            socket.ended.add(room)
        elif socket.user in entry.joins:
            socket.ended.discard(room)

    # --- what may happen -----------------------------------------------------------------------------------------

    def connect(self, rng: Random) -> None:
        self.numbers += 1
        socket = Socket(self.numbers, rng.choice(USERS))
        self.sockets.append(socket)
        self.perform(self.gateway.connect(socket, f"c{socket.number}", socket.user, self.now_ms))

    def connect_at_once(self, rng: Random) -> None:
        """A socket is greeted while invitations are still on their way."""
        self.connect(rng)
        held = [delivery for delivery in self.host.down if isinstance(delivery, Invite)]
        self.host.down = [delivery for delivery in self.host.down if not isinstance(delivery, Invite)]
        self.deliver_some(1_000)
        self.load_everybody()
        self.host.down += held

    def speak(self, rng: Random) -> None:
        ready = [socket for socket in self.sockets if socket.ready]
        if ready:
            self.perform(self.gateway.spoke(rng.choice(ready)))

    def resume(self, rng: Random) -> None:
        """A client names what it has, or less, or more, of some conversations, some of which are not its own."""
        ready = [socket for socket in self.sockets if socket.ready]
        if ready:
            socket = rng.choice(ready)
            assert self.gateway.resuming(socket) is not socket.resuming
            if not socket.resuming:
                socket.resuming = True
                wanted = {room: max(0, len(self.logs[room]) - rng.choice([-2, 0, 1, 5, 40])) for room in ROOMS}
                self.asked.append(Asked(socket, {room: wanted[room] for room in ROOMS if rng.random() < 0.7}))

    def read_standing(self, rng: Random) -> None:
        waiting = [asked for asked in self.asked if not asked.members]
        if waiting:
            self.stand(rng.choice(waiting))

    def stand(self, asked: Asked) -> None:
        asked.heads = {room: len(self.logs[room]) for room in ROOMS}
        asked.members = {room: self.members(room) for room in ROOMS}

    def standing_arrives(self, rng: Random) -> None:
        known = [asked for asked in self.asked if asked.members]
        if known:
            self.take(rng.choice(known), fails=rng.random() < 0.1)

    def take(self, asked: Asked, *, fails: bool) -> None:
        """The gateway is told how the user stands: from now on the streams go on from what was named."""
        self.asked.remove(asked)
        socket = asked.socket
        if socket not in self.sockets:
            assert self.gateway.resume_failed(socket) == []
            assert self.gateway.resume(socket, asked.wanted, Standing({}, {}, {}), asked, self.now_ms) == []
        elif fails:
            socket.resuming = False
            self.perform(self.gateway.resume_failed(socket))
        else:
            mine = {room: members[socket.user] for room, members in asked.members.items() if socket.user in members}
            new = {} if socket.resumed else {room: seq - 1 for room, seq in mine.items() if room not in asked.wanted}
            socket.resumed = True
            for since, bound in ((asked.wanted, MANY), (new, FEW)):
                for room in set(since) & set(self.gateway._seats[socket].topics):
                    reached = self.gateway._topics[room].reached
                    if reached - bound <= since[room] <= max(reached, asked.heads[room] if room in mine else 0):
                        socket.last[room] = since[room]
                        if socket.user not in self.members(room, since[room]):
                            socket.ended.add(room)
                    else:
                        asked.too_old.add(room)
            standing = Standing(mine, {room: asked.heads[room] for room in mine}, {})
            self.perform(self.gateway.resume(socket, asked.wanted, standing, asked, self.now_ms))

    def page_arrives(self, rng: Random) -> None:
        if self.pages:
            page = self.pages.pop(rng.randrange(len(self.pages)))
            if rng.random() < 0.1:
                self.perform(self.gateway.page_failed(page.conversation, page.since, self.now_ms))
            else:
                self.read_page(page)

    def read_page(self, page: gw.ReadPage) -> None:
        room = page.conversation
        assert page.since < page.upto <= page.since + PAGE
        payloads = [self.frame(room, seq).payload for seq in range(page.since + 1, page.upto + 1)]
        self.perform(self.gateway.page_read(room, page.since, payloads, self.now_ms))

    def feed_is_taken(self, rng: Random) -> None:
        if self.fed:
            self.perform(self.gateway.fed(self.fed.pop(rng.randrange(len(self.fed)))))

    def disconnect(self, rng: Random) -> None:
        if self.sockets:
            socket = rng.choice(self.sockets)
            self.sockets.remove(socket)
            self.perform(self.gateway.disconnect(socket, self.now_ms))
            if socket in self.fed:
                self.fed.remove(socket)
            assert self.gateway.fed(socket) == self.gateway.spoke(socket) == []
            assert not self.gateway.resuming(socket)
            assert self.gateway.disconnect(socket, self.now_ms) == []

    def message(self, rng: Random) -> None:
        self.append(rng.choice(ROOMS), Entry())

    def join_or_leave(self, rng: Random) -> None:
        room, user = rng.choice(ROOMS), rng.choice(USERS)
        self.append(room, Entry(leaves=(user,)) if user in self.members(room) else Entry(joins=(user,)))

    def everybody_joins(self, rng: Random) -> None:
        room = rng.choice(ROOMS)
        new = tuple(user for user in USERS if user not in self.members(room))
        if new:
            self.append(room, Entry(joins=new))

    def deliver(self, rng: Random) -> None:
        self.deliver_some(rng.randint(1, 10))

    def deliver_some(self, count: int) -> None:
        for _ in range(min(count, len(self.host.down))):
            self.perform(self.gateway.delivered(self.host.down.pop(0), self.now_ms))

    def reorder(self, rng: Random) -> None:
        """Frames and invitations overtake each other, on their ways from different hosts; answers do not."""
        down = self.host.down
        movable = [place for place, delivery in enumerate(down) if isinstance(delivery, Frame | Invite)]
        if len(movable) >= 2:
            one, other = rng.sample(movable, 2)
            down[one], down[other] = down[other], down[one]

    def hold_invitations_back(self, _rng: Random) -> None:
        """The users' hosts are slow: whatever else is on its way comes first."""
        self.host.down.sort(key=lambda delivery: isinstance(delivery, Invite))

    def repeat(self, rng: Random) -> None:
        frames = [delivery for delivery in self.host.down if isinstance(delivery, Frame | Invite)]
        if frames:
            self.host.down.append(rng.choice(frames))

    def lose(self, rng: Random) -> None:
        """A frame is lost; the numbers of the next will tell."""
        frames = [place for place, delivery in enumerate(self.host.down) if isinstance(delivery, Frame)]
        if frames:
            del self.host.down[rng.choice(frames)]
            self.lossy = True

    def read_memberships(self, rng: Random) -> None:
        if self.wanted:
            self.read_of(rng.choice(self.wanted))

    def read_of(self, user: int) -> None:
        self.wanted.remove(user)
        found = [(room, self.members(room)) for room in ROOMS]
        subscriptions = [
            Subscription(room, len(self.logs[room]), 0, members[user]) for room, members in found if user in members
        ]
        self.read.append((user, subscriptions))

    def memberships_arrive(self, rng: Random) -> None:
        if self.read:
            user, subscriptions = self.read.pop(rng.randrange(len(self.read)))
            if rng.random() < 0.1:
                self.perform(self.gateway.subscriptions_failed(user, self.now_ms))
            else:
                self.perform(self.gateway.subscriptions_loaded(user, subscriptions, self.now_ms))

    def load_everybody(self) -> None:
        while self.wanted:
            self.read_of(self.wanted[0])
        while self.read:
            self.perform(self.gateway.subscriptions_loaded(*self.read.pop(0), self.now_ms))

    def replay_everything(self) -> None:
        while self.asked:
            self.stand(self.asked[0])
            self.take(self.asked[0], fails=False)
        while self.pages or self.fed:
            if self.pages:
                self.read_page(self.pages.pop(0))
            else:
                self.perform(self.gateway.fed(self.fed.pop(0)))

    def restart_host(self, _rng: Random | None = None) -> None:
        self.host = Host()
        self.perform(self.gateway.reattach(lambda _name: True, self.now_ms))

    def fill_links(self, _rng: Random) -> None:
        self.full = not self.full

    def pass_time(self, rng: Random) -> None:
        self.now_ms += rng.choice([0, 100, 500, 1_000, 5_000, DETACH_LINGER_MS])
        self.perform(self.gateway.tick(self.now_ms))
        deadline = self.gateway.next_deadline_ms()
        assert deadline is None or deadline > self.now_ms, "what is due was not done"

    def come_to_rest(self, _rng: Random) -> None:
        if not self.full:
            self.settle()

    ACTIONS: ClassVar[dict[Callable[[GatewayMachine, Random], None], float]] = {
        connect: 3,
        connect_at_once: 2,
        speak: 1,
        resume: 2,
        read_standing: 3,
        standing_arrives: 3,
        page_arrives: 6,
        feed_is_taken: 8,
        disconnect: 2.5,
        message: 6,
        join_or_leave: 5,
        everybody_joins: 0.5,
        deliver: 14,
        reorder: 1,
        hold_invitations_back: 1,
        repeat: 1,
        lose: 0.3,
        read_memberships: 5,
        memberships_arrive: 5,
        restart_host: 0.3,
        fill_links: 0.3,
        pass_time: 1,
        come_to_rest: 0.7,
    }
    """How often each happens: often enough that what needs many of them in a row happens too."""

    @rule(rng=st.randoms(use_true_random=True), action=st.sampled_from(list(ACTIONS)))
    def once(self, rng: Random, action: Callable[[GatewayMachine, Random], None]) -> None:
        action(self, rng)

    @rule(rng=st.randoms(use_true_random=True))
    def for_a_while(self, rng: Random) -> None:
        for action in rng.choices(list(self.ACTIONS), list(self.ACTIONS.values()), k=40):
            action(self, rng)
            self.the_tables_agree()

    # --- what must hold ------------------------------------------------------------------------------------------

    @invariant()
    def the_tables_agree(self) -> None:
        assert self.gateway.stats()["sockets"] == len(self.sockets)
        assert self.gateway.stats()["ready"] == sum(socket.ready for socket in self.sockets)

    def settle(self) -> None:
        """Let everything come to rest."""
        for _ in range(400):
            soon = self.gateway.next_deadline_ms()
            waits = self.host.down or self.wanted or self.read or self.asked or self.pages or self.fed
            if not waits and (soon is None or soon > self.now_ms + 2_000):
                break
            self.deliver_some(8)
            self.load_everybody()
            self.replay_everything()
            self.now_ms += 1_000
            self.perform(self.gateway.tick(self.now_ms))
        else:
            raise AssertionError("it never comes to rest")

    def teardown(self) -> None:
        self.full = False
        self.settle()
        if self.lossy:  # what was lost last is found when the hosts are asked again
            self.restart_host()
            self.settle()
        self.check_everybody()
        self.restart_host()
        self.settle()
        self.check_everybody()
        while self.sockets:
            self.perform(self.gateway.disconnect(self.sockets.pop(), self.now_ms))
        self.settle()
        self.now_ms += DETACH_LINGER_MS
        self.perform(self.gateway.tick(self.now_ms))
        assert set(self.gateway.stats().values()) == {0}, f"something is left: {self.gateway.stats()}"
        assert self.gateway.next_deadline_ms() is None
        assert (self.host.attached, self.host.connected) == (set(), set())
        both = vars(self.gateway) | vars(self.gateway._replays)
        assert {name: table for name, table in both.items() if isinstance(table, dict | list) and table} == {}
        assert self.gateway._replays._busy == len(self.gateway._replays._recent) == 0

    def check_everybody(self) -> None:
        """Everybody who belongs has seen everything, nobody else waits for anything."""
        for socket in self.sockets:
            assert socket.ready, f"{socket} was never greeted"
            assert not socket.resuming, f"{socket} was never told that its resume is over"
            for room in ROOMS:
                belongs = socket.user in self.members(room)
                seen = socket.last.get(room)
                head = len(self.logs[room])
                assert not belongs or seen == head, f"{socket} has seen {room} up to {seen}, its head is #{head}"
                assert belongs or seen is None or room in socket.ended, f"{socket} still waits for {room}"
        connected = {(f"user:{socket.user}", f"c{socket.number}") for socket in self.sockets}
        assert self.host.connected == connected, "the host knows of other sockets"


GatewayMachine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=10, deadline=None, suppress_health_check=list(HealthCheck)
)
test_the_gateway_against_its_model = GatewayMachine.TestCase
