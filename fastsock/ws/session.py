"""One socket's conversation with the server, without a socket: a frame in, actions out.

Sans-IO: no clock, no network, no database. `Session` reads what a client sends after it is authenticated, checks it and
says what has to be done; `fastsock.ws.endpoint` does it. A frame that breaks the contract is answered with an ``error``
event and otherwise ignored, so that one bug in a client costs it one message and not its connection. Three things end
a connection: a frame beyond `MAX_FRAME_BYTES` (1009), nothing but garbage (`Limits.bad_frames`, 1008), and sending on
and on in spite of ``rate_limited`` (`Limits.refusals_burst`, 4029).
"""

from __future__ import annotations

import msgspec

from actors.commands import Send, Typing
from fastsock.core.errors import TABLE, FastSockError, PolicyError, ProtocolError, error_of
from fastsock.core.limits import MAX_FRAME_BYTES, TYPING_REPEAT_MS
from fastsock.schemas import events
from fastsock.schemas.log import CLIENT_KEY, SERVER_KEY

# --- limits ------------------------------------------------------------------------------------------------------


class Limits(msgspec.Struct, frozen=True, gc=False):
    """How fast one socket may speak. A burst is tokens of a bucket, a rate refills it (tokens a second)."""

    messages_burst: int = 50
    """Sends, edits and deletes: a client that comes back after an hour empties its outbox at once."""
    messages_per_s: float = 20.0
    """Above what people and posting scripts do: Slack's API takes 1 message a second, Discord's gateway 2 events."""
    frames_burst: int = 200
    frames_per_s: float = 100.0
    """All frames, whatever they are: receipts for a burst of messages come as fast as the messages."""
    resumes_burst: int = 10
    resumes_per_s: float = 1.0
    """Resumes: each asks the database how the user stands; clients need one, and another for a gap."""
    typing_burst: int = 10
    typing_per_s: float = 2.0
    """Beginnings and ends of typing; more are dropped without a word. Somebody who begins, stops and sends all the time
    says three things for each message."""
    refusals_burst: int = 200
    """Frames refused with ``rate_limited`` before the socket is closed with 4029."""
    refusals_per_s: float = 25.0
    """Refusals forgiven: more than `messages_per_s`, so that whoever waits as told is never closed."""
    bad_frames: int = 20
    """Frames in a row that are no events before the socket is closed with 1008: this is not one of our clients."""


MAX_CLOSE_REASON_BYTES = 123
"""RFC 6455, section 5.5: a control frame has at most 125 bytes, two of which are the close code."""


# --- actions -----------------------------------------------------------------------------------------------------


class Ask(msgspec.Struct, frozen=True, gc=False):
    """Hand ``command`` to the actor ``name``; its answer becomes an ack, its failure an error about ``event``."""

    name: str
    command: Send
    event: str
    client_msg_id: str | None


class Tell(msgspec.Struct, frozen=True, gc=False):
    """Hand ``command`` to the actor ``name``; nobody misses it, and it is answered only where it is refused."""

    name: str
    command: Typing


class Change(msgspec.Struct, frozen=True, gc=False):
    """Edit the message, or delete it where ``content`` is None; a failure becomes an error about ``event``.

    There is no ack: the conversation's ``message.update`` or ``message.delete`` reaches this socket too.
    """

    message_id: int
    content: str | None
    key: str
    event: str
    client_msg_id: str | None


class Resume(msgspec.Struct, frozen=True, gc=False):
    """Show the socket what follows these numbers, by internal names of conversations."""

    wanted: dict[str, int]


class Refresh(msgspec.Struct, frozen=True, gc=False):
    """Let the socket live as long as this token, if it is one of the same user."""

    token: str


class Reply(msgspec.Struct, frozen=True, gc=False):
    """Write this frame, UTF-8 text, to this socket."""

    frame: bytes


class CloseSocket(msgspec.Struct, frozen=True, gc=False):
    """Close this socket."""

    code: int
    reason: str


Action = Ask | Tell | Change | Resume | Refresh | Reply | CloseSocket


# --- the machine -------------------------------------------------------------------------------------------------


class TokenBucket:
    """``capacity`` tokens at first and at most, refilled at ``per_s`` a second."""

    __slots__ = ("_capacity", "_per_ms", "_tokens", "_updated_ms")

    def __init__(self, capacity: float, per_s: float, now_ms: int) -> None:
        self._capacity = capacity
        self._per_ms = per_s / 1000
        self._tokens = capacity
        self._updated_ms = now_ms

    def take(self, now_ms: int) -> int:
        """Take a token: 0 if there was one, else the milliseconds until there will be."""
        self._tokens = min(self._capacity, self._tokens + (now_ms - self._updated_ms) * self._per_ms)
        self._updated_ms = now_ms
        if self._tokens >= 1:
            self._tokens -= 1
            return 0
        return int((1 - self._tokens) / self._per_ms) + 1


class Session:
    """The reading half of one authenticated socket.

    Every ``now_ms`` is milliseconds, from a clock that never goes back; ``connection_id`` must be unique for ever.
    """

    __slots__ = (
        "_bad",
        "_connection_id",
        "_frames",
        "_limits",
        "_messages",
        "_nameless",
        "_refusals",
        "_resumes",
        "_typing",
        "_typing_said",
        "_typing_said_ms",
        "_user_id",
    )

    def __init__(self, user_id: int, connection_id: str, now_ms: int, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self._user_id = user_id
        self._connection_id = connection_id
        self._limits = limits
        self._frames = TokenBucket(limits.frames_burst, limits.frames_per_s, now_ms)
        self._messages = TokenBucket(limits.messages_burst, limits.messages_per_s, now_ms)
        self._resumes = TokenBucket(limits.resumes_burst, limits.resumes_per_s, now_ms)
        self._typing = TokenBucket(limits.typing_burst, limits.typing_per_s, now_ms)
        self._typing_said: tuple[str, bool] | None = None
        """Where the last event of typing was, and which."""
        self._typing_said_ms = 0
        self._refusals = TokenBucket(limits.refusals_burst, limits.refusals_per_s, now_ms)
        self._bad = 0
        self._nameless = 0

    def receive_text(self, frame: str | bytes, now_ms: int) -> list[Action]:
        """A text frame has come."""
        size = size_bytes(frame)
        if size > MAX_FRAME_BYTES:
            text = f"the frame has {size:,} of at most {MAX_FRAME_BYTES:,} bytes"
            return [close(error_of("frame_too_large", text))]
        wait_ms = self._frames.take(now_ms)
        try:
            event = events.decode_event(frame)
        except ProtocolError as error:
            return self._limited(wait_ms, None, None, now_ms) if wait_ms else self._unreadable(error, frame)
        self._bad = 0
        if wait_ms:
            return self._limited(wait_ms, event.event, events.client_msg_id_of(event.data), now_ms)
        try:
            return self._dispatch(event, now_ms)
        except FastSockError as error:
            return [self._error(error, event.event, events.client_msg_id_of(event.data))]

    def _unreadable(self, error: ProtocolError, frame: str | bytes) -> list[Action]:
        if error.code == "invalid_data":
            event, client_msg_id = events.salvage(frame) or (None, None)
            return [self._error(error, event, client_msg_id)]
        return self._bad_frame(error)

    def receive_binary(self, now_ms: int) -> list[Action]:
        """A binary frame has come; no client of ours sends any."""
        wait_ms = self._frames.take(now_ms)
        if wait_ms:
            return self._limited(wait_ms, None, None, now_ms)
        return self._bad_frame(error_of("binary_frame", "frames are JSON texts, this one was binary"))

    def _dispatch(self, event: events.Event, now_ms: int) -> list[Action]:  # noqa: PLR0911 - a table of events
        match event.event:
            case "message.send":
                return self._send(event, now_ms)
            case "typing.start" | "typing.stop":
                return self._type(event, now_ms)
            case "message.edit":
                edit = events.decode_edit(event.data)
                return self._change(edit.message_id, edit.content, event.event, edit.client_msg_id, now_ms)
            case "message.delete":
                delete = events.decode_delete(event.data)
                return self._change(delete.message_id, None, event.event, delete.client_msg_id, now_ms)
            case "ping":
                return [Reply(events.pong_frame(event.data))]
            case "session.resume":
                return self._resume(event, now_ms)
            case "session.refresh":
                return [Refresh(events.decode_refresh(event.data))]
            case "session.authenticate":
                raise error_of("not_allowed", f"this session is authenticated already, as user {self._user_id}")
            case name if name in events.NOT_SERVED_YET or name.startswith("call."):
                raise error_of("unknown_event", f"{name[:50]!r} is not served by this version yet")
            case name:
                raise error_of("unknown_event", f"there is no event {name[:50]!r}")

    def _send(self, event: events.Event, now_ms: int) -> list[Action]:
        message = events.decode_send(event.data)
        name = message.client_msg_id
        wait_ms = self._messages.take(now_ms)
        if wait_ms:
            return self._limited(wait_ms, event.event, name, now_ms)
        self._typing_said = None  # the message ends the typing
        command = Send(self._user_id, self._key(name), message.content, message.message_type, message.reply_to)
        return [Ask(message.conversation(self._user_id), command, event.event, name)]

    def _type(self, event: events.Event, now_ms: int) -> list[Action]:
        """Some clients say it with each key: what is said again within `TYPING_REPEAT_MS` goes no further."""
        said = events.decode_typing(event.data, self._user_id), event.event == "typing.start"
        repeated = said == self._typing_said and now_ms < self._typing_said_ms + TYPING_REPEAT_MS
        if repeated or self._typing.take(now_ms):
            return []
        self._typing_said, self._typing_said_ms = said, now_ms
        return [Tell(said[0], Typing(self._user_id, said[1], self._connection_id))]

    def _change(
        self, message_id: int, content: str | None, event: str, client_msg_id: str | None, now_ms: int
    ) -> list[Action]:
        wait_ms = self._messages.take(now_ms)
        if wait_ms:
            return self._limited(wait_ms, event, client_msg_id, now_ms)
        return [Change(message_id, content, self._key(client_msg_id), event, client_msg_id)]

    def _resume(self, event: events.Event, now_ms: int) -> list[Action]:
        wanted = events.decode_resume(event.data, self._user_id)
        wait_ms = self._resumes.take(now_ms)
        if wait_ms:
            return self._limited(wait_ms, event.event, None, now_ms)
        return [Resume(wanted)]

    def _key(self, client_msg_id: str | None) -> str:
        """What names this attempt for ever: the client's name for it, or one that nobody can repeat."""
        if client_msg_id is not None:
            return CLIENT_KEY + client_msg_id
        self._nameless += 1
        return f"{SERVER_KEY}{self._connection_id}:{self._nameless}"

    def _limited(self, wait_ms: int, event: str | None, client_msg_id: str | None, now_ms: int) -> list[Action]:
        if self._refusals.take(now_ms):
            text = f"{self._limits.refusals_burst:,} frames were refused, and more came"
            return [close(error_of("rate_limit_persistent", text))]
        text = f"too fast: send again in {wait_ms:,} ms"
        return [self._error(error_of("rate_limited", text, wait_ms), event, client_msg_id)]

    def _bad_frame(self, error: FastSockError) -> list[Action]:
        self._bad += 1
        reply = self._error(error, None, None)
        if self._bad < self._limits.bad_frames:
            return [reply]
        return [reply, CloseSocket(1008, close_reason(f"{self._bad} frames in a row were no events"))]

    @staticmethod
    def _error(error: FastSockError, event: str | None, client_msg_id: str | None) -> Reply:
        return Reply(events.error_frame(error, event, client_msg_id))


def close(error: FastSockError) -> CloseSocket:
    """The end of a socket for this reason; 1008 for a refusal and 4500 for a fault that have no code of their own."""
    code = TABLE[error.code].close_code
    if code is None:
        code = 1008 if isinstance(error, PolicyError | ProtocolError) else 4500
    return CloseSocket(code, close_reason(error.message))


def close_reason(text: str) -> str:
    """The text, cut to what fits a close frame."""
    return text.encode()[:MAX_CLOSE_REASON_BYTES].decode(errors="ignore")


def size_bytes(frame: str | bytes) -> int:
    """The size of a frame in UTF-8; where it cannot matter, its characters."""
    if isinstance(frame, bytes) or 4 * len(frame) <= MAX_FRAME_BYTES:
        return len(frame)
    return len(frame.encode(errors="surrogatepass"))
