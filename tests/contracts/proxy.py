"""A TCP proxy that can lose an answer: the request arrives, and nobody learns what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Proxy:
    """Forwards both ways."""

    def __init__(self) -> None:
        self.port = 0
        self.lost = 0
        """Answers that were lost."""
        self._marker: bytes | None = None
        self._losing = False

    def lose_answer_to(self, marker: bytes) -> None:
        """What the server says to the next request with these bytes in it is lost, and its connection with it."""
        self._marker = marker

    async def _serve(self, port: int, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection("127.0.0.1", port)
        both = asyncio.gather(self._ask(client, to_server), self._answer(server, to_client))
        try:
            await both
        except (OSError, asyncio.IncompleteReadError):
            pass  # one end has gone; so does the other
        finally:
            to_server.close()
            to_client.close()

    async def _ask(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            if self._marker is not None and self._marker in data:
                self._marker, self._losing = None, True
            sink.write(data)
            await sink.drain()
        sink.close()

    async def _answer(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            if self._losing:
                self.lost, self._losing = self.lost + 1, False
                break
            sink.write(data)
            await sink.drain()
        sink.close()


@asynccontextmanager
async def proxy_to(port: int) -> AsyncIterator[Proxy]:
    """A proxy to this port on loopback, listening on a port of its own."""
    proxy = Proxy()

    async def serve(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        await proxy._serve(port, client, to_client)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
