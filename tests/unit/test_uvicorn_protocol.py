"""The bounds below the outbox, with a real uvicorn and real sockets on loopback."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
import uvicorn
import uvicorn.config
from starlette.types import Message, Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from fastsock.core import limits
from fastsock.ws import uvicorn_protocol
from fastsock.ws.uvicorn_protocol import BoundedWebSocketProtocol
from tests.unit.ws_world import until

FRAME = "x" * 10_000
PING = b"\x89\xfd" + b"\0\0\0\0" + b"p" * 125
"""A client's, masked with zeros."""


class App:
    """An ASGI application that keeps what happens to its only socket."""

    def __init__(self) -> None:
        self.received: list[Message] = []
        self.sent = 0
        self.pour = False
        """Whether to send `FRAME` on and on, and not to read."""
        self.stop = asyncio.Event()
        """Set to leave."""

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        work = asyncio.create_task(self._pour(send) if self.pour else self._read(receive))
        await asyncio.wait([work, asyncio.create_task(self.stop.wait())], return_when=asyncio.FIRST_COMPLETED)
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await work

    async def _pour(self, send: Send) -> None:
        while True:
            await send({"type": "websocket.send", "text": FRAME})
            self.sent += 1

    async def _read(self, receive: Receive) -> None:
        while True:
            self.received.append(await receive())
            if self.received[-1]["type"] == "websocket.disconnect":
                return


class Place:
    """A running server."""

    def __init__(self, app: App, server: uvicorn.Server) -> None:
        self.app = app
        self.server = server
        self.port: int = server.servers[0].sockets[0].getsockname()[1]
        self._open: list[socket.socket] = []

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    @property
    def protocols(self) -> list[BoundedWebSocketProtocol]:
        """Those whose connection is there."""
        return [item for item in self.server.server_state.connections if isinstance(item, BoundedWebSocketProtocol)]

    async def deaf(self) -> socket.socket:
        """A peer that shakes hands and reads nothing after that."""
        peer = socket.socket()
        self._open.append(peer)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        peer.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(peer, ("127.0.0.1", self.port))
        key = base64.b64encode(os.urandom(16)).decode()
        request = (
            f"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
        )
        await loop.sock_sendall(peer, f"{request}Sec-WebSocket-Version: 13\r\n\r\n".encode())
        assert await loop.sock_recv(peer, 12) == b"HTTP/1.1 101"
        return peer

    def close(self) -> None:
        for peer in self._open:
            peer.close()


@asynccontextmanager
async def place(app: App | None = None, ping_interval_s: float | None = None) -> AsyncIterator[Place]:
    app = app or App()
    config = uvicorn.Config(
        app,
        port=0,
        log_level="critical",
        lifespan="off",
        ws=cast("type[asyncio.Protocol]", BoundedWebSocketProtocol),
        ws_ping_interval=ping_interval_s,
        ws_ping_timeout=ping_interval_s,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve(None))
    await until(lambda: server.started)
    here = Place(app, server)
    try:
        yield here
    finally:
        here.close()
        app.stop.set()
        server.should_exit = True
        await asyncio.wait_for(serving, 10)


@pytest.fixture
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn_protocol, "LINGER_S", 0.2)


async def stalled(app: App) -> int:
    """Wait until no frame is taken any more; how many bytes were."""
    before = -1
    while app.sent != before or app.sent == 0:
        before = app.sent
        await asyncio.sleep(0.2)  # loopback: what can be taken is taken within a millisecond
    return app.sent * len(FRAME)


async def was_reset(peer: socket.socket) -> bool:
    """Whether the connection was cut, after what had come; false where it was ended in good order."""
    try:
        while await asyncio.wait_for(asyncio.get_running_loop().sock_recv(peer, 100_000), 5):
            pass
    except ConnectionResetError:
        return True
    return False


async def test_what_a_peer_does_not_read_stays_small() -> None:
    app = App()
    app.pour = True
    async with place(app) as here:
        await here.deaf()
        taken = await stalled(app)
        [protocol] = here.protocols
        assert protocol.transport.get_write_buffer_limits() == (16_384, limits.SOCKET_BUFFER_BYTES)
        assert protocol.transport.get_write_buffer_size() <= limits.SOCKET_BUFFER_BYTES + len(FRAME) + 10
        if sys.platform == "linux":
            size = protocol.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            assert size == 2 * limits.SOCKET_SEND_BYTES
            # Its own buffers, the kernel's, and the peer's of some KB
            assert taken <= limits.SOCKET_BUFFER_BYTES + 2 * limits.SOCKET_SEND_BYTES + 2 * len(FRAME) + 20_000


@pytest.mark.usefixtures("short_linger")
async def test_a_socket_that_nobody_serves_any_more_ends_though_its_peer_reads_nothing() -> None:
    app = App()
    app.pour = True
    async with place(app) as here:
        peer = await here.deaf()
        await stalled(app)
        app.stop.set()
        await until(lambda: here.protocols == [])
        assert await was_reset(peer)


@pytest.mark.usefixtures("short_linger")
async def test_who_answers_no_ping_and_reads_nothing_is_gone_for_the_application_too() -> None:
    app = App()
    app.pour = True
    async with place(app, ping_interval_s=0.2) as here:
        await here.deaf()
        await until(lambda: here.protocols == [] and not here.server.server_state.tasks)
        assert app.sent > 0
        assert not app.stop.is_set()


async def test_who_closes_in_time_is_not_cut() -> None:
    async with place() as here, connect(here.url) as client:
        await client.close(1000, "bye")
        await until(lambda: here.protocols == [])
        assert here.app.received == [{"type": "websocket.disconnect", "code": 1000, "reason": "bye"}]


async def test_pings_are_answered_only_while_answers_are_read() -> None:
    app = App()
    app.pour = True
    async with place(app) as here:
        peer = await here.deaf()
        await stalled(app)
        [protocol] = here.protocols
        before = protocol.transport.get_write_buffer_size()
        loop = asyncio.get_running_loop()
        read = 0

        def handle_ping() -> None:
            nonlocal read
            read += 1
            BoundedWebSocketProtocol.handle_ping(protocol)

        protocol.handle_ping = handle_ping  # type: ignore[method-assign]
        await loop.sock_sendall(peer, PING * 2_000)
        await until(lambda: read == 2_000)
        assert protocol.transport.get_write_buffer_size() == before

    async with place() as here, connect(here.url) as client:
        for _ in range(3):
            await asyncio.wait_for(await client.ping(), 5)


async def test_nothing_is_compressed() -> None:
    async with place() as here, connect(here.url, compression="deflate") as client:
        assert client.response is not None
        assert "Sec-WebSocket-Extensions" not in client.response.headers


@pytest.mark.parametrize(
    ("message", "fits"),
    [
        pytest.param("x" * limits.MAX_READ_FRAME_BYTES, True, id="the largest"),
        pytest.param("x" * (limits.MAX_READ_FRAME_BYTES + 1), False, id="a byte more"),
        pytest.param(["x"] * (limits.MAX_MESSAGE_FRAGMENTS - 1), True, id="in many frames"),  # and an empty last one
        pytest.param("x" * 1_000_000, False, id="far too large"),
        pytest.param([""] * limits.MAX_MESSAGE_FRAGMENTS, False, id="in a frame more"),
    ],
)
async def test_a_message_is_read_within_bounds(message: str | list[str], fits: bool) -> None:
    async with place() as here, connect(here.url) as client:
        with contextlib.suppress(ConnectionClosed):  # the server need not have read it to its end
            await client.send(message)
        if fits:
            await until(lambda: here.app.received != [])
            assert here.app.received == [{"type": "websocket.receive", "text": "".join(message)}]
            return
        await asyncio.wait_for(client.wait_closed(), 5)
        assert client.close_code == 1009
        if not isinstance(message, str):
            assert client.close_reason == "the message comes in more than 256 frames"
        await until(lambda: here.app.received != [])
        assert [(got["type"], got["code"]) for got in here.app.received] == [("websocket.disconnect", 1009)]


async def test_a_text_that_is_no_utf_8_is_closed_with_1007() -> None:
    async with place() as here, connect(here.url) as client:
        await client.send(b"\xff", text=True)
        await client.ping()
        await asyncio.wait_for(client.wait_closed(), 5)
        assert client.close_code == 1007
        await until(lambda: here.protocols == [])
        assert here.app.received == [{"type": "websocket.disconnect", "code": 1007, "reason": ""}]
