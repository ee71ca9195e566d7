"""The way into the log: one batch in flight, sent until it is answered, and nobody waits for ever."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors import appender as module
from actors.appender import AppendBatch, Appender, Waiting
from actors.commands import Origin, Send
from fastsock.core.limits import LINK_PACE_MAX_MS, RETRY_MIN_MS, STORAGE_PATIENCE_MS
from fastsock.schemas.log import Append, Duplicate, Entry, Fenced, Outcome, Stored
from tests.simulation.memory_log import MemoryLog

_batches = msgspec.msgpack.Decoder(AppendBatch)


def waiting(number: int, conversation: str = "room:1", since_ms: int = 0, request: int = 1) -> Waiting:
    entry = Entry(conversation=conversation, kind="message", sender_id=7, key=f"c:{number}", at_ms=0, id=number)
    return Waiting(entry, Send(7, f"c:{number}", ""), Origin("g", request) if request else None, since_ms)


def appender(*entries: Waiting) -> Appender:
    made = Appender()
    for entry in entries:
        made.add(entry)
    return made


def take(made: Appender, now_ms: int = 0, epoch: int = 1, **heads: int) -> AppendBatch | None:
    taken = made.take(epoch, lambda conversation: heads.get(conversation.replace(":", ""), 0), now_ms)
    return None if taken is None else _batches.decode(taken[1])


def test_under_load_a_batch_waits_for_more_and_a_repeated_one_does_not() -> None:
    made = Appender()
    left = []
    for now_ms in range(1_000, 2_000):
        made.add(waiting(now_ms, "room:1"))
        if take(made, now_ms) is not None:
            left.append(now_ms)
            made.answered([[Stored(1)] * len(made)])
    pauses = [after - before for before, after in pairwise(left)]
    assert (pauses[0], pauses[-1]) == (1, LINK_PACE_MAX_MS)
    made.add(waiting(1, "room:1"))
    assert made.retry_at_ms() == left[-1] + LINK_PACE_MAX_MS
    assert take(made, left[-1] + LINK_PACE_MAX_MS) is not None
    made.failed(left[-1] + LINK_PACE_MAX_MS)
    assert made.retry_at_ms() == left[-1] + LINK_PACE_MAX_MS + RETRY_MIN_MS


def groups(batch: AppendBatch | None) -> list[tuple[str, int, list[int]]]:
    assert batch is not None
    return [(group.conversation, group.expected_head, [entry.id for entry in group.entries]) for group in batch.groups]


def test_at_rest_an_entry_leaves_at_once() -> None:
    made = appender()
    assert (take(made), made.retry_at_ms(), made.oldest_ms(), len(made)) == (None, None, None, 0)
    made.add(waiting(1))
    assert made.retry_at_ms() == 0
    assert groups(take(made, room1=5)) == [("room:1", 5, [1])]
    assert (take(made), made.retry_at_ms(), len(made)) == (None, None, 1)


def test_what_comes_meanwhile_is_the_next_batch_after_the_head_of_then() -> None:
    made = appender(waiting(1), waiting(2, "room:2"), waiting(3))
    assert groups(take(made, room1=5, room2=0)) == [("room:1", 5, [1, 3]), ("room:2", 0, [2])]
    made.add(waiting(4))
    answers = made.answered([[Stored(6), Stored(7)], [Fenced(3)]])
    assert [(name, [(each.entry.id, outcome) for each, outcome in group]) for name, group in answers] == [
        ("room:1", [(1, Stored(6)), (3, Stored(7))]),
        ("room:2", [(2, Fenced(3))]),
    ]
    assert len(made) == 1
    assert groups(take(made, room1=7)) == [("room:1", 7, [4])]


def test_batches_are_numbered_and_carry_the_epoch() -> None:
    made = appender(waiting(1))
    first = made.take(7, lambda _: 0, 0)
    made.answered([[Stored(1)]])
    made.add(waiting(2))
    second = made.take(8, lambda _: 1, 0)
    assert first is not None
    assert second is not None
    assert (first[0], _batches.decode(first[1]).epoch) == (1, 7)
    assert (second[0], _batches.decode(second[1]).epoch) == (2, 8)


def test_a_batch_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_APPEND_ENTRIES", 3)
    made = appender(waiting(1), waiting(2), waiting(3, "room:2"), waiting(4, "room:2"), waiting(5, "room:3"))
    assert groups(take(made)) == [("room:1", 0, [1, 2]), ("room:2", 0, [3])]
    made.answered([[Stored(1), Stored(2)], [Stored(1)]])
    assert groups(take(made, room2=1)) == [("room:2", 1, [4]), ("room:3", 0, [5])]


def test_a_batch_is_bounded_in_bytes_but_one_entry_always_travels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BATCH_BYTES", 1_000)
    made = Appender()
    for number, (room, size) in enumerate((("1", 2_000), ("1", 700), ("2", 300), ("2", 300), ("3", 9)), 1):
        each = waiting(number, f"room:{room}")
        each.entry.content = "x" * size
        made.add(each)
    batches: list[list[tuple[str, int, list[int]]]] = []
    while (batch := take(made, now_ms=len(batches) * LINK_PACE_MAX_MS)) is not None:
        batches.append(groups(batch))
        made.answered([[Stored(1)] * len(group.entries) for group in batch.groups])
    assert batches == [
        [("room:1", 0, [1])],
        [("room:1", 0, [2])],
        [("room:2", 0, [3, 4])],
        [("room:3", 0, [5])],
    ]


def test_a_failed_batch_goes_again_with_the_same_groups() -> None:
    made = appender(waiting(1))
    first = made.take(1, lambda _: 5, 0)
    made.failed(100)
    made.add(waiting(2))
    assert made.retry_at_ms() == 100 + RETRY_MIN_MS
    assert made.take(1, lambda _: 99, 100 + RETRY_MIN_MS - 1) is None
    assert made.take(1, lambda _: 99, 100 + RETRY_MIN_MS) == first, "the same bytes, after the same head"


def test_a_batch_that_was_refused_for_its_epoch_goes_again_under_the_new_one() -> None:
    made = appender(waiting(1))
    take(made, epoch=1, room1=5)
    made.failed(0)
    batch = take(made, now_ms=1_000, epoch=2, room1=99)
    assert groups(batch) == [("room:1", 5, [1])]
    assert batch is not None
    assert batch.epoch == 2, "a writer that knows epoch 2 would refuse epoch 1 for ever"


def test_what_still_waits_can_be_withdrawn() -> None:
    made = appender(waiting(1))
    take(made)
    made.add(waiting(2))
    made.add(waiting(3, "room:2"))
    made.add(waiting(4))
    assert [each.entry.id for each in made.withdraw("room:1")] == [2, 4]
    assert made.withdraw("room:1") == []
    assert len(made) == 2


# --- patience --------------------------------------------------------------------------------------------------------


def test_an_entry_that_waits_too_long_is_given_up_in_order() -> None:
    made = appender(waiting(1, since_ms=0), waiting(2, since_ms=5), waiting(3, "room:2", since_ms=5))
    assert made.oldest_ms() == 0
    assert made.give_up(STORAGE_PATIENCE_MS - 1) == ([], [])
    given_up, unsure = made.give_up(STORAGE_PATIENCE_MS)
    assert ([each.entry.id for each in given_up], unsure) == ([1], [])
    assert (made.oldest_ms(), len(made)) == (5, 2)
    given_up, _ = made.give_up(STORAGE_PATIENCE_MS + 5)
    assert [each.entry.id for each in given_up] == [2, 3]
    assert (len(made), made.oldest_ms(), made.retry_at_ms()) == (0, None, None)
    assert take(made) is None


def test_an_entry_in_flight_can_only_be_doubted_and_its_requester_is_told_once() -> None:
    made = appender(waiting(1, request=11), waiting(2, request=0))
    take(made)
    made.add(waiting(3, since_ms=1))
    assert made.give_up(STORAGE_PATIENCE_MS) == ([], [Origin("g", 11)])
    assert made.oldest_ms() == 1, "nobody waits for the batch any more"
    assert made.give_up(STORAGE_PATIENCE_MS) == ([], [])
    ((_, group),) = made.answered([[Stored(1), Stored(2)]])
    assert [(each.entry.id, each.origin) for each, _ in group] == [(1, None), (2, None)]


# --- model -----------------------------------------------------------------------------------------------------------


class LostAnswers(RuleBasedStateMachine):
    """An appender and a real log, over calls that are lost on the way there, or on the way back.

    The model is the list of what was added: the log must hold it, in order, once.
    """

    @initialize()
    def start(self) -> None:
        self.made = Appender()
        self.log = MemoryLog()
        self.heads: dict[str, int] = {}
        self.added: dict[str, list[str]] = {}
        self.expected: dict[str, list[str]] = {}
        self.confirmed: dict[str, list[str]] = {}
        self.keys: set[str] = set()
        self.number = 0
        self.now_ms = 0
        self.epoch = 1
        self.call: list[Append] | None = None

    @rule(conversation=st.sampled_from(["room:1", "room:2"]), key=st.integers(1, 30))
    def add(self, conversation: str, key: int) -> None:
        self.number += 1
        entry = Entry(
            conversation=conversation, kind="message", sender_id=7, key=f"c:{key}", at_ms=self.now_ms, id=self.number
        )
        self.made.add(Waiting(entry, Send(7, entry.key, ""), None, self.now_ms))

    @precondition(lambda self: self.call is None)
    @rule()
    def take(self) -> None:
        taken = self.made.take(self.epoch, lambda name: self.heads.get(name, 0), self.now_ms)
        if taken is not None:
            batch = _batches.decode(taken[1])
            assert batch.epoch == self.epoch
            self.call = batch.groups

    @precondition(lambda self: self.call is not None)
    @rule(arrives=st.booleans())
    def lose(self, arrives: bool) -> None:
        assert self.call is not None
        if arrives:
            self.log.append(self.call)
        self.call = None
        self.made.failed(self.now_ms)

    @precondition(lambda self: self.call is not None)
    @rule()
    def answer(self) -> None:
        assert self.call is not None
        outcomes = self.log.append(self.call)
        self.call = None
        for conversation, group in self.made.answered(outcomes):
            for each, outcome in group:
                self.confirm(conversation, each.entry, outcome)

    def confirm(self, conversation: str, entry: Entry, outcome: Outcome) -> None:
        confirmed = self.confirmed.setdefault(conversation, [])
        if isinstance(outcome, Stored):
            assert outcome.seq == len(confirmed) + 1, "in order, without holes, told once"
            assert entry.key not in self.keys
            self.keys.add(entry.key)
            confirmed.append(entry.key)
            self.heads[conversation] = outcome.seq
        else:
            assert isinstance(outcome, Duplicate), "nobody else writes, so nobody is fenced"
            assert outcome.original.key == entry.key

    @rule(step_ms=st.integers(0, 2_000))
    def pass_time(self, step_ms: int) -> None:
        self.now_ms += step_ms

    @rule()
    def move(self) -> None:
        self.epoch += 1

    @invariant()
    def the_log_holds_what_was_confirmed(self) -> None:
        for conversation, keys in self.confirmed.items():
            assert [entry.key for entry in self.log.logs[conversation]][: len(keys)] == keys

    def teardown(self) -> None:
        if not hasattr(self, "made"):
            return
        for _ in range(10):
            self.now_ms += 1_000
            if self.call is None:
                self.take()
            if self.call is not None:
                self.answer()
        assert (len(self.made), self.made.retry_at_ms()) == (0, None)
        assert (self.made._queued, self.made._in_flight, self.made._body) == ({}, {}, b"")
        logged = {conversation: [entry.key for entry in log] for conversation, log in self.log.logs.items()}
        assert logged == {name: keys for name, keys in self.confirmed.items() if name in logged}


TestLostAnswers = LostAnswers.TestCase
TestLostAnswers.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
