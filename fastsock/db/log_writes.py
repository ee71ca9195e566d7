"""The statements that store new log entries and what they change, each for any number of rows.

Measured with PostgreSQL 18 (fsync on) and SQLite 3.40 on 2 cores, milliseconds for rows of 1, 10, 100 and 1,000
messages in 20 rooms, median:

================================================== ===== ===== ===== =====
way                                                    1    10   100 1,000
================================================== ===== ===== ===== =====
PostgreSQL, ``INSERT ... SELECT FROM unnest``, alone 0.8   1.1   2.0    16
PostgreSQL, ``executemany`` in a transaction         1.0   1.6   4.5    40
PostgreSQL, ``COPY`` without a look at the heads     1.2   2.6   1.2    10
SQLite, ``executemany`` in a transaction             0.9   1.1   2.5    13
SQLite, ``INSERT ... SELECT FROM json_each``         1.0   1.5   3.6    20
================================================== ===== ===== ===== =====

Chosen: one ``INSERT ... SELECT`` on both. It looks at the heads by itself, so an ordinary batch is one statement, one
round trip and one commit; COPY would need a transaction around it, and SQLite's executemany a query before it. The look
costs one step down an index per conversation, which was too little to be measured.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from fastsock.db.append_plan import Numbered, SideEffects, side_effects
from fastsock.db.rows import COLUMNS, NAMES, row_of
from fastsock.db.statement import Statement

Heads = Sequence[tuple[str, int]]
"""Conversations, and the number of the entry that new ones follow."""

# All or nothing: nothing is stored unless each conversation has an entry with the number that is expected to be its
# last. That none has a higher one, UNIQUE (conversation, seq) says: there are no holes, so it would have the next.
_INSERT = Statement(
    f"""
    INSERT INTO log ({NAMES})
    SELECT {NAMES} FROM {{entry}}
    WHERE NOT EXISTS (
        SELECT 1 FROM {{head}}
        WHERE head.expected > 0
        AND NOT EXISTS (SELECT 1 FROM log AS last
                        WHERE last.conversation = head.conversation AND last.seq = head.expected)
    )
    """,  # noqa: S608 - made of constants
    entry=COLUMNS,
    head={"conversation": "text", "expected": "bigint"},
)
_CHANGE_MESSAGES = Statement(
    """
    UPDATE log SET
        content = change.content,
        edited_at_ms = coalesce(change.edited_at_ms, log.edited_at_ms),
        deleted_at_ms = change.deleted_at_ms
    FROM {change}
    WHERE log.id = change.id AND log.conversation = change.conversation
    AND log.kind = 'message' AND log.deleted_at_ms IS NULL
    """,
    change={
        "id": "bigint",
        "conversation": "text",
        "content": "text",
        "edited_at_ms": "bigint",
        "deleted_at_ms": "bigint",
    },
)
_REMOVE_MEMBERS = Statement(
    """
    DELETE FROM members WHERE (conversation, user_id) IN (SELECT conversation, user_id FROM {member})
    """,
    member={"conversation": "text", "user_id": "bigint"},
)
_ADD_MEMBERS = Statement(
    """
    INSERT INTO members (conversation, user_id, role, joined_seq)
    SELECT conversation, user_id, role, joined_seq FROM {member} WHERE true
    ON CONFLICT (conversation, user_id) DO NOTHING
    """,
    member={"conversation": "text", "user_id": "bigint", "role": "text", "joined_seq": "bigint"},
)


async def insert(connection: AsyncConnection, new: Sequence[Numbered], heads: Heads) -> bool:
    """Store the entries under their numbers, all or (False) none: a conversation's log ends before ``heads`` says."""
    # In one order for everybody: two writers of the same conversations then wait for each other, and never deadlock.
    ordered = sorted(new, key=lambda numbered: (numbered.entry.conversation, numbered.seq))
    rows = [row_of(entry, seq) for _, entry, seq in ordered]
    return await _INSERT.count(connection, entry=rows, head=heads) == len(rows)


async def store(connection: AsyncConnection, new: Sequence[Numbered], heads: Heads) -> bool:
    """Store the entries and what they change; False if it does not fit, and the transaction must be taken back."""
    if not await insert(connection, new, heads):
        return False
    effects = side_effects(new)
    if effects.messages:
        rows = [(id_, *change) for id_, change in effects.messages.items()]
        if await _CHANGE_MESSAGES.count(connection, change=rows) != len(rows):
            return False  # one of them is not there, or deleted
    await change_members(connection, effects)
    return True


async def change_members(connection: AsyncConnection, effects: SideEffects) -> None:
    """Remove members, then add; who is a member already stays as they are."""
    if effects.removed:
        await _REMOVE_MEMBERS.count(connection, member=sorted(effects.removed))
    if effects.added:
        rows = [(*member, *joined) for member, joined in sorted(effects.added.items())]
        await _ADD_MEMBERS.count(connection, member=rows)
