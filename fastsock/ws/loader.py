"""Reading for many sockets at once: what is wanted while reads are under way gathers, and is the next read.

So after a restart the memberships of ten thousand sockets cost some twenty queries, not ten thousand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

import structlog

from fastsock.ws.connection import TaskOwner

log = structlog.get_logger("fastsock.ws")

MAX_READS = 2
"""Reads of one kind under way at once: one more than needed to keep the database busy, few enough for the writers."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Loader(Generic[K, V]):
    """Coalesces reads of one kind.

    ``load`` reads the values of up to ``limit`` keys; any exception means: not now. ``loaded`` or ``failed`` is called
    once for each `want`, never from within it. ``what`` names the reads in logs and counts.
    """

    def __init__(
        self,
        what: str,
        load: Callable[[Sequence[K]], Awaitable[dict[K, V]]],
        limit: int,
        tasks: TaskOwner,
        loaded: Callable[[K, V], None],
        failed: Callable[[K], None],
    ) -> None:
        self._what = what
        self._load = load
        self._limit = limit
        self._tasks = tasks
        self._loaded = loaded
        self._failed = failed
        self._wanted: dict[K, None] = {}
        self._reads = 0
        self._beginning = False
        self.counts = {f"{what}_reads": 0, f"{what}_read": 0, f"{what}_failed": 0}

    def __len__(self) -> int:
        """Keys that wait for a read."""
        return len(self._wanted)

    def want(self, key: K) -> None:
        """Have the value of this key read; not wanted again before it is answered."""
        self._wanted[key] = None
        if not self._beginning and self._reads < MAX_READS:
            self._beginning = True
            self._reads += 1
            self._tasks.start(self._read_all(), f"read-{self._what}")

    async def _read_all(self) -> None:
        self._beginning = False  # what one turn of the event loop has wanted is here by now
        try:
            while self._wanted:
                keys = list(self._wanted)[: self._limit]
                for key in keys:
                    del self._wanted[key]
                await self._read(keys)
        finally:
            self._reads -= 1

    async def _read(self, keys: list[K]) -> None:
        self.counts[f"{self._what}_reads"] += 1
        try:
            values = await self._load(keys)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits, and it is tried again
            self.counts[f"{self._what}_failed"] += 1
            log.warning("not read", what=self._what, keys=len(keys), error=f"{type(error).__name__}: {error}"[:300])
            for key in keys:
                self._failed(key)
            return
        self.counts[f"{self._what}_read"] += len(keys)
        for key in keys:
            self._loaded(key, values[key])
