"""Links: how batches travel between processes.

A link has at most one batch in flight. What arrives meanwhile is the next batch: at rest an item leaves at once, under
load batches grow and the price of a call is divided by their size. One in flight per sender and receiver is also what
gives order, which Ray's asynchronous actors alone do not promise.

Three pure halves, for two shapes of edge:

* `Sender` pushes (gateway to host, host to host, host to persistence). A batch is numbered; a try that failed is
  repeated with the same number and the same bytes until it is answered.
* `Inbox` is where pushed batches arrive: it knows the last number of each sender, so a repeated batch is recognised.
* `Downlink` is pulled (host to gateway): the gateway's long poll acknowledges what it has and gets what is new. It has
  a session: when the host restarts, forgets the gateway or overflows, the session changes, and the gateway attaches
  its topics anew. One mechanism heals all three.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

import msgspec

from fastsock.core.limits import (
    LINK_BURST_BATCHES,
    LINK_PACE_ITEM_MS,
    LINK_PACE_MAX_MS,
    LINK_PACE_MS,
    MAX_BATCH_BYTES,
    MAX_BATCH_ITEMS,
    MAX_DOWNLINK_BYTES,
    MAX_DOWNLINK_ITEMS,
    MAX_LINK_PEERS,
    RETRY_MAX_MS,
    RETRY_MIN_MS,
)

T = TypeVar("T")


class Batch(msgspec.Struct, Generic[T], frozen=True):
    """What one call carries: ``number`` counts a sender's batches from 1."""

    number: int
    items: list[T]


class Backoff:
    """The pause between tries: doubles from `RETRY_MIN_MS` to `RETRY_MAX_MS`, back to the start with each success."""

    __slots__ = ("_pause_ms", "ready_at_ms")

    def __init__(self) -> None:
        self._pause_ms = 0
        self.ready_at_ms = 0

    def failed(self, now_ms: int) -> None:
        """After this, ``ready_at_ms`` says when the next try is due."""
        self._pause_ms = min(max(2 * self._pause_ms, RETRY_MIN_MS), RETRY_MAX_MS)
        self.ready_at_ms = now_ms + self._pause_ms

    def succeeded(self) -> None:
        self._pause_ms = 0
        self.ready_at_ms = 0


class Pace:
    """When a link may send its next batch: at once at rest, and under load not before there is something to share.

    A call between two processes costs some 3 ms of CPU (both ends together), whatever it carries. So a batch has to be
    paid for with time: `LINK_PACE_MS`, and `LINK_PACE_ITEM_MS` for each of its items, which is how a link knows load
    from rest, up to `LINK_PACE_MAX_MS`; the price is for one link, so whoever has several pays for all of them. There
    is credit for a burst of `LINK_BURST_BATCHES` small ones: whoever sends a few messages never waits.
    """

    __slots__ = ("_paid_at_ms",)

    def __init__(self) -> None:
        self._paid_at_ms = 0
        """When everything that was sent is paid for."""

    @property
    def ready_at_ms(self) -> int:
        return self._paid_at_ms - (LINK_BURST_BATCHES - 1) * (LINK_PACE_MS + LINK_PACE_ITEM_MS)

    def sent(self, items: int, now_ms: int, links: int = 1) -> None:
        """A batch of so many items has left, on one of so many links of this process."""
        price_ms = min(links * (LINK_PACE_MS + LINK_PACE_ITEM_MS * items), LINK_PACE_MAX_MS)
        self._paid_at_ms = max(self._paid_at_ms, now_ms) + price_ms


class Sender(Generic[T]):
    """The sending half of a push link: a bounded queue, a pace, and at most one batch in flight.

    ``limit_items`` bounds what waits; a batch has at most `MAX_BATCH_ITEMS` items and, if more than one, at most
    `MAX_BATCH_BYTES` by the sizes given to `offer`.
    """

    __slots__ = ("_backoff", "_calling", "_in_flight", "_limit_items", "_number", "_pace", "_queue")

    def __init__(self, limit_items: int) -> None:
        self._limit_items = limit_items
        self._queue: deque[tuple[T, int]] = deque()
        self._number = 0
        self._in_flight: Batch[T] | None = None
        self._calling = False
        self._backoff = Backoff()
        self._pace = Pace()

    def __len__(self) -> int:
        """Items that wait or are in flight."""
        return len(self._queue) + (len(self._in_flight.items) if self._in_flight else 0)

    def offer(self, item: T, size_bytes: int, share: float = 1.0) -> bool:
        """Queue the item; False, and nothing queued, at the bound, or where this share of it is filled."""
        if len(self) >= share * self._limit_items:
            return False
        self._queue.append((item, size_bytes))
        return True

    def restore(self, item: T, size_bytes: int) -> None:
        """Queue an item that was taken in before and recalled from another link: no bound refuses it a second time."""
        self._queue.append((item, size_bytes))

    def take(self, now_ms: int, links: int = 1) -> Batch[T] | None:
        """The batch to send now, or None: nothing waits, a call is under way, or it is not time yet (`retry_at_ms`).

        What was taken is in flight until `delivered` or `failed` is told. ``links``: how many such links there are.
        """
        if self._calling or now_ms < self._backoff.ready_at_ms:
            return None
        if self._in_flight is None:
            if not self._queue or now_ms < self._pace.ready_at_ms:
                return None
            self._number += 1
            self._in_flight = Batch(self._number, self._gather())
            self._pace.sent(len(self._in_flight.items), now_ms, links)
        self._calling = True
        return self._in_flight

    def _gather(self) -> list[T]:
        items: list[T] = []
        total = 0
        while self._queue and len(items) < MAX_BATCH_ITEMS:
            item, size = self._queue[0]
            if items and total + size > MAX_BATCH_BYTES:
                break
            self._queue.popleft()
            items.append(item)
            total += size
        return items

    def delivered(self, number: int) -> list[T]:
        """That batch was answered; returns its items. The late answer to one that was recalled changes nothing."""
        batch = self._in_flight
        if batch is None or batch.number != number:
            return []
        self._calling = False
        self._in_flight = None
        self._backoff.succeeded()
        return batch.items

    def failed(self, number: int, now_ms: int) -> None:
        """The call failed; it may or may not have been carried out. `take` gives the same batch again when due."""
        if self._in_flight is not None and self._in_flight.number == number:
            self._calling = False
            self._backoff.failed(now_ms)

    def recall(self) -> list[T]:
        """Take everything back, in order, to send it elsewhere; what becomes of a call under way no longer matters."""
        items = [*(self._in_flight.items if self._in_flight else []), *(item for item, _ in self._queue)]
        self._queue.clear()
        self._in_flight = None
        self._calling = False
        return items

    def retry_now(self) -> None:
        """The other end works again, as something else has shown: don't wait for the next try."""
        self._backoff.succeeded()

    def retry_at_ms(self) -> int | None:
        """When `take` may have something that it does not have now; None where only `offer` or an answer helps."""
        if self._calling or not len(self):
            return None
        if self._in_flight is not None:
            return self._backoff.ready_at_ms
        return max(self._backoff.ready_at_ms, self._pace.ready_at_ms)


class Inbox:
    """The receiving half of push links: which batches have been here before.

    Bounded by `MAX_LINK_PEERS` senders, the longest silent forgotten first. A sender's name must be new with each start
    of its process, so a number means one batch for ever.
    """

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: OrderedDict[str, int] = OrderedDict()

    def accept(self, sender: str, number: int) -> bool:
        """Whether this batch is new. With one batch in flight, numbers never go back."""
        if number <= self._last.get(sender, 0):
            return False
        self._last[sender] = number
        self._last.move_to_end(sender)
        if len(self._last) > MAX_LINK_PEERS:
            self._last.popitem(last=False)
        return True


class Downlink:
    """A host's queue for one gateway, pulled by long polls.

    Items are encoded already, once for all gateways. What a poll has answered is kept until the next poll acknowledges
    it, and given again, unchanged, to a poll that does not.
    """

    __slots__ = ("_bytes", "_number", "_queue", "_unacknowledged", "last_poll_ms", "session")

    def __init__(self, session: str, now_ms: int) -> None:
        self.session = session
        self.last_poll_ms = now_ms
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._number = 0
        self._unacknowledged: list[bytes] = []

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def size_bytes(self) -> int:
        """Bytes that wait; what was sent and is not acknowledged does not count."""
        return self._bytes

    def push(self, item: bytes, share: float = 1.0) -> bool:
        """Queue an encoded item; False, and nothing queued, where this share of a bound would be exceeded.

        At the bound itself the host must then give the gateway a new session.
        """
        if self._bytes + len(item) > share * MAX_DOWNLINK_BYTES or len(self._queue) >= share * MAX_DOWNLINK_ITEMS:
            return False
        self._queue.append(item)
        self._bytes += len(item)
        return True

    def poll(self, acknowledged: int, now_ms: int) -> Batch[bytes] | None:
        """The next batch, or None when there is nothing to say yet.

        ``acknowledged`` is the number of the last batch of this session that the gateway has; 0 for none.
        """
        self.last_poll_ms = now_ms
        if self._unacknowledged and acknowledged < self._number:
            return Batch(self._number, self._unacknowledged)
        self._unacknowledged = []
        if not self._queue:
            return None
        total = 0
        while self._queue and len(self._unacknowledged) < MAX_BATCH_ITEMS:
            if self._unacknowledged and total + len(self._queue[0]) > MAX_BATCH_BYTES:
                break
            item = self._queue.popleft()
            total += len(item)
            self._unacknowledged.append(item)
        self._bytes -= total
        self._number += 1
        return Batch(self._number, self._unacknowledged)
