"""Placement: which host an actor's name lives on.

A name belongs to one of `SHARDS` virtual shards by CRC-32, a shard to a host by rendezvous hashing (Thaler and
Ravishankar, "Using name-based mappings to increase hit rates", 1998): each host draws a number for the shard, the
highest has it. Adding or removing one of n hosts therefore moves 1/n of the shards and no others. A pin gives one name
a host of its own choice.

A placement is a value. It has an ``epoch`` that grows by one with each change, and every batch carries the epoch it
was routed by: a host refuses what was routed by an older table and hands back the newer one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from zlib import crc32

import msgspec

from fastsock.core.limits import SHARDS


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """The table. ``hosts`` are the names of host actors, in any order; ``pins`` maps a name to one of them."""

    epoch: int
    hosts: tuple[str, ...]
    pins: dict[str, str] = {}

    def owner(self, name: str) -> str:
        """The host on which ``name`` lives."""
        if len(self.hosts) == 1:
            return self.hosts[0]
        return self.pins.get(name) or _table(self.hosts)[shard_of(name)]

    def moved_since(self, before: Placement) -> Callable[[str], bool]:
        """Whether a name may have changed hands on the way from an older placement to this one.

        Where placements between the two were never seen, any name may have lived elsewhere and come back.
        """
        if self.epoch > before.epoch + 1:
            return lambda _name: True
        return lambda name: before.owner(name) != self.owner(name)

    def with_hosts(self, hosts: tuple[str, ...], pins: dict[str, str] | None = None) -> Placement:
        """The next table, over other hosts; this one, unchanged, where the hosts are the same set.

        Pins to hosts that are no more are dropped. ``pins``: those that come back with their hosts.

        Raises:
            ValueError: no host is left.

        """
        if not hosts:
            raise ValueError("a placement needs at least 1 host, got 0")
        if set(hosts) == set(self.hosts):
            return self
        held = {name: host for name, host in ((pins or {}) | self.pins).items() if host in hosts}
        return Placement(epoch=self.epoch + 1, hosts=tuple(sorted(hosts)), pins=held)

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @staticmethod
    def decode(body: bytes) -> Placement:
        return msgspec.msgpack.decode(body, type=Placement)


def shard_of(name: str) -> int:
    """The virtual shard of a name, 0 to `SHARDS` - 1."""
    return crc32(name.encode()) % SHARDS


def _draw(host: str, shard: int) -> bytes:
    return blake2b(f"{host}/{shard}".encode(), digest_size=8).digest()


@lru_cache(maxsize=16)
def _table(hosts: tuple[str, ...]) -> tuple[str, ...]:
    """The owner of each shard. 1,024 shards over 4 hosts take some 5 ms to draw, so a table is drawn once."""
    return tuple(max(hosts, key=lambda host: (_draw(host, shard), host)) for shard in range(SHARDS))
