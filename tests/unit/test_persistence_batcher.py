"""Group commit: one transaction at a time for everybody who waits, and no way round the log's own fence."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors import persistence as module
from actors.appender import AppendBatch
from actors.effects import Failure
from actors.persistence import Answer, Committed, GroupCommit, NotCommitted, OldEpoch, Ticket
from fastsock.schemas.log import Append, Duplicate, Entry, Fenced, Refused, Stored
from tests.simulation.memory_log import MemoryLog

_encoder = msgspec.msgpack.Encoder()


def entry(number: int, conversation: str = "room:1") -> Entry:
    return Entry(conversation=conversation, kind="message", sender_id=7, key=f"c:{number}", at_ms=0, id=number)


def group(conversation: str, head: int, *numbers: int) -> Append:
    return Append(conversation, head, [entry(number, conversation) for number in numbers])


def batch(*groups: Append, epoch: int = 1) -> bytes:
    return _encoder.encode(AppendBatch(epoch, list(groups)))


def names(groups: list[Append] | None) -> list[str] | None:
    return None if groups is None else [group.conversation for group in groups]


def test_at_rest_a_batch_is_committed_at_once() -> None:
    commits = GroupCommit()
    assert commits.take() is None
    ticket = commits.offer(batch(group("room:1", 0, 1, 2), group("room:2", 0, 3)))
    assert (ticket.answer, ticket.entries, len(commits)) == (None, 3, 3)
    assert commits.take() == [group("room:1", 0, 1, 2), group("room:2", 0, 3)]
    assert len(commits) == 3
    assert commits.committed([[Stored(1), Stored(2)], [Stored(1)]]) == [ticket]
    assert ticket.answer == Committed([[Stored(1), Stored(2)], [Stored(1)]])
    assert len(commits) == 0


def test_what_waits_during_a_commit_shares_the_next() -> None:
    commits = GroupCommit()
    commits.offer(batch(group("room:1", 0, 1)))
    commits.take()
    one = commits.offer(batch(group("room:1", 1, 2)))
    other = commits.offer(batch(group("room:2", 0, 3), group("room:3", 0, 4)))
    assert commits.take() is None, "one transaction at a time"
    commits.committed([[Stored(1)]])
    assert names(commits.take()) == ["room:1", "room:2", "room:3"]
    assert commits.committed([[Stored(2)], [Stored(1)], [Fenced(5)]]) == [one, other]
    assert (one.answer, other.answer) == (Committed([[Stored(2)]]), Committed([[Stored(1)], [Fenced(5)]]))


def test_a_failed_commit_fails_every_ticket_in_it_and_no_other() -> None:
    commits = GroupCommit()
    tickets = [commits.offer(batch(group("room:1", 0, 1))), commits.offer(batch(group("room:2", 0, 2)))]
    commits.take()
    later = commits.offer(batch(group("room:3", 0, 3)))
    failure = Failure("storage_unavailable", "the database is away", 500)
    assert commits.failed(failure) == tickets
    assert [ticket.answer for ticket in (*tickets, later)] == [NotCommitted(failure), NotCommitted(failure), None]
    assert names(commits.take()) == ["room:3"]


def test_one_conversation_has_one_group_in_a_transaction_and_nobody_overtakes() -> None:
    commits = GroupCommit()
    commits.offer(batch(group("room:1", 0, 1)))
    second = commits.offer(batch(group("room:1", 0, 2), group("room:2", 0, 3)))
    third = commits.offer(batch(group("room:2", 0, 4)))
    free = commits.offer(batch(group("room:3", 0, 5)))
    assert names(commits.take()) == ["room:1", "room:3"]
    commits.committed([[Stored(1)], [Stored(1)]])
    assert free.answer is not None
    assert names(commits.take()) == ["room:1", "room:2"], "the third waits for the second, not beside it"
    assert commits.committed([[Fenced(1)], [Stored(1)]]) == [second]
    assert names(commits.take()) == ["room:2"]
    assert commits.committed([[Fenced(1)]]) == [third]


def test_a_transaction_is_bounded_but_one_ticket_always_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_APPEND_ENTRIES", 3)
    commits = GroupCommit()
    commits.offer(batch(group("room:1", 0, 1, 2, 3, 4)))
    commits.offer(batch(group("room:2", 0, 5, 6)))
    commits.offer(batch(group("room:3", 0, 7, 8)))
    commits.offer(batch(group("room:4", 0, 9)))
    taken = []
    while (groups := commits.take()) is not None:
        taken.append(names(groups))
        commits.failed(Failure("internal", "no matter"))
    assert taken == [["room:1"], ["room:2", "room:4"], ["room:3"]]


def test_at_the_bound_a_batch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PENDING_ENTRIES", 3)
    commits = GroupCommit()
    assert commits.offer(batch(group("room:1", 0, 1, 2))).answer is None
    refused = commits.offer(batch(group("room:2", 0, 3, 4)))
    text = "2 of 3 entries wait for the database"
    assert refused.answer == NotCommitted(Failure("overloaded", text, 500))
    assert commits.offer(batch(group("room:2", 0, 3))).answer is None
    assert len(commits) == 3


def test_a_batch_larger_than_the_bound_is_taken_when_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PENDING_ENTRIES", 1)
    assert GroupCommit().offer(batch(group("room:1", 0, 1, 2))).answer is None


def test_a_batch_under_an_older_placement_costs_the_database_nothing() -> None:
    commits = GroupCommit()
    commits.offer(batch(group("room:1", 0, 1), epoch=3))
    assert commits.offer(batch(group("room:2", 0, 2), epoch=2)).answer == OldEpoch(3)
    assert commits.offer(batch(group("room:2", 0, 2), epoch=3)).answer is None
    assert names(commits.take()) == ["room:1", "room:2"]


def test_answers_survive_their_encoding() -> None:
    original = msgspec.structs.replace(entry(9), seq=4, content="hi")
    answers: list[Answer] = [
        Committed([[Stored(1), Duplicate(original)], [Refused("message_deleted", "gone"), Fenced(3)], []]),
        NotCommitted(Failure("storage_unavailable", "away", 500)),
        OldEpoch(3),
    ]
    for answer in answers:
        assert module.decode_answer(module.encode_answer(answer)) == answer


class TwoOwners(RuleBasedStateMachine):
    """Two hosts that both believe they own both rooms, one writer, one log, commits that fail or only seem to.

    A host is as simple as can be: it appends after the head it knows, repeats what has no answer, and takes the head
    it is told when it is fenced. Nothing of it may ever make a hole or a fork, and what a host was told is stored is.
    """

    @initialize()
    def start(self) -> None:
        self.commits = GroupCommit()
        self.log = MemoryLog()
        self.heads = {host: {"room:1": 0, "room:2": 0} for host in ("a", "b")}
        self.sent: dict[str, tuple[Ticket, list[Append]]] = {}
        self.again: dict[str, list[Append]] = {}
        self.told: dict[int, tuple[str, int]] = {}
        self.taken: list[Append] | None = None
        self.number = 0

    @rule(host=st.sampled_from(["a", "b"]), rooms=st.sets(st.sampled_from(["room:1", "room:2"]), min_size=1))
    def send(self, host: str, rooms: set[str]) -> None:
        if host in self.sent:
            return
        groups = self.again.pop(host, None)
        if groups is None:
            groups = []
            for room in sorted(rooms):
                self.number += 2
                groups.append(group(room, self.heads[host][room], self.number - 1, self.number))
        self.sent[host] = (self.commits.offer(batch(*groups)), groups)

    @rule(host=st.sampled_from(["a", "b"]))
    def lose_the_call(self, host: str) -> None:
        """The host gives up waiting and repeats; the writer still has the first."""
        if host in self.sent:
            self.again[host] = self.sent.pop(host)[1]

    @rule()
    def take(self) -> None:
        groups = self.commits.take()
        if groups is not None:
            assert self.taken is None
            self.taken = groups
            assert len({group.conversation for group in groups}) == len(groups)

    @precondition(lambda self: self.taken is not None)
    @rule(happens=st.booleans(), noticed=st.booleans())
    def commit(self, happens: bool, noticed: bool) -> None:
        assert self.taken is not None
        outcomes = self.log.append(self.taken) if happens else []
        decided = (
            self.commits.committed(outcomes)
            if happens and noticed
            else self.commits.failed(Failure("storage_unavailable", "away"))
        )
        assert decided
        self.taken = None
        for host, (ticket, groups) in list(self.sent.items()):
            if ticket in decided:
                del self.sent[host]
                if isinstance(ticket.answer, Committed):
                    self.learn(host, ticket.answer, groups)
                else:
                    self.again[host] = groups

    def learn(self, host: str, answer: Committed, groups: list[Append]) -> None:
        for append, outcomes in zip(groups, answer.outcomes, strict=True):
            for each, outcome in zip(append.entries, outcomes, strict=True):
                if isinstance(outcome, Stored):
                    assert self.told.setdefault(each.id, (append.conversation, outcome.seq)) == (
                        append.conversation,
                        outcome.seq,
                    )
                    self.heads[host][append.conversation] = outcome.seq
                else:
                    assert isinstance(outcome, Fenced)
                    self.heads[host][append.conversation] = outcome.head

    @invariant()
    def no_hole_no_fork(self) -> None:
        for log in self.log.logs.values():
            assert [each.seq for each in log] == list(range(1, len(log) + 1))
            assert len({each.id for each in log}) == len(log)
        for number, (conversation, seq) in self.told.items():
            assert self.log.logs[conversation][seq - 1].id == number

    def teardown(self) -> None:
        if not hasattr(self, "commits"):
            return
        for _ in range(20):
            self.take()
            if self.taken is None:
                break
            self.commit(happens=True, noticed=True)
        assert (len(self.commits), self.sent) == (0, {})


TestTwoOwners = TwoOwners.TestCase
TestTwoOwners.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
