"""uvicorn's WebSocket protocol, with bounds: what a peer can make this process and its kernel hold.

Serve starts the gateway's uvicorn and passes it no ``ws_*`` option, so the place to set them is the protocol's class:
`install` makes it the one that servers of this process use. Everything works without it too (Serve's Python proxy,
plain uvicorn, tests); then these bounds are missing, no other.

* The kernel's send buffer and uvicorn's are small and fixed, so that a peer which does not read is noticed by its
  outbox (`fastsock.ws.connection`) and not hidden by megabytes below it.
* Pings of such a peer are not answered: pongs are written past every bound.
* Whatever ended a socket, `LINGER_S` later it has ended: uvicorn waits for what it holds to be read, however long.
* A message is refused as soon as it is known to be too large, or comes in too many frames; none is compressed, which
  would cost 300 KB a socket and a compression for each recipient of a broadcast.

Measured: one socket that never reads, behind HAProxy on the same machine, in a room where six people send messages of
41 KB until it is cut (Linux 6.18, tcp_wmem 4 MB, tcp_rmem 33 MB), bytes when it is cut, and 20 s after that:

=====================================  ==============  =============  ==============  =============
held in                                before, cut     before, +20 s  after, cut      after, +20 s
=====================================  ==============  =============  ==============  =============
=====================================  ==============  =============  ==============  =============
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Any

import uvicorn.config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from fastsock.core.limits import (
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

    # --- the end -------------------------------------------------------------------------------------------------

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """Nobody serves this socket any more."""
        super().on_task_complete(task)
        self._end_soon()

    def keepalive_timeout(self) -> None:
        """Close it, and don't wait for a peer that does not answer pings: the application would never be told."""
        super().keepalive_timeout()
        self._end_soon()

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


def install() -> None:
    """Make it the protocol of every uvicorn that starts in this process from now on."""
    uvicorn.config.WS_PROTOCOLS["auto"] = f"{__name__}:{BoundedWebSocketProtocol.__name__}"
