"""What waits to be written to one socket: bounded, ephemeral frames first to go, and an end for who does not read.

A peer that reads slower than its conversations speak is a *slow consumer*:

1. ephemeral frames are dropped as soon as `OUTBOX_EPHEMERAL_SHARE` of a bound is filled;
2. where a frame does not fit in any more, the ephemeral frames that still wait make room;
3. then all is thrown away and the socket is closed with 4008: it comes back and resumes.

Slow is a matter of time: a burst of megabytes comes in one turn of the event loop, before anybody could read it. So
there are two marks: `OUTBOX_SLOW_SHARE`, which an outbox may exceed for `OUTBOX_PATIENCE_S`, and the bounds, which it
never exceeds (`MAX_OUTBOX_BYTES`, `MAX_OUTBOX_FRAMES`). With the lower one alone, all readers of a room were cut when
six people sent 40 messages of 41 KB each at once.

A replay would burst any bound, so it is *fed*: page by page, each asked for when the last one was taken, beside the
outbox and in turns with it.

What waits are bytes, and all sockets of a broadcast are handed the same object, so that it is kept once, whoever waits
for it. Who sends them, and in which form, is the business of the two kinds of socket: `fastsock.ws.connection` over any
ASGI server, `fastsock.ws.frame_connection` over uvicorn's transport.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastsock.core.errors import TABLE
from fastsock.core.limits import (
    FEED_PATIENCE_S,
    MAX_OUTBOX_BYTES,
    MAX_OUTBOX_FRAMES,
    OUTBOX_EPHEMERAL_SHARE,
    OUTBOX_PATIENCE_S,
    OUTBOX_SLOW_SHARE,
)
from fastsock.ws.session import close_reason

SLOW_CONSUMER = TABLE["slow_consumer"].close_code or 0
GONE = 1006
"""RFC 6455, section 7.4.1: what a connection that ended without a close frame is said to have ended with."""


@dataclass(slots=True)
class Counts:
    """What all connections of one gateway have done since it started."""

    frames_out: int = 0
    bytes_out: int = 0
    slow_consumers: int = 0
    failed_writes: int = 0
    dropped_ephemeral: int = 0


class Ephemeral(bytes):
    """A frame in an outbox that may be dropped. The others are there as they are, since they are the many."""

    __slots__ = ()


class Feed:
    """A page of a replay that is being taken."""

    __slots__ = ("done", "payloads", "taken_s", "timer", "waiting_bytes")

    def __init__(self, payloads: Sequence[bytes], done: Callable[[], None], now_s: float) -> None:
        self.payloads = deque(payloads)
        self.done = done
        self.waiting_bytes = sum(map(len, payloads))
        self.taken_s = now_s
        """When the last of its frames was taken, or when it began, by the event loop's clock."""
        self.timer: asyncio.TimerHandle | None = None


class Outbox(ABC):
    """The writing half of one accepted socket. Every method returns at once and may be called from `write`'s callers.

    A kind of socket says in `_wake` how it gets to send what waits, and takes it from ``_waiting`` and ``_feed``.
    """

    __slots__ = (
        "_bytes",
        "_counts",
        "_feed",
        "_limit_bytes",
        "_limit_frames",
        "_over_s",
        "_sending_bytes",
        "_waiting",
        "closing",
    )

    def __init__(
        self, counts: Counts, limit_bytes: int = MAX_OUTBOX_BYTES, limit_frames: int = MAX_OUTBOX_FRAMES
    ) -> None:
        self._counts = counts
        self._limit_bytes = limit_bytes
        self._limit_frames = limit_frames
        self._waiting: list[bytes] = []
        self._bytes = 0
        """What is in ``_waiting``."""
        self._sending_bytes = 0
        """The frame out of it that the server has been given and has not taken yet."""
        self._over_s: float | None = None
        """Since when it waits above `OUTBOX_SLOW_SHARE`, by the event loop's clock."""
        self._feed: Feed | None = None
        self.closing: tuple[int, str] | None = None
        """Close code and reason, once it is to end."""

    @property
    def waiting_bytes(self) -> int:
        """What was written or fed and is not with the server yet."""
        fed = 0 if self._feed is None else self._feed.waiting_bytes
        return self._bytes + self._sending_bytes + fed

    @abstractmethod
    def write(self, payload: bytes, *, ephemeral: bool = False) -> None:
        """Send a text frame, UTF-8, after all that was written before. After `close` nothing happens.

        An ``ephemeral`` frame is one that nobody misses: it is dropped and counted where the peer is slow.
        """

    def feed(self, payloads: Sequence[bytes], done: Callable[[], None]) -> None:
        """Send a page of a replay, in order; in turns with what is written.

        ``payloads`` are not counted against the outbox: the caller keeps to `RESUME_PAGE_BYTES`. ``done`` is called
        once, from the event loop, when the server has taken the last of them; it may feed the next page. One at a time.
        After `close` nothing happens: what is left of a page is dropped, and ``done`` is not called any more. A peer
        that takes none of it for `FEED_PATIENCE_S` is a slow consumer too.
        """
        assert self._feed is None, "one page at a time"
        if self.closing is not None:
            return
        loop = asyncio.get_running_loop()
        self._feed = feed = Feed(payloads, done, loop.time())
        feed.timer = loop.call_later(FEED_PATIENCE_S, self._feed_due)
        self._wake()

    def close(self, code: int, reason: str = "") -> None:
        """Close the socket once everything written so far is sent; the first call decides about code and reason."""
        if self.closing is not None:
            return
        self.closing = (code, close_reason(reason))
        self._end_feed()
        self._wake()
        self._ending()

    @abstractmethod
    def _wake(self) -> None:
        """There is something to send, or the socket is to be closed."""

    @abstractmethod
    def _ending(self) -> None:
        """`close` has decided that the socket is to end."""

    # --- the bounds ----------------------------------------------------------------------------------------------

    def _put(self, frame: bytes, *, ephemeral: bool) -> None:
        """Let a frame wait, if it may."""
        if self.closing is not None:
            return
        if ephemeral:
            if not self._fits(frame, OUTBOX_EPHEMERAL_SHARE):
                self._counts.dropped_ephemeral += 1
                return
            frame = _ephemeral.of(frame)
        elif not self._fits(frame, OUTBOX_SLOW_SHARE) and not self._bear(frame):
            return
        self._waiting.append(frame)
        self._bytes += len(frame)
        self._wake()

    def _fits(self, frame: bytes, share: float) -> bool:
        """Whether the outbox stays within this share of its bounds with one frame more."""
        waiting = self._bytes + self._sending_bytes + len(frame)
        frames = len(self._waiting) + (self._sending_bytes > 0) + 1
        return waiting <= share * self._limit_bytes and frames <= share * self._limit_frames

    def _bear(self, frame: bytes) -> bool:
        """Whether there is room for a frame above `OUTBOX_SLOW_SHARE`; if not, this is a slow consumer, and cut."""
        now_s = asyncio.get_running_loop().time()
        if self._over_s is None:
            self._over_s = now_s
        share = 1.0 if now_s - self._over_s < OUTBOX_PATIENCE_S else OUTBOX_SLOW_SHARE
        if self._fits(frame, share):
            return True
        # This looks at the whole outbox, and happens once per filling: up here no ephemeral frame gets in any more.
        kept = [waiting for waiting in self._waiting if not isinstance(waiting, Ephemeral)]
        self._counts.dropped_ephemeral += len(self._waiting) - len(kept)
        self._waiting = kept
        self._bytes = sum(map(len, kept))
        if self._fits(frame, share):
            return True
        since = "" if share == 1 else f" for {now_s - self._over_s:.1f} s"
        limit_bytes, limit_frames = int(share * self._limit_bytes), int(share * self._limit_frames)
        frames, size = len(kept) + (self._sending_bytes > 0), self._bytes + self._sending_bytes
        what = f"{size:,} of {limit_bytes:,} bytes and {frames:,} of {limit_frames:,} frames"
        self._cut(f"{what} wait to be read{since}")
        return False

    def _relieved(self) -> None:
        """Something was taken."""
        if self._over_s is not None and self._fits(b"", OUTBOX_SLOW_SHARE):
            self._over_s = None

    def _cut(self, why: str) -> None:
        self._counts.slow_consumers += 1
        self._drop()
        self.close(SLOW_CONSUMER, why)

    def _drop(self) -> None:
        self._waiting.clear()
        self._bytes = self._sending_bytes = 0
        self._end_feed()

    # --- replays -------------------------------------------------------------------------------------------------

    def _fed(self, feed: Feed, size_bytes: int) -> None:
        """So much of the page was taken; it may have been dropped meanwhile."""
        feed.waiting_bytes -= size_bytes
        feed.taken_s = asyncio.get_running_loop().time()
        if self._feed is feed and not feed.payloads:
            self._end_feed()
            feed.done()

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


class _Last:
    """The last ephemeral frame: a broadcast's is kept once, as the others are."""

    __slots__ = ("_frame", "_of")

    def __init__(self) -> None:
        self._of = b""
        self._frame = Ephemeral()

    def of(self, frame: bytes) -> Ephemeral:
        if frame is not self._of:
            self._of, self._frame = frame, Ephemeral(frame)
        return self._frame


_ephemeral = _Last()
