"""WebSocket frames: what clients may say, and the server's events that are about one socket alone.

Everything here follows ``protocol.md``. Decoding is strict about types and tolerant of unknown fields; what is wrong
becomes a `ProtocolError` whose text names the field, the value and the limit. Events about a conversation are made in
`fastsock.schemas.frames`, once for everybody; those here (``error``, ``pong``, ``message.ack``, ``session.*``) go to
the one socket that they are about.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import NoReturn, TypeVar

import msgspec

from fastsock.core.errors import FastSockError, RetryableError, error_of
from fastsock.core.limits import (
    HEARTBEAT_S,
    MAX_CLIENT_MSG_ID_CHARS,
    MAX_CONTENT_BYTES,
    MAX_CONTENT_CHARS,
    MAX_RESUME_CONVERSATIONS,
)
from fastsock.schemas import names
from fastsock.schemas.frames import encode, iso
from fastsock.schemas.log import Marker
from fastsock.schemas.names import MAX_ID

T = TypeVar("T")

MESSAGE_TYPES = ("text", "image", "file")
"""What clients may send; ``system`` messages are the server's."""

NOT_SERVED_YET = frozenset(
    {
        "message.delivered",
        "message.read",
        "message.reaction",
        "presence.set",
        "presence.subscribe",
        "presence.unsubscribe",
    }
)
"""Events of ``protocol.md`` that this version refuses; so are all of ``call.*``."""


# --- client to server --------------------------------------------------------------------------------------------


class Event(msgspec.Struct, gc=False):
    """The envelope of every frame; ``data`` is decoded when the event is known."""

    event: str
    data: msgspec.Raw = msgspec.Raw(b"null")


class MessageSend(msgspec.Struct, gc=False):
    """``message.send``. Checked: exactly one of ``room_id`` and ``receiver_id`` is not None."""

    content: str
    room_id: int | None = None
    receiver_id: int | None = None
    message_type: str = "text"
    reply_to: int | None = None
    client_msg_id: str | None = None

    def conversation(self, sender_id: int) -> names.Conversation:
        """Where the message goes when ``sender_id`` sends it."""
        return _conversation(self, sender_id)


class TypingPlace(msgspec.Struct, gc=False):
    """``typing.start`` and ``typing.stop``. Checked: exactly one of ``room_id`` and ``receiver_id`` is not None."""

    room_id: int | None = None
    receiver_id: int | None = None


class MessageEdit(msgspec.Struct, gc=False):
    """``message.edit``."""

    message_id: int
    content: str
    client_msg_id: str | None = None


class MessageDelete(msgspec.Struct, gc=False):
    """``message.delete``."""

    message_id: int
    client_msg_id: str | None = None


class SessionResume(msgspec.Struct, gc=False):
    """``session.resume``: the last number known of each conversation, by public names."""

    conversations: dict[str, int]


class SessionRefresh(msgspec.Struct, gc=False):
    """``session.refresh``."""

    token: str


class Authenticate(msgspec.Struct, gc=False):
    """``session.authenticate``: the first frame of a socket whose URL carries no credential."""

    token: str


_event = msgspec.json.Decoder(Event)
_message_send = msgspec.json.Decoder(MessageSend)
_typing = msgspec.json.Decoder(TypingPlace)
_message_edit = msgspec.json.Decoder(MessageEdit)
_message_delete = msgspec.json.Decoder(MessageDelete)
_authenticate = msgspec.json.Decoder(Authenticate)
_resume = msgspec.json.Decoder(SessionResume)
_refresh = msgspec.json.Decoder(SessionRefresh)
_anything = msgspec.json.Decoder()

LONE_SURROGATE = "it holds half of a surrogate pair"

_WHERE = re.compile(r" - at `\$\.?(.*)`$")


def decode_event(frame: str | bytes) -> Event:
    """Take a frame apart.

    Raises:
        ProtocolError: ``bad_json`` where it is not JSON, ``bad_frame`` where it is not ``{"event": "...", ...}``.

    """
    try:
        return _event.decode(frame)
    except msgspec.ValidationError as error:
        shape = 'a frame is an object {"event": "...", "data": {...}}'
        raise error_of("bad_frame", f"{shape}: {_explain(error, 'frame')}") from None
    except (msgspec.DecodeError, UnicodeError) as error:
        if salvage(frame) is not None:
            raise error_of("invalid_data", f"a text in the frame is not Unicode: {LONE_SURROGATE}") from None
        raise error_of("bad_json", f"the frame is not JSON: {_lower(str(error))}") from None
    except RecursionError:
        raise error_of("bad_json", "the frame is nested too deeply") from None


def salvage(frame: str | bytes) -> tuple[str | None, str | None] | None:
    """``(event, client_msg_id)`` of a frame that is JSON by the letter, but for a lone surrogate (RFC 8259, 8.2).

    JavaScript makes such texts when it cuts an emoji in two, so the client is told which of its messages it was. None
    where that is not what ails the frame.
    """
    try:
        value = json.loads(frame, parse_constant=_not_json)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        pass
    except (ValueError, RecursionError):
        return None
    else:
        return None
    if not isinstance(value, dict):
        return None, None
    return _text(value.get("event")), _client_msg_id(value.get("data"))


def _client_msg_id(data: object) -> str | None:
    name = _text(data.get("client_msg_id")) if isinstance(data, dict) else None
    return name if name and len(name) <= MAX_CLIENT_MSG_ID_CHARS else None


def _text(value: object) -> str | None:
    """The value if it is a text that can be sent back."""
    return value if isinstance(value, str) and value.isprintable() else None


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def decode_send(data: bytes | msgspec.Raw) -> MessageSend:
    """Raises: ProtocolError: ``invalid_data``, ``content_too_long``."""
    message = _decode(_message_send, data)
    _check_place(message)
    if message.reply_to is not None:
        check_id("reply_to", message.reply_to)
    if message.message_type not in MESSAGE_TYPES:
        raise error_of("invalid_data", f"message_type: {message.message_type[:50]!r} is not {_any_of(MESSAGE_TYPES)}")
    check_client_msg_id(message.client_msg_id)
    check_content(message.content)
    return message


def decode_typing(data: bytes | msgspec.Raw, user_id: int) -> names.Conversation:
    """Where ``user_id`` is typing, or no longer is. Raises: ProtocolError: ``invalid_data``."""
    place = _decode(_typing, data)
    _check_place(place)
    return _conversation(place, user_id)


def _check_place(place: MessageSend | TypingPlace) -> None:
    if (place.room_id is None) == (place.receiver_id is None):
        given = "neither was" if place.room_id is None else "both were"
        raise error_of("invalid_data", f"exactly one of room_id and receiver_id is needed, {given} given")
    for field in ("room_id", "receiver_id"):
        if (value := getattr(place, field)) is not None:
            check_id(field, value)


def _conversation(place: MessageSend | TypingPlace, user_id: int) -> names.Conversation:
    if place.room_id is not None:
        return names.room(place.room_id)
    assert place.receiver_id is not None, "decoding has checked it"
    return names.dm(user_id, place.receiver_id)


def decode_edit(data: bytes | msgspec.Raw) -> MessageEdit:
    """Raises: ProtocolError: ``invalid_data``, ``content_too_long``."""
    edit = _decode(_message_edit, data)
    check_id("message_id", edit.message_id)
    check_client_msg_id(edit.client_msg_id)
    check_content(edit.content)
    return edit


def decode_delete(data: bytes | msgspec.Raw) -> MessageDelete:
    """Raises: ProtocolError: ``invalid_data``."""
    delete = _decode(_message_delete, data)
    check_id("message_id", delete.message_id)
    check_client_msg_id(delete.client_msg_id)
    return delete


def decode_resume(data: bytes | msgspec.Raw, user_id: int) -> dict[str, int]:
    """The last number that ``user_id`` knows of each conversation, by internal names.

    Raises:
        ProtocolError: ``invalid_data``.

    """
    known = _decode(_resume, data).conversations
    if len(known) > MAX_RESUME_CONVERSATIONS:
        limit = f"at most {MAX_RESUME_CONVERSATIONS:,} are allowed"
        raise error_of("invalid_data", f"conversations: {len(known):,} are named; {limit}")
    wanted: dict[str, int] = {}
    for name, seq in known.items():
        if not 0 <= seq <= MAX_ID:
            raise error_of("invalid_data", f"conversations.{name[:30]}: {str(seq)[:30]} is not a seq, 0 to {MAX_ID}")
        try:
            wanted[names.private(name, user_id)] = seq
        except ValueError:
            text = f"conversations: {name[:30]!r} is no conversation; they are called room:42 or user:7"
            raise error_of("invalid_data", text) from None
    return wanted


def decode_refresh(data: bytes | msgspec.Raw) -> str:
    """The new token of a ``session.refresh``. Raises: ProtocolError: ``invalid_data``."""
    return _decode(_refresh, data).token


def token_of(frame: str | bytes) -> str:
    """The token of a ``session.authenticate`` frame.

    Raises:
        ProtocolError: it is another frame, or none.

    """
    event = decode_event(frame)
    if event.event != "session.authenticate":
        raise error_of("bad_frame", f"the first frame is {event.event[:50]!r}, not 'session.authenticate'")
    return _decode(_authenticate, event.data).token


def client_msg_id_of(data: bytes | msgspec.Raw) -> str | None:
    """The ``client_msg_id`` of data that was refused, so that its sender knows which it was; None where it has none."""
    try:
        return _client_msg_id(_anything.decode(data))
    except (ValueError, RecursionError):  # what msgspec raises for broken UTF-8, and for data nested too deeply
        return None


def check_id(field: str, value: int) -> None:
    """Raises: ProtocolError: ``invalid_data``, not an id."""
    if not 1 <= value <= MAX_ID:
        raise error_of("invalid_data", f"{field}: {str(value)[:30]} is not an id; ids are integers from 1 to {MAX_ID}")


def check_client_msg_id(value: str | None) -> None:
    """Raises: ProtocolError: ``invalid_data``, neither absent nor a name."""
    if value is None:
        return
    if not 1 <= len(value) <= MAX_CLIENT_MSG_ID_CHARS:
        allowed = f"1 to {MAX_CLIENT_MSG_ID_CHARS} are allowed"
        raise error_of("invalid_data", f"client_msg_id: {len(value):,} characters; {allowed}")
    _check_storable("client_msg_id", value)


def check_content(content: str) -> None:
    """Raises: ProtocolError: ``invalid_data`` where it is blank or holds a NUL, ``content_too_long``."""
    if not content or content.isspace():
        raise error_of("invalid_data", "content: must not be blank")
    _check_storable("content", content)
    size = len(content.encode())
    if len(content) > MAX_CONTENT_CHARS or size > MAX_CONTENT_BYTES:
        limit = f"at most {MAX_CONTENT_CHARS:,} characters and {MAX_CONTENT_BYTES:,} bytes"
        raise error_of(
            "content_too_long", f"content: {len(content):,} characters in {size:,} bytes; {limit} are allowed"
        )


def _check_storable(field: str, text: str) -> None:
    """PostgreSQL stores every character but this one; lone surrogates do not pass the JSON decoder."""
    at = text.find("\0")
    if at >= 0:
        raise error_of("invalid_data", f"{field}: a NUL character at position {at} is not allowed")


def _decode(decoder: msgspec.json.Decoder[T], data: bytes | msgspec.Raw) -> T:
    """Decode what the envelope has shown to be JSON."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise error_of("invalid_data", _explain(error, "data")) from None
    except RecursionError:
        raise error_of("invalid_data", "data: nested too deeply") from None
    except (msgspec.DecodeError, UnicodeError):
        raise error_of("invalid_data", "data: a text in it is not UTF-8") from None


def _explain(error: msgspec.ValidationError, whole: str) -> str:
    """``Expected `int`, got `str` - at `$.room_id``` as ``room_id: expected int, got str``."""
    text = str(error)
    where = _WHERE.search(text)
    field = (where[1] if where else "") or whole
    return f"{field}: {_lower(_WHERE.sub('', text)).replace('`', '')}"


def _lower(text: str) -> str:
    """A sentence as the end of another; JSON stays JSON."""
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def _any_of(allowed: Sequence[str]) -> str:
    return f"{', '.join(allowed[:-1])} or {allowed[-1]}"


# --- server to one client ----------------------------------------------------------------------------------------


class Error(msgspec.Struct, gc=False):
    """The data of ``error``."""

    code: str
    message: str
    context_event: str | None
    client_msg_id: str | None
    retryable: bool
    retry_after_ms: int | None


_encoder = msgspec.json.Encoder()


def error_frame(error: FastSockError, context_event: str | None = None, client_msg_id: str | None = None) -> bytes:
    """``error``, about a frame of this event and name (None: unknown). Not JSON: earlier clients look for "error"."""
    retryable = isinstance(error, RetryableError)
    data = Error(error.code, error.message, context_event, client_msg_id, retryable, error.retry_after_ms)
    if error.code == "bad_json":
        return _encoder.encode({"event": "error", "data": data, "error": error.message})
    return encode("error", data)


def ack_frame(answer: bytes) -> bytes:
    """``message.ack`` around its data as the conversation answered it: JSON."""
    return b'{"event":"message.ack","data":' + answer + b"}"


def pong_frame(data: bytes | msgspec.Raw) -> bytes:
    """``pong`` with the very bytes of the ``ping``."""
    return b'{"event":"pong","data":' + bytes(data) + b"}"


def ready_frame(connection_id: str, user_id: int, conversations: Sequence[tuple[str, int, int]], now_ms: int) -> bytes:
    """``session.ready``; ``conversations`` are ``(conversation, seq, unread)`` by internal names."""
    listed = [
        {"conversation": names.public(name, user_id), "seq": seq, "unread": unread}
        for name, seq, unread in conversations
    ]
    about = {"connection_id": connection_id, "user_id": user_id, "server_time": iso(now_ms)}
    return encode("session.ready", {**about, "heartbeat_s": HEARTBEAT_S, "conversations": listed})


def expiring_frame(expires_at_ms: int, now_ms: int) -> bytes:
    """``session.expiring``: the token ends at ``expires_at_ms``, and the socket with it."""
    return encode("session.expiring", _expiry(expires_at_ms, now_ms))


def refreshed_frame(expires_at_ms: int, now_ms: int) -> bytes:
    """``session.refreshed``: the socket may live until ``expires_at_ms``."""
    return encode("session.refreshed", _expiry(expires_at_ms, now_ms))


def _expiry(expires_at_ms: int, now_ms: int) -> dict[str, object]:
    return {"expires_at": iso(expires_at_ms), "expires_in": max(0, expires_at_ms - now_ms) // 1000}


def resumed_frame(
    user_id: int,
    reached: Mapping[str, int],
    oldest: Mapping[str, int],
    left: Sequence[str],
    markers: Mapping[str, Mapping[int, Marker]],
) -> bytes:
    """``session.resumed``; everything by internal names.

    ``reached`` says where the streams of this socket stand, ``oldest`` what was not replayed, and from where it would
    be; ``left`` is not this user's. ``markers`` are shown for what was reached.
    """

    def public(by_name: Mapping[str, T]) -> dict[str, T]:
        return {names.public(name, user_id): value for name, value in by_name.items()}

    about = {"conversations": public(reached), "complete": not oldest, "oldest": public(oldest)}
    shown = public({name: of_users for name, of_users in markers.items() if name in reached})
    return encode(
        "session.resumed", {**about, "left": [names.public(name, user_id) for name in left], "markers": shown}
    )
