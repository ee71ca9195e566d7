"""Who is typing: the others are told what is new, not too often, and nobody types for ever."""

from __future__ import annotations

import json

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actors import typists as module
from actors.commands import Committed, RemoveMember, Send, TimerFired, Typing
from actors.effects import Effect, FanOut, Persist, Reply, SetTimer, Whisper
from actors.room import TYPISTS, Room
from actors.typists import Typists
from fastsock.core.limits import MAX_TYPISTS, TYPING_EXPIRES_MS, TYPING_REPEAT_MS
from fastsock.schemas.log import ConversationState, Duplicate, Entry, Refused, Stored
from tests.unit.test_room import MEMBER, NOW_MS, OTHER, OWNER, STRANGER, direct, entry_of, failure_of, tea

END_MS = NOW_MS + TYPING_EXPIRES_MS
REPEATED = Entry(conversation="room:42", kind="message", sender_id=MEMBER, key="c:1", at_ms=0, seq=2)

# --- the people ------------------------------------------------------------------------------------------------------


def test_the_same_said_again_is_told_again_after_a_while_only() -> None:
    typists = Typists()
    said = [(at_ms, typists.start(7, at_ms)) for at_ms in (0, 1, TYPING_REPEAT_MS - 1, TYPING_REPEAT_MS, 2_500, 4_001)]
    assert [at_ms for at_ms, told in said if told] == [0, TYPING_REPEAT_MS, 4_001]
    assert (typists.stop(7), typists.stop(7)) == (True, False)
    assert typists.start(7, 4_002), "it is new again"


def test_who_says_nothing_more_is_over() -> None:
    typists = Typists()
    assert (typists.expires_at_ms(), typists.expire(0), len(typists)) == (None, [], 0)
    for user, at_ms in ((7, 0), (8, 10), (9, 20), (7, 30)):
        typists.start(user, at_ms)
    assert typists.expires_at_ms() == 10 + TYPING_EXPIRES_MS
    assert typists.expire(9 + TYPING_EXPIRES_MS) == []
    assert typists.expire(20 + TYPING_EXPIRES_MS) == [8, 9]
    assert (len(typists), typists.expires_at_ms()) == (1, 30 + TYPING_EXPIRES_MS)
    assert not typists.stop(8)


def test_there_are_at_most_so_many() -> None:
    typists = Typists()
    told = [typists.start(user, 0) for user in range(MAX_TYPISTS + 1)]
    assert told == [True] * MAX_TYPISTS + [False]
    assert not typists.stop(MAX_TYPISTS), "nobody was told of it"
    assert typists.start(0, TYPING_REPEAT_MS), "who is known goes on"
    assert typists.stop(1)
    assert typists.start(MAX_TYPISTS, TYPING_REPEAT_MS)


class TypistsAndTheirAudience(RuleBasedStateMachine):
    """What the others believe, from what they were told, is what is so. Of five people three may type at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(module, "MAX_TYPISTS", 3)
        self.typists = Typists()
        self.now_ms = 0
        self.believed: set[int] = set()
        self.said_ms: dict[int, int] = {}
        self.told_ms: dict[int, int] = {}

    def teardown(self) -> None:
        self.patch.undo()

    @rule(user=st.integers(1, 5), pause_ms=st.integers(0, 3_000))
    def start(self, user: int, pause_ms: int) -> None:
        self.now_ms += pause_ms
        if self.typists.start(user, self.now_ms):
            assert user not in self.believed or self.now_ms - self.told_ms[user] >= TYPING_REPEAT_MS
            self.believed.add(user)
            self.told_ms[user] = self.now_ms
        else:
            assert user in self.believed or len(self.believed) == 3
        self.said_ms[user] = self.now_ms

    @rule(user=st.integers(1, 5))
    def stop(self, user: int) -> None:
        assert self.typists.stop(user) == (user in self.believed)
        self.believed.discard(user)

    @rule(pause_ms=st.integers(0, 7_000))
    def expire(self, pause_ms: int) -> None:
        self.now_ms += pause_ms
        over = set(self.typists.expire(self.now_ms))
        assert over == {user for user in self.believed if self.now_ms - self.said_ms[user] >= TYPING_EXPIRES_MS}
        self.believed -= over

    @invariant()
    def agree(self) -> None:
        assert len(self.typists) == len(self.believed) <= 3
        ends = [self.said_ms[user] + TYPING_EXPIRES_MS for user in self.believed]
        assert self.typists.expires_at_ms() == min(ends, default=None)


TestTypists = TypistsAndTheirAudience.TestCase
TestTypists.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)

# --- the conversation ------------------------------------------------------------------------------------------------


def typing(user: int, *, on: bool = True) -> Typing:
    return Typing(user, on, "c1")


def whispered(effects: list[Effect]) -> list[tuple[str, int]]:
    """``(event, sender)`` of each."""
    found = []
    for effect in effects:
        if isinstance(effect, Whisper):
            frame = json.loads(effect.payload)
            assert frame["data"]["sender_id"] == effect.sender_id
            found.append((frame["event"], effect.sender_id))
    return found


def post(room: Room, user: int, now_ms: int = NOW_MS) -> Entry:
    return entry_of(room.handle(Send(user, "c:1", "hi"), now_ms))


def test_the_others_are_told_who_is_typing_and_who_no_longer_is() -> None:
    room = tea()
    payload = b'{"event":"typing.start","data":{"sender_id":3,"room_id":42}}'
    assert room.handle(typing(MEMBER), NOW_MS) == [Whisper(payload, MEMBER), SetTimer(TYPISTS, END_MS)]
    assert room.handle(typing(MEMBER), NOW_MS + 1) == []
    payload = b'{"event":"typing.stop","data":{"sender_id":3,"room_id":42}}'
    assert room.handle(typing(MEMBER, on=False), NOW_MS + 2) == [Whisper(payload, MEMBER)]
    assert room.handle(typing(MEMBER, on=False), NOW_MS + 3) == []


def test_between_two_people_the_other_is_named() -> None:
    room = direct()
    payload = b'{"event":"typing.start","data":{"sender_id":7,"receiver_id":3}}'
    assert room.handle(typing(7), NOW_MS) == [Whisper(payload, 7), SetTimer(TYPISTS, END_MS)]


@pytest.mark.parametrize("on", [True, False])
def test_who_is_no_member_is_refused(on: bool) -> None:
    text = f"user {STRANGER} is not a member of room:42"
    assert failure_of(tea().handle(typing(STRANGER, on=on), NOW_MS)) == ("not_a_member", text, None)


def test_who_is_leaving_is_refused() -> None:
    room = tea()
    room.handle(RemoveMember(OWNER, "s:1", MEMBER), NOW_MS)
    assert failure_of(room.handle(typing(MEMBER), NOW_MS))[0] == "not_a_member"


def test_typing_ends_by_itself_by_one_timer_for_all() -> None:
    room = tea()
    room.handle(typing(MEMBER), NOW_MS)
    assert whispered(room.handle(typing(OTHER), NOW_MS + 100)) == [("typing.start", OTHER)]
    room.handle(typing(MEMBER), NOW_MS + 200)
    assert room.handle(TimerFired(TYPISTS), END_MS) == [SetTimer(TYPISTS, END_MS + 100)]
    over = room.handle(TimerFired(TYPISTS), END_MS + 100)
    assert whispered(over) == [("typing.stop", OTHER)]
    assert over[-1] == SetTimer(TYPISTS, END_MS + 200)
    over = room.handle(TimerFired(TYPISTS), END_MS + 200)
    assert whispered(over) == [("typing.stop", MEMBER)]
    assert over[-1] == SetTimer(TYPISTS, None)
    assert room.handle(TimerFired(TYPISTS), END_MS + 300) == [SetTimer(TYPISTS, None)], "set by an activation before"


def test_a_message_ends_its_senders_typing_once_it_is_shown() -> None:
    room = tea()
    room.handle(typing(MEMBER), NOW_MS)
    room.handle(typing(OTHER), NOW_MS)
    entry = post(room, MEMBER)
    effects = room.handle(Committed(entry, Stored(5)), NOW_MS)
    assert [type(effect) for effect in effects] == [FanOut, Whisper, Reply]
    assert whispered(effects) == [("typing.stop", MEMBER)]
    assert room.handle(typing(MEMBER, on=False), NOW_MS) == [], "clients that say it themselves say it in vain"
    entry = post(room, OWNER)
    assert whispered(room.handle(Committed(entry, Stored(6)), NOW_MS)) == [], "who was not typing"


@pytest.mark.parametrize("outcome", [Refused("storage_unavailable", "no"), Duplicate(REPEATED)])
def test_a_message_that_is_not_shown_as_new_ends_nothing(outcome: Refused | Duplicate) -> None:
    room = tea()
    room.handle(typing(MEMBER), NOW_MS)
    entry = post(room, MEMBER)
    assert whispered(room.handle(Committed(entry, outcome), NOW_MS)) == []
    assert whispered(room.handle(typing(MEMBER, on=False), NOW_MS)) == [("typing.stop", MEMBER)]


def test_leaving_ends_typing_and_changes_of_others_do_not() -> None:
    room = tea()
    room.handle(typing(MEMBER), NOW_MS)
    room.handle(typing(OTHER), NOW_MS)
    (persist,) = room.handle(RemoveMember(OWNER, "s:1", MEMBER), NOW_MS)
    assert isinstance(persist, Persist)
    assert whispered(room.handle(Committed(persist.entry, Stored(5)), NOW_MS)) == [("typing.stop", MEMBER)]
    over = room.handle(TimerFired(TYPISTS), END_MS)
    assert whispered(over) == [("typing.stop", OTHER)]


def test_typing_keeps_no_activation() -> None:
    room = Room(ConversationState(conversation="dm:3:7", head=0, last_at_ms=0, members={3: "member", 7: "member"}))
    room.handle(typing(3), NOW_MS)
    assert room.idle
