"""What makes a broadcast cheap: one frame for everybody, and one write for each socket and flush.

A write is a system call here, two and a wake-up in HAProxy, and one more at the client: some 30 us on one core, whether
it carries one frame or twenty. So writes have a price in time: after a flush that wrote to many sockets the next one
waits for `FLUSH_PACE_US` for each of them, and what comes meanwhile goes out together. Whoever writes to few sockets
never notices; a gateway whose 500 sockets are all spoken to flushes 30 times a second and no more, and has time for
frames instead. The longest pause is shorter than that of a busy link (`actors.link.Pace`), so what comes over one link
does not wait twice.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from fastsock.core.limits import FLUSH_MAX_MS, FLUSH_MIN_MS, FLUSH_PACE_US
from fastsock.ws.chats import Chats
from fastsock.ws.frames import text_frame
from fastsock.ws.heartbeat import Heartbeat


class Flushed(Protocol):
    """A socket that has something to send."""

    def flush(self) -> None:
        """The turn of the event loop is over: send it."""
        ...


class Flusher:
    """The sockets that have something to send at the end of this turn of the event loop, or when the pace allows."""

    __slots__ = ("_loop", "_ready_s", "_sockets")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._sockets: list[Flushed] = []
        self._ready_s = 0.0
        """When the next flush may be, by the event loop's clock."""

    def add(self, socket: Flushed) -> None:
        if not self._sockets:
            if self._ready_s <= self._loop.time():
                self._loop.call_soon(self._flush)
            else:
                self._loop.call_at(self._ready_s, self._flush)
        self._sockets.append(socket)

    def _flush(self) -> None:
        flushed, self._sockets = self._sockets, []
        pause_ms = min(len(flushed) * FLUSH_PACE_US / 1e3, FLUSH_MAX_MS)
        if pause_ms >= FLUSH_MIN_MS:
            self._ready_s = self._loop.time() + pause_ms / 1e3
        for socket in flushed:
            socket.flush()


class Frames:
    """What the sockets of one uvicorn share: whose they are, their pings, and the frame that was made last.

    ``interval_s``: a peer from which nothing has come for so long is pinged, and closed with 1011 if it stays silent
    for as long again; None for never.
    """

    __slots__ = ("_frame", "_of", "chats", "flusher", "heartbeat")

    def __init__(self, chats: Chats, interval_s: float | None) -> None:
        self.chats = chats
        self.flusher = Flusher()
        self.heartbeat = None if interval_s is None else Heartbeat(interval_s)
        self._of = b""
        self._frame = b""

    def of(self, payload: bytes) -> bytes:
        """The payload as a frame: the same object as long as the payload is the same."""
        if payload is not self._of:
            self._of, self._frame = payload, text_frame(payload)
        return self._frame
