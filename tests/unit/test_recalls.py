"""Refusals that are held back until the log has said that they are no repeats."""

from __future__ import annotations

import json

import pytest

from actors import recalls
from actors.commands import AddMembers, Attach, Delete, Describe, Edit, LinkCommand, Origin, RemoveMember, Send
from actors.effects import Answer, Delivery, Failed, Failure
from actors.link import Downlink
from actors.recalls import Recalls
from fastsock.core.limits import MAX_DOWNLINK_BYTES, MAX_RECALLS, RETRY_AFTER_MS, RETRY_MIN_MS, STORAGE_PATIENCE_MS
from fastsock.schemas.log import Target
from tests.unit.rig import Rig

ROOM = "room:1"
NO_MEMBER = Failure("not_a_member", "user 3 is not a member of room:1")
ORIGIN = Origin("g1", 7)
TARGET = Target(id=5, seq=2, sender_id=3, at_ms=1, message_type="text", reply_to=None, client_msg_id=None)


@pytest.fixture
def rig() -> Rig:
    """A room of 1 (its owner), 2 and 3."""
    rig = Rig()
    rig.log.create_room(1, 1, [2, 3])
    return rig


def answers(rig: Rig, command: LinkCommand) -> list[Delivery]:
    request = rig.ask("g1", ROOM, command)
    found = [d for d in rig.settle("g1") if isinstance(d, Answer | Failed) and d.request == request]
    return list(found)


@pytest.mark.parametrize(
    ("command", "undo"),
    [
        (Send(3, "c:m", "hello"), RemoveMember(1, "s:r", 3)),
        (RemoveMember(1, "c:r", 3), None),
        (AddMembers(1, "c:a", [4]), None),
    ],
)
def test_a_repeat_gets_the_first_answer_though_it_would_be_refused_now(
    rig: Rig, command: LinkCommand, undo: LinkCommand | None
) -> None:
    [first] = answers(rig, command)
    assert isinstance(first, Answer)
    if undo is not None:
        [undone] = answers(rig, undo)
        assert isinstance(undone, Answer)
    entries = len(rig.log.logs[ROOM])
    [again] = answers(rig, command)
    assert isinstance(again, Answer)
    assert json.loads(again.payload) == json.loads(first.payload)
    assert len(rig.log.logs[ROOM]) == entries


def test_what_the_log_does_not_know_is_refused(rig: Rig) -> None:
    [refused] = answers(rig, Send(9, "c:m", "let me in"))
    assert isinstance(refused, Failed)
    assert refused.failure == Failure("not_a_member", "user 9 is not a member of room:1")


def test_a_key_of_another_kind_is_not_taken_for_a_repeat(rig: Rig) -> None:
    answers(rig, Send(3, "c:m", "hello"))
    answers(rig, RemoveMember(1, "s:r", 3))
    [refused] = answers(rig, RemoveMember(3, "c:m", 2))
    assert isinstance(refused, Failed)
    assert refused.failure.code == "key_reused"
    assert refused.failure.message == "the id 'm' is taken: it names an entry of kind 'message' in room:1"


def test_a_log_that_stays_away_ends_the_waiting(rig: Rig) -> None:
    answers(rig, Send(1, "c:first", "the room is loaded"))
    request = rig.ask("g1", ROOM, Send(9, "c:m", "let me in"))
    assert rig.host.next_recall(rig.now_ms) == [(9, "c:m")]
    assert rig.host.next_recall(rig.now_ms) is None
    rig.host.recall_failed(rig.now_ms)
    assert rig.host.next_recall(rig.now_ms) is None
    rig.now_ms += RETRY_MIN_MS
    assert rig.host.next_recall(rig.now_ms) == [(9, "c:m")]
    rig.host.recall_failed(rig.now_ms)
    deadline = rig.host.next_deadline_ms()
    assert deadline is not None
    assert deadline <= rig.now_ms + STORAGE_PATIENCE_MS
    rig.pass_time(STORAGE_PATIENCE_MS)
    text = "the database has not answered for 5 s"
    assert rig.poll("g1") == [Failed(request, Failure("storage_unavailable", text, RETRY_AFTER_MS))]
    assert rig.host.stats()["recalls_waiting"] == 0


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (Send(3, "c:k", "x"), (3, "c:k")),
        (Edit(4, "c:k", TARGET, "x"), (4, "c:k")),
        (Delete(4, "c:k", TARGET), (4, "c:k")),
        (AddMembers(5, "c:k", [1]), (5, "c:k")),
        (RemoveMember(5, "c:k", 1), (5, "c:k")),
    ],
)
def test_every_command_with_a_key_can_be_a_repeat(command: LinkCommand, named: tuple[int, str]) -> None:
    held = Recalls()
    assert held.hold(ROOM, command, ORIGIN, NO_MEMBER, 0)
    assert held.oldest_ms() == 0
    assert held.next_recall(0) == [named]
    assert [recall.origin for recall in held.recalled()] == [ORIGIN]
    assert (len(held), held.oldest_ms(), held.retry_at_ms()) == (0, None, None)


def test_other_refusals_are_not_held_back() -> None:
    held = Recalls()
    assert not held.hold(ROOM, Describe(), ORIGIN, NO_MEMBER, 0)
    assert not held.hold(ROOM, Send(3, "c:k", "x"), ORIGIN, Failure("not_the_author", "no"), 0)
    assert len(held) == 0


def test_no_more_are_held_back_than_the_bound() -> None:
    held = Recalls()
    for number in range(MAX_RECALLS):
        assert held.hold(ROOM, Send(3, f"c:{number}", "x"), ORIGIN, NO_MEMBER, number)
    assert not held.hold(ROOM, Send(3, "c:more", "x"), ORIGIN, NO_MEMBER, 0)
    asked = held.next_recall(0)
    assert asked is not None
    assert len(asked) == recalls.MAX_ASKED
    assert held.retry_at_ms() is None
    assert len(held.recalled()) == recalls.MAX_ASKED
    assert held.retry_at_ms() == 0
    assert [recall.since_ms for recall in held.give_up(recalls.MAX_ASKED)] == [recalls.MAX_ASKED]


def test_members_on_their_way_have_a_place_already(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.room.MAX_ROOM_MEMBERS", 4)
    first = rig.ask("g1", ROOM, AddMembers(1, "c:a", [4]))
    second = rig.ask("g1", ROOM, AddMembers(1, "c:b", [5]))
    said = {d.request: d for d in rig.settle("g1") if isinstance(d, Answer | Failed)}
    assert isinstance(said[first], Answer)
    refused = said[second]
    assert isinstance(refused, Failed)
    assert refused.failure.message == "room:1 is full: it has 4 of 4 members, and 1 more were asked for"


def test_pages_of_the_log_wait_for_a_gateway_that_does_not_keep_up(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Downlink, "size_bytes", property(lambda _link: MAX_DOWNLINK_BYTES))
    rig.tell("g1", ROOM, Attach(0))
    rig.check()
    assert not rig.read()
    monkeypatch.undo()
    assert rig.read()
