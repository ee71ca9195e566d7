"""uvicorn's WebSocket protocol, with bounds: what a peer can make this process and its kernel hold.

Serve starts the gateway's uvicorn and passes it no ``ws_*`` option, so the place to set them is the protocol's class:
`fastsock.ws.uvicorn_frames` makes it the one that servers of this process use for what it does not serve by itself.
Everything works without it too (Serve's Python proxy, plain uvicorn, tests); then these bounds are missing, no other.

* The kernel's send buffer and uvicorn's are small and fixed, so that a peer which does not read is noticed by its
  outbox (`fastsock.ws.connection`) and not hidden by megabytes below it.
* Pings of such a peer are not answered: pongs are written past every bound.
* Whatever ended a socket, `LINGER_S` later it has ended: uvicorn waits for what it holds to be read, however long.
* A message is refused as soon as it is known to be too large, or comes in too many frames, and the peer learns why.
* Nothing is compressed, which would be done for each recipient of a broadcast anew.

Measured, Linux 6.18, tcp_wmem 4 MB, tcp_rmem 33 MB: one socket that never reads, in a room where six people send 15
messages of 41 KB a second each, until it is cut, behind HAProxy on the same machine. What waits, in bytes, when it is
cut and 20 s later, without this module and the two buffers of HAProxy's (`fastsock.core.rayenv`), and with them:

============================  ============  ===========  =========  ==========
in                            without, cut  20 s later   with, cut  20 s later
============================  ============  ===========  =========  ==========
the replica's socket             3,912,596    3,912,596    184,913           0
HAProxy's socket to it           1,501,505    1,501,505    259,054           0
HAProxy's socket to the peer     2,805,760    2,805,760    376,832     376,832
============================  ============  ===========  =========  ==========

Without, it all stays until the peer goes, or HAProxy's hour of patience is over; with, `HAPROXY_SILENCE_S`. Above them
the outbox adds what it may hold. Of HAProxy Ray exposes the timeouts and ``tune.bufsize``, which changes nothing here;
where Ray is not started by us, ``net.ipv4.tcp_wmem`` and ``tcp_rmem`` bound the other two. Serve's Python proxy takes
whatever comes: a socket that never read was sent 110 MB in 29 s there, and not cut.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from fastsock.core.limits import (
    GOODBYE_S,
    LINGER_S,
    MAX_MESSAGE_FRAGMENTS,
    MAX_READ_FRAME_BYTES,
    SOCKET_BUFFER_BYTES,
    SOCKET_SEND_BYTES,
)

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState
    from websockets.frames import Frame

FRAME_TOO_LARGE = 1009
_RESET = struct.pack("ii", 1, 0)
"""``SO_LINGER``, on and for 0 s: the kernel throws away what it holds, and the peer (HAProxy) does so too."""


class BoundedWebSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket of uvicorn's."""

    goodbye: ClassVar[Callable[[], None] | None] = None
    """Closes every socket that the application knows; called for each, as the server ends."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        config.ws_per_message_deflate = False
        config.ws_max_size = MAX_READ_FRAME_BYTES
        super().__init__(config, server_state, app_state, _loop)
        self._linger: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Fix the sizes of what is between the outbox and the network."""
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=SOCKET_BUFFER_BYTES)
        raw = self._socket()
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_SEND_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._linger is not None:
            self._linger.cancel()

    # --- what comes in -------------------------------------------------------------------------------------------

    def handle_ping(self) -> None:
        """Answer, unless earlier answers still wait: RFC 6455, section 5.5.3, asks for the last one only."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()  # the pong, thrown away

    def handle_cont(self, event: Frame) -> None:
        """Take a message's next frame; an empty one is no byte, but takes place."""
        if self.close_sent:
            return
        if len(self.frames) < MAX_MESSAGE_FRAGMENTS:
            super().handle_cont(event)
            return
        self.conn.fail(FRAME_TOO_LARGE, f"the message comes in more than {MAX_MESSAGE_FRAGMENTS:,} frames")
        self.handle_parser_exception()

    def handle_parser_exception(self) -> None:
        """Say what is wrong, and read on without looking until the peer has ended too.

        Closed with bytes unread, TCP would throw away what has been said (RFC 1122, section 4.2.2.13).
        """
        if self.close_sent:
            return
        close = self.conn.close_sent
        assert close is not None, "whoever calls this has failed it"
        self.conn.fail(close.code, close.reason)  # from now on it discards; one who did not fail it, closed it
        self.queue.put_nowait({"type": "websocket.disconnect", "code": close.code, "reason": close.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)

    # --- the end -------------------------------------------------------------------------------------------------

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """Nobody serves this socket any more."""
        super().on_task_complete(task)
        self._end_soon()

    def keepalive_timeout(self) -> None:
        """Close it, and don't wait for a peer that does not answer pings: the application would never be told."""
        super().keepalive_timeout()
        self._end_soon()

    def shutdown(self) -> None:
        """The server ends: the application tells its sockets when to come back, or uvicorn closes this one."""
        goodbye = type(self).goodbye
        if goodbye is None or not self.handshake_complete:
            super().shutdown()
        else:
            goodbye()
            self.loop.call_later(GOODBYE_S, self._close_after_goodbye)

    def _close_after_goodbye(self) -> None:
        if not self.disconnected:
            super().shutdown()

    def _end_soon(self) -> None:
        if not self.disconnected and self._linger is None:
            self._linger = self.loop.call_later(LINGER_S, self._abort)

    def _abort(self) -> None:
        raw = self._socket()
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def _socket(self) -> socket.socket | None:
        """What the kernel knows it by; None if it is something else than a socket."""
        raw: socket.socket | None = self.transport.get_extra_info("socket")
        return raw
