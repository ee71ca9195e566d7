"""Links: whatever is lost on the way, each item arrives once, in order, and no queue grows without bound."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors import link
from actors.link import Backoff, Batch, Downlink, Inbox, Sender
from fastsock.core.limits import (
    LINK_BURST_BATCHES,
    LINK_PACE_ITEM_MS,
    LINK_PACE_MAX_MS,
    LINK_PACE_MS,
    MAX_BATCH_BYTES,
    MAX_BATCH_ITEMS,
    MAX_DOWNLINK_ITEMS,
    RETRY_MAX_MS,
    RETRY_MIN_MS,
)

# --- backoff ---------------------------------------------------------------------------------------------------------


def test_the_pause_doubles_to_its_limit_and_starts_anew_after_a_success() -> None:
    backoff = Backoff()
    pauses = []
    for _ in range(6):
        backoff.failed(5_000)
        pauses.append(backoff.ready_at_ms - 5_000)
    assert pauses == [20, 40, 80, 160, 250, 250]
    assert (pauses[0], pauses[-1]) == (RETRY_MIN_MS, RETRY_MAX_MS)
    backoff.succeeded()
    assert backoff.ready_at_ms == 0
    backoff.failed(7_000)
    assert backoff.ready_at_ms == 7_000 + RETRY_MIN_MS


# --- the sender ------------------------------------------------------------------------------------------------------


def sender(*items: str, limit: int = 10) -> Sender[str]:
    made: Sender[str] = Sender(limit)
    for item in items:
        assert made.offer(item, len(item))
    return made


def test_at_rest_an_item_leaves_at_once_and_what_comes_meanwhile_is_the_next_batch() -> None:
    push = sender("a")
    assert push.take(0) == Batch(1, ["a"])
    push.offer("b", 1)
    push.offer("c", 1)
    assert push.take(0) is None, "one batch in flight"
    assert len(push) == 3
    assert push.delivered(1) == ["a"]
    assert push.take(0) == Batch(2, ["b", "c"])


def test_nothing_waits_nothing_leaves() -> None:
    push = sender()
    assert (push.take(0), push.retry_at_ms(), len(push)) == (None, None, 0)


def test_a_failed_batch_goes_again_unchanged_when_its_pause_is_over() -> None:
    push = sender("a")
    push.take(100)
    assert push.retry_at_ms() is None
    push.offer("b", 1)
    push.failed(1, 100)
    assert push.retry_at_ms() == 120
    assert push.take(119) is None
    assert push.take(120) == Batch(1, ["a"])
    push.failed(1, 120)
    assert push.take(159) is None
    assert push.take(160) == Batch(1, ["a"])
    assert push.delivered(1) == ["a"]
    assert push.take(160) == Batch(2, ["b"])


def test_the_bound_counts_what_waits_and_what_is_in_flight() -> None:
    push = sender("a", "b", limit=2)
    assert not push.offer("c", 1)
    push.take(0)
    assert not push.offer("c", 1)
    push.delivered(1)
    assert push.offer("c", 1)


def test_a_batch_is_bounded_in_items() -> None:
    push: Sender[int] = Sender(3 * MAX_BATCH_ITEMS)
    for item in range(MAX_BATCH_ITEMS + 1):
        push.offer(item, 1)
    batch = push.take(0)
    assert batch is not None
    assert batch.items == list(range(MAX_BATCH_ITEMS))
    push.delivered(1)
    assert push.take(LINK_PACE_MAX_MS) == Batch(2, [MAX_BATCH_ITEMS])


def test_a_batch_is_bounded_in_bytes_but_one_item_always_travels() -> None:
    push = sender()
    for item, size in (("huge", MAX_BATCH_BYTES + 1), ("half", MAX_BATCH_BYTES // 2), ("rest", MAX_BATCH_BYTES // 2)):
        push.offer(item, size)
    push.offer("more", 1)
    batches = []
    for number in (1, 2, 3):
        batch = push.take(0)
        assert batch is not None
        batches.append(batch.items)
        push.delivered(number)
    assert batches == [["huge"], ["half", "rest"], ["more"]]


def test_what_is_recalled_comes_back_in_order_and_the_late_answer_changes_nothing() -> None:
    push = sender("a", "b")
    push.take(0)
    push.offer("c", 1)
    assert push.recall() == ["a", "b", "c"]
    assert len(push) == 0
    push.restore("d", 1)
    assert push.take(0) == Batch(2, ["d"])
    assert push.delivered(1) == []
    push.failed(1, 0)
    assert push.take(0) is None, "batch 2 is still under way"
    assert push.delivered(2) == ["d"]


def test_recalling_nothing_gives_nothing() -> None:
    assert sender().recall() == []


def test_no_bound_refuses_what_was_taken_in_before() -> None:
    push = sender("a", limit=1)
    push.restore("b", 1)
    assert push.take(0) == Batch(1, ["a", "b"])


# --- the inbox -------------------------------------------------------------------------------------------------------


def test_a_batch_is_new_once_per_sender() -> None:
    inbox = Inbox()
    assert inbox.accept("g1", 1)
    assert not inbox.accept("g1", 1)
    assert inbox.accept("g2", 1)
    assert inbox.accept("g1", 3)
    assert not inbox.accept("g1", 2)


def test_the_longest_silent_sender_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "MAX_LINK_PEERS", 2)
    inbox = Inbox()
    for name, number in (("g1", 1), ("g2", 1), ("g1", 2), ("g3", 1)):
        assert inbox.accept(name, number)
    assert inbox.accept("g2", 1), "forgotten"
    assert not inbox.accept("g3", 1)
    assert inbox.accept("g1", 1), "forgotten when g2 came back"


# --- the downlink ----------------------------------------------------------------------------------------------------


def test_a_poll_acknowledges_what_the_one_before_has_brought() -> None:
    down = Downlink("s", 0)
    assert (down.session, down.poll(0, 5), down.last_poll_ms) == ("s", None, 5)
    down.push(b"a")
    assert len(down) == 1
    assert down.poll(0, 6) == Batch(1, [b"a"])
    down.push(b"b")
    assert down.poll(0, 7) == Batch(1, [b"a"]), "the answer was lost: the same again"
    assert down.poll(1, 8) == Batch(2, [b"b"])
    assert down.poll(2, 9) is None
    assert down.last_poll_ms == 9


def test_a_downlink_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "MAX_DOWNLINK_BYTES", 5)
    down = Downlink("s", 0)
    assert down.push(b"abc")
    assert down.push(b"de")
    assert not down.push(b"f")
    down.poll(0, 0)
    assert down.push(b"f"), "what was polled makes room"


def test_a_downlink_is_bounded_in_items() -> None:
    down = Downlink("s", 0)
    for _ in range(MAX_DOWNLINK_ITEMS):
        assert down.push(b"x")
    assert not down.push(b"x")
    assert len(down) == MAX_DOWNLINK_ITEMS


def test_a_downlinks_batch_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "MAX_BATCH_BYTES", 4)
    monkeypatch.setattr(link, "MAX_BATCH_ITEMS", 3)
    down = Downlink("s", 0)
    for item in (b"enormous", b"ab", b"cd", b"e", b"f", b"g", b"h"):
        down.push(item)
    batches = []
    acknowledged = 0
    while (batch := down.poll(acknowledged, 0)) is not None:
        batches.append(batch.items)
        acknowledged = batch.number
    assert batches == [[b"enormous"], [b"ab", b"cd"], [b"e", b"f", b"g"], [b"h"]]


# --- models ----------------------------------------------------------------------------------------------------------


class LossyPush(RuleBasedStateMachine):
    """A sender and an inbox, with calls that are lost, delayed past their time, or answered in vain."""

    @initialize()
    def start(self) -> None:
        self.push: Sender[int] = Sender(30)
        self.inbox = Inbox()
        self.offered: list[int] = []
        self.arrived: list[int] = []
        self.on_the_wire: list[Batch[int]] = []
        self.calling: Batch[int] | None = None
        self.now_ms = 0

    @rule(count=st.integers(1, 4))
    def offer(self, count: int) -> None:
        for _ in range(count):
            waiting = len(self.push)
            taken = self.push.offer(len(self.offered), 100)
            assert taken == (waiting < 30)
            if taken:
                self.offered.append(len(self.offered))

    @rule()
    def take(self) -> None:
        batch = self.push.take(self.now_ms)
        if batch is not None:
            assert self.calling is None, "one call at a time"
            self.calling = batch
            self.on_the_wire.append(batch)

    @precondition(lambda self: self.on_the_wire)
    @rule(place=st.integers(0, 9))
    def arrive(self, place: int) -> None:
        """Any copy still on the wire may arrive at any time."""
        batch = self.on_the_wire.pop(place % len(self.on_the_wire))
        if self.inbox.accept("g", batch.number):
            self.arrived += batch.items

    @precondition(lambda self: self.calling is not None)
    @rule()
    def answer(self) -> None:
        """The receiver has it, now or before, and says so."""
        assert self.calling is not None
        if self.inbox.accept("g", self.calling.number):
            self.arrived += self.calling.items
        assert self.push.delivered(self.calling.number) == self.calling.items
        self.calling = None

    @precondition(lambda self: self.calling is not None)
    @rule(lost=st.booleans())
    def fail(self, lost: bool) -> None:
        assert self.calling is not None
        if lost and self.calling in self.on_the_wire:
            self.on_the_wire.remove(self.calling)
        self.push.failed(self.calling.number, self.now_ms)
        self.calling = None
        assert self.push.retry_at_ms() is not None

    @rule(step_ms=st.integers(0, 600))
    def pass_time(self, step_ms: int) -> None:
        self.now_ms += step_ms

    @invariant()
    def each_item_has_arrived_once_in_order(self) -> None:
        assert self.arrived == self.offered[: len(self.arrived)]
        assert len(self.push) <= 30

    def teardown(self) -> None:
        """All is well again: everything arrives."""
        if not hasattr(self, "push"):
            return
        for _ in range(100):
            self.now_ms += 1_000
            if self.calling is None:
                self.take()
            if self.calling is None:
                break
            self.answer()
        assert self.arrived == self.offered
        assert len(self.push) == 0
        assert self.push.retry_at_ms() is None


class LossyPoll(RuleBasedStateMachine):
    """A downlink and its gateway, with polls and answers that are lost or come late."""

    @initialize()
    def start(self) -> None:
        self.down = Downlink("s", 0)
        self.pushed: list[bytes] = []
        self.seen: list[bytes] = []
        self.acknowledged = 0
        self.answers: list[Batch[bytes]] = []

    @rule(count=st.integers(1, 5))
    def push(self, count: int) -> None:
        for _ in range(count):
            item = str(len(self.pushed)).encode()
            assert self.down.push(item)
            self.pushed.append(item)

    @rule()
    def poll(self) -> None:
        batch = self.down.poll(self.acknowledged, 0)
        if batch is not None:
            assert batch.items
            self.answers.append(Batch(batch.number, list(batch.items)))

    @precondition(lambda self: self.answers)
    @rule(place=st.integers(0, 9), lost=st.booleans())
    def answer(self, place: int, lost: bool) -> None:
        batch = self.answers.pop(place % len(self.answers))
        if not lost and batch.number > self.acknowledged:
            self.acknowledged = batch.number
            self.seen += batch.items

    @invariant()
    def nothing_is_missing_or_seen_twice(self) -> None:
        assert self.seen == self.pushed[: len(self.seen)]

    def teardown(self) -> None:
        if not hasattr(self, "down"):
            return
        while (batch := self.down.poll(self.acknowledged, 0)) is not None:
            self.acknowledged = batch.number
            self.seen += batch.items
        assert self.seen == self.pushed
        assert (len(self.down), self.down._bytes, self.down._unacknowledged) == (0, 0, [])


TestPush = LossyPush.TestCase
TestPush.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
TestPoll = LossyPoll.TestCase
TestPoll.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)


def drive(sender: Sender[str], start_ms: int, for_ms: int, every_ms: int, links: int = 1) -> list[tuple[int, int]]:
    """Offer an item so often, and answer at once; when batches left, and with how many items."""
    left: list[tuple[int, int]] = []
    for now_ms in range(start_ms, start_ms + for_ms):
        if (now_ms - start_ms) % every_ms == 0:
            sender.offer("x", 1)
        batch = sender.take(now_ms, links)
        if batch is not None:
            left.append((now_ms, len(batch.items)))
            sender.delivered(batch.number)
    return left


def test_at_rest_a_batch_leaves_at_once() -> None:
    left = drive(Sender(100), 1_000, 1_000, LINK_PACE_MS + LINK_PACE_ITEM_MS)
    assert left == [(now_ms, 1) for now_ms in range(1_000, 2_000, LINK_PACE_MS + LINK_PACE_ITEM_MS)]


def test_a_burst_leaves_at_once_and_what_follows_at_a_pace() -> None:
    left = drive(Sender(1_000), 1_000, 1_000, 1)
    assert left[:LINK_BURST_BATCHES] == [(1_000 + index, 1) for index in range(LINK_BURST_BATCHES)]
    pauses = {after - before for (before, _), (after, _) in pairwise(left[-10:])}
    assert pauses == {LINK_PACE_MAX_MS}


def test_the_more_is_sent_the_longer_a_batch_waits_for_more() -> None:
    pauses = []
    for every_ms in (10, 5, 3, 2):
        left = [now_ms for now_ms, _ in drive(Sender(1_000), 1_000, 5_000, every_ms)]
        pauses.append((left[-1] - left[100]) / (len(left) - 101))
    assert pauses == sorted(pauses)
    assert LINK_PACE_MS <= pauses[0] < pauses[-1] <= LINK_PACE_MAX_MS


def test_who_has_several_links_pays_for_all_of_them() -> None:
    one, three = (len(drive(Sender(100), 1_000, 3_000, 10, links)) for links in (1, 3))
    assert 2 * three < one


def test_retry_at_says_when_the_next_batch_may_leave() -> None:
    sender: Sender[str] = Sender(1_000)
    last, _ = drive(sender, 1_000, 500, 1)[-1]
    assert sender.retry_at_ms() == last + LINK_PACE_MAX_MS


def test_the_pace_does_not_delay_what_is_sent_again() -> None:
    sender: Sender[str] = Sender(100)
    for number in range(1, LINK_BURST_BATCHES + 1):
        sender.offer("x", 1)
        batch = sender.take(1_000)
        assert batch is not None
        if number < LINK_BURST_BATCHES:
            sender.delivered(number)
    sender.failed(LINK_BURST_BATCHES, 1_000)
    assert sender.retry_at_ms() == 1_000 + RETRY_MIN_MS
    assert sender.take(1_000 + RETRY_MIN_MS) == batch
