"""Messages that have no ack yet: what is sent when, and again. Pure.

A message leaves the outbox when it is acknowledged or finally refused, and in no other way. On a new connection all of
them are sent again, in the order in which they came; the server knows them by their ``client_msg_id`` and does nothing
twice. At most ``window`` are on the wire without an answer, and no faster than the server takes them: a token bucket
of its own size, full on each new connection as the server's is.

A refusal that may be temporary (``rate_limited``, ``overloaded``, ``storage_unavailable``, ...) pauses the whole
outbox for as long as the server says and a random time on top that doubles with each refusal in a row: going on with
others would change their order and help nobody.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import NamedTuple

from fastsock.client.backoff import Random, full_jitter_ms
from fastsock.client.settings import Settings

DEFAULT_RETRY_AFTER_MS = 500
"""After a temporary refusal that names no time; what the server itself mostly names."""


class _Item(NamedTuple):
    number: int
    frame: bytes


class Outbox:
    """See above. Every ``now_ms`` is milliseconds, from a clock that never goes back."""

    def __init__(self, settings: Settings, random: Random) -> None:
        self._settings = settings
        self._random = random
        self._items: dict[str, _Item] = {}
        self._waiting: list[tuple[int, str]] = []
        self._flying: dict[str, int] = {}
        """On the wire, and since when; the oldest is the first."""
        self._count = 0
        self._refusals = 0
        self._paused_until_ms = 0
        self._tokens = 0.0
        self._filled_ms = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def full(self) -> bool:
        return len(self._items) >= self._settings.outbox_limit

    def frame(self, client_msg_id: str) -> bytes | None:
        """The frame that waits under this name; None: it is not here, or no more."""
        item = self._items.get(client_msg_id)
        return None if item is None else item.frame

    def add(self, client_msg_id: str, frame: bytes) -> None:
        """Take a message in; it must not be in it already, and the outbox not be `full`."""
        assert client_msg_id not in self._items, "its name is taken"
        assert not self.full, "whoever sends waits"
        self._count += 1
        self._items[client_msg_id] = _Item(self._count, frame)
        heappush(self._waiting, (self._count, client_msg_id))

    # --- the connection ------------------------------------------------------------------------------------------

    def connected(self, now_ms: int) -> None:
        """A new connection: everything is to be sent on it."""
        self._waiting = [(item.number, client_msg_id) for client_msg_id, item in self._items.items()]
        self._waiting.sort()
        self._flying.clear()
        self._refusals = 0
        self._paused_until_ms = now_ms
        self._tokens = self._settings.window
        self._filled_ms = now_ms

    def due(self, now_ms: int) -> list[bytes]:
        """Take out what is to be sent now, in order."""
        self._miss(now_ms)
        frames: list[bytes] = []
        if now_ms < self._paused_until_ms:
            return frames
        self._fill(now_ms)
        while self._waiting and len(self._flying) < self._settings.window and self._tokens >= 1:
            number, client_msg_id = heappop(self._waiting)
            item = self._items.get(client_msg_id)
            if item is not None and item.number == number:  # else it was answered while it waited
                self._tokens -= 1
                self._flying[client_msg_id] = now_ms
                frames.append(item.frame)
        return frames

    def next_at_ms(self) -> int | None:
        """When `due` has something, if nothing happens before; None: only after an answer."""
        times = []
        if self._flying:
            times.append(next(iter(self._flying.values())) + self._settings.ack_patience_ms)
        if self._waiting and len(self._flying) < self._settings.window:
            lacking = max(0.0, 1 - self._tokens)
            wait_ms = -int(-lacking * 1000 // self._settings.messages_per_s)
            times.append(max(self._paused_until_ms, self._filled_ms + wait_ms))
        return min(times, default=None)

    # --- answers -------------------------------------------------------------------------------------------------

    def acked(self, client_msg_id: str) -> bool:
        """The message is delivered; False if it is not here any more."""
        self._refusals = 0
        return self._remove(client_msg_id)

    def refused(self, client_msg_id: str) -> bool:
        """The message is refused for good; False if it is not here any more."""
        return self._remove(client_msg_id)

    def postponed(self, client_msg_id: str, retry_after_ms: int | None, now_ms: int) -> bool:
        """The message is refused for now, and will be sent again; False if it is not here any more."""
        if client_msg_id not in self._items:
            return False
        if self._flying.pop(client_msg_id, None) is not None:
            heappush(self._waiting, (self._items[client_msg_id].number, client_msg_id))
        more_ms = full_jitter_ms(
            self._refusals, self._settings.backoff_base_ms, self._settings.backoff_cap_ms, self._random
        )
        if now_ms >= self._paused_until_ms:  # one refusal of several on the wire counts for all
            self._refusals += 1
        wait_ms = (DEFAULT_RETRY_AFTER_MS if retry_after_ms is None else retry_after_ms) + more_ms
        self._paused_until_ms = max(self._paused_until_ms, now_ms + wait_ms)
        self._tokens = 1.0  # one to see whether the server takes it
        self._filled_ms = self._paused_until_ms
        return True

    # --- inside --------------------------------------------------------------------------------------------------

    def _remove(self, client_msg_id: str) -> bool:
        self._flying.pop(client_msg_id, None)
        return self._items.pop(client_msg_id, None) is not None

    def _fill(self, now_ms: int) -> None:
        gained = max(0, now_ms - self._filled_ms) * self._settings.messages_per_s / 1000
        self._tokens = min(self._settings.window, self._tokens + gained)
        self._filled_ms = max(now_ms, self._filled_ms)

    def _miss(self, now_ms: int) -> None:
        """What was sent long ago and had no answer is sent again."""
        for client_msg_id, sent_ms in list(self._flying.items()):
            if now_ms - sent_ms < self._settings.ack_patience_ms:
                break
            del self._flying[client_msg_id]
            heappush(self._waiting, (self._items[client_msg_id].number, client_msg_id))
