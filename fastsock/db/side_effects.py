"""What an entry changes beside the log, in the same transaction: the message it edits, the members it lets in."""

from __future__ import annotations

from sqlalchemy import delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from fastsock.models.tables import log, members
from fastsock.schemas import frames
from fastsock.schemas.log import Entry, Refused, Role

HasSideEffects = tuple[Entry, int]
"""An entry and its number."""


def has_side_effects(entry: Entry, seq: int) -> bool:
    """Whether storing this entry under this number changes anything beside the log."""
    return entry.kind != "message" or (seq == 1 and entry.conversation.startswith("dm:"))


async def apply(connection: AsyncConnection, entry: Entry, seq: int) -> Refused | None:
    """Make the change; a refusal, and nothing changed, if the message it is about is not there any more."""
    if entry.target_id is not None:
        return await _change_message(connection, entry)
    entry.seq = seq  # who joins by an entry may depend on its number
    joining = frames.joins(entry)
    if joining:
        rows = [
            {"conversation": entry.conversation, "user_id": user, "role": _role(entry, user), "joined_seq": seq}
            for user in joining
        ]
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        await connection.execute(dialect.insert(members).on_conflict_do_nothing(), rows)
    leaving = frames.leaves(entry)
    if leaving:
        gone = members.c.conversation == entry.conversation, members.c.user_id.in_(leaving)
        await connection.execute(delete(members).where(*gone))
    return None


def _role(entry: Entry, user: int) -> Role:
    return "owner" if entry.kind == "created" and user == entry.sender_id else "member"


async def _change_message(connection: AsyncConnection, entry: Entry) -> Refused | None:
    target = log.c.id == entry.target_id, log.c.conversation == entry.conversation, log.c.kind == "message"
    change = {"content": entry.content}
    time = {"edited_at_ms": entry.at_ms} if entry.kind == "edit" else {"deleted_at_ms": entry.at_ms}
    changed = await connection.execute(
        update(log).where(*target, log.c.deleted_at_ms.is_(None)).values({**change, **time})
    )
    if changed.rowcount:
        return None
    if await connection.scalar(select(log.c.id).where(*target)) is None:
        return Refused("message_not_found", f"message {entry.target_id} is not in {entry.conversation}")
    return Refused("message_deleted", f"message {entry.target_id} has been deleted")
