"""The log in the database: appending with a fence, and reading.

`MessageLog.append` is one transaction for everything that it is given. It first assumes that all is well: one statement
stores every entry of every conversation whose head is what the append expects; the number of rows says whether all
were. Only if they were not, or if the database refused something, is the transaction taken back and every entry looked
at by itself (`fastsock.db.careful_append`): retries, duplicates, fences and refusals are rare, and pay for being rare.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, func, insert, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from fastsock.db.careful_append import append_carefully
from fastsock.db.engine import Database, unavailable
from fastsock.db.rows import COLUMNS, entry_of, values_of
from fastsock.db.side_effects import HasSideEffects, apply, has_side_effects
from fastsock.models.tables import id_blocks, log
from fastsock.schemas.log import Append, Entry, Outcome, Stored

IDS = "log"
"""The name of the block from which log ids are leased."""

_FIELDS = {
    "conversation": "text",
    "seq": "bigint",
    "id": "bigint",
    "kind": "text",
    "sender_id": "bigint",
    "key": "text",
    "at_ms": "bigint",
    "content": "text",
    "message_type": "text",
    "reply_to": "bigint",
    "target_id": "bigint",
    "detail": "text",
}
_INSERT_IF_AT_HEAD = text(
    f"""
    WITH fitting AS (
        SELECT g.conversation
        FROM unnest(CAST(:conversations AS text[]), CAST(:heads AS bigint[])) AS g (conversation, head)
        WHERE g.head = coalesce(
            (SELECT l.seq FROM log l WHERE l.conversation = g.conversation ORDER BY l.seq DESC LIMIT 1), 0)
    )
    INSERT INTO log ({", ".join(_FIELDS)})
    SELECT {", ".join(f"e.{field}" for field in _FIELDS)}
    FROM unnest({", ".join(f"CAST(:{field} AS {kind}[])" for field, kind in _FIELDS.items())})
        AS e ({", ".join(_FIELDS)})
    JOIN fitting USING (conversation)
    """  # noqa: S608 - made of the constants above
)
_HEAD = select(log.c.seq).where(log.c.conversation == bindparam("conversation")).order_by(log.c.seq.desc()).limit(1)


class MessageLog:
    """The logs of all conversations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- writing -------------------------------------------------------------------------------------------------

    async def append(self, groups: Sequence[Append]) -> list[list[Outcome]]:
        """Store the groups, of different conversations, in one transaction; what became of each entry.

        Raises:
            FastSockError: ``storage_unavailable``. Nothing was stored, unless it was the commit's answer that was
                lost: send the same entries again, they are recognised by their ids.

        """
        if not any(group.entries for group in groups):
            return [[] for _ in groups]
        try:
            async with self._database.transaction() as connection:
                if await self._append_all(connection, groups):
                    return [
                        [Stored(group.expected_head + place) for place, _ in enumerate(group.entries, 1)]
                        for group in groups
                    ]
                await connection.rollback()
        except (DBAPIError, ValueError) as error:  # ValueError: text that cannot be encoded
            if unavailable(error):
                raise
        return await append_carefully(self._database, groups)

    async def _append_all(self, connection: AsyncConnection, groups: Sequence[Append]) -> bool:
        """Store everything as it stands; False if the log does not fit, and the transaction must be taken back."""
        rows = [
            values_of(entry, group.expected_head + place)
            for group in groups
            for place, entry in enumerate(group.entries, 1)
        ]
        if self._database.dialect == "postgresql":
            parameters: dict[str, Any] = {field: [row[field] for row in rows] for field in _FIELDS}
            parameters["conversations"] = [group.conversation for group in groups]
            parameters["heads"] = [group.expected_head for group in groups]
            result = await connection.execute(_INSERT_IF_AT_HEAD, parameters)
            if result.rowcount != len(rows):
                return False
        else:
            for group in groups:
                head = await connection.scalar(_HEAD, {"conversation": group.conversation})
                if (head or 0) != group.expected_head:
                    return False
            await connection.execute(insert(log), rows)
        changing: list[HasSideEffects] = [
            (entry, group.expected_head + place)
            for group in groups
            for place, entry in enumerate(group.entries, 1)
            if has_side_effects(entry, group.expected_head + place)
        ]
        for entry, seq in changing:
            if await apply(connection, entry, seq) is not None:
                return False
        return True

    async def lease_ids(self, count: int) -> range:
        """``count`` ids that nobody else will ever be given."""
        dialect = postgresql if self._database.dialect == "postgresql" else sqlite
        values = {"name": IDS, "next": 1 + count}
        lease = (
            dialect.insert(id_blocks)
            .values(values)
            .on_conflict_do_update(index_elements=["name"], set_={"next": id_blocks.c.next + count})
            .returning(id_blocks.c.next)
        )
        async with self._database.transaction() as connection:
            end: int = (await connection.execute(lease)).scalar_one()
        return range(end - count, end)

    # --- reading -------------------------------------------------------------------------------------------------

    async def after(self, conversation: str, since: int, limit: int) -> list[Entry]:
        """What follows ``since``, of all kinds, in order, at most ``limit`` entries; messages in their present state."""
        wanted = log.c.conversation == conversation, log.c.seq > since
        query = select(*COLUMNS).where(*wanted).order_by(log.c.seq).limit(limit)
        async with self._database.transaction() as connection:
            return [entry_of(row) for row in await connection.execute(query)]

    async def heads(self, conversations: Sequence[str]) -> dict[str, int]:
        """The number of the last entry of each; 0 for an empty log."""
        query = (
            select(log.c.conversation, func.max(log.c.seq))
            .where(log.c.conversation.in_(conversations))
            .group_by(log.c.conversation)
        )
        async with self._database.transaction() as connection:
            found: dict[str, int] = {name: head for name, head in await connection.execute(query)}  # noqa: C416
        return {conversation: found.get(conversation, 0) for conversation in conversations}

    async def history(
        self, conversation: str, *, before: int | None = None, after: int | None = None, skip: int = 0, limit: int = 50
    ) -> list[Entry]:
        """Messages, tombstones included, oldest first.

        ``after``: the first ``limit`` that follow that number. Otherwise the last ``limit`` (before that number, if
        ``before`` is given), when the ``skip`` newest are left out.
        """
        query = select(*COLUMNS).where(log.c.conversation == conversation, log.c.kind == "message")
        if before is not None:
            query = query.where(log.c.seq < before)
        if after is not None:
            query = query.where(log.c.seq > after)
        order = log.c.seq.desc() if after is None else log.c.seq.asc()
        query = query.order_by(order).offset(skip).limit(limit)
        async with self._database.transaction() as connection:
            entries = [entry_of(row) for row in await connection.execute(query)]
        return entries[::-1] if after is None else entries

    async def get(self, message_id: int) -> Entry | None:
        """The entry with this id; None if there is none."""
        async with self._database.transaction() as connection:
            row = (await connection.execute(select(*COLUMNS).where(log.c.id == message_id))).first()
        return None if row is None else entry_of(row)
