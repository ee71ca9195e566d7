"""Log entries as rows of the table ``log``, and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fastsock.schemas.log import Entry

COLUMNS = {
    "id": "bigint",
    "conversation": "text",
    "seq": "bigint",
    "kind": "text",
    "sender_id": "bigint",
    "key": "text",
    "at_ms": "bigint",
    "content": "text",
    "message_type": "text",
    "reply_to": "bigint",
    "target_id": "bigint",
    "detail": "text",
    "edited_at_ms": "bigint",
    "deleted_at_ms": "bigint",
}
"""The columns of the table, with their types, in the order of `row_of`."""
NAMES = ", ".join(COLUMNS)


def row_of(entry: Entry, seq: int) -> tuple[object, ...]:
    """The row of an entry that gets this number."""
    return (
        entry.id,
        entry.conversation,
        seq,
        entry.kind,
        entry.sender_id,
        entry.key,
        entry.at_ms,
        entry.content,
        entry.message_type,
        entry.reply_to,
        entry.target_id,
        None if entry.detail is None else json.dumps(entry.detail),
        entry.edited_at_ms,
        entry.at_ms if entry.deleted else None,
    )


def entry_of(row: Sequence[Any]) -> Entry:
    """The entry that a row of `COLUMNS` is, in its present state."""
    id_, conversation, seq, kind, sender_id, key, at_ms, content, *rest = row
    message_type, reply_to, target_id, detail, edited_at_ms, deleted_at_ms = rest
    return Entry(
        conversation=conversation,
        kind=kind,
        sender_id=sender_id,
        key=key,
        at_ms=at_ms,
        id=id_,
        seq=seq,
        content=content,
        message_type=message_type,
        reply_to=reply_to,
        target_id=target_id,
        detail=None if detail is None else json.loads(detail),
        edited_at_ms=edited_at_ms,
        deleted=deleted_at_ms is not None,
    )
