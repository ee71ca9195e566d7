"""A socket on uvicorn's transport: frames are made once for everybody, and written once for each turn of the loop.

Through ASGI a delivered frame costs 16 to 21 us of this process (a task's turn, three coroutines, a frame built for
each socket, a write for each frame); here it is a list's ``append``, and a share of one ``write``. Whoever writes puts
the frame's bytes, the same object for all sockets of a broadcast, into the outbox and the socket on the list of
`Flusher`; at the end of the turn every socket on it hands over what it has, in one piece. The transport takes
`SOCKET_BUFFER_BYTES` beyond what the kernel takes; what is more waits in the outbox, with its bounds.

What comes in goes from the transport to the session without a queue or a task. Frames that may not be read yet (before
``session.ready``, while a change is under way) stay in the buffer, and the transport is not read meanwhile.

What belongs to the protocol and not to the fast path: fragments, pings, the closing handshake (RFC 6455, section 7).
After an error of the peer what it sends is thrown away until it ends, since a socket that is closed with bytes unread
would take back what it was told (RFC 1122, section 4.2.2.13).
"""

from __future__ import annotations

import asyncio
import socket as sockets
import struct
from collections.abc import Callable
from enum import Enum

from websockets.frames import CloseCode

from fastsock.core.errors import FastSockError
from fastsock.core.limits import (
    GOODBYE_S,
    LINGER_S,
    MAX_OUTBOX_BYTES,
    MAX_OUTBOX_FRAMES,
    OUTBOX_SLOW_SHARE,
    SOCKET_BUFFER_BYTES,
    SOCKET_SEND_BYTES,
)
from fastsock.core.security import Claims
from fastsock.ws.broadcast import Frames
from fastsock.ws.frame_reader import FrameReader
from fastsock.ws.frames import (
    OP_BINARY,
    OP_CLOSE,
    OP_PING,
    OP_PONG,
    OP_TEXT,
    PING,
    FrameError,
    close_frame,
    control_frame,
    read_close,
    text_frame,
)
from fastsock.ws.outbox import GONE, Outbox
from fastsock.ws.session import Change, CloseSocket
from fastsock.ws.socket import Socket

_RESET = struct.pack("ii", 1, 0)
"""``SO_LINGER``, on and for 0 s: the kernel throws away what it holds, and the peer (HAProxy) does so too."""
FEED_TURN_BYTES = 16 * 1024
"""Of a replay, between two looks at what was written meanwhile."""
MAX_FLUSH_BYTES = SOCKET_BUFFER_BYTES
"""What is handed to a transport in one piece."""
SLOW_BYTES = int(MAX_OUTBOX_BYTES * OUTBOX_SLOW_SHARE)
SLOW_FRAMES = int(MAX_OUTBOX_FRAMES * OUTBOX_SLOW_SHARE)


class Reading(Enum):
    """What is done with what comes in."""

    HELD = "it waits"
    OPEN = "frames are heard"
    CLOSING = "we have closed, and look for the peer's close frame only"
    DEAF = "all is thrown away"


class FrameConnection(Outbox, asyncio.Protocol):
    """One accepted socket: call `accepted` when the peer has been told so.

    ``on_lost`` is called once, when there is no connection any more.
    """

    __slots__ = (
        "_awake",
        "_chats",
        "_close_said",
        "_flusher",
        "_frames",
        "_full",
        "_greeting",
        "_heard",
        "_loop",
        "_on_lost",
        "_pinged",
        "_reader",
        "_reading",
        "_socket",
        "_spoke",
        "_timer",
        "_transport",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        frames: Frames,
        on_lost: Callable[[FrameConnection], None],
    ) -> None:
        super().__init__(frames.chats.shell.counts)
        self._chats = frames.chats
        self._frames = frames
        self._flusher = frames.flusher
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = transport
        self._on_lost = on_lost
        self._socket: Socket | None = None
        """None before it is authenticated, and once the shell was told that it has ended."""
        self._reader = FrameReader()
        self._reading = Reading.OPEN
        self._greeting = False
        """Whether its first frame is to say who it is."""
        self._full = False
        """Whether the transport takes no more for now."""
        self._awake = False
        """Whether it is on the flusher's list."""
        self._heard = True
        """Whether anything has come since its last turn on the wheel."""
        self._pinged = False
        self._spoke: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._close_said = False
        """Whether our close frame is with the transport."""

        transport.set_write_buffer_limits(high=SOCKET_BUFFER_BYTES)
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDBUF, SOCKET_SEND_BYTES)

    # --- coming --------------------------------------------------------------------------------------------------

    def accepted(self, query_string: bytes) -> None:
        """Let it in, refuse it, or wait for its first frame."""
        chats = self._chats
        if self._frames.heartbeat is not None:
            self._spoke = self._frames.heartbeat.add(self)
        refusal = chats.refusal()
        if refusal is not None:
            self._refuse(refusal)
            return
        try:
            claims = chats.identify(query_string)
        except FastSockError as error:
            self._refuse(chats.unknown(error))
            return
        if claims is not None:
            self._admit(claims)
            return
        self._greeting = True
        chats.greeting += 1
        self._timer = self._loop.call_later(chats.authenticate_within_s, self._silent)

    def _introduced(self, frame: bytes) -> None:
        """The first frame of a socket that has not said yet who it is."""
        self._greeted()
        try:
            claims = self._chats.introduced(frame)
        except FastSockError as error:
            self._refuse(self._chats.unknown(error))
        else:
            self._admit(claims)

    def _silent(self) -> None:
        self._greeted()
        self._refuse(self._chats.unknown(self._chats.silent()))

    def _greeted(self) -> None:
        """It has said who it is, or never will."""
        if self._greeting:
            self._greeting = False
            self._chats.greeting -= 1
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _refuse(self, refusal: CloseSocket) -> None:
        self._chats.refused(refusal)
        self.close(refusal.code, refusal.reason)

    def _admit(self, claims: Claims) -> None:
        self._hold()
        self._socket = self._chats.admit(claims, self, self._go_on_soon)

    # --- reading -------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        self._heard = True
        if self._reading is not Reading.DEAF:
            self._reader.add(data)
            self._read()

    def eof_received(self) -> bool:
        """The peer sends no more; the transport closes itself."""
        return False

    def _read(self) -> None:
        take = self._reader.take
        try:
            while self._reading is not Reading.HELD and self._reading is not Reading.DEAF:
                message = take()
                if message is None:
                    return
                opcode, payload = message
                if opcode == OP_TEXT:
                    self._data(payload, payload.decode())
                elif opcode == OP_BINARY:
                    self._data(payload, None)
                elif opcode == OP_PING:
                    self._pong(payload)
                elif opcode == OP_CLOSE:
                    self._peer_closes(payload)
        except FrameError as error:
            self._fail(error.code, error.reason)
        except UnicodeDecodeError:
            self._fail(CloseCode.INVALID_DATA, "")

    def _data(self, payload: bytes, text: str | None) -> None:
        if self.closing is not None:
            return
        if self._greeting:
            self._introduced(payload)
            return
        socket = self._socket
        assert socket is not None, "whoever is open was admitted"
        change = self._chats.hear(socket, text)
        if change is not None:
            self._hold()
            self._chats.shell.tasks.start(self._changes(socket, change), "change")

    async def _changes(self, socket: Socket, change: Change) -> None:
        try:
            await self._chats.change(socket, change)
        finally:
            self._go_on_soon()

    def _hold(self) -> None:
        """Read nothing for now."""
        self._reading = Reading.HELD
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def _go_on_soon(self) -> None:
        if self._reading is Reading.HELD:
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Read what waits, and on."""
        if self._reading is not Reading.HELD:
            return
        self._read_again(Reading.OPEN)
        self._read()

    def _read_again(self, reading: Reading) -> None:
        held, self._reading = self._reading is Reading.HELD, reading
        if held and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # --- writing -------------------------------------------------------------------------------------------------

    def write(self, payload: bytes, *, ephemeral: bool = False) -> None:
        frame = self._frames.of(payload)
        size = self._bytes + len(frame)
        if ephemeral or size > SLOW_BYTES or len(self._waiting) >= SLOW_FRAMES or self.closing is not None:
            self._put(frame, ephemeral=ephemeral)
            return
        self._waiting.append(frame)
        self._bytes = size
        if not self._awake:
            self._wake()

    def _wake(self) -> None:
        if not self._awake and not self._full:
            self._awake = True
            self._flusher.add(self)

    def flush(self) -> None:
        """Hand over what waits, as far as the transport takes it."""
        self._awake = False
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        while not self._full and (self._waiting or self._feed is not None):
            if self._waiting:
                self._flush_waiting(transport)
            if self._feed is not None and not self._full:
                self._flush_feed(transport)
        if self.closing is not None and not self._waiting and not self._close_said:
            self._say_close(transport, *self.closing)

    def _flush_waiting(self, transport: asyncio.Transport) -> None:
        waiting, count = self._waiting, len(self._waiting)
        if self._bytes <= MAX_FLUSH_BYTES:
            chunk = waiting[0] if count == 1 else b"".join(waiting)
            waiting.clear()
        else:
            count, size = 0, 0
            for frame in waiting:
                if size and size + len(frame) > MAX_FLUSH_BYTES:
                    break
                count, size = count + 1, size + len(frame)
            chunk = b"".join(waiting[:count])
            del waiting[:count]
        self._bytes -= len(chunk)
        counts = self._counts
        counts.frames_out += count
        counts.bytes_out += len(chunk)
        transport.write(chunk)
        if self._over_s is not None:
            self._relieved()

    def _flush_feed(self, transport: asyncio.Transport) -> None:
        feed = self._feed
        assert feed is not None, "looked at by the caller"
        frames: list[bytes] = []
        size = 0
        while feed.payloads and size < FEED_TURN_BYTES:
            payload = feed.payloads.popleft()
            size += len(payload)
            frames.append(text_frame(payload))
        self._counts.frames_out += len(frames)
        self._counts.bytes_out += size
        transport.write(b"".join(frames))
        self._fed(feed, size)

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self._full = True

    def resume_writing(self) -> None:
        """The transport's buffer has room again."""
        self._full = False
        if self._waiting or self._feed is not None or self.closing is not None:
            self._wake()

    def _pong(self, payload: bytes) -> None:
        """Answer a ping, unless earlier answers still wait: section 5.5.3 asks for the last one only."""
        if self._transport is not None and not self._full and self.closing is None:
            self._transport.write(control_frame(OP_PONG, payload))

    def beat(self) -> None:
        """Its turn on the wheel: ping who has not been heard, and let go who does not answer."""
        if self._heard:
            self._heard = self._pinged = False
        if self._pinged:
            self._fail(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")
            self._close_overdue()
            return
        self._pinged = True
        if self._transport is not None and not self._full and self.closing is None:
            self._transport.write(PING)

    # --- the end -------------------------------------------------------------------------------------------------

    def _ending(self) -> None:
        self._greeted()
        self._timer = self._loop.call_later(self._chats.close_within_s, self._close_overdue)

    def _say_close(self, transport: asyncio.Transport, code: int, reason: str) -> None:
        """Send the close frame; for us the socket has ended, and the peer's answer is waited for."""
        deaf = self._reading is Reading.DEAF
        self._close_said = True
        transport.write(close_frame(code, reason))
        if deaf:
            if transport.can_write_eof():
                transport.write_eof()
        else:
            self._read_again(Reading.CLOSING)
            self._loop.call_soon(self._read)  # its close frame may be in what waited
        self._ended(code)
        self._linger()

    def _fail(self, code: int, reason: str) -> None:
        """The peer broke the protocol, or is gone: tell it so, and hear nothing more."""
        if self._reading is Reading.CLOSING:
            self._reading = Reading.DEAF
            self._part()
            return
        self._read_again(Reading.DEAF)
        self._reader = FrameReader()
        if self.closing is None:
            self._drop()
            self.close(code, reason)

    def _peer_closes(self, payload: bytes) -> None:
        code, reason = read_close(payload)
        transport = self._transport
        if not self._close_said and transport is not None:
            self._close_said = True
            answer = control_frame(OP_CLOSE, b"") if code == CloseCode.NO_STATUS_RCVD else close_frame(code, reason)
            transport.write(answer)
            if self.closing is None:
                self.closing = (code, reason)
            self._drop()
            self._ended(code)
        self._reading = Reading.DEAF
        self._part()

    def _part(self) -> None:
        """Both sides have said that they close: what is still to be sent is sent, then it is over."""
        if self._transport is not None:
            self._transport.close()
        self._linger()

    def _close_overdue(self) -> None:
        """What was to be sent before the close frame, or itself, is not read."""
        if self._socket is not None:
            assert self.closing is not None, "its timer was set when it was closed"
            self._chats.left(self._socket, self.closing[0])
            self._ended(self.closing[0])
        self._linger()

    def _linger(self) -> None:
        """Whatever happens, in `LINGER_S` it has ended."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if self._transport is None else self._loop.call_later(LINGER_S, self._abort)

    def _abort(self) -> None:
        if self._transport is not None:
            raw = self._transport.get_extra_info("socket")
            if raw is not None:
                raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, _RESET)
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature; why is not told
        """There is no connection any more."""
        self._transport = None
        if self.closing is None:
            self.closing = (GONE, "")
        self._greeted()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._spoke is not None and self._frames.heartbeat is not None:
            self._frames.heartbeat.discard(self, self._spoke)
        self._reading = Reading.DEAF
        self._drop()
        self._ended(self.closing[0])
        self._on_lost(self)

    def _ended(self, code: int) -> None:
        """Tell the shell, once."""
        if self._socket is not None:
            socket, self._socket = self._socket, None
            self._chats.ended(socket, code)

    def shutdown(self) -> None:
        """The server ends: the gateway tells its sockets when to come back; who is none of them yet is closed too."""
        self._chats.goodbye()
        self._loop.call_later(GOODBYE_S, self.close, CloseCode.SERVICE_RESTART)
