"""What the clients of a benchmark have counted. Pure.

A latency is counted from the moment at which the message *should* have been sent, so a server that keeps its clients
from sending does not look faster for it (Tene's "coordinated omission").
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

BUCKETS_PER_MS = 20
"""Latencies are known to 0.05 ms."""
BUCKETS = 10_000 * BUCKETS_PER_MS
"""Up to 10 s; what takes longer counts as that."""


class Latencies:
    """A histogram."""

    __slots__ = ("buckets",)

    def __init__(self) -> None:
        self.buckets = [0] * (BUCKETS + 1)

    def add(self, seconds: float) -> None:
        """Count one; the crowd does the same in place."""
        self.buckets[min(max(int(seconds * 1000 * BUCKETS_PER_MS), 0), BUCKETS)] += 1

    def summary(self) -> Summary:
        count = sum(self.buckets)
        if count == 0:
            return Summary(0, 0.0, 0.0, 0.0)
        return Summary(count, *(_quantile(self.buckets, count, share) for share in (0.5, 0.99, 1.0)))


def _quantile(buckets: list[int], count: int, share: float) -> float:
    """The latency, in ms, that this share of them did not exceed: the upper end of its bucket."""
    wanted, seen = max(1, round(share * count)), 0
    for index, number in enumerate(buckets):
        seen += number
        if seen >= wanted:
            return (index + 1) / BUCKETS_PER_MS
    raise AssertionError("the shares of a count add up")


class Summary(msgspec.Struct, frozen=True):
    """Latencies in milliseconds."""

    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class Faults(msgspec.Struct):
    """What must be 0."""

    lost: int = 0
    """Deliveries that were owed and have not come."""
    duplicated: int = 0
    out_of_order: int = 0
    """Deliveries that came before an earlier one of their conversation."""
    closed: int = 0
    """Sockets that were closed by the server."""

    def __bool__(self) -> bool:
        return any(msgspec.structs.astuple(self))


class Counted(msgspec.Struct):
    """What a crowd has seen of one step."""

    sent: int
    acked: int
    refused: dict[str, int]
    """Errors by code."""
    deliveries: int
    late: int
    """Deliveries that came after the window in which was sent."""
    delivery: Summary
    ack: Summary
    faults: Faults
    window_s: float
    """From the first send to the last one."""
    crowd_cpu_s: float
    """What it cost the clients' process in that window."""


def order(last: int, seq: int, faults: Faults) -> int:
    """A delivery that is not the next one of its conversation; the number to go on from."""
    if seq <= last:
        faults.duplicated += 1
        return last
    faults.out_of_order += 1
    return seq


def lost(heads: dict[int, int], seen: Iterable[dict[int, int]]) -> int:
    """What sockets lack of the conversations they know: the numbers up to the highest that anybody has seen."""
    return sum(heads[topic] - last for socket in seen for topic, last in socket.items() if heads.get(topic, 0) > last)
