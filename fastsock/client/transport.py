"""One WebSocket, from its opening to its close code."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from fastsock.client.settings import (
    CLOSE_WITHIN_S,
    HANDSHAKE_WITHIN_S,
    MAX_SERVER_FRAME_BYTES,
    PING_EVERY_S,
    PONG_WITHIN_S,
)

LOST = 1006
"""RFC 6455, 7.4.1: the connection ended without a close frame, or there was none."""
MAX_REASON_BYTES = 123
"""RFC 6455, 5.5: a control frame has at most 125 bytes, two of which are the close code."""


class Transport:
    """A socket that is opened by `run`; what is sent before that waits."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._socket: ClientConnection | None = None
        self._frames: asyncio.Queue[bytes] = asyncio.Queue()

    def send(self, frame: bytes) -> None:
        """Send a text frame, after those before it. What is queued is bounded by what the core sends unanswered."""
        self._frames.put_nowait(frame)

    async def run(self, opened: Callable[[], None], received: Callable[[bytes], Awaitable[None]]) -> tuple[int, str]:
        """Open it, call ``opened``, await ``received`` for each frame; its close code and reason when it has ended.

        Raises:
            OSError: it cannot be opened; as do `TimeoutError` and `websockets.exceptions.WebSocketException`.

        """
        async with connect(
            self._url,
            open_timeout=HANDSHAKE_WITHIN_S,
            ping_interval=PING_EVERY_S,
            ping_timeout=PONG_WITHIN_S,
            close_timeout=CLOSE_WITHIN_S,
            max_size=MAX_SERVER_FRAME_BYTES,
            compression=None,
        ) as socket:
            self._socket = socket
            opened()
            writer = asyncio.create_task(self._write(socket))
            try:
                while True:
                    await received(await socket.recv(decode=False))
            except ConnectionClosed:
                return socket.close_code or LOST, socket.close_reason or ""
            finally:
                writer.cancel()
                (failure,) = await asyncio.gather(writer, return_exceptions=True)
                if isinstance(failure, Exception) and not isinstance(failure, ConnectionClosed):
                    raise failure

    async def _write(self, socket: ClientConnection) -> None:
        try:
            while True:
                await socket.send(await self._frames.get(), text=True)
        except Exception:
            socket.transport.abort()  # then the reader ends too, and `run` says why
            raise

    async def close(self, code: int, reason: str) -> None:
        """Close it; `run` ends."""
        if self._socket is not None:
            await self._socket.close(code, reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore"))

    def cut(self) -> None:
        """Lose the connection, without a word: for tests of what happens then."""
        if self._socket is not None:
            self._socket.transport.abort()


def socket_url(url: str, path: str) -> str:
    """Where the WebSocket of a server is, whose other address is ``url``.

    Raises:
        ValueError: the server's address is none of HTTP.

    """
    parts = urlsplit(url)
    schemes = {"http": "ws", "https": "wss"}
    if parts.scheme not in schemes or not parts.netloc:
        raise ValueError(f"not a server's address: {url!r}; addresses look like http://127.0.0.1:8000")
    return f"{schemes[parts.scheme]}://{parts.netloc}{parts.path.rstrip('/')}{path}"
