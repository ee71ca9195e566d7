"""The applications inside Serve's replicas: built when a replica starts, taken down when it stops.

A replica is an ASGI application whose lifespan opens the database, reads the placement and begins to poll the hosts;
only then is there an inner application to hand requests to. It is built inside the replica because connections,
encoders and locks cannot be sent there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from uuid import uuid4

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from actors.runtime import placements
from actors.runtime.asking import Asking
from actors.runtime.clock import now_ms
from actors.runtime.process import settle_in
from fastsock.api.app import build_api
from fastsock.core.config import Settings
from fastsock.db.engine import Database
from fastsock.db.message_log import MessageLog

log = structlog.get_logger("fastsock.replica")

Inside = Callable[[Settings], AbstractAsyncContextManager[ASGIApp]]


class Replica:
    """An ASGI application that exists between its lifespan's startup and shutdown."""

    def __init__(self, inside: Inside, settings: Settings) -> None:
        self._inside = inside
        self._settings = settings
        self._stack = AsyncExitStack()
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        assert self._app is not None, "requests come after the startup"
        await self._app(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        answer: Message = {"type": "lifespan.startup.complete"}
        try:
            settle_in(self._settings, asyncio.get_running_loop())
            self._app = await self._stack.enter_async_context(self._inside(self._settings))
        except Exception as error:
            # Whatever it is, the server has to be told, which then ends this replica and starts another.
            log.exception("replica not started")
            answer = {"type": "lifespan.startup.failed", "message": str(error)}
        await send(answer)
        if self._app is None:
            return
        await receive()
        await self._stack.aclose()
        await send({"type": "lifespan.shutdown.complete"})


def peer_name(kind: str) -> str:
    """A name that no other process has, or will ever have."""
    return f"{kind}-{uuid4().hex[:12]}"


@asynccontextmanager
async def api(settings: Settings) -> AsyncIterator[ASGIApp]:
    """The HTTP application."""
    database = Database(settings.database_url_resolved)
    try:
        asking = Asking(peer_name("api"), await placements.load(database), MessageLog(database))
        asking.start()
        try:
            app = build_api(settings, database, asking, now_ms=now_ms)
            yield app
            app.state.services.accounts.close()
        finally:
            await asking.stop()
    finally:
        await database.close()
