"""The host: what arrives once, is committed before it is shown, and is answered once; and every table ends empty."""

from __future__ import annotations

import json

import pytest

from actors import activations, link, uplinks
from actors import host as module
from actors.commands import (
    AddMembers,
    Attach,
    Attend,
    CatchUp,
    Connect,
    Describe,
    Detach,
    Disconnect,
    Envelope,
    RemoveMember,
    Send,
)
from actors.effects import Answer, CaughtUp, CutSocket, Failed, Failure, Frame, Invite
from actors.host import Host
from actors.link import Batch
from actors.placement import Placement, shard_of
from actors.presence import GRACE_MS
from actors.uplinks import Accepted, Behind, Stale
from fastsock.core.limits import (
    CATCH_UP_PAGE,
    ID_BLOCK,
    LINK_PACE_MAX_MS,
    MAX_CONNECTIONS_PER_USER,
    MAX_MAILBOX,
    PASSIVATE_AFTER_MS,
    PEER_GONE_MS,
    RETRY_MIN_MS,
    STORAGE_PATIENCE_MS,
)
from fastsock.schemas.log import Append, Entry
from tests.simulation.memory_log import MemoryLog
from tests.unit.rig import ALONE, Rig, answers, caught_up, seqs

ROOM = "room:1"


def rig_with_room(**options: object) -> Rig:
    made = Rig(**options)  # type: ignore[arg-type]
    made.log.create_room(1, 1, [2, 3])
    return made


def send(user: int, key: str, content: str = "hi") -> Send:
    return Send(user, f"c:{key}", content)


def write(log: MemoryLog, conversation: str, *keys: str, user: int = 1) -> None:
    """Somebody else appends to the log."""
    head = log.heads([conversation])[conversation]
    entries = [
        Entry(conversation=conversation, kind="message", sender_id=user, key=f"c:{key}", at_ms=0, id=number)
        for key, number in zip(keys, log.lease_ids(len(keys)), strict=True)
    ]
    log.append([Append(conversation, head, entries)])


def keys(log: MemoryLog, conversation: str = ROOM) -> list[str]:
    return [entry.key for entry in log.logs[conversation]]


def code_of(rig: Rig, request: int, peer: str = "g1") -> tuple[str, str, int | None]:
    (failure,) = [
        delivery.failure for delivery in rig.poll(peer) if isinstance(delivery, Failed) and delivery.request == request
    ]
    return failure.code, failure.message, failure.retry_after_ms


# --- the way of a message --------------------------------------------------------------------------------------------


def test_nothing_is_shown_or_answered_before_its_commit() -> None:
    rig = rig_with_room()
    rig.tell("g1", ROOM, Attach(1))
    rig.tell("g2", ROOM, Attach(1))
    request = rig.ask("g1", ROOM, send(1, "a"))
    rig.load()
    groups = rig.take()
    assert groups is not None
    assert [(group.conversation, group.expected_head, len(group.entries)) for group in groups] == [(ROOM, 1, 1)]
    assert rig.poll("g1") == []
    assert rig.poll("g2") == []
    rig.host.appended(0, rig.log.append(groups), rig.now_ms)
    to_1, to_2 = rig.poll("g1"), rig.poll("g2")
    (frame,) = to_2
    assert isinstance(frame, Frame)
    assert (frame.topic, frame.seq, frame.subscribe, frame.unsubscribe) == (ROOM, 2, (), ())
    assert json.loads(frame.payload)["data"]["content"] == "hi"
    assert to_1[0] == frame, "the frame comes before the ack"
    (ack,) = answers(to_1).items()
    assert ack[0] == request
    assert ack[1] == {
        "client_msg_id": "a",
        "message_id": 1,
        "receiver_id": None,
        "room_id": 1,
        "seq": 2,
        "status": "sent",
        "timestamp": "1970-01-01T00:16:40.000Z",
    }


def test_who_is_not_attached_is_shown_nothing() -> None:
    rig = rig_with_room()
    rig.tell("g1", ROOM, Attach(1))
    rig.tell("g2", "room:2", Attach(0))
    rig.tell("g3", ROOM, Attach(1))
    rig.tell("g3", ROOM, Detach())
    request = rig.ask("g4", ROOM, send(1, "a"))
    rig.pump()
    assert (rig.poll("g2"), rig.poll("g3")) == ([], [])
    assert list(answers(rig.poll("g4"))) == [request]
    assert seqs(rig.poll("g1"), ROOM) == [2]


def test_a_batch_that_comes_twice_is_taken_once() -> None:
    rig = rig_with_room()
    batch = [Envelope(ROOM, 1, send(1, "a"))]
    said = [rig.host.receive("g1", 1, 1, batch, rig.now_ms) for _ in range(3)]
    assert said == [Accepted("h0/1#1")] * 3
    assert list(answers(rig.settle("g1"))) == [1]
    assert keys(rig.log) == ["s:create-1", "c:a"]
    assert rig.host.counts["commands"] == 1


def test_a_batch_of_another_epoch_is_not_taken() -> None:
    two = Placement(epoch=2, hosts=("h0",))
    rig = rig_with_room(placement=two)
    assert rig.receive("g1", Envelope(ROOM, 1, send(1, "a")), epoch=1) == Stale(two)
    assert rig.receive("g1", Envelope(ROOM, 1, send(1, "a")), epoch=3) == Behind()
    assert rig.settle("g1") == []
    assert rig.host.counts["commands"] == 0


def test_messages_keep_their_order_over_the_load_and_over_batches() -> None:
    rig = rig_with_room()
    rig.ask("g1", ROOM, send(1, "a"))
    rig.ask("g1", ROOM, send(2, "b"))
    rig.load()
    rig.ask("g1", ROOM, send(1, "c"))
    assert rig.take() is not None
    rig.ask("g1", ROOM, send(1, "d"))
    rig.host.append_failed(0, rig.now_ms)
    rig.now_ms += RETRY_MIN_MS
    rig.pump()
    assert keys(rig.log) == ["s:create-1", "c:a", "c:b", "c:c", "c:d"]


def test_a_refused_command_is_answered_at_once() -> None:
    rig = rig_with_room()
    request = rig.ask("g1", ROOM, send(9, "a"))
    assert answers(rig.settle("g1")) == {request: "not_a_member"}


def test_what_wants_no_answer_gets_none() -> None:
    rig = rig_with_room()
    rig.tell("g1", ROOM, send(1, "a"))
    rig.tell("g1", ROOM, send(9, "b"))
    rig.tell("g1", "room:99", send(1, "c"))
    rig.tell("g1", "room:x", send(1, "d"))
    assert rig.settle("g1") == []
    assert keys(rig.log) == ["s:create-1", "c:a"]


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("room:99", "room_not_found", "room 99 does not exist or is not active"),
        ("dm:1:99", "user_not_found", "user 1 or 99 does not exist or is not active"),
    ],
)
def test_what_does_not_exist_is_said_to_everybody_who_asked(name: str, code: str, text: str) -> None:
    rig = Rig()
    first, second = rig.ask("g1", name, send(1, "a")), rig.ask("g1", name, Describe())
    rig.pump()
    failure = Failure(code, text)
    assert rig.poll("g1") == [Failed(first, failure), Failed(second, failure)]
    assert rig.host.stats()["loading"] == 0


def test_a_name_that_is_none_does_not_keep_the_others_from_their_load() -> None:
    rig = rig_with_room()
    bad, good = rig.ask("g1", "room:x", Describe()), rig.ask("g1", ROOM, send(1, "a"))
    rig.pump()
    failed, answered = rig.poll("g1")
    text = "not an actor's name: 'room:x'; ids are integers from 1 to 9007199254740991"
    assert failed == Failed(bad, Failure("invalid_data", text))
    assert isinstance(answered, Answer)
    assert answered.request == good


def test_a_retry_is_answered_as_the_first_time_and_stored_once() -> None:
    rig = rig_with_room()
    first = rig.ask("g1", ROOM, send(1, "a", "one"))
    second = rig.ask("g1", ROOM, send(1, "a", "two"))
    rig.pump()
    third = rig.ask("g2", ROOM, send(1, "a", "three"))
    found = answers(rig.settle("g1", "g2"))
    assert found[first] == found[second] == found[third]
    assert keys(rig.log) == ["s:create-1", "c:a"]


def test_the_database_refuses_one_and_takes_the_rest() -> None:
    rig = rig_with_room()
    requests = [rig.ask("g1", ROOM, send(1, str(at), text)) for at, text in enumerate(("a", "b\x00", "c"))]
    found = answers(rig.settle("g1"))
    assert [found[requests[0]]["seq"], found[requests[1]], found[requests[2]]["seq"]] == [2, "refused_by_storage", 3]
    assert keys(rig.log) == ["s:create-1", "c:0", "c:2"]


# --- users -----------------------------------------------------------------------------------------------------------


def user_state(rig: Rig, user: int) -> tuple[str, list[str]]:
    request = rig.ask("asker", f"user:{user}", Describe())
    state = answers(rig.poll("asker"))[request]
    return state["status"], [socket["connection_id"] for socket in state["sockets"]]


def test_a_user_goes_offline_when_the_grace_period_is_over() -> None:
    rig = Rig()
    rig.tell("g1", "user:7", Connect("c1"))
    assert user_state(rig, 7) == ("online", ["c1"])
    rig.tell("g1", "user:7", Disconnect("c1"))
    assert rig.host.next_deadline_ms() == rig.now_ms + GRACE_MS
    rig.pass_time(GRACE_MS - 1)
    assert user_state(rig, 7) == ("online", [])
    rig.pass_time(1)
    assert user_state(rig, 7) == ("offline", [])


def test_a_socket_too_many_is_cut_at_its_gateway() -> None:
    rig = Rig()
    for number in range(MAX_CONNECTIONS_PER_USER):
        rig.tell("g1", "user:7", Connect(f"c{number}"))
    rig.tell("g2", "user:7", Connect("new"))
    assert rig.poll("g1") == [CutSocket("c0", 4003)]
    assert rig.poll("g2") == []


def test_a_gateway_that_does_not_poll_is_forgotten_with_its_topics_and_sockets() -> None:
    rig = rig_with_room()
    rig.tell("g1", ROOM, Attach(1))
    rig.tell("g1", "user:7", Connect("c1"))
    rig.tell("g2", "user:7", Connect("c2"))
    assert rig.session("g1") == "h0/1#1"
    rig.pass_time(PEER_GONE_MS - 1)
    rig.poll("g2")
    assert user_state(rig, 7) == ("online", ["c1", "c2"])
    rig.pass_time(1)
    assert user_state(rig, 7) == ("online", ["c2"])
    assert rig.host.stats()["topics"] == 0
    assert rig.session("g1") == "h0/1#4", "and finds a new session when it comes back"


def test_a_gateway_that_dies_after_its_downlink_overflowed_takes_its_sockets_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link, "MAX_DOWNLINK_ITEMS", 2)
    rig = rig_with_room()
    rig.tell("g1", "user:7", Connect("c1"))
    for number in range(3):
        rig.ask("g1", ROOM, send(1, str(number)))
    rig.pump()
    assert rig.host.stats()["lost_downlinks"] == 1
    rig.pass_time(PEER_GONE_MS)
    rig.pass_time(GRACE_MS)
    assert user_state(rig, 7) == ("offline", [])


def test_an_overflowing_gateway_starts_anew_from_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "MAX_DOWNLINK_ITEMS", 5)
    rig = rig_with_room()
    rig.tell("g1", ROOM, Attach(1))
    rig.tell("g2", ROOM, Attach(1))
    before = rig.session("g1")
    for number in range(7):
        rig.tell("g2", ROOM, send(1, str(number)))
        rig.pass_time(LINK_PACE_MAX_MS)
        rig.pump()
        rig.poll("g2")
    assert (rig.host.stats()["lost_downlinks"], rig.host.stats()["topics"]) == (1, 1)
    assert "g1" in rig.host.take_woken()
    assert rig.session("g1") != before
    rig.tell("g1", ROOM, Attach(4))
    rig.pump()
    assert seqs(rig.poll("g1"), ROOM) == [5, 6, 7, 8]


def test_the_acknowledgement_of_another_session_acknowledges_nothing() -> None:
    rig = rig_with_room()
    request = rig.ask("g1", ROOM, send(9, "a"))
    rig.pump()
    session, batch = rig.host.poll("g1", "h0/dead#1", 7, rig.now_ms)
    assert batch is not None
    assert (session, batch.number) == ("h0/1#1", 1)
    again = rig.host.poll("g1", "h0/dead#1", 7, rig.now_ms)
    assert again == (session, batch), "the first answer was lost"
    assert list(answers(rig.poll("g1"))) == [request]
    assert rig.host.poll("g1", session, 1, rig.now_ms) == (session, None)


def test_polls_are_woken_for_what_has_come() -> None:
    rig = rig_with_room()
    rig.tell("g1", ROOM, Attach(1))
    assert rig.host.take_woken() == []
    rig.ask("g2", ROOM, send(1, "a"))
    rig.pump()
    assert rig.host.take_woken() == ["g1", "g2"]
    assert rig.host.take_woken() == []


def test_a_delivery_to_a_forgotten_gateway_goes_nowhere() -> None:
    rig = rig_with_room()
    rig.poll("g1")
    rig.pass_time(PEER_GONE_MS - 1)
    rig.ask("g1", ROOM, send(1, "a"))
    rig.pass_time(1)
    rig.pump()
    assert keys(rig.log) == ["s:create-1", "c:a"]
    assert rig.poll("g1") == []


# --- membership ------------------------------------------------------------------------------------------------------


def test_a_new_member_is_invited_wherever_the_sockets_are() -> None:
    rig = rig_with_room()
    rig.tell("g1", "user:9", Attach())
    rig.tell("g2", "user:9", Attach())
    rig.tell("g3", "user:8", Attach())
    request = rig.ask("g4", ROOM, AddMembers(1, "s:k", [9]))
    rig.pump()
    assert [rig.poll(gateway) for gateway in ("g1", "g2", "g3")] == [[Invite(9, ROOM, 1)], [Invite(9, ROOM, 1)], []]
    assert answers(rig.poll("g4"))[request]["user_ids"] == [9]


def test_the_log_says_who_is_subscribed_and_unsubscribed() -> None:
    rig = rig_with_room()
    rig.tell("g1", ROOM, Attach(1))
    rig.tell("g1", ROOM, AddMembers(1, "s:k", [9, 8]))
    rig.tell("g1", ROOM, RemoveMember(1, "s:l", 3))
    rig.pump()
    joined, left = rig.poll("g1")
    assert isinstance(joined, Frame)
    assert isinstance(left, Frame)
    assert (joined.subscribe, joined.unsubscribe) == ((9, 8), ())
    assert (left.subscribe, left.unsubscribe) == ((), (3,))


def split(hosts: tuple[str, ...] = ("h0", "h1"), epoch: int = 1, **pins: str) -> Placement:
    return Placement(epoch=epoch, hosts=hosts, pins={name.replace("_", ":"): host for name, host in pins.items()})


def test_an_answer_waits_until_other_hosts_have_been_told() -> None:
    rig = rig_with_room(placement=split(room_1="h0", user_8="h1", user_9="h1", user_7="h0"))
    request = rig.ask("g1", ROOM, AddMembers(1, "s:k", [7, 8, 9]))
    rig.pump()
    assert answers(rig.poll("g1")) == {}
    assert rig.host.uplinks.hosts == ["h1"]
    batch = rig.host.next_forward("h1", rig.now_ms)
    told = [Envelope("user:8", 0, Attend(ROOM, 1)), Envelope("user:9", 0, Attend(ROOM, 1))]
    assert batch == (Batch(1, told), 1)
    rig.host.uplinks.failed("h1", 1, rig.now_ms)
    assert answers(rig.poll("g1")) == {}
    rig.now_ms += RETRY_MIN_MS
    rig.host.next_forward("h1", rig.now_ms)
    rig.host.forwarded("h1", 1, Behind(), rig.now_ms)
    assert answers(rig.poll("g1")) == {}
    rig.now_ms += 2 * RETRY_MIN_MS
    rig.host.next_forward("h1", rig.now_ms)
    rig.host.forwarded("h1", 1, Accepted(""), rig.now_ms)
    assert list(answers(rig.poll("g1"))) == [request]
    assert rig.host._owed == {}


def test_an_answer_that_waits_survives_a_move_of_whom_it_waits_for() -> None:
    rig = rig_with_room(placement=split(room_1="h0", user_8="h1", user_9="h1"))
    request = rig.ask("g1", ROOM, AddMembers(1, "s:k", [8, 9]))
    rig.pump()
    rig.host.next_forward("h1", rig.now_ms)
    moved = split(epoch=2, room_1="h0", user_8="h0", user_9="h1")
    rig.host.forwarded("h1", 1, Stale(moved), rig.now_ms)
    assert rig.host.placement == moved
    rig.now_ms += 1_000
    for host in ("h1", "h0"):
        assert answers(rig.poll("g1")) == {}
        taken = rig.host.next_forward(host, rig.now_ms)
        assert taken is not None
        assert len(taken[0].items) == 1
        rig.host.forwarded(host, taken[0].number, Accepted(""), rig.now_ms)
    assert list(answers(rig.poll("g1"))) == [request]


def test_telling_another_host_for_nobody_owes_nothing() -> None:
    rig = rig_with_room(placement=split(room_1="h0", user_9="h1"))
    rig.tell("g1", ROOM, AddMembers(1, "s:k", [9]))
    rig.pump()
    assert rig.host._owed == {}
    assert rig.host.next_forward("h1", rig.now_ms) is not None
    rig.host.forwarded("h1", 1, Accepted(""), rig.now_ms)
    assert rig.poll("g1") == []
    assert len(rig.host.uplinks) == 0


def test_hosts_only_tell_and_are_told_nothing_back() -> None:
    rig = rig_with_room(placement=split(room_1="h0", user_9="h0"))
    rig.tell("g1", "user:9", Attach())
    assert rig.receive("h1/7", Envelope("user:9", 0, Attend(ROOM, 4))) == Accepted("")
    assert rig.poll("g1") == [Invite(9, ROOM, 4)]
    assert rig.host.stats()["gateways"] == 1


def test_tells_beyond_the_bound_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uplinks, "MAX_UPLINK_ITEMS", 1)
    rig = rig_with_room(placement=split(room_1="h0", user_8="h1", user_9="h1"))
    request = rig.ask("g1", ROOM, AddMembers(1, "s:k", [8, 9]))
    rig.pump()
    assert rig.host.counts["dropped_tells"] == 1
    rig.host.next_forward("h1", rig.now_ms)
    rig.host.forwarded("h1", 1, Accepted(""), rig.now_ms)
    assert list(answers(rig.poll("g1"))) == [request]


def test_the_two_people_of_a_direct_conversation_are_told_again_when_it_is_activated() -> None:
    rig = Rig()
    write(rig.log, "dm:3:7", "a", user=3)
    rig.tell("g1", "user:7", Attach())
    request = rig.ask("g2", "dm:3:7", Describe())
    found = rig.settle("g1", "g2")
    assert found[0] == Invite(7, "dm:3:7", 0)
    assert answers(found)[request]["head"] == 1


# --- attaching -------------------------------------------------------------------------------------------------------


def test_attaching_brings_what_is_lacked_from_the_log() -> None:
    rig = rig_with_room()
    write(rig.log, ROOM, "a", "b", "c")
    request = rig.ask("g1", ROOM, Attach(2))
    assert answers(rig.poll("g1")) == {request: None}
    found = rig.settle("g1")
    assert (seqs(found, ROOM), caught_up(found)) == ([3, 4], [(ROOM, 4)])
    assert rig.host.stats()["rooms"] == 0, "attaching costs no activation"


def test_attaching_to_an_active_conversation_asks_its_head() -> None:
    rig = rig_with_room()
    rig.tell("g1", ROOM, send(1, "a"))
    rig.pump()
    rig.tell("g2", ROOM, Attach(2))
    assert (rig.check(), rig.read()) == (None, False)
    rig.tell("g3", ROOM, Attach(1))
    assert (rig.check(), rig.read()) == (None, True)
    assert seqs(rig.poll("g3"), ROOM) == [2]


def test_attaching_while_it_loads_asks_the_database() -> None:
    rig = rig_with_room()
    rig.ask("g1", ROOM, Describe())
    rig.tell("g1", ROOM, Attach(0))
    assert rig.check() == [ROOM]
    assert rig.read()


def test_a_gap_is_read_in_pages() -> None:
    rig = rig_with_room()
    write(rig.log, ROOM, *map(str, range(CATCH_UP_PAGE + 5)))
    rig.tell("g1", ROOM, Attach(0))
    rig.pump()
    found = rig.poll("g1")
    assert seqs(found, ROOM) == list(range(1, CATCH_UP_PAGE + 1))
    assert caught_up(found) == [(ROOM, CATCH_UP_PAGE + 1)], "there may be more"
    rig.tell("g1", ROOM, CatchUp(CATCH_UP_PAGE))
    found = rig.settle("g1")
    assert seqs(found, ROOM) == list(range(CATCH_UP_PAGE + 1, CATCH_UP_PAGE + 7))
    assert caught_up(found) == [(ROOM, CATCH_UP_PAGE + 6)]
    rig.tell("g1", ROOM, CatchUp(CATCH_UP_PAGE + 6))
    assert rig.settle("g1") == [CaughtUp(ROOM, CATCH_UP_PAGE + 6)]


def test_a_page_for_a_gateway_that_has_left_is_thrown_away() -> None:
    rig = rig_with_room()
    rig.tell("g1", ROOM, Attach(0))
    rig.check()
    read = rig.host.next_read(rig.now_ms)
    assert read is not None
    rig.tell("g1", ROOM, Detach())
    rig.host.read(rig.log.after(ROOM, 0, CATCH_UP_PAGE))
    assert rig.poll("g1") == []


def test_checks_and_reads_that_fail_are_repeated() -> None:
    rig = rig_with_room()
    rig.tell("g1", ROOM, Attach(0))
    assert rig.host.next_check(rig.now_ms) == [ROOM]
    rig.host.check_failed(rig.now_ms)
    assert rig.host.next_deadline_ms() == rig.now_ms + RETRY_MIN_MS
    assert rig.check() is None
    rig.now_ms += RETRY_MIN_MS
    assert rig.check() == [ROOM]
    assert rig.host.next_read(rig.now_ms) is not None
    rig.host.read_failed(rig.now_ms)
    rig.now_ms += RETRY_MIN_MS
    assert rig.read()
    assert seqs(rig.poll("g1"), ROOM) == [1]


# --- fences ----------------------------------------------------------------------------------------------------------


def test_the_loser_of_two_activations_starts_anew_and_loses_nothing() -> None:
    log = MemoryLog(range(1, 10))
    log.create_room(1, 1, [2, 3])
    one, other = Rig(log), Rig(log, split(("h1",)), "h1")
    one.tell("g1", ROOM, Attach(1))
    for rig in (one, other):
        rig.ask("g1", ROOM, Describe())
        rig.pump()
        rig.poll("g1")
    other.ask("g1", ROOM, send(2, "x"))
    other.pump()
    first = one.ask("g1", ROOM, send(1, "a"))
    groups = one.take()
    assert groups is not None
    second = one.ask("g1", ROOM, send(1, "b"))
    one.host.appended(0, log.append(groups), one.now_ms)
    assert one.host.placement_suspect
    assert (one.host.counts["fenced"], one.host.stats()["loading"]) == (1, 1)
    third = one.ask("g1", ROOM, send(1, "c"))
    found = one.settle("g1")
    assert keys(log) == ["s:create-1", "c:x", "c:a", "c:b", "c:c"]
    assert {request: answer["seq"] for request, answer in answers(found).items()} == {first: 3, second: 4, third: 5}
    assert sorted(set(seqs(found, ROOM))) == [2, 3, 4, 5], "what the other wrote is shown, too"


def test_what_the_other_wrote_is_shown_even_if_nothing_comes_of_ones_own() -> None:
    log = MemoryLog(range(1, 10))
    log.create_room(1, 1, [2, 3])
    one, other = Rig(log), Rig(log, split(("h1",)), "h1")
    one.tell("g1", ROOM, Attach(1))
    one.ask("g1", ROOM, Describe())
    one.settle("g1")
    other.tell("g2", ROOM, RemoveMember(1, "s:k", 3))
    other.pump()
    request = one.ask("g1", ROOM, send(3, "a"))
    found = one.settle("g1")
    assert answers(found) == {request: "not_a_member"}
    assert (seqs(found, ROOM), keys(log)) == ([2], ["s:create-1", "s:k"])


def test_a_batch_that_was_committed_unnoticed_is_recognised_though_somebody_has_written_since() -> None:
    log = MemoryLog(range(1, 10))
    log.create_room(1, 1, [2, 3])
    one = Rig(log)
    one.tell("g1", ROOM, Attach(1))
    one.settle("g1")
    request = one.ask("g1", ROOM, send(1, "a"))
    one.load()
    groups = one.take()
    assert groups is not None
    log.append(groups)
    one.host.append_failed(0, one.now_ms)
    write(log, ROOM, "x", user=2)
    one.now_ms += RETRY_MIN_MS
    found = one.settle("g1")
    assert (answers(found)[request]["seq"], seqs(found, ROOM), one.host.counts["fenced"]) == (2, [2], 0)
    one.tell("g1", ROOM, send(1, "b"))
    found = one.settle("g1")
    assert (set(seqs(found, ROOM)), one.host.counts["fenced"]) == ({3, 4}, 1)
    assert keys(log) == ["s:create-1", "c:a", "c:x", "c:b"]


def test_a_commit_of_a_dead_incarnation_is_shown_when_its_sender_repeats_it() -> None:
    log = MemoryLog(range(1, 10))
    log.create_room(1, 1, [2, 3])
    dead = Rig(log)
    dead.tell("g1", ROOM, send(1, "a"))
    dead.load()
    groups = dead.take()
    assert groups is not None
    born = Rig(log, incarnation="2")
    born.tell("g1", ROOM, Attach(1))
    born.settle("g1")
    log.append(groups)
    request = born.ask("g2", ROOM, send(1, "a"))
    assert answers(born.settle("g2"))[request]["seq"] == 2
    assert set(seqs(born.poll("g1"), ROOM)) == {2}, "nobody else could tell it"


# --- when the database is away ---------------------------------------------------------------------------------------


def test_nobody_waits_longer_than_the_patience_for_a_database_that_is_away() -> None:
    rig = rig_with_room()
    rig.ask("g1", ROOM, Describe())
    rig.settle("g1")
    flying = rig.ask("g1", ROOM, send(1, "a"))
    assert rig.take() is not None
    waiting = rig.ask("g1", ROOM, send(1, "b"))
    loading = rig.ask("g1", "dm:1:2", send(1, "c"))
    assert rig.host.next_deadline_ms() == 0, "the load is due"
    assert rig.host.next_load(rig.now_ms) is not None
    assert rig.host.next_deadline_ms() == rig.now_ms + STORAGE_PATIENCE_MS
    rig.pass_time(STORAGE_PATIENCE_MS - 1)
    assert rig.poll("g1") == []
    later = rig.ask("g1", ROOM, send(1, "d"))
    rig.pass_time(1)
    failure = Failure("storage_unavailable", "the database has not answered for 5 s", 500)
    assert rig.poll("g1") == [Failed(loading, failure), Failed(waiting, failure), Failed(flying, failure)]
    rig.host.append_failed(0, rig.now_ms)
    rig.host.load_failed(rig.now_ms)
    rig.now_ms += 1_000
    rig.tell("g2", ROOM, Attach(1))
    found = rig.settle("g1", "g2")
    assert list(answers(found)) == [later], "nobody is answered twice"
    assert seqs(found, ROOM) == [2, 3], "what was in flight may be committed after all, and is shown"
    assert keys(rig.log) == ["s:create-1", "c:a", "c:d"]


def test_a_load_that_failed_is_repeated() -> None:
    rig = rig_with_room()
    request = rig.ask("g1", ROOM, send(1, "a"))
    assert rig.host.next_load(rig.now_ms) == [ROOM]
    rig.host.load_failed(rig.now_ms)
    assert rig.load() is None
    assert rig.host.next_deadline_ms() == rig.now_ms + RETRY_MIN_MS
    rig.now_ms += RETRY_MIN_MS
    assert list(answers(rig.settle("g1"))) == [request]


def test_without_ids_nothing_is_taken() -> None:
    rig = rig_with_room()
    rig.ask("g1", ROOM, Describe())
    rig.settle("g1")
    while rig.host.ids:
        rig.host.ids.take()
    request = rig.ask("g1", ROOM, send(1, "a"))
    text = "h0 has no message ids left: the database has not leased new ones"
    assert code_of(rig, request) == ("storage_unavailable", text, 500)
    described = rig.ask("g1", ROOM, Describe())
    assert answers(rig.poll("g1"))[described]["on_the_way_to_the_log"] == 0
    assert rig.host.next_deadline_ms() == 0
    assert rig.host.next_lease(rig.now_ms) == ID_BLOCK


# --- bounds ----------------------------------------------------------------------------------------------------------


def test_entries_beyond_the_bound_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PENDING_ENTRIES", 2)
    rig = rig_with_room()
    for key in ("a", "b"):
        rig.ask("g1", ROOM, send(1, key))
    refused = rig.ask("g1", ROOM, send(1, "c"))
    rig.load()
    assert code_of(rig, refused) == ("overloaded", "2 of 2 entries wait for the database at h0", 500)
    rig.pump()
    assert keys(rig.log) == ["s:create-1", "c:a", "c:b"]


def test_a_mailbox_is_bounded() -> None:
    rig = rig_with_room()
    for _ in range(MAX_MAILBOX):
        rig.tell("g1", ROOM, Describe())
    refused = rig.ask("g1", ROOM, Describe())
    text = "room:1 is starting, and 1,000 of 1,000 commands wait for it"
    assert code_of(rig, refused) == ("overloaded", text, 500)


def test_activations_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations, "MAX_ACTIVATIONS", 1)
    monkeypatch.setattr(module, "MAX_ACTIVATIONS", 1)
    rig = rig_with_room()
    rig.tell("g1", "user:7", Connect("c1"))
    refused = rig.ask("g1", ROOM, Describe())
    text = "h0 is full: 1 of 1 actors are active, none is idle"
    assert code_of(rig, refused) == ("overloaded", text, 500)
    rig.tell("g1", "user:7", Disconnect("c1"))
    rig.pass_time(GRACE_MS)
    assert rig.ask("g1", ROOM, Describe()) in answers(rig.settle("g1"))


# --- time ------------------------------------------------------------------------------------------------------------


def test_what_is_idle_leaves_memory_and_comes_back() -> None:
    rig = rig_with_room()
    rig.tell("g1", ROOM, send(1, "a"))
    rig.tell("g1", "user:7", Connect("c1"))
    rig.tell("g1", "user:7", Disconnect("c1"))
    rig.pump()
    rig.pass_time(GRACE_MS)
    stats = rig.host.stats()
    assert (stats["rooms"], stats["users"]) == (1, 0)
    rig.pass_time(PASSIVATE_AFTER_MS)
    assert (len(rig.host._activations), len(rig.host._timers)) == (0, 0)
    assert rig.host.next_deadline_ms() is None
    request = rig.ask("g1", ROOM, send(1, "b"))
    assert answers(rig.settle("g1"))[request]["seq"] == 3


def test_a_host_at_rest_waits_for_nothing() -> None:
    rig = Rig()
    assert rig.host.next_deadline_ms() is None
    assert rig.host.next_append(0, rig.now_ms) is None
    assert rig.host.next_load(rig.now_ms) is None
    assert rig.host.next_check(rig.now_ms) is None
    assert rig.host.next_read(rig.now_ms) is None
    assert rig.host.next_lease(rig.now_ms) is None
    rig.pass_time(10**9)
    assert rig.host.next_deadline_ms() is None


def test_a_gateway_gone_tells_nobody_who_is_no_user() -> None:
    rig = rig_with_room()
    rig.ask("g1", ROOM, Describe())
    rig.pump()
    rig.pass_time(PEER_GONE_MS)
    assert rig.host.stats()["gateways"] == 0
    assert rig.host.stats()["rooms"] == 1


# --- placement -------------------------------------------------------------------------------------------------------


def test_what_moves_away_is_dropped_when_nothing_of_it_is_under_way() -> None:
    rig = rig_with_room(placement=split(room_1="h0", room_2="h0", user_7="h0", user_8="h0"))
    rig.log.create_room(2, 1, [2])
    for name in (ROOM, "room:2", "room:3"):
        rig.tell("g1", name, Attach(1))
    rig.ask("g1", "room:2", Describe())
    request = rig.ask("g1", ROOM, send(1, "a"))
    rig.tell("g1", "user:7", Connect("c7"))
    rig.tell("g1", "user:8", Connect("c8"))
    rig.load()
    groups = rig.take()
    assert groups is not None
    rig.poll("g1")
    session = rig.session("g1")
    away = split(epoch=2, room_1="h1", room_2="h1", room_3="h1", user_7="h1", user_8="h0")
    rig.host.move(away, rig.now_ms)
    assert [activation.name for activation in rig.host._activations] == [ROOM, "user:8"]
    assert rig.host.stats()["topics"] == 1, "who waits for the commit is shown it here"
    rig.pass_time(10)
    rig.host.appended(0, rig.log.append(groups), rig.now_ms)
    found = rig.poll("g1")
    assert (seqs(found, ROOM), list(answers(found))) == ([2], [request])
    rig.pass_time(10)
    assert [activation.name for activation in rig.host._activations] == ["user:8"]
    assert rig.host.stats()["topics"] == 0
    taken = rig.host.next_forward("h1", rig.now_ms)
    assert taken == (Batch(1, [Envelope(ROOM, 0, CatchUp(1))]), 2), "the new host's gateways have not seen it"
    assert rig.session("g1") != session, "the gateway has to begin anew, and learns of the move by it"


def test_a_gateway_that_is_gone_is_not_given_a_session_by_a_late_move() -> None:
    rig = rig_with_room(placement=split(room_1="h0", room_2="h0"))
    rig.tell("g1", "room:2", Attach(1))
    rig.tell("g2", "room:2", Attach(1))
    rig.ask("g2", ROOM, send(1, "a"))
    rig.load()
    groups = rig.take()
    assert groups is not None
    rig.host.move(split(epoch=2, room_1="h1", room_2="h1"), rig.now_ms)
    rig.now_ms += PEER_GONE_MS
    rig.poll("g2")
    rig.host.tick(rig.now_ms)
    assert rig.host.stats()["gateways"] == 1
    rig.host.appended(0, rig.log.append(groups), rig.now_ms)
    rig.pass_time(10)
    assert rig.host.stats()["gateways"] == 1


def test_a_host_that_is_told_of_a_late_commit_has_it_read_for_everybody() -> None:
    log = MemoryLog(range(1, 10))
    log.create_room(1, 1, [2, 3])
    rig = Rig(log, split(room_1="h1"), "h1")
    for gateway in ("g1", "g2"):
        rig.tell(gateway, ROOM, Attach(1))
    rig.settle("g1", "g2")
    write(log, ROOM, "late")
    rig.tell("h0/1", ROOM, CatchUp(1))
    rig.pump()
    assert [seqs(rig.poll(gateway), ROOM) for gateway in ("g1", "g2")] == [[2], [2]]


def test_an_older_placement_changes_nothing() -> None:
    rig = rig_with_room(placement=split(epoch=2, room_1="h0"))
    rig.ask("g1", ROOM, Describe())
    rig.settle("g1")
    rig.host.move(split(epoch=1, room_1="h1"), rig.now_ms)
    rig.host.move(split(epoch=2, room_1="h1"), rig.now_ms)
    assert rig.host.stats()["rooms"] == 1


def test_a_host_that_missed_an_epoch_learns_everything_anew() -> None:
    rig = rig_with_room(placement=split(room_1="h0", room_2="h0", user_7="h0"))
    rig.log.create_room(2, 1, [2])
    rig.tell("g1", ROOM, Attach(1))
    rig.tell("g1", "user:7", Connect("c1"))
    rig.ask("g1", ROOM, Describe())
    rig.settle("g1")
    rig.ask("g1", "room:2", send(1, "a"))
    before = rig.session("g1")
    rig.host.take_woken()
    write(rig.log, ROOM, "by the host of epoch 2")
    rig.host.move(split(epoch=3, room_1="h0", room_2="h0", user_7="h0"), rig.now_ms)
    assert [activation.name for activation in rig.host._activations] == ["room:2"]
    assert rig.host.take_woken() == ["g1"]
    assert rig.session("g1") != before
    request = rig.ask("g1", ROOM, send(1, "b"))
    found = rig.settle("g1")
    assert (answers(found)[request]["seq"], rig.host.counts["fenced"]) == (3, 0)
    assert keys(rig.log, "room:2") == ["s:create-2", "c:a"]


def test_a_writer_that_knows_a_newer_placement_takes_the_batch_when_the_host_has_learned_it() -> None:
    rig = rig_with_room()
    request = rig.ask("g1", ROOM, send(1, "a"))
    rig.load()
    assert rig.take() is not None
    rig.host.epoch_refused(0, rig.now_ms)
    assert rig.host.placement_suspect
    rig.host.move(Placement(epoch=2, hosts=ALONE.hosts), rig.now_ms)
    rig.now_ms += RETRY_MIN_MS
    taken = rig.host.next_append(0, rig.now_ms)
    assert taken is not None
    assert taken[1][1] == 2, "the epoch is the first thing in the batch"
    rig.host.append_failed(0, rig.now_ms)
    rig.now_ms += 1_000
    assert list(answers(rig.settle("g1"))) == [request]


def test_writers_share_the_conversations() -> None:
    rig = Rig(writers=2)
    rooms = range(1, 9)
    for number in rooms:
        rig.log.create_room(number, 1, [])
        rig.ask("g1", f"room:{number}", send(1, str(number)))
    rig.load()
    for writer in (0, 1):
        groups = rig.take(writer)
        assert groups is not None
        expected = {f"room:{number}" for number in rooms if shard_of(f"room:{number}") % 2 == writer}
        assert {group.conversation for group in groups} == expected != set()
        rig.host.appended(writer, rig.log.append(groups), rig.now_ms)
    assert len(answers(rig.poll("g1"))) == 8


# --- to be looked at -------------------------------------------------------------------------------------------------


def test_an_active_actor_is_described_and_nobody_is_activated_for_it() -> None:
    rig = rig_with_room()
    rig.tell("g1", "user:7", Connect("c1"))
    rig.tell("g1", ROOM, Describe())
    assert rig.host.describe(ROOM, rig.now_ms) is None, "it is not loaded yet"
    assert rig.host.describe("user:8", rig.now_ms) is None
    rig.pump()
    rig.pass_time(3_000)
    room, user = rig.host.describe(ROOM, rig.now_ms), rig.host.describe("user:7", rig.now_ms)
    assert room is not None
    assert user is not None
    assert json.loads(room)["title"] == "room 1"
    assert json.loads(user)["sockets"] == [{"gateway": "g1", "connection_id": "c1", "open_s": 3}]
    assert len(rig.host._activations) == 2


def test_the_setting_bounds_a_users_sockets() -> None:
    host = Host("h0", "1", ALONE, sockets_per_user=1)
    for number, name in enumerate(("c1", "c2"), 1):
        host.receive("g1", number, 1, [Envelope("user:7", 0, Connect(name))], 0)
    described = host.describe("user:7", 0)
    assert described is not None
    assert [socket["connection_id"] for socket in json.loads(described)["sockets"]] == ["c2"]


def test_the_figures() -> None:
    rig = rig_with_room(placement=split(room_1="h0", dm_1_2="h0", user_7="h0", user_8="h0", room_2="h0", user_3="h1"))
    rig.tell("g1", ROOM, Attach(1))
    rig.ask("g1", ROOM, send(1, "a"))
    rig.ask("g1", "dm:1:2", Describe())
    rig.tell("g2", "user:7", Connect("c1"))
    rig.pump()
    rig.ask("g1", ROOM, send(1, "b"))
    rig.tell("g1", "room:2", Describe())
    rig.host._tell(Envelope("user:3", 0, Attend(ROOM, 0)))
    assert rig.host.stats() == {
        "host": "h0",
        "epoch": 1,
        "rooms": 1,
        "dms": 1,
        "users": 1,
        "loading": 1,
        "topics": 1,
        "gateways": 2,
        "entries_waiting": 1,
        "deliveries_waiting": 3,
        "forwards_waiting": 1,
        "ids_left": ID_BLOCK - 2,
        "commands": 6,
        "entries": 2,
        "frames": 1,
        "fenced": 0,
        "whispers": 0,
        "dropped_tells": 0,
        "lost_downlinks": 0,
        "dropped_ephemeral": 0,
        "recalls_waiting": 0,
    }
