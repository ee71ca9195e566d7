"""Message ids, leased in blocks.

An id must be known before its commit, so that a batch sent twice is recognised by its ids; and it must be below 2^53,
which leaves too few bits for a clock and a machine number side by side. So a host leases blocks of consecutive numbers
from the database (the "hi/lo" scheme), the next one when half of the block is used. Ids are unique for ever; between
hosts they are not in the order of time, which ``seq`` and ``timestamp`` are.
"""

from __future__ import annotations

from collections import deque

from actors.link import Backoff
from fastsock.core.limits import ID_BLOCK


class IdLease:
    """The ids that may be given out without asking."""

    __slots__ = ("_asking", "_backoff", "_blocks")

    def __init__(self) -> None:
        self._blocks: deque[range] = deque()
        self._asking = False
        self._backoff = Backoff()

    def __len__(self) -> int:
        return sum(map(len, self._blocks))

    def take(self) -> int:
        """The next id.

        Raises:
            IndexError: none is left.

        """
        block = self._blocks[0]
        if len(block) == 1:
            self._blocks.popleft()
        else:
            self._blocks[0] = block[1:]
        return block[0]

    def next_lease(self, now_ms: int) -> int | None:
        """How many ids to lease now; None while more than half a block is left, or one is being leased."""
        if self._asking or 2 * len(self) > ID_BLOCK or now_ms < self._backoff.ready_at_ms:
            return None
        self._asking = True
        return ID_BLOCK

    def leased(self, block: range) -> None:
        """These ids are ours."""
        self._asking = False
        self._backoff.succeeded()
        if block:
            self._blocks.append(block)

    def failed(self, now_ms: int) -> None:
        self._asking = False
        self._backoff.failed(now_ms)

    def retry_at_ms(self) -> int | None:
        """When `next_lease` may have something that it does not have now."""
        return None if self._asking or 2 * len(self) > ID_BLOCK else self._backoff.ready_at_ms
