from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from actors.runtime.tasks import Tasks
from fastsock.ws.connection import Connection, Counts


class Server:
    """The ASGI server's half: takes what is sent, unless its ``gate`` is shut or it has ``error``."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    async def send(self, message: Any) -> None:
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.sent.append(message)

    @property
    def texts(self) -> list[str]:
        return [message["text"] for message in self.sent if message["type"] == "websocket.send"]


class Bench:
    def __init__(self) -> None:
        self.server = Server()
        self.tasks = Tasks()
        self.counts = Counts()
        self.closes = 0

    def connection(self, limit_bytes: int = 100) -> Connection:
        def on_close() -> None:
            self.closes += 1

        return Connection(self.server.send, self.tasks, self.counts, on_close, limit_bytes)

    async def settle(self) -> None:
        """Let the writers do what they can."""
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.tasks.stop()
    assert bench.tasks.failures == 0


async def test_frames_are_sent_in_order_as_texts(bench: Bench) -> None:
    connection = bench.connection()
    for payload in (b"one", "zwölf".encode(), b"one"):
        connection.write(payload)
    assert bench.server.sent == []  # nothing is sent from within write
    await bench.settle()
    assert bench.server.sent == [{"type": "websocket.send", "text": text} for text in ("one", "zwölf", "one")]
    assert (bench.counts.frames_out, bench.counts.bytes_out) == (3, 12)


async def test_an_idle_connection_has_no_task(bench: Bench) -> None:
    connection = bench.connection()
    assert len(bench.tasks) == 0
    for _ in range(3):
        connection.write(b"x")
        assert len(bench.tasks) == 1
        await bench.settle()
        assert len(bench.tasks) == 0
    assert bench.server.texts == ["x"] * 3


async def test_what_waits_is_bounded_and_a_slow_consumer_is_cut(bench: Bench) -> None:
    connection = bench.connection(limit_bytes=10)
    bench.server.gate.clear()
    connection.write(b"12345")
    await bench.settle()  # the first frame is with the server, which has not taken it: it still counts
    connection.write(b"67890")
    assert (connection.waiting_bytes, connection.closing) == (10, None)
    connection.write(b"!")
    assert connection.closing == (4008, "10 of 10 bytes wait to be read")
    assert (connection.waiting_bytes, bench.counts.slow_consumers, bench.closes) == (0, 1, 1)
    connection.write(b"more")
    bench.server.gate.set()
    await bench.settle()
    assert bench.server.texts == ["12345"]
    assert bench.server.sent[-1] == {
        "type": "websocket.close",
        "code": 4008,
        "reason": "10 of 10 bytes wait to be read",
    }
    assert bench.counts.slow_consumers == 1


async def test_a_consumer_that_reads_is_never_cut(bench: Bench) -> None:
    connection = bench.connection(limit_bytes=10)
    for _ in range(100):
        connection.write(b"1234567890")
        await bench.settle()
    assert len(bench.server.texts) == 100
    assert connection.closing is None


async def test_closing_sends_what_was_written_before_and_nothing_after(bench: Bench) -> None:
    connection = bench.connection()
    connection.write(b"before")
    connection.close(4001, "the token has expired")
    connection.close(1000, "the second says nothing")
    connection.write(b"after")
    await bench.settle()
    assert bench.server.sent == [
        {"type": "websocket.send", "text": "before"},
        {"type": "websocket.close", "code": 4001, "reason": "the token has expired"},
    ]
    assert bench.closes == 1


async def test_an_idle_connection_can_be_closed(bench: Bench) -> None:
    connection = bench.connection()
    connection.close(1012, "é" * 100)
    await bench.settle()
    assert bench.server.sent == [{"type": "websocket.close", "code": 1012, "reason": "é" * 61}]


async def test_closing_while_a_frame_is_on_its_way(bench: Bench) -> None:
    connection = bench.connection()
    bench.server.gate.clear()
    connection.write(b"frame")
    await bench.settle()
    connection.close(1000)
    bench.server.gate.set()
    await bench.settle()
    assert [message["type"] for message in bench.server.sent] == ["websocket.send", "websocket.close"]


async def test_an_abandoned_connection_writes_nothing_and_leaves_no_task(bench: Bench) -> None:
    connection = bench.connection()
    bench.server.gate.clear()
    connection.write(b"frame")
    await bench.settle()
    connection.abandon()
    connection.abandon()
    connection.write(b"more")
    connection.close(1000)
    await bench.settle()
    assert (connection.closing, connection.waiting_bytes, len(bench.tasks)) == ((1006, ""), 0, 0)
    bench.server.gate.set()
    await bench.settle()
    assert bench.server.sent == []
    assert bench.closes == 0


@pytest.mark.parametrize("fails_at", ["send", "close"])
async def test_a_server_that_fails_ends_the_connection(bench: Bench, fails_at: str) -> None:
    connection = bench.connection()
    bench.server.error = OSError("the peer has gone")
    act: Callable[[], None] = (lambda: connection.write(b"x")) if fails_at == "send" else lambda: connection.close(1000)
    act()
    await bench.settle()
    assert connection.closing is not None
    assert (bench.counts.failed_writes, bench.closes, connection.waiting_bytes) == (1, 1, 0)
    connection.write(b"more")
    await bench.settle()
    assert (bench.counts.failed_writes, len(bench.tasks)) == (1, 0)


async def test_one_payload_is_decoded_once_for_all(bench: Bench) -> None:
    payload = "grüße".encode()
    for _ in range(3):
        bench.connection().write(payload)
    await bench.settle()
    texts = bench.server.texts
    assert texts == ["grüße"] * 3
    assert texts[0] is texts[1] is texts[2]
    bench.connection().write(b"other")
    await bench.settle()
    assert bench.server.texts[-1] == "other"
