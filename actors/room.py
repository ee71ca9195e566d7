"""The conversation: members, rules, and the one place where its order is decided.

A `Room` is the activation of ``room:42`` or of ``dm:3:7``; they differ in who belongs and in nothing else. It decides
in the order in which commands arrive, and asks for each accepted change to be appended to its log. Until the change is
committed nobody hears of it; then `Committed` brings its number, the room takes note of what it changed, shows it to
everybody and answers whoever asked.

What is still on its way to the log is already binding where it takes something away: once a removal was accepted the
removed can no longer speak, or their words would stand in the log after their leaving. What gives something (a new
member) counts from its commit.

The same change asked for again (a retry after a crash: the sender's same key) is found by the log and answered with
what it became the first time; whoever had to be told is told again, since telling twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard

import msgspec

from actors.commands import (
    AddMembers,
    Attend,
    Command,
    Committed,
    Delete,
    Describe,
    Edit,
    RemoveMember,
    Send,
    TimerFired,
    Typing,
)
from actors.effects import Effect, Fail, Failure, FanOut, Persist, Reply, SetTimer, Tell, Whisper
from actors.typists import Typists
from fastsock.core.errors import TABLE, RetryableError
from fastsock.core.limits import MAX_ROOM_MEMBERS, RETRY_AFTER_MS
from fastsock.schemas import frames, names
from fastsock.schemas.log import ConversationState, Duplicate, Entry, Kind, Refused, Role, Stored, Target

_json = msgspec.json.Encoder()

MODERATORS: frozenset[Role] = frozenset({"owner", "admin"})
"""Roles that may delete other people's messages, add members and remove plain members."""


TYPISTS = "typists"
"""The tag of the timer that is set while somebody is typing."""


class Room:
    """One conversation, active. ``state`` is what the database knew when it was loaded."""

    __slots__ = ("_joining", "_last_at_ms", "_leaving", "_members", "_name", "_pending", "_title", "_typists", "head")

    def __init__(self, state: ConversationState) -> None:
        self._name = state.conversation
        self._title = state.name
        self._members: dict[int, Role] = dict(state.members)
        self._leaving: set[int] = set()
        self._joining = 0
        """Members on their way to the log: they have a place already."""
        self._last_at_ms = state.last_at_ms
        self._pending = 0
        self._typists = Typists()
        self.head = state.head
        """The number of the last committed entry; the next append follows it."""

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way to the log, so that the activation may be forgotten."""
        return self._pending == 0

    def activated(self) -> list[Effect]:
        """What to do first: let the two people of a direct conversation know that it exists.

        The host that committed its first message may have died before it told them.
        """
        if self.head == 0 or not self._name.startswith("dm:"):
            return []
        return [Tell(names.user(user), Attend(self._name, 0)) for user in self._members]

    def handle(self, command: Command, now_ms: int) -> list[Effect]:
        """Decide. ``now_ms`` is milliseconds since 1970 UTC and never goes back."""
        decide = _DECISIONS.get(type(command))
        if decide is None:
            return [self._fail("unknown_event", f"{self._name} does not take {type(command).__name__}")]
        return decide(self, command, now_ms)

    # --- decisions -----------------------------------------------------------------------------------------------

    def _send(self, command: Send, now_ms: int) -> list[Effect]:
        if not self._present(command.sender_id):
            return [self._not_a_member(command.sender_id)]
        entry = self._entry("message", command.sender_id, command.key, now_ms)
        entry.content = command.content
        entry.message_type = command.message_type
        entry.reply_to = command.reply_to
        return self._persist(entry)

    def _edit(self, command: Edit, now_ms: int) -> list[Effect]:
        if not self._present(command.by):
            return [self._not_a_member(command.by)]
        if command.by != command.target.sender_id:
            return [self._not_the_author(command.by, command.target)]
        entry = self._change("edit", command.by, command.key, command.target, now_ms)
        entry.content = command.content
        return self._persist(entry)

    def _delete(self, command: Delete, now_ms: int) -> list[Effect]:
        if not self._present(command.by):
            return [self._not_a_member(command.by)]
        if command.by != command.target.sender_id and self._members[command.by] not in MODERATORS:
            return [self._not_the_author(command.by, command.target)]
        return self._persist(self._change("delete", command.by, command.key, command.target, now_ms))

    def _add(self, command: AddMembers, now_ms: int) -> list[Effect]:
        refusal = self._may_manage(command.by)
        if refusal is not None:
            return [refusal]
        new = [user for user in dict.fromkeys(command.user_ids) if user not in self._members]
        if not new:
            listed = ", ".join(map(str, command.user_ids))
            return [self._fail("already_a_member", f"already in {self._name}: {listed}")]
        taken = len(self._members) + self._joining
        if taken + len(new) > MAX_ROOM_MEMBERS:
            count = f"it has {taken:,} of {MAX_ROOM_MEMBERS:,} members, and {len(new):,} more were asked for"
            return [self._fail("room_full", f"{self._name} is full: {count}")]
        entry = self._entry("joined", command.by, command.key, now_ms)
        entry.detail = {"members": {str(user): "member" for user in new}}
        self._joining += len(new)
        return self._persist(entry)

    def _remove(self, command: RemoveMember, now_ms: int) -> list[Effect]:
        if self._name.startswith("dm:"):
            return [self._fail("not_allowed", f"nobody can leave {self._name}: it belongs to its two people")]
        if command.by != command.user_id:
            refusal = self._may_manage(command.by)
            if refusal is not None:
                return [refusal]
        if not self._present(command.user_id):
            return [self._not_a_member(command.user_id)]
        role = self._members[command.user_id]
        if command.by != command.user_id and role != "member" and self._members[command.by] != "owner":
            return [self._fail("not_allowed", f"only the owner of {self._name} removes its {role} {command.user_id}")]
        self._leaving.add(command.user_id)
        entry = self._entry("left", command.by, command.key, now_ms)
        entry.detail = {"user_ids": [command.user_id]}
        return self._persist(entry)

    def _typing(self, command: Typing, now_ms: int) -> list[Effect]:
        user = command.sender_id
        if not self._present(user):
            return [self._not_a_member(user)]
        nobody = not self._typists
        tell = self._typists.start(user, now_ms) if command.on else self._typists.stop(user)
        effects: list[Effect] = [self._whisper(user, command.event)] if tell else []
        if nobody and self._typists:
            effects.append(SetTimer(TYPISTS, self._typists.expires_at_ms()))
        return effects

    def _timer_fired(self, _command: TimerFired, now_ms: int) -> list[Effect]:
        silent = [self._whisper(user, "typing.stop") for user in self._typists.expire(now_ms)]
        return [*silent, SetTimer(TYPISTS, self._typists.expires_at_ms())]

    def _describe(self, _command: Describe, _now_ms: int) -> list[Effect]:
        roles: dict[str, int] = {}
        for role in self._members.values():
            roles[role] = roles.get(role, 0) + 1
        state = {
            "actor": self._name,
            "title": self._title,
            "head": self.head,
            "last_at": frames.iso(self._last_at_ms),
            "members": len(self._members),
            "roles": roles,
            "member_ids": sorted(self._members)[:50],
            "leaving": sorted(self._leaving),
            "on_the_way_to_the_log": self._pending,
        }
        return [Reply(_json.encode(state))]

    # --- what became of them -------------------------------------------------------------------------------------

    def _committed(self, command: Committed, _now_ms: int) -> list[Effect]:
        entry, outcome = command.entry, command.outcome
        self._pending -= 1
        self._joining -= len(frames.joins(entry)) if entry.kind == "joined" else 0
        if isinstance(outcome, Stored):
            entry.seq = outcome.seq
            self.head = outcome.seq
            self._apply(entry)
            return [FanOut(entry), *_announce(entry), *self._fall_silent(entry), Reply(_answer(entry))]
        if entry.kind == "left":
            self._leaving.difference_update(frames.leaves(entry))
        if isinstance(outcome, Duplicate):
            return repeated(entry.conversation, entry.kind, outcome.original)
        assert isinstance(outcome, Refused), f"the host keeps {outcome} to itself"
        return [self._fail(outcome.code, outcome.message)]

    def _apply(self, entry: Entry) -> None:
        """Take note of a committed membership change."""
        if entry.kind == "joined":
            self._members.update(dict.fromkeys(frames.joins(entry), "member"))
        elif entry.kind == "left":
            for user in frames.leaves(entry):
                self._leaving.discard(user)
                self._members.pop(user, None)

    def _fall_silent(self, entry: Entry) -> list[Effect]:
        """End the typing of whoever has sent the message now, or has left.

        Clients need not know that, and those of earlier versions don't: they wait for ``typing.stop``.
        """
        users = (entry.sender_id,) if entry.kind == "message" else frames.leaves(entry)
        return [self._whisper(user, "typing.stop") for user in users if self._typists.stop(user)]

    # --- parts ---------------------------------------------------------------------------------------------------

    def _present(self, user: int) -> TypeGuard[int]:
        return user in self._members and user not in self._leaving

    def _may_manage(self, user: int) -> Fail | None:
        if self._name.startswith("dm:"):
            return self._fail("not_allowed", f"nobody can be added to {self._name}: it belongs to its two people")
        if not self._present(user):
            return self._not_a_member(user)
        if self._members[user] not in MODERATORS:
            return self._fail("not_allowed", f"user {user} is a member of {self._name}, not its owner or an admin")
        return None

    def _entry(self, kind: Kind, sender_id: int, key: str, now_ms: int) -> Entry:
        self._last_at_ms = max(now_ms, self._last_at_ms)
        return Entry(conversation=self._name, kind=kind, sender_id=sender_id, key=key, at_ms=self._last_at_ms)

    def _change(self, kind: Kind, by: int, key: str, target: Target, now_ms: int) -> Entry:
        entry = self._entry(kind, by, key, now_ms)
        entry.target_id = target.id
        entry.detail = msgspec.structs.asdict(target)
        return entry

    def _whisper(self, user: int, event: str) -> Whisper:
        return Whisper(frames.typing_frame(self._name, user, event), user)

    def _persist(self, entry: Entry) -> list[Effect]:
        self._pending += 1
        return [Persist(entry)]

    @staticmethod
    def _fail(code: str, message: str) -> Fail:
        again = RETRY_AFTER_MS if issubclass(TABLE[code].kind, RetryableError) else None
        return Fail(Failure(code, message, again))

    def _not_a_member(self, user: int) -> Fail:
        return self._fail("not_a_member", f"user {user} is not a member of {self._name}")

    def _not_the_author(self, user: int, target: Target) -> Fail:
        whose = f"message {target.id} is by user {target.sender_id}"
        return self._fail("not_the_author", f"user {user} may not change it: {whose}")


_DECISIONS: dict[type[Any], Callable[[Room, Any, int], list[Effect]]] = {
    Send: Room._send,  # noqa: SLF001 - the class's own table, which needs the class
    Edit: Room._edit,  # noqa: SLF001
    Delete: Room._delete,  # noqa: SLF001
    AddMembers: Room._add,  # noqa: SLF001
    RemoveMember: Room._remove,  # noqa: SLF001
    Typing: Room._typing,  # noqa: SLF001
    TimerFired: Room._timer_fired,  # noqa: SLF001
    Describe: Room._describe,  # noqa: SLF001
    Committed: Room._committed,  # noqa: SLF001
}
"""Who decides about what. A look in a dictionary; `functools.singledispatchmethod` took longer than most decisions."""


def repeated(conversation: str, kind: Kind, original: Entry) -> list[Effect]:
    """The answer to a key that was used before: what it became, if it asked for the same.

    It is shown once more: where an activation died between a commit and its showing, or was told of neither, only
    the repetition brings the entry to those who were attached then. Everybody else drops it by its number.
    """
    if (original.kind, original.conversation) != (kind, conversation):
        what = f"it names an entry of kind {original.kind!r} in {original.conversation}"
        text = f"the id {original.key[2:]!r} is taken: {what}"
        return [Fail(Failure("key_reused", text))]
    return [FanOut(original), *_announce(original), Reply(_answer(original))]


def _announce(entry: Entry) -> list[Effect]:
    """Have the gateways of everybody whom this entry lets in attach the conversation from this entry on."""
    attend = Attend(entry.conversation, entry.seq - 1)
    return [Tell(names.user(user), attend) for user in frames.joins(entry)]


def _answer(entry: Entry) -> bytes:
    """What the one who asked is told: the ack of a message, the event's own data for everything else."""
    return _json.encode(frames.ack_of(entry) if entry.kind == "message" else frames.event_of(entry)[1])
