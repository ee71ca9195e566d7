"""Log entries as rows, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row

from fastsock.models.tables import log
from fastsock.schemas.log import Entry

COLUMNS = (
    log.c.conversation,
    log.c.seq,
    log.c.id,
    log.c.kind,
    log.c.sender_id,
    log.c.key,
    log.c.at_ms,
    log.c.content,
    log.c.message_type,
    log.c.reply_to,
    log.c.target_id,
    log.c.detail,
    log.c.edited_at_ms,
    log.c.deleted_at_ms,
)


def values_of(entry: Entry, seq: int) -> dict[str, Any]:
    """The row of a new entry."""
    return {
        "conversation": entry.conversation,
        "seq": seq,
        "id": entry.id,
        "kind": entry.kind,
        "sender_id": entry.sender_id,
        "key": entry.key,
        "at_ms": entry.at_ms,
        "content": entry.content,
        "message_type": entry.message_type,
        "reply_to": entry.reply_to,
        "target_id": entry.target_id,
        "detail": None if entry.detail is None else json.dumps(entry.detail),
    }


def entry_of(row: Row[Any]) -> Entry:
    """A row of `COLUMNS` as the entry it is now."""
    column: Mapping[str, Any] = row._mapping  # noqa: SLF001 - SQLAlchemy's documented name
    return Entry(
        conversation=column["conversation"],
        kind=column["kind"],
        sender_id=column["sender_id"],
        key=column["key"],
        at_ms=column["at_ms"],
        id=column["id"],
        seq=column["seq"],
        content=column["content"],
        message_type=column["message_type"],
        reply_to=column["reply_to"],
        target_id=column["target_id"],
        detail=None if column["detail"] is None else json.loads(column["detail"]),
        edited_at_ms=column["edited_at_ms"],
        deleted=column["deleted_at_ms"] is not None,
    )
