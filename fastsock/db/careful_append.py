"""Appending entry by entry: what `MessageLog.append` does when something is not as it hoped.

Each entry is one of five things: stored already by an earlier try (found by its id), a duplicate (found by its sender's
key), fenced (the head is not the expected one), refused by the database (each is tried in a savepoint of its own), or
new. The new ones are numbered as they are stored, so what takes no number leaves no hole.

Somebody else may write between the look and the insert; then a unique constraint says so, and all of it is done again
with what is true now.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, insert, or_, select, tuple_
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from fastsock.core.errors import error_of
from fastsock.core.limits import RETRY_AFTER_MS
from fastsock.db.engine import Database, unavailable
from fastsock.db.rows import COLUMNS, entry_of, values_of
from fastsock.db.side_effects import apply
from fastsock.models.tables import log
from fastsock.schemas.log import Append, Duplicate, Entry, Fenced, Outcome, Refused, Stored

TRIES = 10
"""Each try is lost only to somebody who won; ten in a row need ten winners in a few milliseconds each."""
CHUNK = 400
"""Entries looked up by one query: SQLite takes at most 32,766 parameters, PostgreSQL 32,767."""


class _OvertakenError(Exception):
    """Somebody else has stored what this append was about to."""


class _RefusedError(Exception):
    def __init__(self, refused: Refused) -> None:
        super().__init__(refused)
        self.refused = refused


async def append_carefully(database: Database, groups: Sequence[Append]) -> list[list[Outcome]]:
    """As `MessageLog.append`.

    Raises:
        FastSockError: ``storage_unavailable``.

    """
    for _ in range(TRIES):
        try:
            async with database.transaction() as connection:
                known = await _Known.look_up(connection, groups)
                return [await _append(connection, group, known) for group in groups]
        except _OvertakenError:
            continue
    raise error_of("storage_unavailable", f"others were faster {TRIES} times in a row", RETRY_AFTER_MS)


class _Known:
    """What the database holds of the entries that are to be appended."""

    def __init__(self) -> None:
        self.by_id: dict[int, Entry] = {}
        self.by_key: dict[tuple[int, str], Entry] = {}
        self.heads: dict[str, int] = {}

    @classmethod
    async def look_up(cls, connection: AsyncConnection, groups: Sequence[Append]) -> _Known:
        known = cls()
        entries = [entry for group in groups for entry in group.entries if _encodable(entry)]
        for start in range(0, len(entries), CHUNK):
            chunk = entries[start : start + CHUNK]
            keys = [(entry.sender_id, entry.key) for entry in chunk]
            same = or_(log.c.id.in_([entry.id for entry in chunk]), tuple_(log.c.sender_id, log.c.key).in_(keys))
            for row in await connection.execute(select(*COLUMNS).where(same)):
                known.add(entry_of(row))
        names = [group.conversation for group in groups]
        heads = select(log.c.conversation, func.max(log.c.seq)).where(log.c.conversation.in_(names))
        for conversation, head in await connection.execute(heads.group_by(log.c.conversation)):
            known.heads[conversation] = head
        return known

    def add(self, entry: Entry) -> None:
        self.by_id[entry.id] = entry
        self.by_key[entry.sender_id, entry.key] = entry


def _encodable(entry: Entry) -> bool:
    return "\x00" not in entry.key and not any("\ud800" <= char <= "\udfff" for char in entry.key)


async def _append(connection: AsyncConnection, group: Append, known: _Known) -> list[Outcome]:
    outcomes: list[Outcome] = []
    head = known.heads.get(group.conversation, 0)
    fenced = Fenced(head) if head != group.expected_head else None
    for entry in group.entries:
        stored = known.by_id.get(entry.id)
        original = known.by_key.get((entry.sender_id, entry.key))
        if stored is not None:
            outcomes.append(Stored(stored.seq))
        elif original is not None:
            outcomes.append(Duplicate(original))
        elif fenced is not None:
            outcomes.append(fenced)
        else:
            outcome = await _store(connection, entry, head + 1)
            if isinstance(outcome, Stored):
                head = outcome.seq
                entry.seq = head
                known.add(entry)
            outcomes.append(outcome)
    return outcomes


async def _store(connection: AsyncConnection, entry: Entry, seq: int) -> Stored | Refused:
    try:
        async with connection.begin_nested():
            await connection.execute(insert(log), values_of(entry, seq))
            refused = await apply(connection, entry, seq)
            if refused is not None:
                raise _RefusedError(refused)
    except _RefusedError as error:
        return error.refused
    except IntegrityError as error:
        if _is_unique(error):
            raise _OvertakenError from error
        return Refused("refused_by_storage", f"the database refuses it: {_first_line(error)}")
    except (DBAPIError, ValueError) as error:
        if unavailable(error):
            raise
        return Refused("refused_by_storage", f"the database refuses it: {_first_line(error)}")
    return Stored(seq)


def _is_unique(error: IntegrityError) -> bool:
    """Whether a unique or primary key was violated: SQLSTATE 23505, or SQLite's words."""
    return getattr(error.orig, "sqlstate", None) == "23505" or "UNIQUE constraint" in str(error.orig)


def _first_line(error: Exception) -> str:
    """What the driver said, without the statement that SQLAlchemy adds, which holds what was sent."""
    return str(getattr(error, "orig", None) or error).splitlines()[0][:200]
