"""What is ephemeral, on its way through links and hosts: it needs no database, keeps nothing, and goes first."""

from __future__ import annotations

import msgspec
import pytest

from actors import activations, link
from actors.activations import Activations, Mail
from actors.commands import Attach, Connect, Describe, Envelope, Send, Typing
from actors.downlinks import Downlinks
from actors.effects import Answer, Declined, Delivery, Ephemeral, Failed, Failure, Frame
from actors.link import Batch, Downlink, Sender
from actors.placement import Placement
from actors.room import Room
from actors.uplinks import Accepted, Stale, Uplinks
from fastsock.core.limits import (
    LINK_EPHEMERAL_SHARE,
    MAX_UPLINK_ITEMS,
    PASSIVATE_AFTER_MS,
    RETRY_MIN_MS,
    STORAGE_PATIENCE_MS,
    TYPING_EXPIRES_MS,
)
from tests.unit.rig import ALONE, Rig, answers

ROOM = "room:1"
START = b'{"event":"typing.start","data":{"sender_id":1,"room_id":1}}'
STOP = b'{"event":"typing.stop","data":{"sender_id":1,"room_id":1}}'


def typing(user: int = 1, *, on: bool = True, connection_id: str = "c1") -> Typing:
    return Typing(user, on, connection_id)


def attached(*, active: bool = True) -> Rig:
    """A room to which two gateways are attached."""
    rig = Rig()
    rig.log.create_room(1, 1, [2, 3])
    for gateway in ("g1", "g2"):
        rig.tell(gateway, ROOM, Attach(1))
    rig.check()
    if active:
        rig.ask("g1", ROOM, Describe())
        rig.load()
    rig.poll("g1")
    return rig


def away(rig: Rig) -> None:
    """The database does not answer what the host asks now."""
    assert rig.host.next_load(rig.now_ms) is not None
    rig.host.load_failed(rig.now_ms)


# --- the way through a host ------------------------------------------------------------------------------------------


def test_each_attached_gateway_is_told_once_and_nobody_is_answered() -> None:
    rig = attached()
    rig.tell("g3", "room:2", Attach(0))
    rig.tell("g1", ROOM, typing())
    rig.tell("g1", ROOM, typing())
    assert rig.poll("g1") == rig.poll("g2") == [Ephemeral(ROOM, START, 1)]
    assert rig.poll("g3") == []
    assert rig.host.counts["whispers"] == 2
    assert rig.take() is None, "nothing is stored"
    assert len(rig.log.logs[ROOM]) == 1


def test_it_ends_by_itself() -> None:
    rig = attached()
    rig.tell("g1", ROOM, typing())
    rig.poll("g2")
    assert rig.host.next_deadline_ms() == rig.now_ms + TYPING_EXPIRES_MS
    rig.pass_time(TYPING_EXPIRES_MS - 1)
    assert rig.poll("g2") == []
    rig.pass_time(1)
    assert rig.host.take_woken() == ["g1", "g2"]
    assert rig.poll("g2") == [Ephemeral(ROOM, STOP, 1)]


def test_a_message_ends_it_in_the_order_in_which_it_happened() -> None:
    rig = attached()
    rig.tell("g1", ROOM, typing())
    request = rig.ask("g1", ROOM, Send(1, "c:a", "hi"))
    rig.pump()
    deliveries = rig.poll("g1")
    assert [type(delivery) for delivery in deliveries] == [Ephemeral, Frame, Ephemeral, Answer]
    assert deliveries[2] == Ephemeral(ROOM, STOP, 1)
    assert list(answers(deliveries)) == [request]


def test_a_refusal_goes_to_the_socket_that_it_is_about() -> None:
    rig = attached()
    rig.tell("g1", ROOM, typing(9, connection_id="c9"))
    rig.tell("g1", ROOM, typing(9, on=False, connection_id="c9"))
    failure = Failure("not_a_member", "user 9 is not a member of room:1")
    assert rig.poll("g1") == [Declined("c9", "typing.start", failure), Declined("c9", "typing.stop", failure)]
    assert rig.poll("g2") == []
    assert rig.recall() is None, "the log is not asked whether it is a repeat"


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("room:7", "room_not_found", "room 7 does not exist or is not active"),
        ("dm:1:99", "user_not_found", "user 1 or 99 does not exist or is not active"),
        ("user:7", "unknown_event", "user:7 does not take Typing"),
        ("room:x", "invalid_data", "not an actor's name: 'room:x'; ids are integers from 1 to 9007199254740991"),
    ],
)
def test_where_nobody_can_type(name: str, code: str, text: str) -> None:
    rig = attached()
    rig.tell("g1", name, typing())
    rig.pump()
    assert rig.poll("g1") == [Declined("c1", "typing.start", Failure(code, text))]


# --- the database is away --------------------------------------------------------------------------------------------


def test_an_active_conversation_goes_on_while_the_database_is_away() -> None:
    rig = attached()
    while rig.host.ids:
        rig.host.ids.take()
    rig.host._appenders[0]._backoff.failed(rig.now_ms)
    refused = rig.ask("g1", ROOM, Send(1, "c:a", "hi"))
    rig.ask("g1", "dm:1:2", Describe())
    away(rig)
    rig.tell("g1", ROOM, typing())
    assert Ephemeral(ROOM, START, 1) in rig.poll("g2")
    (failed,) = [one for one in rig.poll("g1") if isinstance(one, Failed)]
    assert (failed.request, failed.failure.code) == (refused, "storage_unavailable")
    rig.pass_time(TYPING_EXPIRES_MS)
    assert rig.poll("g2") == [Ephemeral(ROOM, STOP, 1)]


def test_also_while_the_queue_for_the_log_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = attached()
    monkeypatch.setattr("actors.host.MAX_PENDING_ENTRIES", 0)
    rig.tell("g1", ROOM, typing())
    assert rig.poll("g2") == [Ephemeral(ROOM, START, 1)]


def test_nothing_is_activated_for_it_while_the_database_is_away() -> None:
    rig = attached(active=False)
    request = rig.ask("g1", "dm:1:2", Describe())
    away(rig)
    rig.tell("g1", ROOM, typing())
    assert rig.host.describe(ROOM, rig.now_ms) is None
    assert [activation.name for activation in rig.host._activations] == ["dm:1:2"]
    assert rig.host.stats()["dropped_ephemeral"] == 1
    rig.pass_time(STORAGE_PATIENCE_MS + RETRY_MIN_MS)
    assert answers(rig.poll("g1")) == {request: "storage_unavailable"}
    assert rig.poll("g2") == []
    rig.tell("g1", ROOM, typing())  # it may be back
    rig.load()
    assert rig.poll("g2") == [Ephemeral(ROOM, START, 1)]


def test_a_load_for_it_that_fails_is_not_tried_again() -> None:
    rig = attached(active=False)
    rig.tell("g1", ROOM, typing())
    away(rig)
    rig.pass_time(RETRY_MIN_MS)
    assert rig.load() is None
    assert list(rig.host._activations) == []
    assert rig.host.drained()
    assert rig.settle("g1", "g2") == []


# --- activations -----------------------------------------------------------------------------------------------------


def test_of_what_comes_while_the_conversation_is_loaded_the_last_is_kept() -> None:
    rig = attached(active=False)
    rig.tell("g1", ROOM, typing(1))
    rig.tell("g1", ROOM, typing(2))
    (activation,) = rig.host._activations
    assert not activation.mailbox
    rig.load()
    assert rig.poll("g2") == [Ephemeral(ROOM, START.replace(b'"sender_id":1', b'"sender_id":2'), 2)]
    assert activation.whispered is None


def test_it_pushes_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations, "MAX_ACTIVATIONS", 1)
    table = Activations()
    user = table.use("user:7", 0)
    assert user is not None
    assert user.idle
    assert table.use_if_free(ROOM, 0) is None
    assert table.use_if_free("user:7", 0) is user
    assert table.use(ROOM, 0) is not None, "what counts does"


def test_mail_keeps_the_load_that_it_began() -> None:
    table = Activations()
    activation = table.use_if_free(ROOM, 0)
    assert activation is not None
    table.post(activation, Mail(Describe(), None, 0))
    assert table.next_load(0) == [ROOM]
    table.load_failed(0)
    assert table.give_up(-1) == []
    assert table.next_load(RETRY_MIN_MS) == [ROOM]


def test_the_timer_of_a_conversation_that_has_gone_changes_nothing() -> None:
    rig = attached()
    rig.tell("g1", ROOM, typing())
    rig.poll("g2")
    rig.host._activations.drop(ROOM)
    rig.pass_time(TYPING_EXPIRES_MS)
    assert rig.poll("g2") == []
    assert list(rig.host._activations) == []


def test_the_timer_of_an_activation_before_ends_nobodys_typing_too_early() -> None:
    rig = attached()
    rig.tell("g1", ROOM, typing())
    rig.host._activations.drop(ROOM)
    rig.pass_time(1_000)
    rig.tell("g1", ROOM, typing(2))
    rig.load()
    rig.poll("g2")
    rig.pass_time(TYPING_EXPIRES_MS - 1_000)
    assert rig.poll("g2") == []
    rig.pass_time(1_000)
    assert [one.sender_id for one in rig.poll("g2") if isinstance(one, Ephemeral)] == [2]


def test_who_types_and_falls_silent_is_passivated_as_everybody() -> None:
    rig = attached()
    rig.tell("g1", ROOM, typing())
    rig.pass_time(PASSIVATE_AFTER_MS)
    assert list(rig.host._activations) == []


# --- first to go -----------------------------------------------------------------------------------------------------


def test_at_an_uplink_it_has_a_share_of_the_bound() -> None:
    links = Uplinks(ALONE)
    share = int(MAX_UPLINK_ITEMS * LINK_EPHEMERAL_SHARE)
    assert share == 1_250
    for _ in range(share - 1):
        assert links.submit(Envelope(ROOM, 0, Describe())) is None
    assert links.submit(Envelope(ROOM, 0, typing())) is None
    text = "1,250 of 20,000 commands wait for h0"
    assert links.submit(Envelope(ROOM, 0, typing())) == Failure("overloaded", text, 500)
    assert links.submit(Envelope(ROOM, 0, Send(1, "c:1", "hi"))) is None
    assert len(links) == share + 1


def test_a_senders_share() -> None:
    push: Sender[str] = Sender(4)
    assert [push.offer(item, 1, 0.5) for item in "abc"] == [True, True, False]
    assert [push.offer(item, 1) for item in "def"] == [True, True, False]
    assert push.take(0) == Batch(1, ["a", "b", "d", "e"])


def test_a_downlinks_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "MAX_DOWNLINK_BYTES", 8)
    down = Downlink("s", 0)
    assert down.push(b"ab", 0.5)
    assert not down.push(b"cde", 0.5)
    assert down.push(b"cd", 0.5)
    assert down.push(b"efgh")
    assert not down.push(b"i")
    monkeypatch.setattr(link, "MAX_DOWNLINK_ITEMS", 4)
    down = Downlink("s", 0)
    assert [down.push(b"x", 0.5) for _ in range(3)] == [True, True, False]
    assert [down.push(b"x") for _ in range(3)] == [True, True, False]


def test_a_crowded_downlink_is_not_lost_by_what_nobody_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "MAX_DOWNLINK_ITEMS", 32)
    forgotten: list[str] = []
    downlinks = Downlinks("h0", forgotten.append)
    session = downlinks.session("g1", 0)
    assert downlinks.take_woken() == []
    for _ in range(3):
        downlinks.whisper("g1", b"\xc0")
    assert downlinks.take_woken() == ["g1"]
    downlinks.whisper("g2", b"\xc0")  # who is not there
    assert (downlinks.waiting, downlinks.dropped, downlinks.lost) == (2, 1, 0)
    assert (downlinks.session("g1", 0), forgotten) == (session, [])
    assert downlinks.take_woken() == [], "what was dropped wakes nobody"


def test_a_message_follows_where_typing_was_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = attached()
    monkeypatch.setattr(link, "MAX_DOWNLINK_ITEMS", 16)
    rig.tell("g1", ROOM, typing(1))
    rig.tell("g1", ROOM, typing(2))
    assert rig.host.stats()["dropped_ephemeral"] == 2
    rig.ask("g1", ROOM, Send(1, "c:a", "hi"))
    rig.pump()
    assert [type(delivery) for delivery in rig.poll("g2")] == [Ephemeral, Frame]


def test_it_is_routed_anew_when_names_move() -> None:
    two = Placement(epoch=2, hosts=("h0", "h1"), pins={ROOM: "h1"})
    rig = attached()
    rig.host.move(two, rig.now_ms)
    assert rig.receive("g1", Envelope(ROOM, 0, typing()), epoch=1) == Stale(two)
    links = Uplinks(ALONE)
    assert links.submit(Envelope(ROOM, 0, typing())) is None
    links.take("h0", 0)
    assert links.answered("h0", 1, Stale(two), 0) == []
    assert links.take("h1", 0) == (Batch(1, [Envelope(ROOM, 0, typing())]), 2)
    assert links.answered("h1", 1, Accepted("s"), 0) == [Envelope(ROOM, 0, typing())]


def test_what_crosses_a_link_comes_out_as_it_went_in() -> None:
    envelope = Envelope(ROOM, 0, typing(on=False))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(envelope), type=Envelope) == envelope
    deliveries: list[Delivery] = [
        Ephemeral(ROOM, START, 1),
        Declined("c1", "typing.start", Failure("not_a_member", "no")),
    ]
    body = msgspec.msgpack.encode(deliveries)
    assert msgspec.msgpack.decode(body, type=list[Delivery]) == deliveries


def test_a_room_that_is_fenced_forgets_who_was_typing() -> None:
    rig = attached()
    rig.tell("g1", ROOM, typing())
    (activation,) = rig.host._activations
    before = activation.actor
    rig.host._activations.reload(ROOM, [Mail(Describe(), None, rig.now_ms)], rig.now_ms)
    rig.load()
    (activation,) = rig.host._activations
    assert isinstance(activation.actor, Room)
    assert activation.actor is not before
    rig.poll("g2")
    rig.pass_time(TYPING_EXPIRES_MS)
    assert rig.poll("g2") == []


def test_users_keep_their_timers() -> None:
    rig = attached()
    rig.tell("g1", "user:2", Connect("c1"))
    with pytest.raises(AssertionError, match="user:9 has a timer or a socket, so it is active"):
        rig.host._inform("user:9", Describe(), rig.now_ms)
