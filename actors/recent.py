"""What a gateway has passed on lately: so that whoever comes back soon is served from memory.

After a gateway's death its thousands of clients come to the others, each a few entries behind; none of them costs the
database a page. For each topic the newest frames are kept without a hole. All topics together are bounded, and what is
oldest goes first, whichever topic it is of.

An edit or a delete changes what is older, so with it a topic begins anew: from the log one reads a message as it is.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from actors.effects import Frame
from fastsock.core.limits import MAX_RECENT_BYTES, MAX_RECENT_FRAMES


class Recent:
    """The newest frames of every topic, in the order of their numbers."""

    __slots__ = ("_ends", "_frames", "_limit_bytes", "_limit_frames", "_order", "size_bytes")

    def __init__(self, limit_bytes: int = MAX_RECENT_BYTES, limit_frames: int = MAX_RECENT_FRAMES) -> None:
        self._limit_bytes = limit_bytes
        self._limit_frames = limit_frames
        self._frames: dict[str, deque[bytes]] = {}
        self._ends: dict[str, int] = {}
        self._order: deque[str] = deque()
        """The topic of each frame that was added, the oldest first; some of those frames may be gone already."""
        self.size_bytes = 0

    def __len__(self) -> int:
        return sum(map(len, self._frames.values()))

    def add(self, frame: Frame) -> None:
        """The frame has been passed on; one that was before is not added again."""
        topic, end = frame.topic, self._ends.get(frame.topic, 0)
        if frame.seq <= end:
            return
        if frame.amends or frame.seq != end + 1:
            self.forget(topic)
        self._frames.setdefault(topic, deque()).append(frame.payload)
        self._ends[topic] = frame.seq
        self._order.append(topic)
        self.size_bytes += len(frame.payload)
        while self.size_bytes > self._limit_bytes or len(self._order) > self._limit_frames:
            self._drop_oldest(self._order.popleft())

    def _drop_oldest(self, topic: str) -> None:
        frames = self._frames.get(topic)
        if frames is None:
            return
        self.size_bytes -= len(frames.popleft())
        if not frames:
            del self._frames[topic], self._ends[topic]

    def forget(self, topic: str) -> None:
        """Keep nothing of this topic."""
        self.size_bytes -= sum(map(len, self._frames.pop(topic, ())))
        self._ends.pop(topic, None)

    def after(self, topic: str, since: int, limit: int) -> list[bytes]:
        """Payloads of what follows ``since``, at most ``limit``; none if memory does not reach back so far."""
        frames = self._frames.get(topic, ())
        first = self._ends.get(topic, 0) - len(frames) + 1
        return list(islice(frames, since + 1 - first, since + 1 - first + limit)) if since + 1 >= first else []
