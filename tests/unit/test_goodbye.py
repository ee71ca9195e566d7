"""A server that ends, with a real uvicorn and real sockets: the application says goodbye, or uvicorn does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from fastsock.ws import uvicorn_protocol
from fastsock.ws.uvicorn_protocol import BoundedWebSocketProtocol
from tests.unit.ws_world import until

WITHIN_S = 10.0


class App:
    """An ASGI application that counts how often it was asked to say goodbye, and does so to sockets that it knows."""

    def __init__(self) -> None:
        self.asked = 0
        self.known: list[Send] = []
        self.accepted = 0
        self._said: list[asyncio.Task[None]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        self.accepted += 1
        if scope["path"] == "/known":
            self.known.append(send)
        while (await receive())["type"] != "websocket.disconnect":
            pass

    def goodbye(self) -> None:
        self.asked += 1
        known, self.known = self.known, []
        self._said += [asyncio.get_running_loop().create_task(self._say(send)) for send in known]

    @staticmethod
    async def _say(send: Send) -> None:
        await send({"type": "websocket.send", "text": "goodbye"})
        await send({"type": "websocket.close", "code": 1012, "reason": "come back"})


@asynccontextmanager
async def running(app: App) -> AsyncIterator[tuple[uvicorn.Server, str]]:
    protocol = cast("type[asyncio.Protocol]", BoundedWebSocketProtocol)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off", ws=protocol))
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    yield server, f"ws://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    await asyncio.wait_for(serving, WITHIN_S)


async def heard(socket: ClientConnection) -> list[str | bytes]:
    """Everything until the socket ends."""
    texts: list[str | bytes] = []
    async with asyncio.timeout(WITHIN_S):
        try:
            while True:
                texts.append(await socket.recv())
        except ConnectionClosed:
            return texts


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> App:
    app = App()
    monkeypatch.setattr(BoundedWebSocketProtocol, "goodbye", None)
    monkeypatch.setattr(uvicorn_protocol, "GOODBYE_S", 0.2)
    monkeypatch.setattr(uvicorn.config, "WS_PROTOCOLS", dict(uvicorn.config.WS_PROTOCOLS))
    return app


async def test_the_application_says_goodbye_and_uvicorn_to_whom_it_does_not_know(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedWebSocketProtocol, "goodbye", app.goodbye)
    async with running(app) as (server, url), connect(f"{url}/known") as known, connect(f"{url}/other") as other:
        await until(lambda: app.accepted == 2)
        server.should_exit = True
        assert await heard(known) == ["goodbye"]
        assert (known.close_code, known.close_reason) == (1012, "come back")
        assert app.asked == 2, "once for each socket"
        assert await heard(other) == []
        assert (other.close_code, other.close_reason) == (1012, "")


async def test_without_a_goodbye_uvicorn_closes_at_once(app: App) -> None:
    async with running(app) as (server, url), connect(f"{url}/known") as known:
        await until(lambda: app.accepted == 1)
        server.should_exit = True
        assert await heard(known) == []
        assert (known.close_code, known.close_reason) == (1012, "")
        assert app.asked == 0
