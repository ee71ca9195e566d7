"""One heap of timers for a whole host: thousands of actors, no task for any of them."""

from __future__ import annotations

from heapq import heapify, heappop, heappush


class Timers:
    """Named times. An owner's tag is set, moved or cancelled in O(log n); what is due comes out in order.

    A cancelled or moved timer stays in the heap, dead, until its old time or until the dead outnumber the living.
    """

    __slots__ = ("_heap", "_live", "_order")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, str, str]] = []
        self._live: dict[tuple[str, str], int] = {}
        self._order = 0

    def __len__(self) -> int:
        return len(self._live)

    def set(self, owner: str, tag: str, at_ms: int | None) -> None:
        """Set or move the owner's timer of this tag; None cancels it."""
        if at_ms is None:
            self._live.pop((owner, tag), None)
        else:
            self._order += 1
            self._live[owner, tag] = self._order
            heappush(self._heap, (at_ms, self._order, owner, tag))
        if len(self._heap) > 2 * len(self._live) + 64:
            self._heap = [timer for timer in self._heap if self._alive(timer)]
            heapify(self._heap)

    def cancel_all(self, owner: str, tags: tuple[str, ...]) -> None:
        for tag in tags:
            self.set(owner, tag, None)

    def _alive(self, timer: tuple[int, int, str, str]) -> bool:
        _, order, owner, tag = timer
        return self._live.get((owner, tag)) == order

    def next_at_ms(self) -> int | None:
        """When the next timer is due; None if there is none."""
        while self._heap and not self._alive(self._heap[0]):
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now_ms: int) -> list[tuple[str, str]]:
        """Take out what is due, ``(owner, tag)``, the earliest first, those of one time in the order they were set."""
        fired: list[tuple[str, str]] = []
        while (at_ms := self.next_at_ms()) is not None and at_ms <= now_ms:
            _, _, owner, tag = heappop(self._heap)
            del self._live[owner, tag]
            fired.append((owner, tag))
        return fired
