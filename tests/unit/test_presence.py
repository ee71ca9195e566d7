"""The user: online while a socket is open, and a little longer."""

from __future__ import annotations

import json

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from actors.commands import (
    AddMembers,
    Attach,
    Attend,
    CatchUp,
    Command,
    Committed,
    Connect,
    Delete,
    Describe,
    Detach,
    Disconnect,
    Edit,
    GatewayGone,
    RemoveMember,
    Send,
    TimerFired,
)
from actors.effects import Cut, Effect, Fail, Failure, Reply, SetTimer, Summon
from actors.presence import GRACE_MS, OFFLINE, Presence
from fastsock.core.limits import MAX_CONNECTIONS_PER_USER
from fastsock.schemas.log import Entry, Stored, Target

TARGET = Target(id=1, seq=1, sender_id=7, at_ms=0, message_type="text", reply_to=None, client_msg_id=None)
ENTRY = Entry(conversation="room:1", kind="message", sender_id=7, key="c:1", at_ms=0)


def described(user: Presence, now_ms: int) -> object:
    (effect,) = user.handle(Describe(), now_ms, "anybody")
    assert isinstance(effect, Reply)
    return json.loads(effect.payload)


def test_nobody_is_offline_and_idle() -> None:
    user = Presence("user:7")
    assert (user.online, user.idle, user.sockets) == (False, True, 0)
    assert described(user, 0) == {"actor": "user:7", "status": "offline", "sockets": []}


def test_a_socket_brings_a_user_online() -> None:
    user = Presence("user:7")
    assert user.handle(Connect("c1"), 1_000, "g1") == [SetTimer(OFFLINE, None)]
    assert (user.online, user.idle, user.sockets) == (True, False, 1)
    sockets = [{"gateway": "g1", "connection_id": "c1", "open_s": 62}]
    assert described(user, 63_500) == {"actor": "user:7", "status": "online", "sockets": sockets}


def test_a_socket_told_twice_is_one_socket_since_the_first_time() -> None:
    user = Presence("user:7")
    user.handle(Connect("c1"), 0, "g1")
    user.handle(Connect("c2"), 0, "g1")
    user.handle(Connect("c1"), 5_000, "g1")
    sockets = [{"gateway": "g1", "connection_id": name, "open_s": 5} for name in ("c1", "c2")]
    assert described(user, 5_000) == {"actor": "user:7", "status": "online", "sockets": sockets}


def test_the_last_socket_starts_the_grace_period() -> None:
    user = Presence("user:7")
    user.handle(Connect("c1"), 0, "g1")
    user.handle(Connect("c2"), 0, "g2")
    assert user.handle(Disconnect("c1"), 50, "g1") == []
    assert user.handle(Disconnect("c2"), 100, "g2") == [SetTimer(OFFLINE, 100 + GRACE_MS)]
    assert (user.online, user.idle) == (True, False), "a page reload does not flap"
    assert user.handle(TimerFired(OFFLINE), 100 + GRACE_MS, "host") == []
    assert (user.online, user.idle) == (False, True)


def test_who_comes_back_in_time_was_never_away() -> None:
    user = Presence("user:7")
    user.handle(Connect("c1"), 0, "g1")
    user.handle(Disconnect("c1"), 0, "g1")
    assert user.handle(Connect("c2"), 5, "g1") == [SetTimer(OFFLINE, None)]
    assert user.handle(TimerFired(OFFLINE), GRACE_MS, "host") == [], "fired before it was cancelled"
    assert user.online


def test_an_old_socket_that_ends_late_ends_itself_and_nothing_else() -> None:
    user = Presence("user:7")
    user.handle(Connect("c1"), 0, "g1")
    user.handle(Disconnect("c1"), 0, "g1")
    user.handle(Connect("c2"), 0, "g1")
    assert user.handle(Disconnect("c1"), 9, "g1") == []
    assert user.handle(Disconnect("c2"), 9, "g2") == [], "another gateway's socket of that name"
    assert (user.sockets, user.online) == (1, True)


def test_what_a_gateway_held_is_gone_when_the_gateway_is() -> None:
    user = Presence("user:7")
    for name, gateway in (("c1", "g1"), ("c2", "g1"), ("c3", "g2")):
        user.handle(Connect(name), 0, gateway)
    assert user.handle(GatewayGone("g1"), 10, "host") == []
    assert user.sockets == 1
    assert user.handle(GatewayGone("g1"), 10, "host") == []
    assert user.handle(GatewayGone("g2"), 20, "host") == [SetTimer(OFFLINE, 20 + GRACE_MS)]
    assert user.handle(GatewayGone("g2"), 30, "host") == [], "the grace period does not begin again"


def test_a_socket_too_many_cuts_the_oldest() -> None:
    user = Presence("user:7")
    for number in range(MAX_CONNECTIONS_PER_USER):
        assert user.handle(Connect(f"c{number}"), number, "g1") == [SetTimer(OFFLINE, None)]
    cut = Cut("g1", "c0", 4003)
    assert user.handle(Connect("new"), 99, "g2") == [SetTimer(OFFLINE, None), cut]
    assert user.sockets == MAX_CONNECTIONS_PER_USER
    assert user.handle(Disconnect("c0"), 100, "g1") == [], "it was forgotten when it was cut"


def test_an_invitation_goes_to_whoever_holds_the_sockets() -> None:
    user = Presence("user:7")
    assert user.handle(Attend("room:42", 16), 0, "h1") == [Summon("room:42", 16)]
    assert user.idle


@pytest.mark.parametrize(
    "command",
    [
        Send(7, "c:1", "hi"),
        Edit(7, "c:1", TARGET, "ho"),
        Delete(7, "c:1", TARGET),
        AddMembers(7, "s:1", [8]),
        RemoveMember(7, "s:1", 8),
        Attach(0),
        Detach(),
        CatchUp(0),
        Committed(ENTRY, Stored(1)),
    ],
)
@pytest.mark.parametrize("online", [False, True])
def test_what_is_for_conversations_is_refused(command: Command, online: bool) -> None:
    user = Presence("user:7")
    if online:
        user.handle(Connect("c1"), 0, "g1")
    text = f"user:7 does not take {type(command).__name__}"
    assert user.handle(command, 0, "g1") == [Fail(Failure("unknown_event", text))]
    assert (user.online, user.sockets) == (online, int(online))


class PresenceAgainstASet(RuleBasedStateMachine):
    """The model: the sockets in the order in which they came, and when the grace period ends."""

    @initialize()
    def start(self) -> None:
        self.user = Presence("user:7")
        self.sockets: list[tuple[str, str]] = []
        self.offline_at_ms: int | None = None
        self.now_ms = 0
        self.timer_ms: int | None = None

    def perform(self, effects: list[Effect]) -> list[Effect]:
        for effect in effects:
            if isinstance(effect, SetTimer):
                assert effect.tag == OFFLINE
                self.timer_ms = effect.at_ms
        return [effect for effect in effects if not isinstance(effect, SetTimer)]

    @rule(gateway=st.sampled_from(["g1", "g2"]), connection=st.integers(1, 30))
    def connect(self, gateway: str, connection: int) -> None:
        socket = (gateway, f"c{connection}")
        rest = self.perform(self.user.handle(Connect(socket[1]), self.now_ms, gateway))
        if socket not in self.sockets:
            self.sockets.append(socket)
        self.offline_at_ms = None
        cut = self.sockets[:-MAX_CONNECTIONS_PER_USER]
        assert rest == [Cut(*oldest, 4003) for oldest in cut]
        del self.sockets[: len(cut)]

    @rule(gateway=st.sampled_from(["g1", "g2"]), connection=st.integers(1, 30))
    def disconnect(self, gateway: str, connection: int) -> None:
        assert self.perform(self.user.handle(Disconnect(f"c{connection}"), self.now_ms, gateway)) == []
        self.end([(gateway, f"c{connection}")])

    @rule(gateway=st.sampled_from(["g1", "g2"]))
    def gateway_gone(self, gateway: str) -> None:
        assert self.perform(self.user.handle(GatewayGone(gateway), self.now_ms, "host")) == []
        self.end([socket for socket in self.sockets if socket[0] == gateway])

    def end(self, sockets: list[tuple[str, str]]) -> None:
        left = [socket for socket in self.sockets if socket not in sockets]
        if left != self.sockets and not left:
            self.offline_at_ms = self.now_ms + GRACE_MS
        self.sockets = left

    @rule(step_ms=st.sampled_from([1, 1_000, GRACE_MS]))
    def pass_time(self, step_ms: int) -> None:
        self.now_ms += step_ms
        if self.timer_ms is not None and self.timer_ms <= self.now_ms:
            self.timer_ms = None
            self.user.handle(TimerFired(OFFLINE), self.now_ms, "host")

    @invariant()
    def agrees(self) -> None:
        in_grace = self.offline_at_ms is not None and self.offline_at_ms > self.now_ms
        assert self.user.online == (bool(self.sockets) or in_grace)
        assert self.user.idle == (not self.user.online)
        assert list(self.user._sockets) == self.sockets
        assert not (self.user.online and not self.sockets and self.timer_ms is None), "it would be online for ever"


TestPresence = PresenceAgainstASet.TestCase
TestPresence.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
