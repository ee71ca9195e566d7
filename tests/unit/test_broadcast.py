"""When sockets are flushed, without sockets."""

from __future__ import annotations

import asyncio

import pytest

from fastsock.core.limits import FLUSH_MAX_MS, FLUSH_MIN_MS, FLUSH_PACE_US
from fastsock.ws.broadcast import Flusher

FREE = int(FLUSH_MIN_MS * 1000 / FLUSH_PACE_US) - 1
"""So many sockets are flushed without a pause."""


class Clock:
    """The loop's calls, carried out by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1_000.0
        self.soon: list[object] = []
        self.later: list[tuple[float, object]] = []
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "time", lambda: self.now_s, raising=False)
        monkeypatch.setattr(loop, "call_soon", self.soon.append, raising=False)
        monkeypatch.setattr(loop, "call_at", lambda at_s, call: self.later.append((at_s, call)), raising=False)


class Socket:
    def __init__(self) -> None:
        self.flushed = 0

    def flush(self) -> None:
        self.flushed += 1


def write(flusher: Flusher, count: int) -> list[Socket]:
    sockets = [Socket() for _ in range(count)]
    for socket in sockets:
        flusher.add(socket)
    return sockets


async def test_few_sockets_are_flushed_at_the_end_of_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        clock = Clock(patched)
        flusher = Flusher()
        for _ in range(3):
            sockets = write(flusher, FREE)
            assert (len(clock.soon), clock.later) == (1, [])
            clock.soon.pop()()  # type: ignore[operator]
            assert [socket.flushed for socket in sockets] == [1] * FREE


@pytest.mark.parametrize("count", [100, 200, 5_000])
async def test_after_many_sockets_the_next_flush_waits_for_each(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        clock = Clock(patched)
        flusher = Flusher()
        write(flusher, count)
        clock.soon.pop()()  # type: ignore[operator]
        sockets = write(flusher, 2)
        [(at_s, call)] = clock.later
        assert at_s == pytest.approx(clock.now_s + min(count * FLUSH_PACE_US / 1e6, FLUSH_MAX_MS / 1e3))
        clock.now_s = at_s
        call()  # type: ignore[operator]
        assert ([socket.flushed for socket in sockets], clock.soon) == ([1, 1], [])
        write(flusher, 1)
        assert len(clock.soon) == 1
