"""A log entry as the event that clients see.

One function, `frame_of`, serves the live stream, the catch-up of a gateway and the resume of a client, so the three
cannot differ. It is pure, and it is called once per broadcast, never per recipient.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from fastsock.schemas import names
from fastsock.schemas.log import Entry, Target

_encoder = msgspec.json.Encoder()


class Message(msgspec.Struct, gc=False, kw_only=True):
    """The message object of ``protocol.md``."""

    id: int
    content: str
    sender_id: int
    receiver_id: int | None
    room_id: int | None
    message_type: str
    timestamp: str
    is_read: bool = False
    status: str = "sent"
    reply_to: int | None = None
    reactions: dict[str, list[str]] = msgspec.field(default_factory=dict)
    seq: int
    client_msg_id: str | None = None
    edited_at: str | None = None
    deleted: bool = False


def iso(at_ms: int) -> str:
    """A time as ``protocol.md`` writes it: ``2026-01-31T10:00:00.123Z``."""
    whole, milli = divmod(at_ms, 1000)
    return f"{_second(whole)}.{milli:03d}Z"


@lru_cache(maxsize=256)
def _second(at_s: int) -> str:
    """A time to the second. Formatting one was a sixth of a host's work on a message."""
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%dT%H:%M:%S}"


def address(conversation: str, sender_id: int) -> tuple[int | None, int | None]:
    """``(receiver_id, room_id)`` of what ``sender_id`` says in a conversation; exactly one is not None."""
    parts = names.parse(conversation)
    if parts.kind == "room":
        return None, parts.ids[0]
    return names.peer(conversation, sender_id), None


def message_of(entry: Entry) -> Message:
    """A message entry as the message object, in its present state."""
    receiver_id, room_id = address(entry.conversation, entry.sender_id)
    return Message(
        id=entry.id,
        content=entry.content,
        sender_id=entry.sender_id,
        receiver_id=receiver_id,
        room_id=room_id,
        message_type=entry.message_type,
        timestamp=iso(entry.at_ms),
        reply_to=entry.reply_to,
        seq=entry.seq,
        client_msg_id=entry.client_msg_id,
        edited_at=None if entry.edited_at_ms is None or entry.deleted else iso(entry.edited_at_ms),
        deleted=entry.deleted,
    )


def target_of(entry: Entry) -> Target:
    """What an edit or a delete needs to know of the message it is about."""
    return Target(
        id=entry.id,
        seq=entry.seq,
        sender_id=entry.sender_id,
        at_ms=entry.at_ms,
        message_type=entry.message_type,
        reply_to=entry.reply_to,
        client_msg_id=entry.client_msg_id,
    )


def _changed(entry: Entry) -> dict[str, object]:
    """The message object after an edit or a delete; ``seq`` is the change's own, ``message_seq`` the message's."""
    target = msgspec.convert(entry.detail, Target)
    receiver_id, room_id = address(entry.conversation, target.sender_id)
    message = Message(
        id=target.id,
        content=entry.content,
        sender_id=target.sender_id,
        receiver_id=receiver_id,
        room_id=room_id,
        message_type=target.message_type,
        timestamp=iso(target.at_ms),
        reply_to=target.reply_to,
        seq=entry.seq,
        client_msg_id=target.client_msg_id,
        edited_at=iso(entry.at_ms) if entry.kind == "edit" else None,
        deleted=entry.kind == "delete",
    )
    change = {"message_id": target.id, "message_seq": target.seq, "by": entry.sender_id}
    return {**msgspec.structs.asdict(message), **change}


def _members(entry: Entry) -> dict[str, str]:
    return msgspec.convert((entry.detail or {}).get("members", {}), dict[str, str])


def joins(entry: Entry) -> tuple[int, ...]:
    """The users whom this entry makes members: whose sockets are subscribed before it is shown."""
    if entry.kind in {"created", "joined"}:
        return tuple(int(user) for user in _members(entry))
    if entry.kind == "message" and entry.seq == 1:  # the first message of a direct conversation
        ids = names.parse(entry.conversation).ids
        return tuple(dict.fromkeys(ids)) if entry.conversation.startswith("dm:") else ()
    return ()


def leaves(entry: Entry) -> tuple[int, ...]:
    """The users whose membership this entry ends: unsubscribed after it is shown."""
    if entry.kind == "left":
        return tuple(msgspec.convert((entry.detail or {}).get("user_ids", []), list[int]))
    return ()


def amends(entry: Entry) -> bool:
    """Whether this entry changes what an earlier one has said."""
    return entry.kind in {"edit", "delete"}


def event_of(entry: Entry) -> tuple[str, object]:
    """The event's name and its data."""
    if entry.kind == "message":
        return "message.receive", message_of(entry)
    if entry.kind == "edit":
        return "message.update", _changed(entry)
    if entry.kind == "delete":
        return "message.delete", _changed(entry)
    room_id = address(entry.conversation, entry.sender_id)[1]
    place = {"room_id": room_id, "seq": entry.seq, "timestamp": iso(entry.at_ms)}
    if entry.kind == "created":
        members = _members(entry)
        about = {"id": room_id, "name": entry.content, "is_group": True, "owner_id": entry.sender_id}
        return "room.created", {**about, "member_ids": [int(user) for user in members], **place}
    if entry.kind == "joined":
        return "room.member_joined", {**place, "user_ids": [*joins(entry)], "by": entry.sender_id}
    return "room.member_left", {**place, "user_ids": [*leaves(entry)], "by": entry.sender_id}


def encode(event: str, data: object) -> bytes:
    """A server event as the text of its frame, UTF-8."""
    return _encoder.encode({"event": event, "data": data})


def frame_of(entry: Entry) -> bytes:
    """A committed entry as the text of the frame that clients get, UTF-8."""
    return encode(*event_of(entry))


def typing_frame(conversation: str, sender_id: int, event: str) -> bytes:
    """``typing.start`` or ``typing.stop``, as the others see it: with ``room_id``, or ``receiver_id`` for a person."""
    receiver_id, room_id = address(conversation, sender_id)
    place = {"receiver_id": receiver_id} if room_id is None else {"room_id": room_id}
    return encode(event, {"sender_id": sender_id, **place})


def ack_of(entry: Entry) -> dict[str, object]:
    """The data of ``message.ack`` for a committed message."""
    receiver_id, room_id = address(entry.conversation, entry.sender_id)
    return {
        "message_id": entry.id,
        "status": "sent",
        "timestamp": iso(entry.at_ms),
        "seq": entry.seq,
        "client_msg_id": entry.client_msg_id,
        "room_id": room_id,
        "receiver_id": receiver_id,
    }
