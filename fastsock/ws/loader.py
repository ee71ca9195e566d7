"""Reading for many sockets at once: what is wanted while reads are under way gathers, and is the next read.

A read of one user costs PostgreSQL 300 us and this process 500 us, each further user a tenth of that or less. Reads
that begin as soon as they can find two or three users each in a storm of a thousand a second, so a read is paid for
with time, by what it brings: after one of a single key the next begins at once, after a larger one within
`GATHER_MAX_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

import structlog

from fastsock.ws.connection import TaskOwner

log = structlog.get_logger("fastsock.ws")

MAX_READS = 2
"""Reads of one kind under way at once: one more than needed to keep the database busy, few enough for the writers."""
GATHER_EACH_S = 0.005
"""For each key of a read but the first the next read begins so much later, at most `GATHER_MAX_S` after it began. So
from some 300 new keys a second on each read brings more than the one before; a single socket waits for nothing."""
GATHER_MAX_S = 0.015
"""At 1,000 keys a second a read brings 15 of them; what somebody notices begins at 100 ms."""

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
        """Under way, or about to begin."""
        self._gathering = False
        """Whether one of them is about to begin."""
        self._next_s = 0.0
        """When the next one may begin, by the event loop's clock."""
        self._full = asyncio.Event()
        """Whether ``limit`` keys wait: there is nothing to gather for."""
        self.counts = {f"{what}_reads": 0, f"{what}_read": 0, f"{what}_failed": 0}

    def __len__(self) -> int:
        """Keys that wait for a read."""
        return len(self._wanted)

    def want(self, key: K) -> None:
        """Have the value of this key read; not wanted again before it is answered."""
        self._wanted[key] = None
        if len(self._wanted) >= self._limit:
            self._full.set()
        self._begin()

    def _begin(self) -> None:
        if self._wanted and not self._gathering and self._reads < MAX_READS:
            self._gathering = True
            self._reads += 1
            self._tasks.start(self._read_some(), f"read-{self._what}")

    async def _read_some(self) -> None:
        try:
            await self._read(await self._gather())
        finally:
            self._reads -= 1
        self._begin()  # not where the task was cancelled: its owner ends

    async def _gather(self) -> list[K]:
        """What one turn of the event loop has wanted, and under load what more comes until the last read is paid."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._next_s:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._next_s):
                    await self._full.wait()
        keys = list(self._wanted)[: self._limit]
        for key in keys:
            del self._wanted[key]
        if len(self._wanted) < self._limit:
            self._full.clear()
        self._next_s = loop.time() + min((len(keys) - 1) * GATHER_EACH_S, GATHER_MAX_S)
        self._gathering = False
        self._begin()
        return keys

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
