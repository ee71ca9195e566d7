"""Looking at the log for many entries or conversations at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from fastsock.db.append_plan import Known, name_flaw
from fastsock.db.rows import COLUMNS, entry_of
from fastsock.db.statement import Statement
from fastsock.schemas.log import Append, Entry
from fastsock.schemas.names import MAX_ID


class Page(NamedTuple):
    """Entries of one conversation: what follows ``since``, up to ``upto``."""

    conversation: str
    since: int
    upto: int


_LOG = ", ".join(f"log.{name}" for name in COLUMNS)
_BY_ID = Statement(
    f"SELECT {_LOG} FROM {{wanted}} JOIN log ON log.id = wanted.id",  # noqa: S608 - made of constants
    wanted={"id": "bigint"},
)
_BY_KEY = Statement(
    f"SELECT {_LOG} FROM {{wanted}} JOIN log ON log.sender_id = wanted.sender_id AND log.key = wanted.key",  # noqa: S608
    wanted={"sender_id": "bigint", "key": "text"},
)
HEADS = Statement(
    """
    SELECT last.conversation, last.seq, last.at_ms
    FROM {wanted} JOIN log AS last ON last.conversation = wanted.conversation
    AND last.seq = (SELECT max(seq) FROM log WHERE log.conversation = wanted.conversation)
    """,
    wanted={"conversation": "text"},
)
"""The last entry of each conversation that has any: its name, its number and its time."""


_PAGES = Statement(
    f"""
    SELECT {_LOG} FROM {{wanted}} JOIN log
    ON log.conversation = wanted.conversation AND log.seq > wanted.since AND log.seq <= wanted.upto
    ORDER BY log.conversation, log.seq
    """,  # noqa: S608
    wanted={"conversation": "text", "since": "bigint", "upto": "bigint"},
)


async def pages(connection: AsyncConnection, wanted: Sequence[Page]) -> dict[Page, list[Entry]]:
    """The entries of each page, in order."""
    found: dict[str, dict[int, Entry]] = {page.conversation: {} for page in wanted}
    for row in await _PAGES.fetch(connection, wanted=wanted):
        entry = entry_of(row)
        found[entry.conversation][entry.seq] = entry
    return {
        page: [found[page.conversation][seq] for seq in range(page.since + 1, page.upto + 1) if seq in found[page[0]]]
        for page in wanted
    }


async def look_up(connection: AsyncConnection, groups: Sequence[Append]) -> Known:
    """What the log holds of these entries: by their ids, by their senders' keys, their targets, and the heads."""
    named = [entry for group in groups for entry in group.entries if name_flaw(entry) is None]
    targets = {entry.target_id for entry in named if entry.target_id is not None and _is_id(entry.target_id)}
    ids = sorted({entry.id for entry in named} | targets)
    keys = sorted({(entry.sender_id, entry.key) for entry in named})
    conversations = sorted({group.conversation for group in groups if group.conversation.isprintable()})
    known = Known()
    for row in await _BY_ID.fetch(connection, wanted=[(id_,) for id_ in ids]):
        known.add(entry_of(row))
    for row in await _BY_KEY.fetch(connection, wanted=keys):
        known.add(entry_of(row))
    for conversation, head, _ in await HEADS.fetch(connection, wanted=[(name,) for name in conversations]):
        known.heads[conversation] = head
    return known


async def by_keys(connection: AsyncConnection, keys: Sequence[tuple[int, str]]) -> dict[tuple[int, str], Entry]:
    """What became of these attempts, by sender and key; without those that the log does not know."""
    entries = [entry_of(row) for row in await _BY_KEY.fetch(connection, wanted=list(keys))]
    return {(entry.sender_id, entry.key): entry for entry in entries}


def _is_id(number: int) -> bool:
    return 1 <= number <= MAX_ID
