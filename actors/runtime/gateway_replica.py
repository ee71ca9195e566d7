"""The gateway inside its Serve replica: the WebSocket application, its shell, and its links to the hosts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import ASGIApp

from actors.runtime import placements
from actors.runtime.asking import Asking
from actors.runtime.clock import now_ms
from actors.runtime.links import HostLinks
from actors.runtime.replicas import peer_name
from actors.runtime.tasks import Tasks
from fastsock.core.config import Settings
from fastsock.db.engine import Database
from fastsock.db.message_log import MessageLog
from fastsock.services.messages import Messages
from fastsock.services.reads import GatewayReads
from fastsock.ws import uvicorn_frames
from fastsock.ws.chats import Chats
from fastsock.ws.endpoint import GatewayApp
from fastsock.ws.shell import GatewayShell

REPORT_S = 2.0
"""How often the figures for ``fastsock top`` are left with a host; one small call."""


@asynccontextmanager
async def gateway(settings: Settings) -> AsyncIterator[ASGIApp]:
    """The WebSocket application."""
    assert settings.secret_key is not None, "whoever starts the system resolves the secret"
    database = Database(settings.database_url_resolved, lookups=True)
    tasks = Tasks()
    try:
        placement, log = await placements.load(database), MessageLog(database)
        shell = GatewayShell(GatewayReads(database), tasks, now_ms)

        links = HostLinks(peer_name("gateway"), placement, shell)
        asking = Asking(peer_name("gateway-asks"), placement, log)
        asking.start()
        links.start()
        shell.start(links)
        tasks.start(_report(shell, links), "report")
        chats = Chats(
            shell,
            Messages(log, asking),
            secret=settings.secret_key.get_secret_value(),
            max_sockets=settings.max_sockets_per_gateway,
        )
        uvicorn_frames.install(chats)  # Serve starts its server when this has started
        try:
            yield GatewayApp(chats)
        finally:
            await shell.stop()
            await asking.stop()
            await links.stop()
    finally:
        await tasks.stop()
        await database.close()


async def _report(shell: GatewayShell, links: HostLinks) -> None:
    while True:
        about = {"pid": os.getpid(), "uplink_waiting": links.waiting}
        await links.report({**about, **shell.stats(), **links.counts})
        await asyncio.sleep(REPORT_S)
