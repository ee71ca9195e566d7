"""The log as the database has it, read past everything that is tested."""

from __future__ import annotations

import json
from collections import defaultdict

import asyncpg

from actors.placement import Placement
from fastsock.schemas.log import CLIENT_KEY
from tests.benchmarks.chaos.verdict import Row

CONNECT_WITHIN_S = 10.0


async def placement(url: str) -> Placement:
    """Which conversation lives on which host."""
    ((value,),) = await _rows(url, "SELECT value FROM placement")
    return Placement.decode(value)


async def heads(url: str) -> dict[int, dict[str, int]]:
    """For each user, where the conversations stand that they belong to now."""
    found: dict[int, dict[str, int]] = defaultdict(dict)
    for user_id, conversation, seq in await _rows(
        url,
        "SELECT members.user_id, members.conversation, max(log.seq) FROM members JOIN log USING (conversation)"
        " GROUP BY members.user_id, members.conversation",
    ):
        found[user_id][conversation] = seq
    return dict(found)


async def log(url: str) -> list[Row]:
    """Every entry."""
    rows = []
    for conversation, seq, id_, kind, sender_id, key, target_id, detail in await _rows(
        url,
        "SELECT conversation, seq, id, kind, sender_id, key, target_id, detail FROM log ORDER BY conversation, seq",
    ):
        about = {} if detail is None else json.loads(detail)
        added = frozenset(map(int, about.get("members", ())))
        removed = frozenset(about.get("user_ids", ()))
        name = key.removeprefix(CLIENT_KEY)
        rows.append(Row(conversation, seq, id_, kind, sender_id, name, target_id, added, removed))
    return rows


async def _rows(url: str, sql: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""), timeout=CONNECT_WITHIN_S)
    try:
        return list(await connection.fetch(sql))
    finally:
        await connection.close(timeout=CONNECT_WITHIN_S)
