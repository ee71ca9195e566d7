"""Reading the memberships of users who connect: many users, one query.

What is wanted while reads are under way gathers, and the next read takes all of it: after a restart ten thousand
sockets cost some twenty queries, not ten thousand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from fastsock.schemas.log import Subscription
from fastsock.ws.connection import TaskOwner

log = structlog.get_logger("fastsock.ws")

MAX_USERS = 500
"""Users of one read."""
MAX_READS = 2
"""Reads under way at once: one more than needed to keep the database busy, few enough to leave it to the writers."""

Load = Callable[[Sequence[int]], Awaitable[dict[int, list[Subscription]]]]
"""Reads the memberships of these users; whoever has none may be missing. Any exception means: not now."""


class Loader:
    """Coalesces reads. ``loaded`` and ``failed`` are called once for each `want`, never from within it."""

    def __init__(
        self,
        load: Load,
        tasks: TaskOwner,
        loaded: Callable[[int, list[Subscription]], None],
        failed: Callable[[int], None],
    ) -> None:
        self._load = load
        self._tasks = tasks
        self._loaded = loaded
        self._failed = failed
        self._wanted: dict[int, None] = {}
        self._reads = 0
        self._beginning = False
        self.counts = {"loads": 0, "loaded_users": 0, "failed_loads": 0}

    def __len__(self) -> int:
        """Users who wait for a read."""
        return len(self._wanted)

    def want(self, user_id: int) -> None:
        """Have this user's memberships read; not wanted again before it is answered."""
        self._wanted[user_id] = None
        if not self._beginning and self._reads < MAX_READS:
            self._beginning = True
            self._reads += 1
            self._tasks.start(self._read_all(), "load-subscriptions")

    async def _read_all(self) -> None:
        self._beginning = False  # what one turn of the event loop has wanted is here by now
        try:
            while self._wanted:
                users = list(self._wanted)[:MAX_USERS]
                for user in users:
                    del self._wanted[user]
                await self._read(users)
        finally:
            self._reads -= 1

    async def _read(self, users: list[int]) -> None:
        self.counts["loads"] += 1
        try:
            subscriptions = await self._load(users)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, these users wait, and it is tried again
            self.counts["failed_loads"] += 1
            log.warning("memberships not read", users=len(users), error=f"{type(error).__name__}: {error}"[:300])
            for user in users:
                self._failed(user)
            return
        self.counts["loaded_users"] += len(users)
        for user in users:
            self._loaded(user, subscriptions.get(user, []))
