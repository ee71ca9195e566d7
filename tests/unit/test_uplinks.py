"""Uplinks: every envelope reaches the host that owns its name, however often the owners change."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from actors import uplinks
from actors.commands import Describe, Envelope, Send
from actors.effects import Failure
from actors.link import Batch, Inbox
from actors.placement import Placement
from actors.uplinks import Accepted, Answer, Behind, Stale, Uplinks
from fastsock.core.limits import MAX_BATCH_BYTES

ONE = Placement(epoch=1, hosts=("h0", "h1"), pins={"room:1": "h0", "room:2": "h1", "room:3": "h0"})
TWO = Placement(epoch=2, hosts=("h0", "h1"), pins={"room:1": "h1", "room:2": "h0", "room:3": "h0"})


def to(name: str, number: int = 0) -> Envelope:
    return Envelope(name, number, Describe())


def test_envelopes_go_to_the_owner_of_their_name_with_the_epoch() -> None:
    links = Uplinks(ONE)
    assert links.hosts == []
    for name in ("room:1", "room:2", "room:3"):
        assert links.submit(to(name)) is None
    assert links.hosts == ["h0", "h1"]
    assert links.take("h0", 0) == (Batch(1, [to("room:1"), to("room:3")]), 1)
    assert links.take("h0", 0) is None
    assert links.take("h1", 0) == (Batch(1, [to("room:2")]), 1)
    assert len(links) == 3
    assert links.answered("h0", 1, Accepted("s"), 0) == [to("room:1"), to("room:3")]
    assert links.answered("h1", 1, Accepted("s"), 0) == [to("room:2")]
    assert (len(links), links.retry_at_ms()) == (0, None)


def test_at_the_bound_the_sender_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uplinks, "MAX_UPLINK_ITEMS", 1)
    links = Uplinks(ONE)
    assert links.submit(to("room:1")) is None
    assert links.submit(to("room:3")) == Failure("overloaded", "1 of 1 commands wait for h0", 500)
    assert links.submit(to("room:2")) is None, "another host has its own bound"


def test_text_counts_in_a_batchs_bytes() -> None:
    links = Uplinks(ONE)
    for _ in range(2):
        links.submit(Envelope("room:1", 0, Send(7, "c:1", "x" * (MAX_BATCH_BYTES // 2))))
    taken = links.take("h0", 0)
    assert taken is not None
    assert len(taken[0].items) == 1


def test_a_failed_call_is_tried_again() -> None:
    links = Uplinks(ONE)
    links.submit(to("room:1"))
    links.submit(to("room:2"))
    links.take("h0", 100)
    links.failed("h0", 1, 100)
    assert links.retry_at_ms() == 0, "h1 can be sent to at once"
    links.take("h1", 100)
    assert links.retry_at_ms() == 120
    assert links.take("h0", 119) is None
    assert links.take("h0", 120) == (Batch(1, [to("room:1")]), 1)


def test_a_host_that_is_behind_is_tried_again() -> None:
    links = Uplinks(TWO)
    links.submit(to("room:1"))
    links.take("h1", 0)
    assert links.answered("h1", 1, Behind(), 0) == []
    assert links.placement is TWO
    assert links.take("h1", 20) == (Batch(1, [to("room:1")]), 2)


def test_a_newer_placement_routes_everything_anew_in_order() -> None:
    links = Uplinks(ONE)
    for number, name in enumerate(("room:1", "room:2", "room:1", "room:3"), 1):
        links.submit(to(name, number))
    links.take("h0", 0)
    links.submit(to("room:1", 5))
    assert links.answered("h0", 1, Stale(TWO), 0) == []
    assert links.placement is TWO
    assert links.take("h1", 20) == (Batch(1, [to("room:1", 1), to("room:1", 3), to("room:1", 5)]), 2)
    assert links.take("h0", 20) == (Batch(2, [to("room:3", 4), to("room:2", 2)]), 2)
    assert links.answered("h0", 1, Accepted("late"), 20) == [], "the late answer to what was recalled"
    assert links.answered("h0", 2, Accepted("s"), 20) == [to("room:3", 4), to("room:2", 2)]


def test_a_placement_that_is_not_newer_changes_nothing() -> None:
    links = Uplinks(TWO)
    links.submit(to("room:1"))
    links.take("h1", 0)
    assert not links.move(ONE)
    assert not links.move(TWO)
    assert links.answered("h1", 1, Stale(ONE), 0) == []
    assert links.take("h1", 20) == (Batch(1, [to("room:1")]), 2)


def test_items_and_answers_survive_their_encoding() -> None:
    items = [Envelope("room:1", 3, Send(7, "c:1", "hi", "text", 5)), to("user:7")]
    assert uplinks.decode_items(uplinks.encode_items(items)) == items
    answers: list[Answer] = [Accepted("s"), Stale(TWO), Behind()]
    for answer in answers:
        assert uplinks.decode_answer(uplinks.encode_answer(answer)) == answer


class MovingHosts(RuleBasedStateMachine):
    """Two hosts whose names change hands; each envelope must be taken by the owner of the day, in order per name."""

    @initialize()
    def start(self) -> None:
        self.links = Uplinks(Placement(epoch=1, hosts=("h0", "h1")))
        self.inboxes = {"h0": Inbox(), "h1": Inbox()}
        self.known = {"h0": self.links.placement, "h1": self.links.placement}
        self.newest = self.links.placement
        self.calls: dict[str, tuple[Batch[Envelope], int]] = {}
        self.sent: dict[str, list[int]] = {"room:1": [], "room:2": []}
        self.taken: dict[str, list[int]] = {"room:1": [], "room:2": []}
        self.number = 0
        self.now_ms = 0

    @rule(name=st.sampled_from(["room:1", "room:2"]))
    def submit(self, name: str) -> None:
        self.number += 1
        assert self.links.submit(to(name, self.number)) is None
        self.sent[name].append(self.number)

    @rule(pins=st.fixed_dictionaries({name: st.sampled_from(["h0", "h1"]) for name in ("room:1", "room:2")}))
    def move(self, pins: dict[str, str]) -> None:
        self.newest = Placement(epoch=self.newest.epoch + 1, hosts=("h0", "h1"), pins=pins)

    @rule(host=st.sampled_from(["h0", "h1"]))
    def learn(self, host: str) -> None:
        self.known[host] = self.newest

    @rule(host=st.sampled_from(["h0", "h1"]), lost=st.booleans(), answer_lost=st.booleans())
    def call(self, host: str, lost: bool, answer_lost: bool) -> None:
        self.now_ms += 1_000
        if host not in self.links.hosts:
            return
        taken = self.links.take(host, self.now_ms)
        if taken is None:
            return
        batch, epoch = taken
        answer = None if lost else self.arrive(host, batch, epoch)
        if answer is None or answer_lost:
            self.links.failed(host, batch.number, self.now_ms)
        else:
            self.links.answered(host, batch.number, answer, self.now_ms)

    def arrive(self, host: str, batch: Batch[Envelope], epoch: int) -> Answer:
        if epoch < self.known[host].epoch:
            return Stale(self.known[host])
        if epoch > self.known[host].epoch:
            self.known[host] = self.newest
            return Behind()
        if self.inboxes[host].accept("g", batch.number):
            for envelope in batch.items:
                assert self.known[host].owner(envelope.to) == host, "routed to somebody else"
                if envelope.request not in self.taken[envelope.to]:
                    self.taken[envelope.to].append(envelope.request)
        return Accepted("s")

    @invariant()
    def in_order_per_name(self) -> None:
        for name, taken in self.taken.items():
            assert taken == self.sent[name][: len(taken)]

    def teardown(self) -> None:
        if not hasattr(self, "links"):
            return
        for _ in range(20):
            for host in ("h0", "h1"):
                self.learn(host)
                self.call(host, lost=False, answer_lost=False)
        assert self.taken == self.sent
        assert len(self.links) == 0


TestMovingHosts = MovingHosts.TestCase
TestMovingHosts.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
