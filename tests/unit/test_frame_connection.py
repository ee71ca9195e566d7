"""Sockets on uvicorn's transport: what is handed to it and when, and how they end."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import pytest
import uvicorn.config
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Close, Frame, Opcode

from actors.runtime.tasks import Tasks
from fastsock.core import limits
from fastsock.ws import frame_connection, uvicorn_frames
from fastsock.ws.broadcast import Frames
from fastsock.ws.chats import Chats
from fastsock.ws.frame_connection import FrameConnection
from fastsock.ws.frames import PING, text_frame
from fastsock.ws.shell import GatewayShell
from tests.unit.ws_world import SECRET, FakeMessages, Peer, World, _Chosen, until, world

A, B = 1, 2


@pytest.fixture(autouse=True)
def frames_carry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Chosen, "carrier", "frames")
    monkeypatch.setattr(uvicorn.config, "WS_PROTOCOLS", dict(uvicorn.config.WS_PROTOCOLS))
    monkeypatch.setattr(uvicorn_frames.Upgraded, "chats", None)


# --- what is handed to the transport -----------------------------------------------------------------------------


class Transport:
    """Keeps what it is given; ``room_bytes`` is what it takes until it says that it is full."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.room_bytes = 10**9
        self.protocol: Any = None
        self.ended = False

    def write(self, data: bytes) -> None:
        self.written.append(data)
        self.room_bytes -= len(data)
        if self.room_bytes < 0:
            self.protocol.pause_writing()

    def take(self) -> list[bytes]:
        written, self.written = self.written, []
        return written

    def drained(self) -> None:
        self.room_bytes = 10**9
        self.protocol.resume_writing()

    def is_closing(self) -> bool:
        return self.ended

    def close(self) -> None:
        self.ended = True

    def get_extra_info(self, _name: str) -> None:
        return None

    def set_write_buffer_limits(self, high: int) -> None:
        self.high = high

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class NoReads:
    """The database of a gateway that reads nothing."""

    async def subscriptions(self, user_ids: Any) -> Any:
        raise NotImplementedError(user_ids)

    standings = pages = subscriptions


class Bench:
    """Connections that nobody has authenticated."""

    def __init__(self) -> None:
        self.tasks = Tasks()
        self.shell = GatewayShell(NoReads(), self.tasks, lambda: 0)
        self.frames = Frames(Chats(self.shell, FakeMessages(), secret=SECRET, max_sockets=9), None)

    def connection(self) -> tuple[FrameConnection, Transport]:
        transport = Transport()
        connection = FrameConnection(cast("Any", transport), self.frames, lambda _connection: None)
        transport.protocol = connection
        return connection, transport


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.tasks.stop()


async def turn() -> None:
    await asyncio.sleep(0)


async def test_what_one_turn_writes_is_one_write(bench: Bench) -> None:
    connection, transport = bench.connection()
    for text in (b"one", "zwölf".encode(), b"three"):
        connection.write(text)
    assert transport.take() == []
    await turn()
    assert transport.take() == [text_frame(b"one") + text_frame("zwölf".encode()) + text_frame(b"three")]
    assert (bench.shell.counts.frames_out, connection.waiting_bytes) == (3, 0)


async def test_a_broadcast_is_one_frame_for_everybody(bench: Bench) -> None:
    sockets = [bench.connection() for _ in range(3)]
    payload = b"x" * 1_000
    for connection, _ in sockets:
        connection.write(payload)
    await turn()
    [first], [second], [third] = [transport.take() for _, transport in sockets]
    assert first == text_frame(payload)
    assert first is second is third


async def test_a_full_transport_is_given_nothing_more(bench: Bench) -> None:
    connection, transport = bench.connection()
    transport.room_bytes = 0
    connection.write(b"first")
    await turn()
    connection.write(b"second")
    connection.write(b"third")
    await turn()
    assert transport.take() == [text_frame(b"first")]
    transport.drained()
    await turn()
    assert transport.take() == [text_frame(b"second") + text_frame(b"third")]


async def test_much_is_handed_over_in_pieces(bench: Bench) -> None:
    connection, transport = bench.connection()
    frame = b"x" * 20_000
    for _ in range(7):
        connection.write(frame)
    await turn()
    sizes = [len(piece) // 20_000 for piece in transport.take()]
    assert sizes == [3, 3, 1]
    assert frame_connection.MAX_FLUSH_BYTES == limits.SOCKET_BUFFER_BYTES == 65_536


async def test_a_slow_consumer_loses_what_is_ephemeral_and_then_its_socket(bench: Bench) -> None:
    connection, transport = bench.connection()  # slow from 1 MiB, ephemeral up to 256 KiB
    transport.room_bytes = 0
    connection.write(b"first")
    await turn()
    connection.write(b"x" * 260_000, ephemeral=True)
    connection.write(b"y" * 260_000, ephemeral=True)
    assert (connection.waiting_bytes, bench.shell.counts.dropped_ephemeral) == (260_010, 1)
    for _ in range(8):
        connection.write(b"z" * 1_000_000)
    assert (connection.waiting_bytes, bench.shell.counts.dropped_ephemeral) == (8_260_090, 1)
    connection.write(b"z" * 200_000)
    assert (connection.waiting_bytes, bench.shell.counts.dropped_ephemeral) == (8_200_090, 2)
    assert connection.closing is None
    connection.write(b"z" * 200_000)
    reason = "8,200,090 of 8,388,608 bytes and 9 of 32,768 frames wait to be read"
    assert cast("Any", connection.closing) == (4008, reason)
    assert connection.waiting_bytes == 0
    transport.drained()
    await turn()
    close = Close(4008, reason).serialize()
    assert transport.take() == [text_frame(b"first"), bytes([0x88, len(close)]) + close]


async def test_a_replay_goes_in_turns_with_what_is_written(bench: Bench) -> None:
    connection, transport = bench.connection()
    done: list[int] = []
    pages = [b"page" * 1_000 for _ in range(9)]
    transport.room_bytes = 0
    connection.write(b"first")
    await turn()
    connection.feed(pages, lambda: done.append(1))
    connection.write(b"live")
    transport.drained()
    await turn()
    frame = text_frame(pages[0])
    assert transport.take() == [text_frame(b"first"), text_frame(b"live"), frame * 5, frame * 4]
    assert (done, connection.waiting_bytes) == ([1], 0)


async def test_a_replay_waits_for_room_too(bench: Bench) -> None:
    connection, transport = bench.connection()
    done: list[int] = []
    transport.room_bytes = 10_000
    connection.feed([b"page" * 1_000 for _ in range(9)], lambda: done.append(1))
    await turn()
    assert (len(transport.take()), done, connection.waiting_bytes) == (1, [], 16_000)
    connection.close(1000)
    transport.drained()
    await turn()
    assert transport.take() == [bytes([0x88, 2]) + (1000).to_bytes(2)]
    assert done == []


async def test_an_empty_page_is_done_too(bench: Bench) -> None:
    connection, _ = bench.connection()
    done: list[int] = []
    connection.feed([], lambda: done.append(1))
    await turn()
    assert done == [1]


# --- with a real uvicorn and real sockets ------------------------------------------------------------------------


class Raw:
    """A peer that speaks bytes."""

    def __init__(self, here: World) -> None:
        self.here = here
        self.socket = socket.socket()
        self.socket.setblocking(False)

    async def shake(self, query: str = "", key: str | None = None, version: str = "13", path: str = "chat") -> bytes:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self.socket, ("127.0.0.1", self.here.port))
        key = base64.b64encode(os.urandom(16)).decode() if key is None else key
        request = (
            f"GET /api/v1/ws/{path}{query} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: {version}\r\n\r\n"
        )
        await loop.sock_sendall(self.socket, request.encode())
        return await loop.sock_recv(self.socket, 12)

    async def send(self, *frames: Frame) -> None:
        wire = b"".join(frame.serialize(mask=True) for frame in frames)
        await asyncio.get_running_loop().sock_sendall(self.socket, wire)

    async def rest(self) -> bytes:
        """Everything until the end; raises ConnectionResetError where it was cut."""
        came = b""
        while piece := await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.socket, 100_000), 5):
            came += piece
        return came


@asynccontextmanager
async def raw(here: World, **options: Any) -> AsyncIterator[Raw]:
    peer = Raw(here)
    try:
        assert await peer.shake(f"?token={here.token(A)}", **options) == b"HTTP/1.1 101"
        yield peer
    finally:
        peer.socket.close()


def connections(here: World) -> list[FrameConnection]:
    items = cast("set[Any]", here.server.server_state.connections)
    return [item for item in items if isinstance(item, FrameConnection)]


@pytest.fixture
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_connection, "LINGER_S", 0.2)


async def test_the_buffers_below_the_outbox_are_small() -> None:
    async with world() as here, here.socket(A) as anna:
        await anna.expect("session.ready")
        [connection] = connections(here)
        transport = connection._transport
        assert transport is not None
        assert transport.get_write_buffer_limits() == (16_384, limits.SOCKET_BUFFER_BYTES)
        if sys.platform == "linux":
            size = transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            assert size == 2 * limits.SOCKET_SEND_BYTES
        assert anna.socket.response is not None
        assert "Sec-WebSocket-Extensions" not in anna.socket.response.headers


@pytest.mark.usefixtures("short_linger")
async def test_a_closed_socket_ends_though_its_peer_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Chats, "close_within_s", 0.2)
    async with world() as here, raw(here) as deaf:
        await until(lambda: len(here.shell) == 1)
        [connection] = connections(here)
        while not connection._full:
            connection.write(b"x" * 50_000)
            await asyncio.sleep(0.001)
        connection.close(1012)
        await until(lambda: len(here.shell) == 0 and connections(here) == [])
        with pytest.raises(ConnectionResetError):
            await deaf.rest()


async def test_who_answers_no_ping_is_gone() -> None:
    async with world(ping_interval_s=0.2) as here, raw(here) as silent, here.socket(B) as bert:
        await bert.expect("session.ready")
        reading = asyncio.create_task(bert.socket.recv())
        await until(lambda: len(here.shell) == 2)
        await until(lambda: len(here.shell) == 1)
        came = await silent.rest()
        assert PING in came
        assert came.endswith(Close(1011, "keepalive ping timeout").serialize())
        await asyncio.sleep(0.5)  # two more turns, in which the one who answers is not cut
        assert not reading.done()
        reading.cancel()


async def test_pings_are_answered() -> None:
    async with world() as here, here.socket(A) as anna:
        await anna.expect("session.ready")
        for _ in range(3):
            await asyncio.wait_for(await anna.socket.ping(), 5)


async def test_pings_are_answered_only_while_answers_are_read() -> None:
    async with world() as here, raw(here) as deaf:
        await until(lambda: len(here.shell) == 1)
        [connection] = connections(here)
        while not connection._full:
            connection.write(b"x" * 50_000)
            await asyncio.sleep(0.001)
        assert connection._transport is not None
        before = connection._transport.get_write_buffer_size()
        await deaf.send(*[Frame(Opcode.PING, b"p" * 125)] * 2_000, Frame(Opcode.TEXT, b'{"event":"ping"}'))
        await until(lambda: connection.waiting_bytes > 0)  # the pong of the last one, an event
        assert connection._transport.get_write_buffer_size() <= before


@pytest.mark.parametrize(
    ("frames", "code", "reason"),
    [
        ([Frame(Opcode.TEXT, b"\xff")], 1007, ""),
        ([Frame(Opcode.CONT, b"x")], 1002, "there is no message to go on with"),
        ([Frame(Opcode.CLOSE, b"x")], 1002, "close frame too short"),
        (
            [Frame(Opcode.TEXT, b"x" * (limits.MAX_READ_FRAME_BYTES + 1))],
            1009,
            "the frame has 262,145 of at most 262,144 bytes",
        ),
    ],
)
async def test_who_breaks_the_protocol_is_told_so(frames: list[Frame], code: int, reason: str) -> None:
    async with world() as here, raw(here) as peer:
        await until(lambda: len(here.shell) == 1)
        with contextlib.suppress(ConnectionError):
            await peer.send(*frames, Frame(Opcode.TEXT, b'{"event":"ping"}'))
        assert (await peer.rest()).endswith(Close(code, reason).serialize())
        assert len(here.shell) == 0


async def test_a_peer_that_closes_is_answered_with_its_code() -> None:
    async with world() as here:
        for payload in (Close(1000, "bye").serialize(), b""):
            async with raw(here) as peer:
                await until(lambda: len(here.shell) == 1)
                await peer.send(Frame(Opcode.CLOSE, payload))
                assert (await peer.rest()).endswith(bytes([0x88, len(payload)]) + payload)
                await until(lambda: connections(here) == [])
                assert len(here.shell) == 0


async def test_a_close_frame_behind_frames_that_wait_is_found() -> None:
    """Closed while it is held: what it had sent is skipped, and its answer ends it, long before it would be cut."""
    async with world() as here, raw(here) as peer:
        await until(lambda: len(here.shell) == 1)
        here.load_gate.clear()
        here.messages.gate = gate = asyncio.Event()
        change = {"event": "message.delete", "data": {"message_id": 7}}
        await peer.send(
            Frame(Opcode.TEXT, json.dumps(change).encode()),
            Frame(Opcode.TEXT, b'{"event":"ping"}'),
            Frame(Opcode.CLOSE, b""),
        )
        await until(lambda: here.messages.waiting == 1)
        [connection] = connections(here)
        connection.close(1012, "bye")
        assert (await peer.rest()).endswith(Close(1012, "bye").serialize())
        gate.set()
        here.load_gate.set()


async def test_the_server_says_goodbye(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_connection, "GOODBYE_S", 0.2)
    async with world() as here, AsyncExitStack() as stack:
        anna = await here.ready(A, stack)
        stranger = Peer(await stack.enter_async_context(connect(here.url())))
        await until(lambda: here.chats.greeting == 1)
        here.server.should_exit = True
        assert (await anna.expect("error"))["code"] == "going_away"
        assert await anna.end() == (1012, "this gateway goes away: connect again")
        assert await stranger.end() == (1012, "")
        await until(lambda: here.chats.greeting == 0)


# --- whom it is for ----------------------------------------------------------------------------------------------


async def test_other_paths_go_the_usual_way() -> None:
    async with world() as here:
        with pytest.raises(InvalidStatus) as caught:
            async with connect(here.url(path="/api/v1/ws/other")):
                pass
        assert caught.value.response.status_code == 403
        async with connect(here.url(f"?token={here.token(A)}", "/api/v1/ws/chat/")) as socket:
            await Peer(socket).expect("session.ready")
            assert len(connections(here)) == 1


@pytest.mark.parametrize(
    ("options", "status"),
    [({"version": "8"}, b"HTTP/1.1 400"), ({"key": "short"}, b"HTTP/1.1 400"), ({"key": "ä"}, b"HTTP/1.1 400")],
)
async def test_a_handshake_that_is_none_goes_the_usual_way(options: dict[str, str], status: bytes) -> None:
    async with world() as here:
        peer = Raw(here)
        assert await peer.shake(f"?token={here.token(A)}", **options) == status
        peer.socket.close()


async def test_a_server_of_another_event_loop_gets_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as here:
        monkeypatch.setattr(uvicorn_frames.Upgraded, "loop", asyncio.new_event_loop())
        with contextlib.closing(cast("Any", uvicorn_frames.Upgraded.loop)):
            async with here.socket(A) as anna:
                await anna.expect("session.ready")
                assert (connections(here), len(here.shell)) == ([], 1)
                await anna.nothing_else()


async def test_peers_that_vanish_leave_nothing(short_linger: None) -> None:  # noqa: ARG001 - a fixture
    async with world() as here:
        for _ in range(3):
            async with raw(here):
                await until(lambda: len(here.shell) == 1)
            await until(lambda: len(here.shell) == 0 and connections(here) == [])
        with contextlib.suppress(ConnectionClosed):
            async with connect(here.url()):
                await until(lambda: here.chats.greeting == 1)
        await until(lambda: here.chats.greeting == 0)
