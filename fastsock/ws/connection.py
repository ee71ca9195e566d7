"""The writing half of one socket: a bounded outbox over the ASGI server's ``send``.

`Connection.write` is synchronous and cheap, because a broadcast calls it for thousands of sockets in one turn of the
event loop. What was written is sent by a task that exists only while there is something to send: an idle socket costs
no task and no timer. A peer that reads slower than its conversations speak is a *slow consumer*: beyond
`MAX_OUTBOX_BYTES` its outbox is thrown away and it is closed with 4008; it comes back and reads what it missed.

Payloads are UTF-8 texts. All sockets of a broadcast are handed the same object, so it is decoded once, not per socket.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Protocol

import structlog
from starlette.types import Send

from fastsock.core.errors import TABLE
from fastsock.core.limits import MAX_OUTBOX_BYTES
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


class Connection:
    """The outbox of one accepted socket.

    ``send`` is the ASGI server's; ``on_close`` is called once, at the moment when `close` decides that the socket is to
    end (not when it has ended), and must not raise.
    """

    __slots__ = ("_bytes", "_counts", "_limit_bytes", "_on_close", "_outbox", "_send", "_tasks", "_writer", "closing")

    def __init__(
        self,
        send: Send,
        tasks: TaskOwner,
        counts: Counts,
        on_close: Callable[[], None],
        limit_bytes: int = MAX_OUTBOX_BYTES,
    ) -> None:
        self._send = send
        self._tasks = tasks
        self._counts = counts
        self._on_close = on_close
        self._limit_bytes = limit_bytes
        self._outbox: deque[tuple[str, int]] = deque()
        self._bytes = 0
        self._writer: asyncio.Task[None] | None = None
        self.closing: tuple[int, str] | None = None
        """Close code and reason, once it is to end."""

    @property
    def waiting_bytes(self) -> int:
        """What was written and is not with the server yet."""
        return self._bytes

    def write(self, payload: bytes) -> None:
        """Send a text frame, UTF-8, after all that was written before. After `close` nothing happens."""
        if self.closing is not None:
            return
        size = len(payload)
        if self._bytes + size > self._limit_bytes:
            self._counts.slow_consumers += 1
            text = f"{self._bytes:,} of {self._limit_bytes:,} bytes wait to be read"
            self._drop()
            self.close(SLOW_CONSUMER, text)
            return
        self._outbox.append((_text.of(payload), size))
        self._bytes += size
        self._start()

    def close(self, code: int, reason: str = "") -> None:
        """Close the socket once everything written so far is sent; the first call decides about code and reason."""
        if self.closing is not None:
            return
        self.closing = (code, close_reason(reason))
        self._start()
        self._on_close()

    def abandon(self) -> None:
        """The socket has ended: nothing more can be sent. May be called again."""
        if self.closing is None:
            self.closing = (GONE, "")
        self._drop()
        if self._writer is not None:
            self._writer.cancel()

    def _start(self) -> None:
        if self._writer is None:
            self._writer = self._tasks.start(self._drain(), "outbox")

    def _drop(self) -> None:
        self._outbox.clear()
        self._bytes = 0

    async def _drain(self) -> None:
        try:
            while self._outbox:
                text, size = self._outbox[0]
                await self._send({"type": "websocket.send", "text": text})
                if self._outbox:  # else it was thrown away meanwhile
                    self._outbox.popleft()
                    self._bytes -= size
                self._counts.frames_out += 1
                self._counts.bytes_out += size
            if self.closing is not None:
                code, reason = self.closing
                await self._send({"type": "websocket.close", "code": code, "reason": reason})
        except Exception as error:  # noqa: BLE001 - servers differ in what they raise; the socket has ended in any case
            self._counts.failed_writes += 1
            log.debug("write failed", error=f"{type(error).__name__}: {error}"[:200])
            self._drop()
            self.close(GONE)
        finally:
            self._writer = None
