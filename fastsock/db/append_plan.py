"""What an append comes to, decided from what is known: pure, and the only place where it is decided.

An entry is, in this order: stored already, by an earlier try of the very same entry (its id is there); a duplicate (its
sender has used its key, here or in any conversation); fenced; refused; or new, and then it gets the next number. What
takes no number leaves no hole. Entries of one call see those before them, as if each had been committed by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from fastsock.schemas import frames, names
from fastsock.schemas.log import Append, Duplicate, Entry, Fenced, Outcome, Refused, Role, Stored
from fastsock.schemas.names import MAX_ID

_MEMBERSHIP = frozenset({"created", "joined", "left"})

Place = tuple[int, int]
"""Which entry: the index of its group, and its index there."""


class Numbered(NamedTuple):
    """A new entry with the number that it gets."""

    place: Place
    entry: Entry
    seq: int


@dataclass
class Known:
    """What the database holds of the entries of an append: those with their ids, keys and targets, and the heads."""

    by_id: dict[int, Entry] = field(default_factory=dict)
    by_key: dict[tuple[int, str], Entry] = field(default_factory=dict)
    heads: dict[str, int] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        self.by_id[entry.id] = entry
        self.by_key[entry.sender_id, entry.key] = entry


class Plan(NamedTuple):
    """What is to be stored, and what becomes of every entry once it is."""

    new: list[Numbered]
    outcomes: list[list[Outcome]]


def decide(groups: Sequence[Append], known: Known, refusals: Mapping[Place, Refused]) -> Plan:
    """Decide about every entry; ``refusals`` are those that the database has given. Leaves ``known`` as it is."""
    seen = Known(dict(known.by_id), dict(known.by_key), dict(known.heads))
    plan = Plan([], [])
    for index, group in enumerate(groups):
        head = seen.heads.get(group.conversation, 0)
        fence = None if head == group.expected_head else Fenced(head)
        outcomes: list[Outcome] = []
        for place, entry in enumerate(group.entries):
            outcome = _old(entry, seen) or fence or refusals.get((index, place)) or _refusal(entry, group, seen)
            if outcome is None:
                head += 1
                plan.new.append(Numbered((index, place), entry, head))
                _store(entry, head, seen)
                outcome = Stored(head)
            outcomes.append(outcome)
        seen.heads[group.conversation] = head
        plan.outcomes.append(outcomes)
    return plan


def optimistic(groups: Sequence[Append]) -> list[Numbered] | None:
    """The entries with the numbers that they get if all is well; None where it cannot be."""
    new: list[Numbered] = []
    conversations = {group.conversation for group in groups}
    deleted: set[int | None] = set()
    for index, group in enumerate(groups):
        if _misnamed(group.conversation):
            return None
        for place, entry in enumerate(group.entries):
            if flaw_of(entry) or entry.conversation != group.conversation or entry.target_id in deleted:
                return None
            if entry.kind == "delete":
                deleted.add(entry.target_id)
            new.append(Numbered((index, place), entry, group.expected_head + place + 1))
    return new if len(conversations) == len(groups) else None


def _old(entry: Entry, seen: Known) -> Stored | Duplicate | Refused | None:
    known = seen.by_id.get(entry.id)
    original = seen.by_key.get((entry.sender_id, entry.key))
    if known is not None and known is original and known.conversation == entry.conversation:
        return Stored(known.seq)
    if original is not None:
        return Duplicate(original)
    if known is not None:  # never seen; it would mean that one id was leased twice
        return Refused("refused_by_storage", f"the id {entry.id} belongs to another entry, in {known.conversation}")
    return None


def _refusal(entry: Entry, group: Append, seen: Known) -> Refused | None:
    misnamed = _misnamed(group.conversation)
    if misnamed is not None:
        return Refused("refused_by_storage", misnamed)
    if entry.conversation != group.conversation:
        return Refused("refused_by_storage", f"an entry of {entry.conversation} cannot go to {group.conversation}")
    flaw = flaw_of(entry)
    if flaw is not None:
        return Refused("refused_by_storage", flaw)
    if entry.kind in {"edit", "delete"}:
        target = None if entry.target_id is None else seen.by_id.get(entry.target_id)
        if target is None or target.kind != "message" or target.conversation != entry.conversation:
            return Refused("message_not_found", f"message {entry.target_id} is not in {entry.conversation}")
        if target.deleted:
            return Refused("message_deleted", f"message {entry.target_id} has been deleted")
    return None


def _store(entry: Entry, seq: int, seen: Known) -> None:
    """Take note of a new entry as it will be found, and of the message that it changes."""
    seen.add(msgspec.structs.replace(entry, seq=seq))
    if entry.target_id is None or entry.kind not in {"edit", "delete"}:
        return
    target = seen.by_id[entry.target_id]
    if entry.kind == "edit":
        seen.add(msgspec.structs.replace(target, content=entry.content, edited_at_ms=entry.at_ms))
    else:
        seen.add(msgspec.structs.replace(target, content="", deleted=True))


# --- what no database takes ------------------------------------------------------------------------------------------


def name_flaw(entry: Entry) -> str | None:
    """Why the entry cannot even be looked for by its id and its key; None if it can."""
    for name, number in (("id", entry.id), ("sender_id", entry.sender_id)):
        if not 1 <= number <= MAX_ID:
            return f"{name} is {number:,}, which is not from 1 to {MAX_ID:,}"
    return _text_flaw("key", entry.key)


def flaw_of(entry: Entry) -> str | None:
    """Why no database takes this entry, the same words for both; None if there is nothing wrong with it.

    PostgreSQL stores neither U+0000 nor half a surrogate pair, which has no UTF-8; SQLite's functions stop at the first
    U+0000. Whatever else a database refuses, it says itself.
    """
    numbers = (("at_ms", entry.at_ms), ("reply_to", entry.reply_to), ("target_id", entry.target_id))
    for name, number in numbers:
        if number is not None and not 0 <= number <= MAX_ID:
            return f"{name} is {number:,}, which is not from 0 to {MAX_ID:,}"
    texts = _text_flaw("content", entry.content) or _text_flaw("message_type", entry.message_type)
    return name_flaw(entry) or texts or (_detail_flaw(entry) if entry.kind in _MEMBERSHIP else None)


def _misnamed(conversation: str) -> str | None:
    try:
        kind = names.parse(conversation).kind
    except ValueError as error:
        return str(error)
    return f"{conversation} is not a conversation" if kind == "user" else None


def _detail_flaw(entry: Entry) -> str | None:
    try:
        frames.joins(entry)
        frames.leaves(entry)
        _roles(entry)
    except ValueError as error:  # msgspec's ValidationError is one
        return f"detail does not say who: {error}"
    return None


def _text_flaw(name: str, value: str) -> str | None:
    if "\x00" in value:
        return f"{name} contains the character U+0000"
    if value.isascii():
        return None
    try:
        value.encode()
    except UnicodeEncodeError as error:
        return f"{name} contains U+{ord(value[error.start]):04X}, half of a surrogate pair"
    return None


# --- what entries change beside the log ------------------------------------------------------------------------------


class MessageChange(NamedTuple):
    """What a message is after the edits and the delete of one transaction; None leaves a time as it was."""

    conversation: str
    content: str
    edited_at_ms: int | None
    deleted_at_ms: int | None


@dataclass
class SideEffects:
    """The changes of a transaction, each row once: messages by id, members by conversation and user."""

    messages: dict[int, MessageChange] = field(default_factory=dict)
    removed: set[tuple[str, int]] = field(default_factory=set)
    added: dict[tuple[str, int], tuple[Role, int]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.messages or self.removed or self.added)


def side_effects(new: Sequence[Numbered]) -> SideEffects:
    """What the new entries change, in their order; whom a room has let in and put out again is only put out."""
    effects = SideEffects()
    for _, entry, seq in new:
        if entry.kind in {"edit", "delete"} and entry.target_id is not None:
            effects.messages[entry.target_id] = _changed(entry, effects.messages.get(entry.target_id))
        elif entry.kind != "message" or seq == 1:
            _membership(msgspec.structs.replace(entry, seq=seq), effects)
    return effects


def _changed(entry: Entry, before: MessageChange | None) -> MessageChange:
    if entry.kind == "edit":
        return MessageChange(entry.conversation, entry.content, entry.at_ms, None)
    return MessageChange(entry.conversation, "", None if before is None else before.edited_at_ms, entry.at_ms)


def _roles(entry: Entry) -> dict[str, Role]:
    return msgspec.convert((entry.detail or {}).get("members", {}), dict[str, Role])


def _membership(entry: Entry, effects: SideEffects) -> None:
    roles = _roles(entry)
    for user in frames.leaves(entry):
        effects.removed.add((entry.conversation, user))
        effects.added.pop((entry.conversation, user), None)
    for user in frames.joins(entry):
        effects.added.setdefault((entry.conversation, user), (roles.get(str(user), "member"), entry.seq))
