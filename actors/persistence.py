"""Group commit: many rooms' entries of many hosts, one transaction.

While one transaction commits, what arrives is gathered into the next: at rest an append commits at once, under load a
commit is shared by everything that waited for the one before. Each host's batch is a *ticket* and is answered after its
commit, or fails as a whole if the database is away; the host then repeats it, and entries that were committed after all
are recognised by their ids.

Two hosts that both believe they own a room may send groups for it at the same time. One conversation has at most one
group in a transaction, so the later ticket waits for the next one, finds the head moved, and is fenced there.

A batch decided under an older placement than this writer has seen comes from a host that has been replaced; it is
refused before it costs the database anything. The log's own fence stays the one that counts.
"""

from __future__ import annotations

from collections import deque

import msgspec

from actors.appender import AppendBatch
from actors.effects import Failure
from fastsock.core.limits import MAX_APPEND_ENTRIES, MAX_PENDING_ENTRIES, RETRY_AFTER_MS
from fastsock.schemas.log import Append, Outcome

_encoder = msgspec.msgpack.Encoder()
_batches = msgspec.msgpack.Decoder(AppendBatch)


class Committed(msgspec.Struct, frozen=True, array_like=True, tag="ok"):
    """Outcomes of a host's batch: a list for each group, in order."""

    outcomes: list[list[Outcome]]


class NotCommitted(msgspec.Struct, frozen=True, array_like=True, tag="no"):
    """The batch was not committed, as far as the writer knows; the same batch may be sent again."""

    failure: Failure


class OldEpoch(msgspec.Struct, frozen=True, array_like=True, tag="epoch"):
    """The batch was decided under an older placement than ``epoch``, which this writer has seen; nothing was stored."""

    epoch: int


Answer = Committed | NotCommitted | OldEpoch
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def encode_answer(answer: Answer) -> bytes:
    return _encoder.encode(answer)


def decode_answer(body: bytes) -> Answer:
    return _answers.decode(body)


class Ticket(msgspec.Struct, eq=False):
    """One host's batch. ``answer`` is None until it is decided."""

    groups: list[Append]
    answer: Answer | None = None

    @property
    def entries(self) -> int:
        return sum(len(group.entries) for group in self.groups)


class GroupCommit:
    """The tickets that wait, and those in the transaction under way."""

    __slots__ = ("_committing", "_epoch", "_waiting")

    def __init__(self) -> None:
        self._waiting: deque[Ticket] = deque()
        self._committing: list[Ticket] = []
        self._epoch = 0

    def __len__(self) -> int:
        """Entries that wait or are being committed."""
        return sum(ticket.entries for ticket in (*self._waiting, *self._committing))

    def offer(self, body: bytes) -> Ticket:
        """Take a host's batch. The ticket is decided already if the batch is refused."""
        batch = _batches.decode(body)
        ticket = Ticket(batch.groups)
        if batch.epoch < self._epoch:
            ticket.answer = OldEpoch(self._epoch)
            return ticket
        self._epoch = batch.epoch
        if self._waiting and len(self) + ticket.entries > MAX_PENDING_ENTRIES:
            text = f"{len(self):,} of {MAX_PENDING_ENTRIES:,} entries wait for the database"
            ticket.answer = NotCommitted(Failure("overloaded", text, RETRY_AFTER_MS))
            return ticket
        self._waiting.append(ticket)
        return ticket

    def take(self) -> list[Append] | None:
        """The groups of the next transaction; None while one is under way or if nothing waits."""
        if self._committing or not self._waiting:
            return None
        taken: set[str] = set()
        entries = 0
        left: deque[Ticket] = deque()
        for ticket in self._waiting:
            conversations = {group.conversation for group in ticket.groups}
            fits = not self._committing or entries + ticket.entries <= MAX_APPEND_ENTRIES
            if fits and taken.isdisjoint(conversations):
                self._committing.append(ticket)
                entries += ticket.entries
            else:
                left.append(ticket)
            taken |= conversations  # a ticket that waits keeps those behind it from overtaking it in its conversations
        self._waiting = left
        return [group for ticket in self._committing for group in ticket.groups]

    def committed(self, outcomes: list[list[Outcome]]) -> list[Ticket]:
        """The transaction came to this, a list for each group taken; returns the tickets it decides."""
        rest = iter(outcomes)
        for ticket in self._committing:
            ticket.answer = Committed([next(rest) for _ in ticket.groups])
        return self._close()

    def failed(self, failure: Failure) -> list[Ticket]:
        """The transaction failed as a whole; returns the tickets that have to be sent again."""
        for ticket in self._committing:
            ticket.answer = NotCommitted(failure)
        return self._close()

    def _close(self) -> list[Ticket]:
        decided, self._committing = self._committing, []
        return decided
