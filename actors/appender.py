"""A host's way into the log: which entries go into the next batch, and whose answer comes back.

Entries wait per conversation. When the link to the writer is free, the next batch takes what waits of every
conversation, each group after the head that its activation knows; so while one batch commits the next is gathered, and
a conversation never has two groups on the way. A batch whose call failed may or may not have been committed: the same
groups are sent again, under the placement of the day, until they are answered; the log recognises entries by their ids.

Nobody waits longer than `STORAGE_PATIENCE_MS` for a database that is away: an entry that still waits is given up; one
that is in the batch in flight can be neither given up nor confirmed, so only its requester is told, to ask again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from actors.commands import LinkCommand, Origin
from actors.link import Backoff, Pace
from fastsock.core.limits import MAX_APPEND_ENTRIES, MAX_BATCH_BYTES, STORAGE_PATIENCE_MS
from fastsock.schemas.log import Append, Entry, Outcome

_encoder = msgspec.msgpack.Encoder()

ENTRY_BYTES = 160
"""What an entry weighs beside its text."""


@dataclass(slots=True)
class Waiting:
    """An entry on its way, with what it came from, so that it can be handled anew if its activation is fenced."""

    entry: Entry
    command: LinkCommand
    origin: Origin | None
    """Who is answered; None where nobody waits, or waits no more."""
    since_ms: int


class AppendBatch(msgspec.Struct, frozen=True, array_like=True):
    """What a host sends to a writer: the groups, and the epoch of the placement under which they were decided."""

    epoch: int
    groups: list[Append]


class Appender:
    """The entries of one host that wait for one writer, and the batch that is on its way there."""

    __slots__ = (
        "_backoff",
        "_body",
        "_calling",
        "_count",
        "_epoch",
        "_groups",
        "_in_flight",
        "_number",
        "_pace",
        "_queued",
    )

    def __init__(self) -> None:
        self._queued: dict[str, deque[Waiting]] = {}
        self._in_flight: dict[str, list[Waiting]] = {}
        self._groups: list[Append] = []
        self._epoch = 0
        self._body = b""
        self._number = 0
        self._calling = False
        self._count = 0
        self._backoff = Backoff()
        self._pace = Pace()

    def __len__(self) -> int:
        """Entries that wait or are in flight."""
        return self._count

    def add(self, waiting: Waiting) -> None:
        """Queue an entry behind the others of its conversation."""
        self._queued.setdefault(waiting.entry.conversation, deque()).append(waiting)
        self._count += 1

    def take(self, epoch: int, head_of: Callable[[str], int], now_ms: int) -> tuple[int, bytes] | None:
        """``(number, bytes)`` of the batch to send now; None: nothing waits, one is under way, or it is not time."""
        if self._calling or now_ms < self._backoff.ready_at_ms:
            return None
        if not self._in_flight:
            if not self._queued or now_ms < self._pace.ready_at_ms:
                return None
            self._pace.sent(self._gather(), now_ms)
            self._number += 1
            self._groups = [
                Append(conversation, head_of(conversation), [waiting.entry for waiting in group])
                for conversation, group in self._in_flight.items()
            ]
        # A writer that knows this epoch would refuse the same groups under an older one.
        if not self._body or epoch != self._epoch:
            self._epoch = epoch
            self._body = _encoder.encode(AppendBatch(epoch, self._groups))
        self._calling = True
        return self._number, self._body

    def _gather(self) -> int:
        """Take what goes into the next batch; how many entries that are."""
        entries, total = 0, 0
        for conversation in list(self._queued):
            queue = self._queued[conversation]
            group: list[Waiting] = []
            while queue and entries < MAX_APPEND_ENTRIES:
                size = ENTRY_BYTES + len(queue[0].entry.content)
                if entries and total + size > MAX_BATCH_BYTES:
                    break
                group.append(queue.popleft())
                entries, total = entries + 1, total + size
            if group:
                self._in_flight[conversation] = group
            if queue:
                break
            del self._queued[conversation]
        return entries

    def answered(self, outcomes: list[list[Outcome]]) -> list[tuple[str, list[tuple[Waiting, Outcome]]]]:
        """The batch came to this: per conversation, each entry with its outcome, in order."""
        in_flight, self._in_flight = self._in_flight, {}
        self._groups, self._body = [], b""
        self._calling = False
        self._backoff.succeeded()
        self._count -= sum(map(len, in_flight.values()))
        return [
            (conversation, list(zip(group, results, strict=True)))
            for (conversation, group), results in zip(in_flight.items(), outcomes, strict=True)
        ]

    def failed(self, now_ms: int) -> None:
        """The call failed; `take` gives the same batch again when it is due."""
        self._calling = False
        self._backoff.failed(now_ms)

    def withdraw(self, conversation: str) -> list[Waiting]:
        """Take back what still waits of a conversation, in order: its activation is no more."""
        withdrawn = list(self._queued.pop(conversation, ()))
        self._count -= len(withdrawn)
        return withdrawn

    def give_up(self, now_ms: int) -> tuple[list[Waiting], list[Origin]]:
        """What has waited longer than `STORAGE_PATIENCE_MS`.

        Returns the entries that were still waiting, taken out, and the requesters of entries in flight, who are to be
        told to ask again; those entries stay, and are shown if they turn out to be committed.
        """
        limit_ms = now_ms - STORAGE_PATIENCE_MS
        given_up: list[Waiting] = []
        for conversation, queue in list(self._queued.items()):
            while queue and queue[0].since_ms <= limit_ms:
                given_up.append(queue.popleft())
            if not queue:
                del self._queued[conversation]
        self._count -= len(given_up)
        unsure = [waiting for waiting in self._flying() if waiting.origin and waiting.since_ms <= limit_ms]
        origins = [waiting.origin for waiting in unsure if waiting.origin]
        for waiting in unsure:
            waiting.origin = None
        return given_up, origins

    def _flying(self) -> Iterator[Waiting]:
        for group in self._in_flight.values():
            yield from group

    def retry_at_ms(self) -> int | None:
        """When `take` may have something that it does not have now; None where only `add` or an answer helps."""
        if self._calling or not self._count:
            return None
        return self._backoff.ready_at_ms if self._in_flight else max(self._backoff.ready_at_ms, self._pace.ready_at_ms)

    def oldest_ms(self) -> int | None:
        """Since when the longest waiting entry waits whose requester still hopes; None if there is none.

        Queues are in the order of waiting, so their heads decide.
        """
        heads = [queue[0].since_ms for queue in self._queued.values()]
        heads += [waiting.since_ms for waiting in self._flying() if waiting.origin]
        return min(heads, default=None)
