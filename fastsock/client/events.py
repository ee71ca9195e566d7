"""What the iterator yields, and how the server's frames become that.

Everything that changes a conversation is an *entry* of its log and has the next ``seq``. An entry of a kind that this
version does not know, or whose fields are not as expected, becomes `Other`, and still counts in the conversation.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

# --- entries of a conversation -----------------------------------------------------------------------------------


class _Message(msgspec.Struct, kw_only=True):
    """The message object of the protocol, in its present state."""

    id: int
    content: str
    """Empty for a deleted message."""
    sender_id: int
    receiver_id: int | None = None
    """The other person of a direct conversation; None in a room."""
    room_id: int | None = None
    """None between two people."""
    message_type: str = "text"
    timestamp: datetime
    reply_to: int | None = None
    reactions: dict[str, list[str]] = msgspec.field(default_factory=dict)
    seq: int
    """The place of this event in the conversation's order."""
    client_msg_id: str | None = None
    """The sender's name for it; None from clients that give none."""
    edited_at: datetime | None = None
    deleted: bool = False
    conversation: str = ""
    """``room:42``, or ``user:7`` for the direct conversation with user 7."""


class MessageReceived(_Message, kw_only=True):
    """Somebody has said something; the client's own user as well, on whichever device."""


class MessageUpdated(_Message, kw_only=True):
    """A message was edited: here is all of it, with the new content."""

    message_seq: int
    """The ``seq`` that the message had when it was sent."""
    by: int
    """Who has edited it."""


class MessageDeleted(_Message, kw_only=True):
    """A message was deleted; its content is empty."""

    message_seq: int
    by: int


class RoomCreated(msgspec.Struct, kw_only=True):
    """A room was made with this user in it; the first entry of its log."""

    room_id: int
    name: str
    owner_id: int
    member_ids: list[int]
    seq: int
    timestamp: datetime
    conversation: str = ""


class MemberJoined(msgspec.Struct, kw_only=True):
    """Users were added to a room; to this user, if it is among them, the first entry of it."""

    room_id: int
    user_ids: list[int]
    by: int
    seq: int
    timestamp: datetime
    conversation: str = ""


class MemberLeft(msgspec.Struct, kw_only=True):
    """Users have left a room or were removed; if this user is among them, it was the last event of it."""

    room_id: int
    user_ids: list[int]
    by: int
    seq: int
    timestamp: datetime
    conversation: str = ""


# --- about the connection ----------------------------------------------------------------------------------------


class Connected(msgspec.Struct, kw_only=True):
    """A socket is open and greeted. If ``resuming``, what was missed follows, then `Resumed`; else all is live now."""

    connection_id: str
    user_id: int
    resuming: bool
    unread: dict[str, int]
    """Unread messages for each conversation that has any."""


class Disconnected(msgspec.Struct, kw_only=True):
    """The socket is lost; the client comes back by itself after ``retry_in_ms``, None: it does not."""

    code: int
    reason: str
    retry_in_ms: int | None


class Resumed(msgspec.Struct, kw_only=True):
    """Everything that was missed has been yielded, but for what a `Reload` just before named."""

    conversations: dict[str, int]
    """The last ``seq`` of each conversation."""
    complete: bool
    markers: dict[str, dict[str, dict[str, int]]] = msgspec.field(default_factory=dict)
    """``{"room:42": {"7": {"read_seq": 110, "delivered_seq": 118}}}``: how far user 7 has read."""


class Reload(msgspec.Struct, kw_only=True):
    """Too much of this conversation was missed to be replayed: read it anew by `Api.history`, up to ``seq``."""

    conversation: str
    oldest: int | None
    """The oldest ``seq`` that the server would still have replayed; None: unknown."""
    seq: int | None
    """The events of this conversation go on after this one; None: with the next that happens."""


class Left(msgspec.Struct, kw_only=True):
    """This user belongs to the conversation no more; it happened while the client was away."""

    conversation: str


class ServerError(msgspec.Struct, kw_only=True):
    """An error that no `Client.send` waits for."""

    code: str
    message: str
    context_event: str | None = None
    client_msg_id: str | None = None
    retryable: bool = False
    retry_after_ms: int | None = None


class Other(msgspec.Struct, kw_only=True):
    """An event that this version has no type for. ``data`` is as the JSON was; ``seq`` is None outside of a log."""

    event: str
    data: Any
    conversation: str | None = None
    seq: int | None = None


Entry = MessageReceived | MessageUpdated | MessageDeleted | RoomCreated | MemberJoined | MemberLeft | Other
Event = Entry | Connected | Disconnected | Resumed | Reload | Left | ServerError


class Ack(msgspec.Struct, kw_only=True, frozen=True):
    """The message is committed: it has its place in the conversation, for ever."""

    message_id: int
    seq: int
    timestamp: datetime
    client_msg_id: str
    status: str = "sent"
    room_id: int | None = None
    receiver_id: int | None = None


# --- decoding ----------------------------------------------------------------------------------------------------


_ENTRIES: dict[str, msgspec.json.Decoder[Entry]] = {
    event: msgspec.json.Decoder(kind)
    for event, kind in {
        "message.receive": MessageReceived,
        "message.update": MessageUpdated,
        "message.delete": MessageDeleted,
        "room.created": RoomCreated,
        "room.member_joined": MemberJoined,
        "room.member_left": MemberLeft,
    }.items()
}


def entry_of(event: str, data: msgspec.Raw, conversation: str | None, seq: int | None) -> Entry:
    """The typed event of this name."""
    decoder = _ENTRIES.get(event)
    if decoder is not None and conversation is not None:
        try:
            entry = decoder.decode(data)
        except msgspec.ValidationError:
            pass  # a field is not as this version knows it: it becomes `Other`
        else:
            entry.conversation = conversation
            return entry
    return Other(event=event, data=msgspec.json.decode(data), conversation=conversation, seq=seq)


def starts_membership(entry: Entry, me: int) -> bool:
    """Whether this entry is the first that user ``me`` is shown of its conversation."""
    match entry:
        case RoomCreated():
            return True
        case MemberJoined():
            return me in entry.user_ids
        case MessageReceived():
            return entry.room_id is None and entry.seq == 1
        case _:
            return False


def ends_membership(entry: Entry, me: int) -> bool:
    """Whether user ``me`` is shown nothing of the conversation after this entry."""
    return isinstance(entry, MemberLeft) and me in entry.user_ids
