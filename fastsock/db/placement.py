"""The stored placement: one row, changed by compare and set on its epoch."""

from __future__ import annotations

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from fastsock.db.engine import Database
from fastsock.models.tables import placement


class PlacementStore:
    """The one placement of this database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> bytes | None:
        """What is stored; None before the first."""
        async with self._database.transaction() as connection:
            value: bytes | None = await connection.scalar(select(placement.c.value))
        return value

    async def store(self, value: bytes, epoch: int, expected_epoch: int) -> bool:
        """Store a new placement if the stored one has ``expected_epoch`` (0: there is none); False if it has not."""
        row = {"epoch": epoch, "value": value}
        async with self._database.transaction() as connection:
            if expected_epoch:
                changed = await connection.execute(
                    update(placement).where(placement.c.epoch == expected_epoch).values(row)
                )
                return changed.rowcount == 1
            try:
                await connection.execute(insert(placement).values(id=1, **row))
            except IntegrityError:
                await connection.rollback()
                return False
        return True
