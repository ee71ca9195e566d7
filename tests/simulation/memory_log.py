"""The log's contract in memory: the naive model of `fastsock.db.message_log`, and the simulator's database.

One append at a time, so there is nothing to race; whatever the real one does must look like this.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import msgspec

from fastsock.schemas import frames, names
from fastsock.schemas.log import (
    Append,
    ConversationState,
    Duplicate,
    Entry,
    Fenced,
    Outcome,
    Refused,
    Role,
    Standing,
    Stored,
    Subscription,
)


class MemoryLog:
    """Logs of any number of conversations, their members, and the ids leased so far."""

    def __init__(self, users: Sequence[int] = ()) -> None:
        self.users = set(users)
        self.logs: dict[str, list[Entry]] = {}
        self.members: dict[str, dict[int, tuple[Role, int]]] = {}
        self._memberships: dict[str, dict[int, list[int]]] = {}
        """The entries that let a user in, and, negative, those that ended it."""
        self._by_id: dict[int, Entry] = {}
        self._by_key: dict[tuple[int, str], Entry] = {}
        self._next_id = 1

    # --- writing ---------------------------------------------------------------------------------------------------

    def append(self, groups: Sequence[Append]) -> list[list[Outcome]]:
        """One transaction: what becomes of each entry, in the shape of the groups."""
        return [self._append(group) for group in groups]

    def _append(self, group: Append) -> list[Outcome]:
        log = self.logs.setdefault(group.conversation, [])
        fenced = len(log) != group.expected_head
        outcomes: list[Outcome] = []
        for entry in group.entries:
            known = self._by_id.get(entry.id)
            original = self._by_key.get((entry.sender_id, entry.key))
            if known is not None:
                outcomes.append(Stored(known.seq))
            elif original is not None:
                outcomes.append(Duplicate(copy(original)))
            elif fenced:
                outcomes.append(Fenced(len(log)))
            else:
                outcomes.append(self._store(entry, log))
        return outcomes

    def _store(self, entry: Entry, log: list[Entry]) -> Outcome:
        if "\x00" in entry.content:
            return Refused("refused_by_storage", "the text holds a NUL character")
        refused = self._change_target(entry)
        if refused is not None:
            return refused
        stored = msgspec.structs.replace(entry, seq=len(log) + 1)
        log.append(stored)
        self._by_id[stored.id] = stored
        self._by_key[stored.sender_id, stored.key] = stored
        self._change_members(stored)
        return Stored(stored.seq)

    def _change_target(self, entry: Entry) -> Refused | None:
        if entry.target_id is None:
            return None
        target = self._by_id.get(entry.target_id)
        if target is None or target.conversation != entry.conversation or target.kind != "message":
            return Refused("message_not_found", f"message {entry.target_id} is not in {entry.conversation}")
        if target.deleted:
            return Refused("message_deleted", f"message {entry.target_id} has been deleted")
        target.content = entry.content
        if entry.kind == "edit":
            target.edited_at_ms = entry.at_ms
        else:
            target.deleted = True
        return None

    def _change_members(self, entry: Entry) -> None:
        members = self.members.setdefault(entry.conversation, {})
        memberships = self._memberships.setdefault(entry.conversation, {})
        for user in frames.joins(entry):
            memberships.setdefault(user, []).append(entry.seq)
            role: Role = "owner" if entry.kind == "created" and user == entry.sender_id else "member"
            members.setdefault(user, (role, entry.seq))
        for user in frames.leaves(entry):
            memberships.setdefault(user, []).append(-entry.seq)
            members.pop(user, None)

    def lease_ids(self, count: int) -> range:
        block = range(self._next_id, self._next_id + count)
        self._next_id += count
        return block

    def create_room(self, room_id: int, owner: int, members: Sequence[int]) -> Entry:
        """A room with its first entry, as `Conversations.create_room` makes it."""
        roles = {str(user): "member" for user in members} | {str(owner): "owner"}
        conversation = names.room(room_id)
        (entry_id,) = self.lease_ids(1)
        entry = Entry(
            conversation=conversation,
            kind="created",
            sender_id=owner,
            key=f"s:create-{room_id}",
            at_ms=0,
            id=entry_id,
            content=f"room {room_id}",
            detail={"members": roles},
        )
        self.append([Append(conversation, 0, [entry])])
        return self.logs[conversation][0]

    # --- reading ---------------------------------------------------------------------------------------------------

    def after(self, conversation: str, since: int, limit: int) -> list[Entry]:
        """The entries that follow ``since``, at most ``limit``, in order; messages in their present state."""
        return [copy(entry) for entry in self.logs.get(conversation, [])[since : since + limit]]

    def by_keys(self, keys: Sequence[tuple[int, str]]) -> dict[tuple[int, str], Entry]:
        """What became of these attempts, ``(sender id, key)``; without those that the log does not know."""
        return {key: copy(self._by_key[key]) for key in keys if key in self._by_key}

    def was_member(self, conversation: str, user: int, seq: int) -> bool:
        """Whether the user was to see entry ``seq``: a member by then, or leaving by it."""
        member = False
        for change in self._memberships.get(conversation, {}).get(user, ()):
            if abs(change) > seq:
                break
            member = change > 0 or change == -seq
        return member

    def is_member(self, conversation: str, user: int, seq: int) -> bool:
        """Whether the user is a member after entry ``seq``."""
        changes = [change for change in self._memberships.get(conversation, {}).get(user, ()) if abs(change) <= seq]
        return bool(changes) and changes[-1] > 0

    def comes_after(self, conversation: str, user: int, seq: int) -> bool:
        """Whether an entry after ``seq`` lets the user in."""
        return any(change > seq for change in self._memberships.get(conversation, {}).get(user, ()))

    def heads(self, conversations: Sequence[str]) -> dict[str, int]:
        return {conversation: len(self.logs.get(conversation, [])) for conversation in conversations}

    def load(self, wanted: Sequence[str]) -> dict[str, ConversationState | None]:
        return {name: self._state(name) for name in wanted}

    def _state(self, name: str) -> ConversationState | None:
        log = self.logs.get(name, [])
        parts = names.parse(name)
        if parts.kind == "dm":
            if not self.users.issuperset(parts.ids):
                return None
            members: dict[int, Role] = dict.fromkeys(parts.ids, "member")
        elif log:
            members = {user: role for user, (role, _) in self.members[name].items()}
        else:
            return None
        title = log[0].content if log and parts.kind == "room" else ""
        last_at_ms = log[-1].at_ms if log else 0
        return ConversationState(conversation=name, head=len(log), last_at_ms=last_at_ms, members=members, name=title)

    def standing(self, user: int) -> Standing:
        """As `Conversations.standings` has it, for one user; markers are not modelled."""
        joined = {name: members[user][1] for name, members in self.members.items() if user in members}
        return Standing(joined, self.heads(list(joined)), {})

    def of_user(self, user: int) -> list[Subscription]:
        return [
            Subscription(conversation, len(self.logs[conversation]), 0, members[user][1])
            for conversation, members in self.members.items()
            if user in members
        ]
