"""A socket of any ASGI server: its outbox over the server's ``send``.

What was written is sent by a task that exists only while there is something to send: an idle socket costs no task and
no timer. Where uvicorn serves the socket by itself, `fastsock.ws.frame_connection` takes this one's place: the same
behaviour for a twentieth of the work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Protocol

import structlog
from starlette.types import Message, Send

from fastsock.core.limits import MAX_OUTBOX_BYTES, MAX_OUTBOX_FRAMES, OUTBOX_TURN_FRAMES
from fastsock.ws.outbox import GONE, Counts, Feed, Outbox

log = structlog.get_logger("fastsock.ws")


class TaskOwner(Protocol):
    """Who keeps background tasks, logs and counts their failures, and ends them."""

    def start(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Run it as a task of this owner."""
        ...


class _Text:
    """The last payload that was decoded: as text one emoji would make what waits four times as large."""

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


class Connection(Outbox):
    """The outbox of one accepted socket.

    ``send`` is the ASGI server's; ``on_close`` is called once, at the moment when `close` decides that the socket is to
    end (not when it has ended), and must not raise.
    """

    __slots__ = ("_on_close", "_send", "_tasks", "_writer")

    def __init__(
        self,
        send: Send,
        tasks: TaskOwner,
        counts: Counts,
        on_close: Callable[[], None],
        limit_bytes: int = MAX_OUTBOX_BYTES,
        limit_frames: int = MAX_OUTBOX_FRAMES,
    ) -> None:
        super().__init__(counts, limit_bytes, limit_frames)
        self._send = send
        self._tasks = tasks
        self._on_close = on_close
        self._writer: asyncio.Task[None] | None = None

    def write(self, payload: bytes, *, ephemeral: bool = False) -> None:
        self._put(payload, ephemeral=ephemeral)

    def abandon(self) -> None:
        """The socket has ended: nothing more can be sent. May be called again."""
        if self.closing is None:
            self.closing = (GONE, "")
        self._drop()
        if self._writer is not None:
            self._writer.cancel()

    def _ending(self) -> None:
        self._on_close()

    def _wake(self) -> None:
        if self._writer is None:
            self._writer = self._tasks.start(self._drain(), "outbox")

    async def _drain(self) -> None:
        try:
            handed = 0
            while self._waiting or self._feed is not None:
                if self._waiting and not await self._hand_over_written(self._waiting.pop(0)):
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

    async def _hand_over_written(self, payload: bytes) -> bool:
        self._bytes -= len(payload)
        self._sending_bytes = len(payload)
        taken = await self._hand_over_payload(payload)
        self._sending_bytes = 0
        self._relieved()
        return taken

    async def _hand_over_fed(self, feed: Feed) -> bool:
        if not feed.payloads:
            self._fed(feed, 0)
            return True
        payload = feed.payloads.popleft()
        if not await self._hand_over_payload(payload):
            return False
        self._fed(feed, len(payload))
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
