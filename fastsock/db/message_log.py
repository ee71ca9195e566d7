"""The log in the database: appending with a fence, and reading.

`MessageLog.append` is one transaction for everything that it is given. It first hopes that all is well, and stores all
entries under the numbers that they then have, with one statement that fails as a whole if a conversation's head is not
the expected one or if the database refuses anything. Only then does it look (`fastsock.db.append_plan`): what of this
is there already, where are the heads; it decides about each entry, and stores those that are new, again all at once.
If the database refuses that, it finds out by halving which rows are to blame, decides anew without them, and stores
the rest. Somebody else may write between the look and the insert: a unique constraint says so, and it looks again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from fastsock.core.errors import error_of
from fastsock.core.limits import RETRY_AFTER_MS
from fastsock.db import log_writes
from fastsock.db.append_plan import Numbered, optimistic, side_effects
from fastsock.db.careful_append import OvertakenError, append_carefully
from fastsock.db.engine import Database
from fastsock.db.log_reads import HEADS, Page, by_keys, pages
from fastsock.db.refusals import REFUSALS, concerns_a_row
from fastsock.db.rows import COLUMNS, entry_of
from fastsock.db.statement import upsert
from fastsock.models import id_blocks, log
from fastsock.schemas.log import Append, Entry, Outcome, Stored

IDS = "log"
"""The name of the block from which log ids are leased."""
TRIES = 10
"""A try is lost only to somebody who has won; ten in a row need ten winners in the same conversations."""

_COLUMNS = tuple(log.c[name] for name in COLUMNS)


class _NotAsHopedError(Exception):
    """Something of the append has to be looked at."""


class MessageLog:
    """The logs of all conversations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- writing -------------------------------------------------------------------------------------------------

    async def append(self, groups: Sequence[Append]) -> list[list[Outcome]]:
        """Store the groups in one transaction; what became of each entry, in the shape of the groups.

        Raises:
            RetryableError: ``storage_unavailable``. Nothing was stored, unless it was the commit's answer that was
                lost: send the same entries again, they are recognised by their ids.

        """
        if not any(group.entries for group in groups):
            return [[] for _ in groups]
        new = optimistic(groups)
        if new is not None:
            try:
                await self._store_all(new, [(group.conversation, group.expected_head) for group in groups])
            except _NotAsHopedError:
                pass
            else:
                return [
                    [Stored(group.expected_head + place) for place in range(1, len(group.entries) + 1)]
                    for group in groups
                ]
        for _ in range(TRIES):
            try:
                # One snapshot for all that is read: what was committed since then shows itself by a conflict.
                async with self._database.transaction("REPEATABLE READ") as connection:
                    return await append_carefully(connection, groups)
            except OvertakenError:
                continue
        raise error_of("storage_unavailable", f"somebody else was faster {TRIES} times in a row", RETRY_AFTER_MS)

    async def _store_all(self, new: Sequence[Numbered], heads: log_writes.Heads) -> None:
        """Store everything as it stands. Raises: _NotAsHopedError: and nothing was."""
        alone = not side_effects(new)
        async with self._database.autocommit() if alone else self._database.transaction() as connection:
            try:
                fits = await log_writes.store(connection, new, heads)
            except REFUSALS as error:
                if not concerns_a_row(error):
                    raise
                raise _NotAsHopedError from None
            if not fits:
                raise _NotAsHopedError

    async def lease_ids(self, count: int) -> range:
        """``count`` ids that nobody else will ever be given; 1 or more.

        Raises:
            RetryableError: ``storage_unavailable``.

        """
        first = upsert(self._database.dialect, id_blocks).values(name=IDS, next=1 + count)
        further = first.on_conflict_do_update(index_elements=["name"], set_={"next": id_blocks.c.next + count})
        lease = further.returning(id_blocks.c.next)
        async with self._database.transaction() as connection:
            end: int = (await connection.execute(lease)).scalar_one()
        return range(end - count, end)

    # --- reading -------------------------------------------------------------------------------------------------

    async def after(self, conversation: str, since: int, limit: int) -> list[Entry]:
        """What follows ``since``, of all kinds, in order, at most ``limit``; messages in their present state."""
        query = select(*_COLUMNS).where(log.c.conversation == conversation, log.c.seq > since)
        return await self._entries(query.order_by(log.c.seq).limit(limit))

    async def pages(self, wanted: Sequence[Page]) -> dict[Page, list[Entry]]:
        """Pages of any number of logs in one query; as `after`, a page that the log does not fill is shorter."""

        async def query(connection: AsyncConnection) -> dict[Page, list[Entry]]:
            return await pages(connection, wanted)

        return await self._database.read(query)

    async def heads(self, conversations: Sequence[str]) -> dict[str, int]:
        """The number of the last entry of each; 0 for an empty log."""
        wanted = [(name,) for name in conversations]

        async def query(connection: AsyncConnection) -> dict[str, int]:
            return {name: head for name, head, _ in await HEADS.fetch(connection, wanted=wanted)}

        return dict.fromkeys(conversations, 0) | await self._database.read(query)

    async def by_keys(self, keys: Sequence[tuple[int, str]]) -> dict[tuple[int, str], Entry]:
        """What became of these attempts, ``(sender id, key)``; without those that the log does not know."""

        async def query(connection: AsyncConnection) -> dict[tuple[int, str], Entry]:
            return await by_keys(connection, keys)

        return await self._database.read(query)

    async def history(
        self, conversation: str, *, before: int | None = None, after: int | None = None, skip: int = 0, limit: int = 50
    ) -> list[Entry]:
        """Messages, tombstones included, oldest first.

        With ``after`` the first ``limit`` that follow that number, when the ``skip`` oldest are left out. Otherwise the
        last ``limit`` (before the number ``before``, if given), when the ``skip`` newest are left out.
        """
        query = select(*_COLUMNS).where(log.c.conversation == conversation, log.c.kind == "message")
        if before is not None:
            query = query.where(log.c.seq < before)
        if after is not None:
            query = query.where(log.c.seq > after)
        order = log.c.seq.desc() if after is None else log.c.seq.asc()
        entries = await self._entries(query.order_by(order).offset(skip).limit(limit))
        return entries[::-1] if after is None else entries

    async def get(self, message_id: int) -> Entry | None:
        """The entry of this id, of whatever kind; None if there is none."""
        found = await self._entries(select(*_COLUMNS).where(log.c.id == message_id))
        return found[0] if found else None

    async def _entries(self, query: Select[Any]) -> list[Entry]:
        async def read(connection: AsyncConnection) -> list[Entry]:
            return [entry_of(tuple(row)) for row in await connection.execute(query)]

        return await self._database.read(read)
