"""One clock for the pings of all sockets: a wheel with as many spokes as ticks in an interval.

A socket is on one spoke and its turn comes once in each interval; so a gateway with ten thousand idle sockets has one
timer, and pings them a few at a time.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from fastsock.core.limits import HEARTBEAT_SPOKES


class Beating(Protocol):
    """Somebody whose turn comes."""

    def beat(self) -> None:
        """It is your turn."""
        ...


class Heartbeat:
    """The wheel; it turns while somebody is on it. ``interval_s``: between two turns of one socket."""

    __slots__ = ("_at", "_spokes", "_tick_s", "_timer")

    def __init__(self, interval_s: float) -> None:
        self._spokes: list[dict[Beating, None]] = [{} for _ in range(HEARTBEAT_SPOKES)]
        self._tick_s = interval_s / HEARTBEAT_SPOKES
        self._at = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, socket: Beating) -> int:
        """Have its turns come, the first in an interval; the spoke that it is on."""
        self._spokes[self._at][socket] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._tick_s, self._tick)
        return self._at

    def discard(self, socket: Beating, spoke: int) -> None:
        """Let it go."""
        self._spokes[spoke].pop(socket, None)

    def _tick(self) -> None:
        self._timer = None
        if any(self._spokes):  # first, so that a defect below does not stop the wheel
            self._timer = asyncio.get_running_loop().call_later(self._tick_s, self._tick)
        self._at = (self._at + 1) % HEARTBEAT_SPOKES
        for socket in list(self._spokes[self._at]):
            socket.beat()
