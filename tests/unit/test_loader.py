"""Reading for many at once: `fastsock.ws.loader`, with a database that answers when it is told to, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence

import pytest

from actors.runtime.tasks import Tasks
from fastsock.ws.loader import GATHER_EACH_S, GATHER_MAX_S, MAX_READS, Loader

LIMIT = 20


class Clock:
    """The event loop's time, which stands still unless a test moves it."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def time(self) -> float:
        return self.now_s

    async def after(self, pause_s: float) -> None:
        self.now_s += pause_s
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    loop = asyncio.get_running_loop()
    clock = Clock(loop.time())
    monkeypatch.setattr(loop, "time", clock.time)
    return clock


class Bench:
    """A loader, and what it has read and said."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.tasks = Tasks()
        self.reads: list[list[int]] = []
        self.answers: list[asyncio.Future[None]] = []
        self.at_once = True
        self.loaded: list[tuple[int, str]] = []
        self.failed: list[int] = []
        self.loader: Loader[int, str] = Loader(
            "users", self._load, LIMIT, self.tasks, lambda key, value: self.loaded.append((key, value)), self._failed
        )

    async def _load(self, keys: Sequence[int]) -> dict[int, str]:
        self.reads.append(list(keys))
        if not self.at_once:
            self.answers.append(asyncio.get_running_loop().create_future())
            await self.answers[-1]
        return {key: f"value {key}" for key in keys}

    def _failed(self, key: int) -> None:
        self.failed.append(key)

    async def want(self, keys: Iterable[int]) -> None:
        """All of them in one turn of the event loop."""
        for key in keys:
            self.loader.want(key)
        await self.clock.after(0)

    def taken(self) -> list[list[int]]:
        """The reads since this was last asked."""
        reads, self.reads = self.reads, []
        return reads


@pytest.fixture
async def bench(clock: Clock) -> AsyncIterator[Bench]:
    bench = Bench(clock)
    yield bench
    await bench.tasks.stop()
    assert bench.tasks.failures == 0


async def test_a_single_key_is_read_at_once_and_the_next_one_too(bench: Bench) -> None:
    for key in range(1, 6):
        await bench.want([key])
        assert bench.taken() == [[key]]
    assert bench.loaded == [(key, f"value {key}") for key in range(1, 6)]
    assert bench.loader.counts == {"users_reads": 5, "users_read": 5, "users_failed": 0}
    assert len(bench.tasks) == 0


async def test_what_one_turn_wants_is_one_read(bench: Bench) -> None:
    bench.loader.want(1)
    bench.loader.want(2)
    bench.loader.want(1)
    assert bench.reads == [], "nothing happens within want"
    await bench.want([3])
    assert bench.taken() == [[1, 2, 3]]


async def test_after_a_large_read_the_next_one_gathers(bench: Bench, clock: Clock) -> None:
    await bench.want([1, 2])
    assert bench.taken() == [[1, 2]]
    await bench.want([3])
    await clock.after(GATHER_EACH_S / 2)
    await bench.want([4])
    assert bench.taken() == []
    assert len(bench.loader) == 2
    await clock.after(GATHER_EACH_S / 2)
    assert bench.taken() == [[3, 4]]


async def test_nobody_gathers_for_longer_than_the_bound(bench: Bench, clock: Clock) -> None:
    await bench.want(range(LIMIT))
    bench.taken()
    await bench.want([77])
    await clock.after(GATHER_MAX_S - 0.001)
    assert bench.taken() == []
    await clock.after(0.001)
    assert bench.taken() == [[77]]


async def test_who_comes_later_than_that_waits_for_nothing(bench: Bench, clock: Clock) -> None:
    await bench.want(range(LIMIT))
    bench.taken()
    await clock.after(GATHER_MAX_S)
    await bench.want([77])
    assert bench.taken() == [[77]]


async def test_a_thousand_keys_a_second_grow_into_large_reads(bench: Bench, clock: Clock) -> None:
    await bench.want([-1, -2])
    bench.taken()
    for key in range(1_000):
        await bench.want([key])
        await clock.after(0.001)
    await clock.after(GATHER_MAX_S)
    reads = bench.taken()
    assert [key for read in reads for key in read] == list(range(1_000))
    assert len(reads) < 75
    assert {len(read) for read in reads[5:-1]} <= {15, 16}


async def test_a_full_read_does_not_wait(bench: Bench) -> None:
    await bench.want(range(LIMIT))
    bench.taken()
    await bench.want(range(100, 100 + LIMIT - 1))
    assert bench.taken() == []
    await bench.want([99])
    assert bench.taken() == [[*range(100, 100 + LIMIT - 1), 99]]


async def test_more_than_a_read_takes_are_several_reads(bench: Bench, clock: Clock) -> None:
    await bench.want(range(3 * LIMIT + 1))
    assert bench.taken() == [list(range(at, at + LIMIT)) for at in (0, LIMIT, 2 * LIMIT)]
    await clock.after(GATHER_MAX_S)
    assert bench.taken() == [[3 * LIMIT]]


async def test_so_many_reads_are_under_way_and_not_more(bench: Bench) -> None:
    bench.at_once = False
    for key in range(MAX_READS + 2):
        await bench.want([key])
    assert bench.taken() == [[key] for key in range(MAX_READS)]
    bench.answers[1].set_result(None)
    await bench.want([])
    assert bench.taken() == [[MAX_READS, MAX_READS + 1]]
    assert bench.loaded == [(1, "value 1")]


async def test_a_read_that_fails_says_so_for_each_key_and_the_next_one_is_made(bench: Bench) -> None:
    bench.at_once = False
    await bench.want([1, 2])
    bench.answers[0].set_exception(OSError("away"))
    await bench.want([])
    assert bench.failed == [1, 2]
    bench.at_once = True
    await bench.clock.after(GATHER_EACH_S)
    await bench.want([1])
    assert bench.loaded == [(1, "value 1")]
    assert bench.loader.counts == {"users_reads": 2, "users_read": 1, "users_failed": 1}


async def test_when_its_owner_stops_nothing_begins_any_more(bench: Bench) -> None:
    await bench.want([1, 2])
    bench.at_once = False
    await bench.want([3])
    await bench.tasks.stop()
    await bench.clock.after(1)
    assert bench.taken() == [[1, 2]]
    assert len(bench.tasks) == 0
