"""Time, chance and calls of the simulated world: each fault does what its name says."""

from __future__ import annotations

import pytest

from tests.simulation.calls import MIN_TICK_MS, Call, Process, Slot, Timeout
from tests.simulation.world import CALL_TIMEOUT_MS, LATEST_MS, World


class Echo(Process):
    """Answers what it is told, and wakes when it is told to."""

    def __init__(self, world: World, name: str = "echo") -> None:
        super().__init__(world, name)
        self.heard: list[tuple[int, object]] = []
        self.woken: list[int] = []
        self.deadline_ms: int | None = None

    def hear(self, what: object, call: Call) -> None:
        self.heard.append((self.world.now_ms - self.world.start_ms, what))
        call.answer(what)

    def tick(self) -> None:
        self.woken.append(self.world.now_ms - self.world.start_ms)
        self.wake_by(self.deadline_ms)


class Bench:
    """A caller, and a slot in which an `Echo` is."""

    def __init__(self) -> None:
        self.world = World(1, users=2, hosts=2)
        self.caller = Echo(self.world, "caller")
        self.slot: Slot[Echo] = Slot(self.world)
        self.echo = self.slot.process = Echo(self.world)
        self.answers: list[tuple[int, object]] = []

    def call(self, what: object) -> None:
        self.world.call(self.caller, "edge", self.slot, lambda echo, call: echo.hear(what, call), self._answered)

    def _answered(self, result: object) -> None:
        shown = "timeout" if isinstance(result, Timeout) else result
        self.answers.append((self.world.now_ms - self.world.start_ms, shown))

    def run(self, ms: int) -> None:
        self.world.run(self.world.now_ms + ms)

    @property
    def said(self) -> list[object]:
        return [what for _, what in self.answers]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_call_in_fair_weather_takes_milliseconds(bench: Bench) -> None:
    bench.call("hello")
    bench.run(100)
    ((at_ms, said),) = bench.answers
    assert said == "hello"
    assert 2 <= at_ms <= 10
    bench.run(60_000)
    assert bench.said == ["hello"]


def test_a_lost_call_times_out(bench: Bench) -> None:
    bench.world.weather.lost_call = 1.0
    bench.call("hello")
    bench.run(60_000)
    assert bench.answers == [(CALL_TIMEOUT_MS, "timeout")]
    assert bench.echo.heard == []


def test_a_lost_answer_is_heard_and_times_out(bench: Bench) -> None:
    bench.world.weather.lost_answer = 1.0
    bench.call("hello")
    bench.run(60_000)
    assert bench.answers == [(CALL_TIMEOUT_MS, "timeout")]
    assert len(bench.echo.heard) == 1


def test_a_late_call_comes_behind_later_ones(bench: Bench) -> None:
    bench.world.weather.late_call = 1.0
    bench.call("first")
    bench.world.weather.late_call = 0.0
    bench.call("second")
    bench.run(60_000)
    assert [what for _, what in bench.echo.heard] == ["second", "first"]
    assert bench.said == ["second", "timeout"]


def test_a_repeated_call_is_heard_twice_and_answered_once(bench: Bench) -> None:
    bench.world.weather.repeated_call = 1.0
    bench.call("hello")
    bench.run(60_000)
    (first, _), (second, _) = bench.echo.heard
    assert first <= second <= LATEST_MS + 5
    assert bench.said == ["hello"]


def test_a_call_to_a_dead_process_is_noticed_soon(bench: Bench) -> None:
    bench.echo.end()
    bench.slot.process = None
    bench.call("hello")
    bench.run(100)
    assert bench.said == ["timeout"]


def test_a_process_that_dies_with_a_call_is_noticed_soon(bench: Bench) -> None:
    bench.world.call(bench.caller, "edge", bench.slot, lambda _echo, _call: None, bench._answered)
    bench.run(100)
    assert bench.said == []
    bench.echo.end()
    bench.run(100)
    assert bench.said == ["timeout"]


def test_a_frozen_process_finds_everything_in_order_when_it_goes_on(bench: Bench) -> None:
    bench.echo.freeze(1_000)
    for what in "abc":
        bench.call(what)
        bench.run(50)
    assert bench.echo.heard == []
    bench.run(2_000)
    assert [what for _, what in bench.echo.heard] == ["a", "b", "c"]
    assert all(at_ms == 1_000 for at_ms, _ in bench.echo.heard)


def test_a_dead_process_does_nothing_any_more(bench: Bench) -> None:
    bench.echo.later(10, bench.echo.woken.append, 1)
    bench.echo.end()
    bench.run(100)
    assert bench.echo.woken == []


def test_some_still_reach_a_process_that_was_replaced_until_it_fails_them(bench: Bench) -> None:
    bench.call("before")
    bench.run(100)
    bench.slot.supersede(zombie_ms=1_000)
    newer = bench.slot.process = Echo(bench.world)
    bench.slot._loyal = {bench.caller: True}
    bench.call("loyal")
    bench.run(100)
    assert [what for _, what in bench.echo.heard] == ["before", "loyal"]
    bench.world.weather.lost_call = 1.0
    bench.call("lost")
    bench.world.weather.lost_call = 0.0
    bench.run(CALL_TIMEOUT_MS)
    bench.call("after")
    bench.run(100)
    assert [what for _, what in newer.heard] == ["after"]


# --- waking --------------------------------------------------------------------------------------------------------


def test_a_process_wakes_at_its_deadline(bench: Bench) -> None:
    bench.echo.wake_by(bench.world.now_ms + 500)
    bench.echo.wake_by(bench.world.now_ms + 300)
    bench.echo.wake_by(bench.world.now_ms + 400)
    bench.run(1_000)
    assert bench.echo.woken == [300]


def test_a_deadline_that_stays_in_the_past_does_not_stop_time(bench: Bench) -> None:
    bench.echo.deadline_ms = 0
    bench.echo.tick()
    bench.run(100)
    assert bench.echo.woken == list(range(0, 101, MIN_TICK_MS))


# --- the database --------------------------------------------------------------------------------------------------


def test_a_stalled_database_answers_when_it_is_over(bench: Bench) -> None:
    found: list[int] = []
    bench.world.stall(5_000)
    bench.world.ask(
        bench.caller, "this", lambda: bench.world.now_ms - bench.world.start_ms, found.append, bench.echo.end
    )
    bench.run(10_000)
    assert found[0] >= 5_000


def test_a_failed_read_says_so(bench: Bench) -> None:
    failed: list[str] = []
    bench.world.weather.failed_read = 1.0
    bench.world.ask(bench.caller, "this", lambda: 1, lambda _: None, lambda: failed.append("failed"))
    bench.run(100)
    assert failed == ["failed"]


def test_of_two_spells_the_worse_counts(bench: Bench) -> None:
    world = bench.world
    world.spell("slow", 0.1, 100)
    world.spell("slow", 0.5, 50)
    assert world.weather.slow == 0.5
    bench.run(75)
    assert world.weather.slow == 0.1
    bench.run(75)
    assert world.weather.slow == 0.0


def test_between_two_events() -> None:
    world = World(1, users=1, hosts=1)
    seen: list[str] = []
    for name in "abc":
        world.after(5, seen.append, name)
    world.in_steps(2, lambda: seen.append("now"))
    world.run(world.now_ms + 10)
    assert seen == ["a", "b", "now", "c"]
