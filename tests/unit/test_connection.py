from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from actors.runtime.tasks import Tasks
from fastsock.core import limits
from fastsock.ws.connection import Connection
from fastsock.ws.outbox import Counts


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

    def connection(self, limit_bytes: int = 8_000, limit_frames: int = 800) -> Connection:
        """It is slow from 1/8, and takes ephemeral frames up to 1/32: 1,000 and 250 bytes, 100 and 25 frames."""

        def on_close() -> None:
            self.closes += 1

        return Connection(self.server.send, self.tasks, self.counts, on_close, limit_bytes, limit_frames)

    async def stuck(self) -> Connection:
        """A connection whose server has been given one frame, ``"first"``, and does not take it."""
        connection = self.connection()
        self.server.gate.clear()
        connection.write(b"first")
        await self.settle()
        return connection

    async def released(self) -> list[str]:
        """The texts that are sent when the server takes everything again."""
        self.server.gate.set()
        for _ in range(20):
            await self.settle()
        return self.server.texts

    async def settle(self) -> None:
        """Let the writers do what they can."""
        for _ in range(10):
            await asyncio.sleep(0)


class Clock:
    """The event loop's time, which stands still unless a test moves it."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def time(self) -> float:
        return self.now_s


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    loop = asyncio.get_running_loop()
    clock = Clock(loop.time())
    monkeypatch.setattr(loop, "time", clock.time)
    return clock


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


async def test_what_waits_is_bounded_in_bytes_and_a_slow_consumer_is_cut(bench: Bench) -> None:
    connection = await bench.stuck()  # its frame is with the server, which has not taken it: it still counts
    for _ in range(7):
        connection.write(b"x" * 1_000)
    connection.write(b"y" * 995)
    assert (connection.waiting_bytes, connection.closing) == (8_000, None)
    connection.write(b"!")
    reason = "8,000 of 8,000 bytes and 9 of 800 frames wait to be read"
    assert connection.closing == (4008, reason)
    assert (connection.waiting_bytes, bench.counts.slow_consumers, bench.closes) == (0, 1, 1)
    connection.write(b"more")
    assert await bench.released() == ["first"]
    assert bench.server.sent[-1] == {"type": "websocket.close", "code": 4008, "reason": reason}
    assert bench.counts.slow_consumers == 1


async def test_what_waits_is_bounded_in_frames_too(bench: Bench) -> None:
    connection = await bench.stuck()
    for _ in range(799):
        connection.write(b"x")
    assert (connection.waiting_bytes, connection.closing) == (804, None)
    connection.write(b"x")
    assert connection.closing == (4008, "804 of 8,000 bytes and 800 of 800 frames wait to be read")


async def test_who_stays_behind_is_cut_below_the_bounds(bench: Bench, clock: Clock) -> None:
    connection = await bench.stuck()
    connection.write(b"x" * 995)
    clock.now_s += 100
    connection.write(b"y" * 1)  # above 1/8: from now on its patience is measured
    clock.now_s += limits.OUTBOX_PATIENCE_S - 0.1
    connection.write(b"z" * 1_000)
    assert bench.closes == 0
    clock.now_s += 0.1
    connection.write(b"!")
    assert connection.closing == (4008, "2,001 of 1,000 bytes and 4 of 100 frames wait to be read for 5.0 s")
    assert await bench.released() == ["first"]


async def test_who_stays_behind_in_frames_is_cut_too(bench: Bench, clock: Clock) -> None:
    connection = await bench.stuck()
    for _ in range(100):
        connection.write(b"x")
    clock.now_s += limits.OUTBOX_PATIENCE_S
    connection.write(b"x")
    assert connection.closing == (4008, "105 of 1,000 bytes and 101 of 100 frames wait to be read for 5.0 s")


async def test_a_burst_that_is_read_in_time_cuts_nobody(bench: Bench, clock: Clock) -> None:
    connection = await bench.stuck()
    for burst in range(3):
        bench.server.gate.clear()
        for _ in range(7):
            connection.write(b"x" * 1_000)
        clock.now_s += limits.OUTBOX_PATIENCE_S - 0.1
        assert len(await bench.released()) == 1 + 7 * (burst + 1)
    assert connection.closing is None


async def test_a_consumer_that_reads_is_never_cut(bench: Bench) -> None:
    connection = bench.connection(limit_bytes=80)
    for _ in range(100):
        connection.write(b"1234567890")
        await bench.settle()
    assert len(bench.server.texts) == 100
    assert connection.closing is None


async def test_the_writer_lets_others_in_between(bench: Bench) -> None:
    connection = bench.connection(limit_frames=8_000)
    for _ in range(200):
        connection.write(b"x")
    await asyncio.sleep(0)
    sent = []
    while len(bench.server.texts) < 200:
        await asyncio.sleep(0)
        sent.append(len(bench.server.texts))
    assert sent[0] <= 2 * limits.OUTBOX_TURN_FRAMES
    assert len(sent) >= 3


# --- ephemeral frames -------------------------------------------------------------------------------------------


async def test_ephemeral_frames_keep_their_place_among_the_others(bench: Bench) -> None:
    connection = bench.connection()
    connection.write(b"1")
    connection.write(b"2", ephemeral=True)
    connection.write(b"3")
    await bench.settle()
    assert bench.server.texts == ["1", "2", "3"]
    assert (bench.counts.frames_out, bench.counts.dropped_ephemeral) == (3, 0)


async def test_an_ephemeral_frame_is_dropped_above_its_share_of_the_bytes(bench: Bench) -> None:
    connection = await bench.stuck()
    connection.write(b"x" * 240)
    connection.write(b"typin", ephemeral=True)
    assert (connection.waiting_bytes, bench.counts.dropped_ephemeral) == (250, 0)
    connection.write(b"t", ephemeral=True)
    assert (connection.waiting_bytes, bench.counts.dropped_ephemeral) == (250, 1)
    assert await bench.released() == ["first", "x" * 240, "typin"]
    connection.write(b"t", ephemeral=True)
    assert (await bench.released())[-1] == "t"


async def test_an_ephemeral_frame_is_dropped_above_its_share_of_the_frames(bench: Bench) -> None:
    connection = await bench.stuck()
    for _ in range(24):
        connection.write(b"t", ephemeral=True)
    assert bench.counts.dropped_ephemeral == 0
    connection.write(b"t", ephemeral=True)
    assert bench.counts.dropped_ephemeral == 1
    assert connection.closing is None


async def test_ephemeral_frames_make_room_before_anybody_is_cut(bench: Bench) -> None:
    connection = await bench.stuck()
    for number in range(4):
        connection.write(b"%d" % number)
        connection.write(b"t" * 20, ephemeral=True)
    connection.write(b"x" * 7_911)
    assert connection.waiting_bytes == 8_000
    connection.write(b"y" * 80)
    assert (connection.waiting_bytes, connection.closing, bench.counts.dropped_ephemeral) == (8_000, None, 4)
    connection.write(b"!")
    assert connection.closing == (4008, "8,000 of 8,000 bytes and 7 of 800 frames wait to be read")
    assert bench.counts.dropped_ephemeral == 4


async def test_what_made_room_is_not_sent_and_the_rest_is_in_order(bench: Bench) -> None:
    connection = await bench.stuck()
    for number in range(4):
        connection.write(b"%d" % number)
        connection.write(b"t" * 20, ephemeral=True)
    connection.write(b"x" * 7_911)
    connection.write(b"y" * 80)
    assert await bench.released() == ["first", "0", "1", "2", "3", "x" * 7_911, "y" * 80]
    assert connection.waiting_bytes == 0


async def test_an_ephemeral_frame_that_is_with_the_server_is_sent(bench: Bench) -> None:
    connection = bench.connection()
    bench.server.gate.clear()
    connection.write(b"typing", ephemeral=True)
    await bench.settle()
    connection.write(b"x" * 7_994)
    assert connection.closing is None
    assert await bench.released() == ["typing", "x" * 7_994]


async def test_ephemeral_frames_make_room_for_who_stays_behind(bench: Bench, clock: Clock) -> None:
    connection = await bench.stuck()
    connection.write(b"t" * 100, ephemeral=True)
    connection.write(b"x" * 896)
    clock.now_s += limits.OUTBOX_PATIENCE_S
    connection.write(b"y" * 99)
    assert (connection.waiting_bytes, connection.closing, bench.counts.dropped_ephemeral) == (1_000, None, 1)


# --- replays ----------------------------------------------------------------------------------------------------


def page(*texts: str) -> list[bytes]:
    return [text.encode() for text in texts]


async def test_a_page_is_sent_in_order_and_its_end_is_told_once(bench: Bench) -> None:
    connection = bench.connection()
    done: list[list[str]] = []
    connection.feed(page("1", "2", "3"), lambda: done.append(bench.server.texts))
    assert (bench.server.sent, done, connection.waiting_bytes) == ([], [], 3)
    await bench.settle()
    assert (bench.server.texts, done, connection.waiting_bytes) == (["1", "2", "3"], [["1", "2", "3"]], 0)
    assert (bench.counts.frames_out, bench.counts.bytes_out, len(bench.tasks)) == (3, 3, 0)


async def test_an_empty_page_has_an_end_too(bench: Bench) -> None:
    done: list[int] = []
    bench.connection().feed([], lambda: done.append(1))
    assert done == []  # never from within
    await bench.settle()
    assert done == [1]


async def test_pages_follow_each_other(bench: Bench) -> None:
    connection = bench.connection()
    pages = [page("1", "2"), page("3"), page("4", "5")]

    def following() -> None:
        if pages:
            connection.feed(pages.pop(0), following)

    following()
    for _ in range(3):
        await bench.settle()
    assert bench.server.texts == ["1", "2", "3", "4", "5"]
    assert len(bench.tasks) == 0


async def test_one_page_at_a_time(bench: Bench) -> None:
    connection = bench.connection()
    connection.feed(page("1"), lambda: None)
    with pytest.raises(AssertionError, match="one page at a time"):
        connection.feed(page("2"), lambda: None)


async def test_a_page_and_what_is_written_take_turns(bench: Bench) -> None:
    connection = await bench.stuck()
    connection.feed(page("a", "b", "c", "d"), lambda: None)
    for payload in (b"1", b"2"):
        connection.write(payload)
    assert await bench.released() == ["first", "a", "1", "b", "2", "c", "d"]


async def test_a_page_is_not_counted_against_the_outbox(bench: Bench) -> None:
    connection = await bench.stuck()
    done: list[int] = []
    connection.feed([b"x" * 10_000] * 5, lambda: done.append(1))
    for _ in range(7):
        connection.write(b"y" * 1_000)
    connection.write(b"typing", ephemeral=True)
    connection.write(b"y" * 995)
    assert (connection.waiting_bytes, connection.closing) == (58_000, None)
    assert len(await bench.released()) == 1 + 5 + 8
    assert done == [1]
    assert connection.waiting_bytes == 0


async def test_the_frame_of_a_page_that_the_server_has_not_taken_still_waits(bench: Bench) -> None:
    connection = bench.connection(limit_bytes=80, limit_frames=8)
    bench.server.gate.clear()
    connection.feed(page("12345", "678"), lambda: None)
    await bench.settle()
    assert connection.waiting_bytes == 8
    connection.write(b"x" * 80)
    assert (connection.waiting_bytes, connection.closing) == (88, None)


@pytest.mark.parametrize("ended_by", ["close", "abandon", "overflow", "failure"])
async def test_after_the_end_the_rest_of_a_page_is_dropped_and_its_end_is_not_told(bench: Bench, ended_by: str) -> None:
    connection = await bench.stuck()
    done: list[int] = []
    connection.feed(page("1", "2"), lambda: done.append(1))
    match ended_by:
        case "close":
            connection.close(1000)
        case "abandon":
            connection.abandon()
        case "overflow":
            connection.write(b"x" * 8_000)
        case _:
            bench.server.error = OSError("the peer has gone")
    sent = await bench.released()
    connection.feed(page("3"), lambda: done.append(2))
    await bench.settle()
    assert (done, connection.waiting_bytes, len(bench.tasks)) == ([], 0, 0)
    assert sent == ([] if ended_by in {"abandon", "failure"} else ["first"])
    assert (connection.closing or (0, ""))[0] == {"close": 1000, "overflow": 4008}.get(ended_by, 1006)


async def test_an_end_while_the_last_frame_of_a_page_is_on_its_way(bench: Bench) -> None:
    connection = bench.connection()
    done: list[int] = []
    bench.server.gate.clear()
    connection.feed(page("only"), lambda: done.append(1))
    await bench.settle()
    connection.close(1000)
    assert await bench.released() == ["only"]
    assert done == []


async def test_who_takes_nothing_of_a_page_is_cut(bench: Bench, clock: Clock) -> None:
    connection = bench.connection()
    bench.server.gate.clear()
    done: list[int] = []
    connection.feed(page("12345", "678"), lambda: done.append(1))
    clock.now_s += limits.FEED_PATIENCE_S - 0.1
    await bench.settle()
    assert bench.closes == 0
    clock.now_s += 0.2
    await bench.settle()
    assert connection.closing == (4008, "8 replayed bytes wait, and none was read for 20 s")
    assert (connection.waiting_bytes, bench.counts.slow_consumers, bench.closes) == (0, 1, 1)
    await bench.released()
    assert done == []


async def test_who_takes_a_frame_now_and_then_is_borne_with(bench: Bench, clock: Clock) -> None:
    connection = bench.connection()
    taken = asyncio.Semaphore(0)

    async def send(message: Any) -> None:
        await taken.acquire()
        bench.server.sent.append(message)

    connection = Connection(send, bench.tasks, bench.counts, lambda: None)
    done: list[int] = []
    connection.feed(page("1", "2", "3"), lambda: done.append(1))
    for _ in range(3):
        clock.now_s += limits.FEED_PATIENCE_S - 1
        await bench.settle()
        taken.release()
        await bench.settle()
    assert (bench.server.texts, done, connection.closing) == (["1", "2", "3"], [1], None)
    clock.now_s += 100  # nothing is left that could fire
    await bench.settle()
    assert connection.closing is None


# --- the end ----------------------------------------------------------------------------------------------------


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
