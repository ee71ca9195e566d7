"""The persistence actor: a `Writer` as a named Ray actor."""

from __future__ import annotations

import asyncio
import os

from actors.runtime import names
from actors.runtime.process import begin, settle_in
from actors.runtime.writer import Writer
from fastsock.core.config import Settings
from fastsock.db.engine import Database
from fastsock.db.message_log import MessageLog


class PersistenceActor:
    """Commits what all hosts append. Its state is the database: it may be killed at any time."""

    def __init__(self, index: int, settings: dict[str, object]) -> None:
        self._name = names.writer(index)
        self._settings = Settings.from_wire(settings)
        self._writer: Writer | None = None
        begin()

    def __repr__(self) -> str:
        return f"persistence-{self._name.rpartition('-')[2]}"

    async def ready(self) -> dict[str, object]:
        """Figures for ``fastsock top``; the first call opens the database."""
        return {"pid": os.getpid(), **self._open().figures(self._name)}

    async def append(self, body: bytes) -> bytes:
        """Commit a host's batch: bytes of an `AppendBatch` in, of a `persistence.Answer` out, after COMMIT."""
        return await self._open().append(body)

    def _open(self) -> Writer:
        if self._writer is None:
            settle_in(self._settings, asyncio.get_running_loop())
            self._writer = Writer(MessageLog(Database(self._settings.database_url_resolved, pool_size=2, lookups=True)))
        return self._writer
