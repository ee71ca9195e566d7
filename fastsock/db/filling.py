"""Many people and rooms at once, into an empty database: what a benchmark starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import insert

from fastsock.db.engine import Database
from fastsock.db.message_log import IDS
from fastsock.db.rows import COLUMNS, row_of
from fastsock.models import id_blocks, log, members, rooms, users
from fastsock.schemas import names
from fastsock.schemas.log import SERVER_KEY, Entry

ROWS_AT_ONCE = 1_000


async def fill(database: Database, user_ids: Sequence[int], of_room: Mapping[int, Sequence[int]], at_ms: int) -> None:
    """Make these users, who cannot log in, and rooms with these members, the first of whom owns the room.

    Each room is as if it had been created with all its members: its log has that one entry.

    Raises:
        FastSockError: ``storage_unavailable``; nothing was stored.

    """
    about = [
        {"id": user, "email": f"bench-{user}@example.org", "password_hash": "none", "created_at_ms": at_ms}
        for user in user_ids
    ]
    made = [
        {"id": room, "name": f"bench {room}", "owner_id": ids[0], "created_at_ms": at_ms}
        for room, ids in of_room.items()
    ]
    belong: list[dict[str, object]] = []
    entries: list[dict[str, object]] = []
    for number, (room, ids) in enumerate(of_room.items(), 1):
        name = names.room(room)
        roles = {user: "owner" if user == ids[0] else "member" for user in ids}
        belong += [
            {"conversation": name, "user_id": user, "role": role, "joined_seq": 1} for user, role in roles.items()
        ]
        entry = Entry(
            conversation=name,
            kind="created",
            sender_id=ids[0],
            key=f"{SERVER_KEY}bench:{room}",
            at_ms=at_ms,
            id=number,
            content=f"bench {room}",
            detail={"members": {str(user): role for user, role in roles.items()}},
        )
        entries.append(dict(zip(COLUMNS, row_of(entry, 1), strict=True)))
    blocks: list[dict[str, object]] = [{"name": IDS, "next": len(entries) + 1}]
    async with database.transaction(bounded=False) as connection:
        for table, rows in ((users, about), (rooms, made), (members, belong), (log, entries), (id_blocks, blocks)):
            for start in range(0, len(rows), ROWS_AT_ONCE):
                await connection.execute(insert(table), rows[start : start + ROWS_AT_ONCE])
