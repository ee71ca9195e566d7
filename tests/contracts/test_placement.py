"""The stored placement."""

from __future__ import annotations

import asyncio

from fastsock.db.engine import Database
from fastsock.db.placement import PlacementStore


async def test_a_placement_is_stored_over_the_one_that_was_expected(db: Database) -> None:
    store = PlacementStore(db)
    assert await store.load() is None
    assert await store.store(b"one", 1, 1) is False
    assert await store.store(b"one\0\xff", 1, 0) is True
    assert await store.load() == b"one\0\xff"
    assert await store.store(b"another", 1, 0) is False
    assert await store.store(b"three", 3, 2) is False
    assert await store.store(b"two", 2, 1) is True
    assert await store.load() == b"two"


async def test_of_many_who_store_at_once_one_does(url: str) -> None:
    databases = [Database(url, pool_size=1) for _ in range(4)]
    stores = [PlacementStore(database) for database in databases]
    for epoch in range(1, 6):
        values = [f"{epoch} by {number}".encode() for number in range(4)]
        tries = [store.store(value, epoch, epoch - 1) for store, value in zip(stores, values, strict=True)]
        stored = await asyncio.gather(*tries)
        assert stored.count(True) == 1
        assert await stores[0].load() == values[stored.index(True)]
    for database in databases:
        await database.close()
