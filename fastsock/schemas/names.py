"""Names: an actor's name is also its topic.

======== ============================ =================================================
name     what it names                on the wire (``protocol.md``)
======== ============================ =================================================
room:42  the conversation of room 42  ``room:42``
dm:3:7   the conversation of 3 and 7  ``user:7`` to user 3, ``user:3`` to user 7
user:7   user 7: devices, presence    never as a conversation
======== ============================ =================================================

A direct conversation has one name however it is reached: the lesser id comes first. A note to self is ``dm:3:3``.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple, NewType

UserId = NewType("UserId", int)
RoomId = NewType("RoomId", int)
MessageId = NewType("MessageId", int)
Name = NewType("Name", str)
"""The name of an actor, and of the topic it publishes on."""
Conversation = NewType("Conversation", str)
"""A `Name` that names a conversation: ``room:...`` or ``dm:...``."""

MAX_ID = 2**53 - 1
"""Ids are integers that a JavaScript number holds exactly (``protocol.md``)."""

_ID = re.compile(r"[1-9][0-9]{0,15}")


class Parts(NamedTuple):
    """What a name says. ``kind`` is "room", "dm" or "user"; ``ids`` has one member, or two for a dm."""

    kind: str
    ids: tuple[int, ...]


def room(room_id: int) -> Conversation:
    return Conversation(f"room:{room_id}")


def dm(one: int, other: int) -> Conversation:
    low, high = (one, other) if one <= other else (other, one)
    return Conversation(f"dm:{low}:{high}")


def user(user_id: int) -> Name:
    return Name(f"user:{user_id}")


@lru_cache(maxsize=65_536)
def parse(name: str) -> Parts:
    """Take a name apart.

    Raises:
        ValueError: not a name that `room`, `dm` or `user` makes; the text says why.

    """
    kind, _, rest = name.partition(":")
    texts = rest.split(":")
    if kind not in {"room", "dm", "user"} or len(texts) != (2 if kind == "dm" else 1):
        msg = f"not an actor's name: {name!r}; names look like room:42, dm:3:7 or user:7"
        raise ValueError(msg)
    if not all(_ID.fullmatch(text) and int(text) <= MAX_ID for text in texts):
        msg = f"not an actor's name: {name!r}; ids are integers from 1 to {MAX_ID}"
        raise ValueError(msg)
    ids = tuple(int(text) for text in texts)
    if kind == "dm" and ids[0] > ids[1]:
        msg = f"not an actor's name: {name!r}; the lesser id comes first"
        raise ValueError(msg)
    return Parts(kind, ids)


def peer(conversation: str, viewer: int) -> int:
    """The other person of a direct conversation, seen by one of the two."""
    low, high = parse(conversation).ids
    return high if viewer == low else low


def public(conversation: str, viewer: int) -> str:
    """The name under which ``viewer`` knows a conversation on the wire."""
    if conversation.startswith("dm:"):
        return f"user:{peer(conversation, viewer)}"
    return conversation


def private(name: str, viewer: int) -> Conversation:
    """The conversation that ``viewer`` means by a public name; the inverse of `public`.

    Raises:
        ValueError: not a public name of a conversation.

    """
    parts = parse(name)
    if parts.kind == "dm":
        msg = f"not a public name: {name!r}; a direct conversation is named after the other user, user:7"
        raise ValueError(msg)
    return room(parts.ids[0]) if parts.kind == "room" else dm(viewer, parts.ids[0])
