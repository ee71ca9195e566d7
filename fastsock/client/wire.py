"""The frames that the core itself reads and writes; the events for the program are in `fastsock.client.events`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from fastsock.client.errors import Refused
from fastsock.client.events import Ack, ServerError
from fastsock.core.errors import FastSockError
from fastsock.schemas.events import decode_send


class Envelope(msgspec.Struct):
    """Every frame."""

    event: str
    data: msgspec.Raw = msgspec.Raw(b"null")


class Place(msgspec.Struct):
    """Where an event belongs; ``seq`` is None for what is no entry of a log."""

    seq: int | None = None
    room_id: int | None = None
    sender_id: int | None = None
    receiver_id: int | None = None

    def conversation(self, me: int) -> str | None:
        """The public name, as user ``me`` knows it; None where the event is about no conversation."""
        if self.room_id is not None:
            return f"room:{self.room_id}"
        if self.sender_id is None or self.receiver_id is None:
            return None
        return f"user:{self.receiver_id if self.sender_id == me else self.sender_id}"


class Standing(msgspec.Struct):
    """One conversation in ``session.ready``."""

    conversation: str
    seq: int
    unread: int = 0


class SessionReady(msgspec.Struct):
    """The data of ``session.ready``."""

    connection_id: str
    user_id: int
    conversations: list[Standing]


class SessionResumed(msgspec.Struct, kw_only=True):
    """The data of ``session.resumed``."""

    conversations: dict[str, int]
    complete: bool = True
    oldest: dict[str, int] = msgspec.field(default_factory=dict)
    left: list[str] = msgspec.field(default_factory=list)
    markers: dict[str, dict[str, dict[str, int]]] = msgspec.field(default_factory=dict)


class SessionExpiring(msgspec.Struct):
    """The data of ``session.expiring``; seconds."""

    expires_in: int


envelope_of = msgspec.json.Decoder(Envelope).decode
ready_of = msgspec.json.Decoder(SessionReady).decode
resumed_of = msgspec.json.Decoder(SessionResumed).decode
expiring_of = msgspec.json.Decoder(SessionExpiring).decode
ack_of = msgspec.json.Decoder(Ack).decode
error_of = msgspec.json.Decoder(ServerError).decode
"""These raise `msgspec.DecodeError` for what is of another shape."""

_place = msgspec.json.Decoder(Place)
_encoder = msgspec.json.Encoder()


def place_of(data: msgspec.Raw) -> Place:
    """Where an event belongs; an empty place for data of another shape."""
    try:
        return _place.decode(data)
    except msgspec.ValidationError:
        return Place()


def frame(event: str, data: Mapping[str, Any]) -> bytes:
    """A frame, UTF-8 text."""
    return _encoder.encode({"event": event, "data": data})


def message_frame(client_msg_id: str, data: Mapping[str, Any]) -> bytes:
    """The ``message.send`` of a message, checked as the server checks it; what is None is left out.

    Raises:
        Refused: the server would refuse it.

    """
    given = {field: value for field, value in data.items() if value is not None}
    try:
        encoded = _encoder.encode({**given, "client_msg_id": client_msg_id})
        decode_send(encoded)
    except FastSockError as error:
        raise Refused(error.code, error.message) from None
    except UnicodeEncodeError:
        raise Refused("invalid_data", "content: it holds half of a surrogate pair") from None
    return b'{"event":"message.send","data":' + encoded + b"}"
