"""Reading the placement by which everybody routes; `fastsock.main.place_hosts` stores it."""

from __future__ import annotations

from actors.placement import Placement
from fastsock.core.errors import error_of
from fastsock.db.engine import Database
from fastsock.db.placement import PlacementStore


async def load(database: Database) -> Placement:
    """The stored placement.

    Raises:
        FastSockError: ``storage_unavailable``; nothing is stored yet, or the database is away.

    """
    stored = await PlacementStore(database).load()
    if stored is None:
        raise error_of("storage_unavailable", "no placement is stored: start FastSock with `fastsock serve`")
    return Placement.decode(stored)
