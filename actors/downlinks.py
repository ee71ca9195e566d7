"""The way down: a host's queues for all its gateways.

Whoever polls, or sends a first batch, has a `Downlink` with a session. A gateway that has to begin anew (its queue
overflowed, or the host learned that names may have moved) is given a new session: its next poll finds it, and it
attaches its topics and asks its open questions again. One that has not polled for `PEER_GONE_MS` is gone.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from actors.effects import Delivery
from actors.link import Batch, Downlink
from fastsock.core.limits import LINK_EPHEMERAL_SHARE, MAX_DOWNLINK_BYTES, PEER_GONE_MS

_encoder = msgspec.msgpack.Encoder()


class Downlinks:
    """The downlinks of one host. ``forget`` is called with a gateway whose attachments are void from now on."""

    __slots__ = ("_downlinks", "_forget", "_host", "_sessions", "_woken", "dropped", "lost")

    def __init__(self, host: str, forget: Callable[[str], None]) -> None:
        self._host = host
        self._forget = forget
        self._downlinks: dict[str, Downlink] = {}
        self._sessions = 0
        self._woken: dict[str, None] = {}
        self.lost = 0
        """How many overflowed since the start."""
        self.dropped = 0
        """Ephemeral deliveries dropped since the start, because others waited."""

    def __len__(self) -> int:
        return len(self._downlinks)

    @property
    def waiting(self) -> int:
        """Deliveries that wait for any gateway."""
        return sum(map(len, self._downlinks.values()))

    def session(self, peer: str, now_ms: int) -> str:
        """The session of this peer's downlink, which is made if there is none."""
        return self._get(peer, now_ms).session

    def _get(self, peer: str, now_ms: int) -> Downlink:
        downlink = self._downlinks.get(peer)
        if downlink is None:
            downlink = self._downlinks[peer] = self._new(now_ms)
        return downlink

    def _new(self, last_poll_ms: int) -> Downlink:
        self._sessions += 1
        return Downlink(f"{self._host}#{self._sessions}", last_poll_ms)

    def deliver(self, peer: str, delivery: Delivery) -> None:
        self.push(peer, _encoder.encode(delivery))

    def push(self, peer: str, item: bytes) -> None:
        """Queue an encoded delivery. For a peer that was forgotten nothing happens: its next session begins anew."""
        downlink = self._downlinks.get(peer)
        if downlink is None:
            return
        self._woken[peer] = None
        if not downlink.push(item):
            self.lost += 1
            self.renew(peer)

    def whisper(self, peer: str, item: bytes) -> None:
        """Queue an encoded delivery that nobody misses, unless more than `LINK_EPHEMERAL_SHARE` of a bound waits."""
        downlink = self._downlinks.get(peer)
        if downlink is None:
            return
        if downlink.push(item, LINK_EPHEMERAL_SHARE):
            self._woken[peer] = None
        else:
            self.dropped += 1

    def crowded(self, peer: str) -> bool:
        """Whether more than half of what may wait for this gateway waits: no time for pages of the log."""
        downlink = self._downlinks.get(peer)
        return downlink is not None and 2 * downlink.size_bytes > MAX_DOWNLINK_BYTES

    def renew(self, peer: str) -> None:
        """Give this gateway a new session, and forget what it is attached to and what waits for it.

        When it last polled is not forgotten, or nobody would notice if it is gone, and its sockets with it. One that is
        gone already stays so.
        """
        self._forget(peer)
        before = self._downlinks.get(peer)
        if before is not None:
            self._downlinks[peer] = self._new(before.last_poll_ms)
            self._woken[peer] = None

    def renew_all(self) -> None:
        for peer in self._downlinks:
            self.renew(peer)

    def poll(self, peer: str, session: str, acknowledged: int, now_ms: int) -> tuple[str, Batch[bytes] | None]:
        """The session of this gateway's downlink, and its next batch if there is one."""
        downlink = self._get(peer, now_ms)
        return downlink.session, downlink.poll(acknowledged if session == downlink.session else 0, now_ms)

    def take_woken(self) -> list[str]:
        """The gateways for which something has come since this was last asked: their polls can be answered."""
        woken = list(self._woken)
        self._woken.clear()
        return woken

    def gone(self, now_ms: int) -> list[str]:
        """Forget the gateways that have stopped polling; returns their names."""
        limit_ms = now_ms - PEER_GONE_MS
        gone = [peer for peer, downlink in self._downlinks.items() if downlink.last_poll_ms <= limit_ms]
        for peer in gone:
            del self._downlinks[peer]
            self._forget(peer)
        return gone

    def gone_at_ms(self) -> int | None:
        """When the next gateway is gone, if it does not poll until then."""
        last = min((downlink.last_poll_ms for downlink in self._downlinks.values()), default=None)
        return None if last is None else last + PEER_GONE_MS
