"""The writing half of one socket: a bounded outbox over the ASGI server's ``send``.

`Connection.write` is synchronous and cheap, because a broadcast calls it for thousands of sockets in one turn of the
event loop. What was written is sent by a task that exists only while there is something to send: an idle socket costs
no task and no timer. A peer that reads slower than its conversations speak is a *slow consumer*:

1. ephemeral frames are dropped as soon as `OUTBOX_EPHEMERAL_SHARE` of a bound is filled;
2. where a frame does not fit in any more, the ephemeral frames that still wait make room;
3. then all is thrown away and the socket is closed with 4008: it comes back and resumes.

Slow is a matter of time: a burst of megabytes comes in one turn of the event loop, before anybody could read it. So
there are two marks: `OUTBOX_SLOW_SHARE`, which an outbox may exceed for `OUTBOX_PATIENCE_S`, and the bounds, which it
never exceeds (`MAX_OUTBOX_BYTES`, `MAX_OUTBOX_FRAMES`). With the lower one alone, all readers of a room were cut when
six people sent 40 messages of 41 KB each at once.

A replay would burst any bound, so it is *fed*: page by page, each asked for when the last one was taken, beside the
outbox and in turns with it.

Payloads are UTF-8 texts, and wait as bytes: all sockets of a broadcast are handed the same object, so that it is kept
once, whoever waits for it. (As text one emoji would make it four times as large.) They are decoded when they are sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
from starlette.types import Message, Send

from fastsock.core.errors import TABLE
from fastsock.core.limits import (
    FEED_PATIENCE_S,
    MAX_OUTBOX_BYTES,
    MAX_OUTBOX_FRAMES,
    OUTBOX_EPHEMERAL_SHARE,
    OUTBOX_PATIENCE_S,
    OUTBOX_SLOW_SHARE,
    OUTBOX_TURN_FRAMES,
)
from fastsock.ws.session import close_reason

log = structlog.get_logger("fastsock.ws")

SLOW_CONSUMER = TABLE["slow_consumer"].close_code or 0
GONE = 1006
"""RFC 6455, section 7.4.1: what a connection that ended without a close frame is said to have ended with."""


class TaskOwner(Protocol):
    """Who keeps background tasks, logs and counts their failures, and ends them."""

    def start(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Run it as a task of this owner."""
        ...


@dataclass(slots=True)
class Counts:
    """What all connections of one gateway have done since it started."""

    frames_out: int = 0
    bytes_out: int = 0
    slow_consumers: int = 0
    failed_writes: int = 0
    dropped_ephemeral: int = 0


class _Text:
    """The last payload that was decoded."""

    __slots__ = ("_payload", "_text")

    def __init__(self) -> None:
        self._payload = b""
        self._text = ""

    def of(self, payload: bytes) -> str:
        if payload is not self._payload:
            self._text = payload.decode()
            self._payload = payload
        return self._text


_text = _Text()


@dataclass(frozen=True, slots=True)
class _Ephemeral:
    """A frame in an outbox that may be dropped. The others are there as they are, since they are the many."""

    payload: bytes


class _Feed:
    """A page of a replay that is being taken."""

    __slots__ = ("done", "payloads", "taken_s", "timer", "waiting_bytes")

    def __init__(self, payloads: Sequence[bytes], done: Callable[[], None], now_s: float) -> None:
        self.payloads = deque(payloads)
        self.done = done
        self.waiting_bytes = sum(map(len, payloads))
        self.taken_s = now_s
        """When the last of its frames was taken, or when it began, by the event loop's clock."""
        self.timer: asyncio.TimerHandle | None = None


class Connection:
    """The outbox of one accepted socket.

    ``send`` is the ASGI server's; ``on_close`` is called once, at the moment when `close` decides that the socket is to
    end (not when it has ended), and must not raise.
    """

    __slots__ = (
        "_bytes",
        "_counts",
        "_feed",
        "_limit_bytes",
        "_limit_frames",
        "_on_close",
        "_outbox",
        "_over_s",
        "_send",
        "_sending_bytes",
        "_tasks",
        "_writer",
        "closing",
    )

    def __init__(
        self,
        send: Send,
        tasks: TaskOwner,
        counts: Counts,
        on_close: Callable[[], None],
        limit_bytes: int = MAX_OUTBOX_BYTES,
        limit_frames: int = MAX_OUTBOX_FRAMES,
    ) -> None:
        self._send = send
        self._tasks = tasks
        self._counts = counts
        self._on_close = on_close
        self._limit_bytes = limit_bytes
        self._limit_frames = limit_frames
        self._outbox: deque[bytes | _Ephemeral] = deque()
        self._bytes = 0
        """What is in ``_outbox``."""
        self._sending_bytes = 0
        """The frame out of it that the server has been given and has not taken yet."""
        self._over_s: float | None = None
        """Since when it waits above `OUTBOX_SLOW_SHARE`, by the event loop's clock."""
        self._feed: _Feed | None = None
        self._writer: asyncio.Task[None] | None = None
        self.closing: tuple[int, str] | None = None
        """Close code and reason, once it is to end."""

    @property
    def waiting_bytes(self) -> int:
        """What was written or fed and is not with the server yet."""
        fed = 0 if self._feed is None else self._feed.waiting_bytes
        return self._bytes + self._sending_bytes + fed

    def write(self, payload: bytes, *, ephemeral: bool = False) -> None:
        """Send a text frame, UTF-8, after all that was written before. After `close` nothing happens.

        An ``ephemeral`` frame is one that nobody misses: it is dropped and counted where the peer is slow.
        """
        if self.closing is not None:
            return
        if ephemeral:
            if not self._fits(payload, OUTBOX_EPHEMERAL_SHARE):
                self._counts.dropped_ephemeral += 1
                return
            self._outbox.append(_Ephemeral(payload))
        else:
            if not self._fits(payload, OUTBOX_SLOW_SHARE) and not self._bear(payload):
                return
            self._outbox.append(payload)
        self._bytes += len(payload)
        if self._writer is None:
            self._start()

    def feed(self, payloads: Sequence[bytes], done: Callable[[], None]) -> None:
        """Send a page of a replay, in order; in turns with what is written, frame by frame.

        ``payloads`` are not counted against the outbox: the caller keeps to `RESUME_PAGE_BYTES`. ``done`` is called
        once, from the event loop, when the server has taken the last of them; it may feed the next page. One at a time.
        After `close` nothing happens: what is left of a page is dropped, and ``done`` is not called any more. A peer
        that takes none of it for `FEED_PATIENCE_S` is a slow consumer too.
        """
        assert self._feed is None, "one page at a time"
        if self.closing is not None:
            return
        loop = asyncio.get_running_loop()
        self._feed = feed = _Feed(payloads, done, loop.time())
        feed.timer = loop.call_later(FEED_PATIENCE_S, self._feed_due)
        if self._writer is None:
            self._start()

    def close(self, code: int, reason: str = "") -> None:
        """Close the socket once everything written so far is sent; the first call decides about code and reason."""
        if self.closing is not None:
            return
        self.closing = (code, close_reason(reason))
        self._end_feed()
        if self._writer is None:
            self._start()
        self._on_close()

    def abandon(self) -> None:
        """The socket has ended: nothing more can be sent. May be called again."""
        if self.closing is None:
            self.closing = (GONE, "")
        self._drop()
        if self._writer is not None:
            self._writer.cancel()

    # --- the bounds ----------------------------------------------------------------------------------------------

    def _fits(self, payload: bytes, share: float) -> bool:
        """Whether the outbox stays within this share of its bounds with one frame more."""
        waiting = self._bytes + self._sending_bytes + len(payload)
        frames = len(self._outbox) + (self._sending_bytes > 0) + 1
        return waiting <= share * self._limit_bytes and frames <= share * self._limit_frames

    def _bear(self, payload: bytes) -> bool:
        """Whether there is room for a frame above `OUTBOX_SLOW_SHARE`; if not, this is a slow consumer, and cut."""
        now_s = asyncio.get_running_loop().time()
        if self._over_s is None:
            self._over_s = now_s
        share = 1.0 if now_s - self._over_s < OUTBOX_PATIENCE_S else OUTBOX_SLOW_SHARE
        if self._fits(payload, share):
            return True
        # This looks at the whole outbox, and happens once per filling: up here no ephemeral frame gets in any more.
        kept = [frame for frame in self._outbox if not isinstance(frame, _Ephemeral)]
        self._counts.dropped_ephemeral += len(self._outbox) - len(kept)
        self._outbox = deque(kept)
        self._bytes = sum(map(len, kept))
        if self._fits(payload, share):
            return True
        since = "" if share == 1 else f" for {now_s - self._over_s:.1f} s"
        limit_bytes, limit_frames = int(share * self._limit_bytes), int(share * self._limit_frames)
        frames, size = len(kept) + (self._sending_bytes > 0), self._bytes + self._sending_bytes
        what = f"{size:,} of {limit_bytes:,} bytes and {frames:,} of {limit_frames:,} frames"
        self._cut(f"{what} wait to be read{since}")
        return False

    def _cut(self, why: str) -> None:
        self._counts.slow_consumers += 1
        self._drop()
        self.close(SLOW_CONSUMER, why)

    def _drop(self) -> None:
        self._outbox.clear()
        self._bytes = self._sending_bytes = 0
        self._end_feed()

    def _feed_due(self) -> None:
        """The patience with a page would be over if nothing of it had been taken."""
        feed, loop = self._feed, asyncio.get_running_loop()
        assert feed is not None, "its timer ends with it"
        left_s = feed.taken_s + FEED_PATIENCE_S - loop.time()
        if left_s > 0:
            feed.timer = loop.call_later(left_s, self._feed_due)
        else:
            self._cut(f"{feed.waiting_bytes:,} replayed bytes wait, and none was read for {FEED_PATIENCE_S:g} s")

    def _end_feed(self) -> None:
        if self._feed is not None:
            assert self._feed.timer is not None, "set when it began"
            self._feed.timer.cancel()
            self._feed = None

    # --- the writer ----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._writer = self._tasks.start(self._drain(), "outbox")

    async def _drain(self) -> None:
        try:
            handed = 0
            while self._outbox or self._feed is not None:
                if self._outbox and not await self._hand_over_written(self._outbox.popleft()):
                    return
                if self._feed is not None and not await self._hand_over_fed(self._feed):
                    return
                handed += 1
                if handed % OUTBOX_TURN_FRAMES == 0:
                    await asyncio.sleep(0)  # a server that takes all at once would not let anybody else in between
            if self.closing is not None:
                code, reason = self.closing
                await self._hand_over({"type": "websocket.close", "code": code, "reason": reason})
        finally:
            self._writer = None

    async def _hand_over_written(self, frame: bytes | _Ephemeral) -> bool:
        payload = frame.payload if isinstance(frame, _Ephemeral) else frame
        self._bytes -= len(payload)
        self._sending_bytes = len(payload)
        taken = await self._hand_over_payload(payload)
        self._sending_bytes = 0
        if self._over_s is not None and self._fits(b"", OUTBOX_SLOW_SHARE):
            self._over_s = None
        return taken

    async def _hand_over_fed(self, feed: _Feed) -> bool:
        if feed.payloads:
            payload = feed.payloads.popleft()
            if not await self._hand_over_payload(payload):
                return False
            feed.waiting_bytes -= len(payload)
            feed.taken_s = asyncio.get_running_loop().time()
        if self._feed is feed and not feed.payloads:  # else it was dropped meanwhile
            self._end_feed()
            feed.done()
        return True

    async def _hand_over_payload(self, payload: bytes) -> bool:
        if not await self._hand_over({"type": "websocket.send", "text": _text.of(payload)}):
            return False
        self._counts.frames_out += 1
        self._counts.bytes_out += len(payload)
        return True

    async def _hand_over(self, message: Message) -> bool:
        """Give it to the server; false, and nothing goes on, where the socket has ended."""
        try:
            await self._send(message)
        except Exception as error:  # noqa: BLE001 - servers differ in what they raise; the socket has ended in any case
            self._counts.failed_writes += 1
            log.debug("write failed", error=f"{type(error).__name__}: {error}"[:200])
            self._drop()
            self.close(GONE)
            return False
        return True
