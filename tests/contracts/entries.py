"""People and log entries for the contracts of storage."""

from __future__ import annotations

from itertools import count

import msgspec
from sqlalchemy import func, insert, select

from fastsock.db.engine import Database
from fastsock.db.users import Users
from fastsock.models import markers, members, users
from fastsock.schemas.log import Append, Entry, Kind

NOW_MS = 1_800_000_000_000
"""2027-01-15T08:00:00.000Z"""

_ids = count(1)


def message(conversation: str, sender: int, text: str, *, key: str | None = None, id_: int | None = None) -> Entry:
    """A message with an id of its own and, unless ``key`` is given, a key made of its text."""
    return Entry(
        conversation=conversation,
        kind="message",
        sender_id=sender,
        key=key or f"c:{text}",
        at_ms=NOW_MS,
        id=next(_ids) if id_ is None else id_,
        content=text,
    )


def change(kind: Kind, target: Entry, sender: int, text: str = "", *, at_ms: int = NOW_MS + 1) -> Entry:
    """An edit or a delete of a message."""
    id_ = next(_ids)
    return Entry(
        conversation=target.conversation,
        kind=kind,
        sender_id=sender,
        key=f"s:{kind}-{id_}",
        at_ms=at_ms,
        id=id_,
        content=text,
        target_id=target.id,
        detail={"id": target.id, "seq": target.seq, "reply_to": None},
    )


def membership(kind: Kind, conversation: str, by: int, *people: int) -> Entry:
    """People join, as members, or leave."""
    id_ = next(_ids)
    detail: dict[str, object] = {"user_ids": [*people]}
    if kind != "left":
        detail = {"members": {str(user): "owner" if kind == "created" and user == by else "member" for user in people}}
    key = f"s:{kind}-{id_}"
    return Entry(conversation=conversation, kind=kind, sender_id=by, key=key, at_ms=NOW_MS, id=id_, detail=detail)


def group(expected_head: int, *entries: Entry) -> Append:
    return Append(entries[0].conversation, expected_head, list(entries))


def numbered(entry: Entry, seq: int) -> Entry:
    """The entry as it is read back."""
    return msgspec.structs.replace(entry, seq=seq)


async def add_users(database: Database, how_many: int) -> None:
    """Users 1, 2, ... in a fresh database."""
    same = {"password_hash": "none", "created_at_ms": 0}
    rows = [
        {"id": id_, "email": f"{id_}@example.com", "full_name": f"User {id_}", **same} for id_ in range(1, how_many + 1)
    ]
    async with database.transaction() as connection:
        await connection.execute(insert(users), rows)
        if database.dialect == "postgresql":  # which does not count ids that it has not given itself
            await connection.execute(select(func.setval(func.pg_get_serial_sequence("users", "id"), how_many)))


async def deactivate(database: Database, user_id: int) -> None:
    async with database.transaction() as connection:
        await connection.execute(users.update().where(users.c.id == user_id).values(is_active=False))
    assert await Users(database).existing([user_id]) == set()


async def members_of(database: Database, conversation: str) -> dict[int, tuple[str, int]]:
    """Who belongs to it: role and the entry by which they came."""
    query = select(members.c.user_id, members.c.role, members.c.joined_seq)
    async with database.autocommit() as connection:
        rows = await connection.execute(query.where(members.c.conversation == conversation))
        return {user: (role, joined_seq) for user, role, joined_seq in rows}


async def read_marker(database: Database, user_id: int, conversation: str) -> int | None:
    wanted = markers.c.user_id == user_id, markers.c.conversation == conversation
    async with database.autocommit() as connection:
        marker: int | None = await connection.scalar(select(markers.c.read_seq).where(*wanted))
    return marker
