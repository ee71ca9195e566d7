"""The stored placement of actors on hosts: one row, changed by compare and set on its epoch."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from fastsock.db.engine import Database
from fastsock.db.statement import upsert
from fastsock.models import placement

ROW = 1
"""The id of the only row."""


class PlacementStore:
    """The one placement of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> bytes | None:
        """What is stored; None before the first.

        Raises:
            RetryableError: ``storage_unavailable``.

        """

        async def read(connection: AsyncConnection) -> bytes | None:
            value: bytes | None = await connection.scalar(select(placement.c.value).where(placement.c.id == ROW))
            return value

        return await self._database.read(read)

    async def store(self, value: bytes, epoch: int, expected_epoch: int) -> bool:
        """Store ``value`` with its ``epoch`` if what is stored has ``expected_epoch`` (0: nothing is); False if not.

        Raises:
            RetryableError: ``storage_unavailable``; it may have been stored.

        """
        async with self._database.transaction() as connection:
            if expected_epoch == 0:
                first = upsert(self._database.dialect, placement).values(id=ROW, value=value, epoch=epoch)
                return (await connection.execute(first.on_conflict_do_nothing())).rowcount == 1
            same = placement.c.id == ROW, placement.c.epoch == expected_epoch
            changed = await connection.execute(update(placement).where(*same).values(value=value, epoch=epoch))
            return changed.rowcount == 1
