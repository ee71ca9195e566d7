"""What a gateway reads from the database: memberships, how users stand, and pages of the log."""

from __future__ import annotations

from collections.abc import Sequence

from fastsock.db.conversations import Conversations
from fastsock.db.engine import Database
from fastsock.db.log_reads import Page
from fastsock.db.message_log import MessageLog
from fastsock.schemas.log import Entry, Standing, Subscription


class GatewayReads:
    """Implements `fastsock.ws.resumes.Reads`. Each raises RetryableError: ``storage_unavailable``."""

    def __init__(self, database: Database) -> None:
        self._log = MessageLog(database)
        self._conversations = Conversations(database)

    async def subscriptions(self, user_ids: Sequence[int]) -> dict[int, list[Subscription]]:
        return await self._conversations.of_users(user_ids)

    async def standings(self, user_ids: Sequence[int]) -> dict[int, Standing]:
        return await self._conversations.standings(user_ids)

    async def pages(self, wanted: Sequence[tuple[str, int, int]]) -> dict[tuple[str, int, int], list[Entry]]:
        found = await self._log.pages([Page(*page) for page in wanted])
        return {(page.conversation, page.since, page.upto): entries for page, entries in found.items()}
