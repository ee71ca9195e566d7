"""What makes a broadcast cheap: one frame for everybody, and one write for each socket and turn of the event loop."""

from __future__ import annotations

import asyncio
from typing import Protocol

from fastsock.ws.chats import Chats
from fastsock.ws.frames import text_frame
from fastsock.ws.heartbeat import Heartbeat


class Flushed(Protocol):
    """A socket that has something to send."""

    def flush(self) -> None:
        """The turn of the event loop is over: send it."""
        ...


class Flusher:
    """The sockets that have something to send at the end of this turn of the event loop."""

    __slots__ = ("_sockets",)

    def __init__(self) -> None:
        self._sockets: list[Flushed] = []

    def add(self, socket: Flushed) -> None:
        if not self._sockets:
            asyncio.get_running_loop().call_soon(self._flush)
        self._sockets.append(socket)

    def _flush(self) -> None:
        flushed, self._sockets = self._sockets, []
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
