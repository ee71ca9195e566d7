"""Events that wait for the program, and the positions that it has reached by taking them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping

from fastsock.client.events import Event
from fastsock.client.streams import Moves


class Inbox:
    """A queue of events. It does not refuse any: whoever fills it calls `space` before it gets more.

    Its positions move when an event is *taken*, not when it comes: what only waits here is lost with the process.
    """

    def __init__(self, positions: Mapping[str, int] | None, limit: int) -> None:
        self.positions = dict(positions or {})
        self._limit = limit
        self._events: deque[tuple[Event, Moves]] = deque()
        self._put = asyncio.Event()
        self._taken = asyncio.Event()

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: Event, moves: Moves) -> None:
        """An event has come; when it is taken, the positions move."""
        self._events.append((event, moves))
        self._put.set()

    def pass_by(self, moves: Moves) -> None:
        """An event that nobody wants to have has come."""
        for name, seq in moves.items():
            if seq is None:
                self.positions.pop(name, None)
            else:
                self.positions[name] = seq

    def take(self) -> Event | None:
        """The next event; None: there is none yet."""
        if not self._events:
            return None
        event, moves = self._events.popleft()
        self.pass_by(moves)
        self._taken.set()
        return event

    async def news(self) -> None:
        """Wait until there is an event, or until `close`."""
        self._put.clear()
        await self._put.wait()

    async def space(self) -> None:
        """Wait until there is room for one more, or until `unbound`."""
        while len(self._events) >= self._limit:
            self._taken.clear()
            await self._taken.wait()

    def unbound(self) -> None:
        """Nobody may take events any more, and still some are to come: take them all."""
        self._limit = len(self._events) + 2**53
        self._taken.set()

    def close(self) -> None:
        """No more events will come."""
        self._put.set()
