"""The heap of timers against a sorted list."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from actors.timers import Timers

OWNERS = ("user:1", "user:2", "user:3")
TAGS = ("offline", "ring")


def test_what_is_due_comes_out_in_order_once() -> None:
    timers = Timers()
    timers.set("b", "t", 20)
    timers.set("a", "t", 10)
    timers.set("c", "t", 20)
    assert timers.next_at_ms() == 10
    assert timers.due(9) == []
    assert timers.due(20) == [("a", "t"), ("b", "t"), ("c", "t")]
    assert timers.due(99) == []
    assert timers.next_at_ms() is None


def test_setting_a_tag_again_moves_it_either_way() -> None:
    timers = Timers()
    timers.set("a", "t", 10)
    timers.set("a", "t", 30)
    assert timers.due(29) == []
    timers.set("a", "t", 5)
    assert timers.due(29) == [("a", "t")]
    assert timers.due(30) == []


def test_cancelling_what_is_not_set_changes_nothing() -> None:
    timers = Timers()
    timers.set("a", "t", None)
    timers.cancel_all("a", TAGS)
    assert (len(timers), timers.next_at_ms()) == (0, None)


def test_the_dead_do_not_pile_up() -> None:
    timers = Timers()
    for again in range(10_000):
        timers.set("a", "t", 1_000_000 + again)
    assert len(timers) == 1
    assert len(timers._heap) <= 66  # twice the living, and 64
    for _ in range(100):
        timers.set("a", "t", 7)
        timers.set("a", "t", None)
    assert len(timers._heap) <= 64
    assert timers.due(10**12) == []


class TimersAgainstAList(RuleBasedStateMachine):
    """The model: a list of ``(at_ms, order, owner, tag)`` that is sorted when it is looked at."""

    @initialize()
    def start(self) -> None:
        self.timers = Timers()
        self.model: list[tuple[int, int, str, str]] = []
        self.order = 0
        self.now_ms = 0

    def drop(self, owner: str, tag: str) -> None:
        self.model = [timer for timer in self.model if timer[2:] != (owner, tag)]

    @rule(owner=st.sampled_from(OWNERS), tag=st.sampled_from(TAGS), after_ms=st.integers(0, 20))
    def set(self, owner: str, tag: str, after_ms: int) -> None:
        self.timers.set(owner, tag, self.now_ms + after_ms)
        self.drop(owner, tag)
        self.order += 1
        self.model.append((self.now_ms + after_ms, self.order, owner, tag))

    @rule(owner=st.sampled_from(OWNERS), tag=st.sampled_from(TAGS))
    def cancel(self, owner: str, tag: str) -> None:
        self.timers.set(owner, tag, None)
        self.drop(owner, tag)

    @rule(owner=st.sampled_from(OWNERS))
    def cancel_all(self, owner: str) -> None:
        self.timers.cancel_all(owner, TAGS)
        for tag in TAGS:
            self.drop(owner, tag)

    @rule(step_ms=st.integers(0, 15))
    def pass_time(self, step_ms: int) -> None:
        self.now_ms += step_ms
        due = sorted(timer for timer in self.model if timer[0] <= self.now_ms)
        assert self.timers.due(self.now_ms) == [timer[2:] for timer in due]
        self.model = [timer for timer in self.model if timer[0] > self.now_ms]

    @invariant()
    def sizes_agree(self) -> None:
        assert len(self.timers) == len(self.model)
        assert self.timers.next_at_ms() == min((timer[0] for timer in self.model), default=None)


TestTimers = TimersAgainstAList.TestCase
TestTimers.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
