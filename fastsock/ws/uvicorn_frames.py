"""Whom uvicorn hands a WebSocket to: our own sockets for the chat, its bounded protocol for anything else.

Serve starts the gateway's uvicorn and passes it no ``ws_*`` option; which protocol takes over after an upgrade is
looked up in ``uvicorn.config.WS_PROTOCOLS``, and `install` puts `Upgraded` there. It reads the request, which uvicorn
has parsed and written down anew, and hands the transport on:

* a handshake for `PATH` that is as RFC 6455, section 4.2.1, wants it becomes a `FrameConnection`. It is answered here,
  and neither Serve nor ASGI see it: no task, no queue, no coroutine waits for it. (Serve's task for each socket, the
  ASGI application's and websockets' protocol object are most of the 49 KB that an idle socket took in a replica, and
  most of the milliseconds that it took to connect.)
* everything else becomes a `BoundedWebSocketProtocol`, and goes the usual way.

Where it is not installed (Serve's Python proxy, plain uvicorn, other servers), the ASGI application serves all.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import TYPE_CHECKING, Any, ClassVar, cast

import uvicorn.config
from websockets.utils import accept_key

from fastsock.ws.broadcast import Frames
from fastsock.ws.chats import PATH, Chats
from fastsock.ws.frame_connection import FrameConnection
from fastsock.ws.uvicorn_protocol import BoundedWebSocketProtocol

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

KEY_BYTES = 16


class Upgraded(asyncio.Protocol):
    """What uvicorn makes for an upgrade. It lives until the transport has the protocol that it is for."""

    chats: ClassVar[Chats | None] = None
    loop: ClassVar[asyncio.AbstractEventLoop | None] = None
    """Where the sockets live: a server in another thread gets the ASGI application."""
    frames: ClassVar[dict[float | None, Frames]] = {}
    """What the sockets of a uvicorn share, by the interval of its pings."""

    __slots__ = ("_app_state", "_config", "_protocol", "_server_state", "_transport")

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._transport: asyncio.Transport | None = None
        self._protocol: asyncio.Protocol | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The request will be next."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """The request, or, before the transport knows, what follows it."""
        if self._protocol is not None:
            self._protocol.data_received(data)
            return
        transport, loop = self._transport, asyncio.get_running_loop()
        chats = self.chats if loop is self.loop else None
        assert transport is not None, "uvicorn says so first"
        request = None if chats is None else _chat_request(data)
        if request is None or chats is None:
            self._protocol = bounded = BoundedWebSocketProtocol(self._config, self._server_state, self._app_state)
            bounded.connection_made(transport)
            bounded.data_received(data)
        else:
            self._protocol = self._accept(transport, chats, *request)
        # uvicorn hands the transport to us when this returns; from the next turn on it is the protocol's.
        loop.call_soon(self._hand_on, transport, self._protocol)

    def _accept(self, transport: asyncio.Transport, chats: Chats, key: str, query_string: bytes) -> FrameConnection:
        connections = cast("set[Any]", self._server_state.connections)
        interval_s = self._config.ws_ping_interval
        frames = self.frames.get(interval_s)
        if frames is None:
            frames = self.frames[interval_s] = Frames(chats, interval_s)
        answer = [
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: ",
            accept_key(key).encode(),
            *(b"\r\n" + name + b": " + value for name, value in self._server_state.default_headers),
            b"\r\n\r\n",
        ]
        connection = FrameConnection(transport, frames, connections.discard)
        connections.add(connection)
        transport.write(b"".join(answer))
        connection.accepted(query_string)
        return connection

    @staticmethod
    def _hand_on(transport: asyncio.Transport, protocol: asyncio.Protocol) -> None:
        if not transport.is_closing():
            transport.set_protocol(protocol)

    # --- until then ----------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.resume_writing()

    def eof_received(self) -> bool | None:
        return None if self._protocol is None else self._protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._protocol is not None:
            self._protocol.connection_lost(exc)


def _chat_request(request: bytes) -> tuple[str, bytes] | None:
    """Key and query string of a handshake for `PATH`; None if it is none, or one that needs a closer look."""
    first, *lines = request.partition(b"\r\n\r\n")[0].split(b"\r\n")
    method, _, target = first.partition(b" ")
    path, _, query_string = target.rpartition(b" ")[0].partition(b"?")
    if method != b"GET" or path.decode("latin-1").rstrip("/") != PATH:
        return None
    headers: dict[bytes, bytes] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        if name in headers and name.startswith(b"sec-websocket-"):
            return None
        headers[name] = value.strip()
    key = headers.get(b"sec-websocket-key", b"")
    try:
        valid = len(base64.b64decode(key, validate=True)) == KEY_BYTES
    except binascii.Error:
        valid = False
    if not valid or headers.get(b"sec-websocket-version") != b"13":
        return None
    return key.decode(), query_string


def install(chats: Chats) -> None:
    """Have every uvicorn that starts in this process from now on, in the running event loop, serve these sockets."""
    Upgraded.chats = chats
    Upgraded.loop = asyncio.get_running_loop()
    Upgraded.frames = {}
    BoundedWebSocketProtocol.goodbye = chats.goodbye
    uvicorn.config.WS_PROTOCOLS["auto"] = f"{__name__}:{Upgraded.__name__}"
