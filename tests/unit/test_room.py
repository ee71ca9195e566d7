"""The conversation: every command in every state gives legal entries or a typed refusal, and its members never differ
from those that its log says.
"""

from __future__ import annotations

import json
from collections import deque

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors import room as module
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
)
from actors.effects import Effect, Fail, Failure, FanOut, Persist, Reply, Tell
from actors.room import Room
from fastsock.core.limits import MAX_ROOM_MEMBERS
from fastsock.schemas import frames
from fastsock.schemas.log import ConversationState, Duplicate, Entry, Fenced, Outcome, Refused, Role, Stored, Target

NOW_MS = 1_769_853_600_123
OWNER, ADMIN, MEMBER, OTHER, STRANGER = 1, 2, 3, 4, 9
MEMBERS: dict[int, Role] = {OWNER: "owner", ADMIN: "admin", MEMBER: "member", OTHER: "member"}


def tea(head: int = 4, last_at_ms: int = 0) -> Room:
    state = ConversationState(
        conversation="room:42", head=head, last_at_ms=last_at_ms, members=dict(MEMBERS), name="Tea"
    )
    return Room(state)


def direct(head: int = 0) -> Room:
    return Room(ConversationState(conversation="dm:3:7", head=head, last_at_ms=0, members={3: "member", 7: "member"}))


def target(sender_id: int = MEMBER) -> Target:
    return Target(id=500, seq=2, sender_id=sender_id, at_ms=7, message_type="text", reply_to=None, client_msg_id="a")


def entry_of(effects: list[Effect]) -> Entry:
    (effect,) = effects
    assert isinstance(effect, Persist)
    return effect.entry


def failure_of(effects: list[Effect]) -> tuple[str, str, int | None]:
    (effect,) = effects
    assert isinstance(effect, Fail)
    return effect.failure.code, effect.failure.message, effect.failure.retry_after_ms


def described(room: Room) -> dict[str, object]:
    (effect,) = room.handle(Describe(), NOW_MS)
    assert isinstance(effect, Reply)
    state = json.loads(effect.payload)
    assert isinstance(state, dict)
    return state


def commit(room: Room, command: Command, outcome: Outcome | None = None) -> list[Effect]:
    """Have the command's entry committed as the next, or to this outcome."""
    entry = entry_of(room.handle(command, NOW_MS))
    return room.handle(Committed(entry, Stored(room.head + 1) if outcome is None else outcome), NOW_MS)


# --- what is accepted ------------------------------------------------------------------------------------------------


def test_a_message_becomes_an_entry_that_is_shown_and_acknowledged_when_it_is_committed() -> None:
    room = tea()
    entry = entry_of(room.handle(Send(MEMBER, "c:k", "hello", "image", 500), NOW_MS))
    assert entry == Entry(
        conversation="room:42",
        kind="message",
        sender_id=MEMBER,
        key="c:k",
        at_ms=NOW_MS,
        content="hello",
        message_type="image",
        reply_to=500,
    )
    assert not room.idle
    entry.id = 1001
    shown, reply = room.handle(Committed(entry, Stored(5)), NOW_MS + 9)
    assert shown == FanOut(entry)
    assert (entry.seq, room.head, room.idle) == (5, 5, True)
    assert isinstance(reply, Reply)
    assert json.loads(reply.payload) == {
        "message_id": 1001,
        "status": "sent",
        "timestamp": "2026-01-31T10:00:00.123Z",
        "seq": 5,
        "client_msg_id": "k",
        "room_id": 42,
        "receiver_id": None,
    }


def test_the_author_edits_and_the_author_or_a_moderator_deletes() -> None:
    room = tea()
    edit = entry_of(room.handle(Edit(MEMBER, "s:1", target(), "hullo"), NOW_MS))
    delete = entry_of(room.handle(Delete(ADMIN, "s:2", target()), NOW_MS))
    detail = {
        "id": 500,
        "seq": 2,
        "sender_id": MEMBER,
        "at_ms": 7,
        "message_type": "text",
        "reply_to": None,
        "client_msg_id": "a",
    }
    common = {"conversation": "room:42", "at_ms": NOW_MS, "target_id": 500, "detail": detail}
    assert msgspec.to_builtins(edit) == {
        **common, "kind": "edit", "sender_id": MEMBER, "key": "s:1", "content": "hullo"
    }  # fmt: skip
    assert msgspec.to_builtins(delete) == {**common, "kind": "delete", "sender_id": ADMIN, "key": "s:2"}
    shown, reply = room.handle(Committed(edit, Stored(5)), NOW_MS)
    assert shown == FanOut(edit)
    assert isinstance(reply, Reply)
    assert json.loads(reply.payload) == json.loads(frames.frame_of(edit))["data"]
    assert room.handle(Committed(delete, Stored(6)), NOW_MS)[0] == FanOut(delete)
    for by in (OWNER, MEMBER):
        assert entry_of(tea().handle(Delete(by, "s:3", target()), NOW_MS)).sender_id == by


def test_added_members_are_members_when_it_is_committed_and_their_gateways_are_told() -> None:
    room = tea()
    entry = entry_of(room.handle(AddMembers(ADMIN, "s:1", [9, MEMBER, 8, 9]), NOW_MS))
    assert entry.detail == {"members": {"9": "member", "8": "member"}}
    assert failure_of(room.handle(Send(9, "c:1", "hi"), NOW_MS))[0] == "not_a_member"
    shown, tell_9, tell_8, reply = room.handle(Committed(entry, Stored(5)), NOW_MS)
    assert shown == FanOut(entry)
    assert tell_9 == Tell("user:9", Attend("room:42", 4))
    assert tell_8 == Tell("user:8", Attend("room:42", 4))
    assert isinstance(reply, Reply)
    assert json.loads(reply.payload)["user_ids"] == [9, 8]
    assert entry_of(room.handle(Send(9, "c:2", "hi"), NOW_MS)).sender_id == 9


@pytest.mark.parametrize(
    ("by", "user"), [(MEMBER, MEMBER), (OWNER, OWNER), (OWNER, ADMIN), (ADMIN, MEMBER), (OWNER, MEMBER)]
)
def test_a_member_leaves_or_is_removed(by: int, user: int) -> None:
    room = tea()
    entry = entry_of(room.handle(RemoveMember(by, "s:1", user), NOW_MS))
    assert (entry.kind, entry.sender_id, entry.detail) == ("left", by, {"user_ids": [user]})
    assert described(room)["leaving"] == [user]
    effects = room.handle(Committed(entry, Stored(5)), NOW_MS)
    assert effects[0] == FanOut(entry)
    assert described(room)["member_ids"] == sorted(set(MEMBERS) - {user})
    assert described(room)["leaving"] == []


def test_who_leaves_is_silent_from_then_on_and_speaks_again_if_it_comes_to_nothing() -> None:
    room = tea()
    before = entry_of(room.handle(Send(MEMBER, "c:1", "bye"), NOW_MS))
    leave = entry_of(room.handle(RemoveMember(MEMBER, "s:1", MEMBER), NOW_MS))
    text = "user 3 is not a member of room:42"
    for command in (
        Send(MEMBER, "c:2", "one more thing"),
        Edit(MEMBER, "s:2", target(), "no"),
        Delete(MEMBER, "s:3", target()),
        RemoveMember(MEMBER, "s:4", MEMBER),
        RemoveMember(OWNER, "s:5", MEMBER),
    ):
        assert failure_of(room.handle(command, NOW_MS)) == ("not_a_member", text, None)
    assert room.handle(Committed(before, Stored(5)), NOW_MS)[0] == FanOut(before)
    refused = Refused("storage_unavailable", "the database is away")
    assert failure_of(room.handle(Committed(leave, refused), NOW_MS)) == (
        "storage_unavailable",
        "the database is away",
        500,
    )
    assert entry_of(room.handle(Send(MEMBER, "c:6", "still here"), NOW_MS)).sender_id == MEMBER


def test_a_leaving_admin_manages_nobody() -> None:
    room = tea()
    room.handle(RemoveMember(ADMIN, "s:1", ADMIN), NOW_MS)
    assert failure_of(room.handle(AddMembers(ADMIN, "s:2", [9]), NOW_MS))[0] == "not_a_member"


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        (Send(STRANGER, "c:1", "x"), "not_a_member", "user 9 is not a member of room:42"),
        (Edit(STRANGER, "s:1", target(), "x"), "not_a_member", "user 9 is not a member of room:42"),
        (Delete(STRANGER, "s:1", target()), "not_a_member", "user 9 is not a member of room:42"),
        (AddMembers(STRANGER, "s:1", [9]), "not_a_member", "user 9 is not a member of room:42"),
        (RemoveMember(STRANGER, "s:1", 9), "not_a_member", "user 9 is not a member of room:42"),
        (RemoveMember(STRANGER, "s:1", 3), "not_a_member", "user 9 is not a member of room:42"),
        (RemoveMember(OWNER, "s:1", 9), "not_a_member", "user 9 is not a member of room:42"),
        (
            Edit(OWNER, "s:1", target(), "x"),
            "not_the_author",
            "user 1 may not change it: message 500 is by user 3",
        ),
        (Delete(OTHER, "s:1", target()), "not_the_author", "user 4 may not change it: message 500 is by user 3"),
        (
            AddMembers(MEMBER, "s:1", [9]),
            "not_allowed",
            "user 3 is a member of room:42, not its owner or an admin",
        ),
        (
            RemoveMember(MEMBER, "s:1", OTHER),
            "not_allowed",
            "user 3 is a member of room:42, not its owner or an admin",
        ),
        (RemoveMember(ADMIN, "s:1", OWNER), "not_allowed", "only the owner of room:42 removes its owner 1"),
        (AddMembers(OWNER, "s:1", [3, 4]), "already_a_member", "already in room:42: 3, 4"),
        (AddMembers(OWNER, "s:1", []), "already_a_member", "already in room:42: "),
    ],
)
def test_a_room_refuses(command: Command, code: str, text: str) -> None:
    room = tea()
    before = described(room)
    assert failure_of(room.handle(command, NOW_MS)) == (code, text, None)
    assert (described(room), room.idle) == (before, True)


def test_an_admin_does_not_remove_an_admin() -> None:
    state = ConversationState(conversation="room:1", head=1, last_at_ms=0, members={1: "admin", 2: "admin"})
    failure = failure_of(Room(state).handle(RemoveMember(1, "s:1", 2), NOW_MS))
    assert failure == ("not_allowed", "only the owner of room:1 removes its admin 2", None)


def test_a_room_has_a_limit() -> None:
    members: dict[int, Role] = dict.fromkeys(range(1, MAX_ROOM_MEMBERS), "owner")
    room = Room(ConversationState(conversation="room:1", head=1, last_at_ms=0, members=members))
    text = "room:1 is full: it has 4,999 of 5,000 members, and 2 more were asked for"
    assert failure_of(room.handle(AddMembers(1, "s:1", [7_000, 7_001]), NOW_MS)) == ("room_full", text, None)
    assert entry_of(room.handle(AddMembers(1, "s:2", [7_000, 5, 7_000]), NOW_MS)).kind == "joined"


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        (Send(5, "c:1", "x"), "not_a_member", "user 5 is not a member of dm:3:7"),
        (Edit(3, "s:1", target(7), "x"), "not_the_author", "user 3 may not change it: message 500 is by user 7"),
        (Delete(3, "s:1", target(7)), "not_the_author", "user 3 may not change it: message 500 is by user 7"),
        (
            AddMembers(3, "s:1", [5]),
            "not_allowed",
            "nobody can be added to dm:3:7: it belongs to its two people",
        ),
        (RemoveMember(3, "s:1", 3), "not_allowed", "nobody can leave dm:3:7: it belongs to its two people"),
        (RemoveMember(3, "s:1", 7), "not_allowed", "nobody can leave dm:3:7: it belongs to its two people"),
        (RemoveMember(5, "s:1", 7), "not_allowed", "nobody can leave dm:3:7: it belongs to its two people"),
    ],
)
def test_a_direct_conversation_refuses(command: Command, code: str, text: str) -> None:
    room = direct()
    assert failure_of(room.handle(command, NOW_MS)) == (code, text, None)
    assert room.idle


@pytest.mark.parametrize(
    "command",
    [
        Connect("c1"),
        Disconnect("c1"),
        Attend("room:1", 0),
        Attach(0),
        Detach(),
        CatchUp(0),
        GatewayGone("g"),
    ],
)
@pytest.mark.parametrize("name", ["room:42", "dm:3:7"])
def test_what_is_for_others_is_refused(command: Command, name: str) -> None:
    room = tea() if name == "room:42" else direct()
    text = f"{name} does not take {type(command).__name__}"
    assert failure_of(room.handle(command, NOW_MS)) == ("unknown_event", text, None)


# --- direct conversations --------------------------------------------------------------------------------------------


def test_the_first_message_of_a_direct_conversation_lets_both_in() -> None:
    room = direct()
    shown, tell_3, tell_7, reply = commit(room, Send(7, "c:1", "hi"))
    assert isinstance(shown, FanOut)
    assert tell_3 == Tell("user:3", Attend("dm:3:7", 0))
    assert tell_7 == Tell("user:7", Attend("dm:3:7", 0))
    assert isinstance(reply, Reply)
    assert json.loads(reply.payload)["receiver_id"] == 3
    second = commit(room, Send(3, "c:1", "hi you"))
    assert [type(effect) for effect in second] == [FanOut, Reply]


def test_an_activation_tells_the_two_people_of_a_direct_conversation_that_has_begun() -> None:
    assert direct(head=0).activated() == []
    assert direct(head=2).activated() == [Tell("user:3", Attend("dm:3:7", 0)), Tell("user:7", Attend("dm:3:7", 0))]
    assert tea().activated() == []


# --- what became of it -----------------------------------------------------------------------------------------------


def test_a_repeated_message_is_answered_with_the_original_and_shown_once_more() -> None:
    room = tea()
    original = Entry(
        conversation="room:42", kind="message", sender_id=3, key="c:k", at_ms=5, id=77, seq=2, content="first"
    )
    shown, reply = commit(room, Send(MEMBER, "c:k", "second try"), Duplicate(original))
    assert shown == FanOut(original)
    assert isinstance(reply, Reply)
    assert (json.loads(reply.payload)["message_id"], json.loads(reply.payload)["seq"]) == (77, 2)
    assert (room.head, room.idle) == (4, True)


def test_a_repeated_addition_tells_everybody_again() -> None:
    room = tea()
    original = Entry(
        conversation="room:42",
        kind="joined",
        sender_id=OWNER,
        key="s:k",
        at_ms=5,
        id=77,
        seq=2,
        detail={"members": {"9": "member"}},
    )
    shown, tell, reply = commit(room, AddMembers(OWNER, "s:k", [9]), Duplicate(original))
    assert shown == FanOut(original)
    assert tell == Tell("user:9", Attend("room:42", 1))
    assert isinstance(reply, Reply)
    assert json.loads(reply.payload)["user_ids"] == [9]


def test_a_repeated_removal_is_answered_and_binds_nobody() -> None:
    room = tea()
    original = Entry(
        conversation="room:42",
        kind="left",
        sender_id=OWNER,
        key="s:k",
        at_ms=5,
        id=77,
        seq=2,
        detail={"user_ids": [MEMBER]},
    )
    shown, reply = commit(room, RemoveMember(OWNER, "s:k", MEMBER), Duplicate(original))
    assert shown == FanOut(original)
    assert isinstance(reply, Reply)
    assert described(room)["leaving"] == [], "the member came back after that removal"


@pytest.mark.parametrize(("kind", "conversation"), [("message", "room:43"), ("edit", "room:42")])
def test_a_key_names_one_thing_for_ever(kind: str, conversation: str) -> None:
    room = tea()
    original = msgspec.convert(
        {"conversation": conversation, "kind": kind, "sender_id": 3, "key": "c:k", "at_ms": 5, "id": 77, "seq": 2},
        Entry,
    )
    failure = failure_of(commit(room, Send(MEMBER, "c:k", "x"), Duplicate(original)))
    text = f"the id 'k' is taken: it names an entry of kind {kind!r} in {conversation}"
    assert failure == ("key_reused", text, None)
    assert room.idle


def test_what_the_database_refuses_fails_alone() -> None:
    room = tea()
    refused = Refused("message_deleted", "message 500 has been deleted")
    failure = failure_of(commit(room, Edit(MEMBER, "s:1", target(), "x"), refused))
    assert failure == ("message_deleted", "message 500 has been deleted", None)
    assert (room.head, room.idle) == (4, True)
    retry = failure_of(commit(room, Send(MEMBER, "c:1", "x"), Refused("storage_unavailable", "away")))
    assert retry == ("storage_unavailable", "away", 500)


def test_a_fence_is_the_hosts_business() -> None:
    room = tea()
    with pytest.raises(AssertionError, match=r"^the host keeps Fenced\(head=9\) to itself"):
        commit(room, Send(MEMBER, "c:1", "x"), Fenced(9))


def test_time_never_goes_back_in_a_log() -> None:
    room = tea(last_at_ms=1_000)
    times = [entry_of(room.handle(Send(MEMBER, f"c:{at}", "x"), at)).at_ms for at in (900, 1_100, 1_050)]
    assert times == [1_000, 1_100, 1_100]


def test_a_room_describes_itself() -> None:
    room = tea(last_at_ms=NOW_MS)
    room.handle(Send(MEMBER, "c:1", "x"), NOW_MS)
    assert described(room) == {
        "actor": "room:42",
        "title": "Tea",
        "head": 4,
        "last_at": "2026-01-31T10:00:00.123Z",
        "members": 4,
        "roles": {"owner": 1, "admin": 1, "member": 2},
        "member_ids": [1, 2, 3, 4],
        "leaving": [],
        "on_the_way_to_the_log": 1,
    }


# --- model -----------------------------------------------------------------------------------------------------------

USERS = st.integers(1, 7)


class RoomAgainstADict(RuleBasedStateMachine):
    """The model: a dict of members, the set of those who are leaving, and the list of what is on its way."""

    @initialize(members=st.dictionaries(USERS, st.sampled_from(["owner", "admin", "member"]), max_size=5))
    def start(self, members: dict[int, Role]) -> None:
        self.room = Room(ConversationState(conversation="room:1", head=3, last_at_ms=0, members=dict(members)))
        self.members = members
        self.pending: deque[Entry] = deque()
        self.head = 3
        self.log: list[Entry] = []
        self.number = 0
        self.now_ms = 0

    @property
    def leaving(self) -> set[int]:
        return {user for entry in self.pending for user in frames.leaves(entry)}

    def speaks(self, user: int) -> bool:
        return user in self.members and user not in self.leaving

    def manages(self, user: int) -> bool:
        return self.speaks(user) and self.members[user] != "member"

    def decide(self, command: Command, legal: bool) -> None:
        self.now_ms += 1
        (effect,) = self.room.handle(command, self.now_ms)
        if legal:
            assert isinstance(effect, Persist), effect
            self.pending.append(effect.entry)
        else:
            assert isinstance(effect, Fail), effect

    def key(self) -> str:
        self.number += 1
        return f"c:{self.number}"

    @rule(user=USERS)
    def send(self, user: int) -> None:
        self.decide(Send(user, self.key(), "x"), self.speaks(user))

    @rule(user=USERS, author=USERS)
    def edit(self, user: int, author: int) -> None:
        self.decide(Edit(user, self.key(), target(author), "x"), self.speaks(user) and user == author)

    @rule(user=USERS, author=USERS)
    def delete(self, user: int, author: int) -> None:
        legal = self.speaks(user) and (user == author or self.manages(user))
        self.decide(Delete(user, self.key(), target(author)), legal)

    @rule(user=USERS, others=st.lists(USERS, max_size=3))
    def add(self, user: int, others: list[int]) -> None:
        self.decide(AddMembers(user, self.key(), others), self.manages(user) and not set(others) <= set(self.members))

    @rule(user=USERS, other=USERS)
    def remove(self, user: int, other: int) -> None:
        may = user == other or (
            self.manages(user) and (self.members.get(other, "member") == "member" or self.members[user] == "owner")
        )
        self.decide(RemoveMember(user, self.key(), other), may and self.speaks(other))

    @precondition(lambda self: self.pending)
    @rule()
    def store(self) -> None:
        entry = self.pending.popleft()
        self.head += 1
        effects = self.room.handle(Committed(entry, Stored(self.head)), self.now_ms)
        self.log.append(entry)
        joins = frames.joins(entry)
        self.members.update(dict.fromkeys(joins, "member"))
        for user in frames.leaves(entry):
            self.members.pop(user, None)
        assert effects[0] == FanOut(entry)
        tells = [Tell(f"user:{user}", Attend("room:1", self.head - 1)) for user in joins]
        assert effects[1:-1] == tells
        assert isinstance(effects[-1], Reply)
        assert entry.seq == self.head

    @precondition(lambda self: self.pending)
    @rule()
    def refuse(self) -> None:
        entry = self.pending.popleft()
        effects = self.room.handle(Committed(entry, Refused("refused_by_storage", "no")), self.now_ms)
        assert effects == [Fail(Failure("refused_by_storage", "no"))]

    @precondition(lambda self: self.pending and self.log)
    @rule(place=st.integers(0, 20))
    def repeat(self, place: int) -> None:
        entry, original = self.pending.popleft(), self.log[place % len(self.log)]
        effects = self.room.handle(Committed(entry, Duplicate(original)), self.now_ms)
        if entry.kind == original.kind:
            assert isinstance(effects[-1], Reply)
        else:
            assert failure_of(effects)[0] == "key_reused"

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "room"):
            return
        assert self.room._members == self.members
        assert self.room._leaving == self.leaving
        assert (self.room.head, self.room.idle) == (self.head, not self.pending)
        times = [entry.at_ms for entry in (*self.log, *self.pending)]
        assert times == sorted(times)


TestRoom = RoomAgainstADict.TestCase
TestRoom.settings = settings(max_examples=35, stateful_step_count=40, deadline=None)


def test_the_limit_counts_nobody_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROOM_MEMBERS", 5)
    assert entry_of(tea().handle(AddMembers(OWNER, "s:1", [9, 9, MEMBER]), NOW_MS)).kind == "joined"
    assert failure_of(tea().handle(AddMembers(OWNER, "s:1", [8, 9]), NOW_MS))[0] == "room_full"
