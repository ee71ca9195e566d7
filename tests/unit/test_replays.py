"""Resumes, case by case; `test_gateway_model` mixes them with everything else that can happen."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from actors import gateway as gw
from actors import replays
from actors.commands import CatchUp, LinkCommand
from actors.effects import Answer, Frame, Invite
from actors.gateway import Feed, ReadPage, Ready, Resumed, Write
from actors.replays import page_of
from fastsock.core.limits import MAX_NEW_ENTRIES, MAX_RESUME_ENTRIES, RESUME_PAGE, RESUME_PAGE_BYTES
from fastsock.schemas.log import Standing, Subscription

ROOM, OTHER = "room:42", "room:43"
HOLD_MS = 250


class Bench:
    """A gateway with one user, 1, who belongs to two rooms from their first entries on."""

    def __init__(self, hold_ms: int = HOLD_MS) -> None:
        self.gateway: gw.Gateway[str] = gw.Gateway(hold_ms)
        self.now_ms = 0
        self.gateway.connect("first", "c-first", 1, 0)
        self.gateway.delivered(Answer(1, b"null"), 0)

    def ready(self, socket: str, head: int = 10, other: int = 1) -> list[gw.Output[str]]:
        if socket != "first":
            self.gateway.connect(socket, f"c-{socket}", 1, self.now_ms)
        memberships = [Subscription(ROOM, head, 0, 1), Subscription(OTHER, other, 0, 1)]
        return self.gateway.subscriptions_loaded(1, memberships, self.now_ms)

    def pass_on(
        self, seqs: Iterable[int], size: int = 0, subscribe: tuple[int, ...] = (), unsubscribe: tuple[int, ...] = ()
    ) -> list[gw.Output[str]]:
        outputs: list[gw.Output[str]] = []
        for seq in seqs:
            outputs += self.gateway.delivered(Frame(ROOM, seq, payload(seq, size), subscribe, unsubscribe), self.now_ms)
        return outputs

    def resume(self, socket: str, wanted: dict[str, int], head: int = 10, **joined: int) -> list[gw.Output[str]]:
        assert self.gateway.resuming(socket)
        mine = {ROOM: 1, OTHER: 1} | {name.replace("_", ":"): seq for name, seq in joined.items()}
        return self.gateway.resume(socket, wanted, Standing(mine, {ROOM: head, OTHER: 1}, {}), "context", self.now_ms)

    def read(self, output: gw.Output[str]) -> list[gw.Output[str]]:
        """Let the page arrive that this output asks for."""
        assert isinstance(output, ReadPage)
        page = [payload(seq) for seq in range(output.since + 1, output.upto + 1)]
        return self.gateway.page_read(output.conversation, output.since, page, self.now_ms)

    def tick(self, at_ms: int) -> list[gw.Output[str]]:
        self.now_ms = at_ms
        return self.gateway.tick(at_ms)

    def links(self, outputs: list[gw.Output[str]]) -> list[LinkCommand]:
        return [output.envelope.command for output in outputs if isinstance(output, gw.Submit)]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def payload(seq: int, size: int = 0) -> bytes:
    return f"#{seq}".encode().ljust(size)


def shown(outputs: list[gw.Output[str]]) -> list[tuple[str, int]]:
    """Which socket is shown what, in order."""
    found = []
    for output in outputs:
        if isinstance(output, Write):
            found += [(socket, int(output.payload[1:])) for socket in output.sockets]
        elif isinstance(output, Feed):
            found += [(output.socket, int(text[1:])) for text in output.payloads]
    return found


def resumed(outputs: list[gw.Output[str]]) -> Resumed[str]:
    (found,) = [output for output in outputs if isinstance(output, Resumed)]
    return found


# --- the hold ----------------------------------------------------------------------------------------------------


def test_a_new_socket_is_held_until_it_speaks(bench: Bench) -> None:
    assert Ready("first", [(ROOM, 10, 0), (OTHER, 1, 0)]) in bench.ready("first")
    assert bench.pass_on([11, 12]) == []
    assert shown(bench.gateway.spoke("first")) == [("first", 11), ("first", 12)]
    assert shown(bench.pass_on([13])) == [("first", 13)]
    assert bench.gateway.spoke("first") == []


def test_a_silent_socket_is_held_no_longer_than_the_hold(bench: Bench) -> None:
    bench.ready("first")
    bench.pass_on([11])
    assert bench.gateway.next_deadline_ms() == HOLD_MS
    assert bench.tick(HOLD_MS - 1) == []
    assert shown(bench.tick(HOLD_MS)) == [("first", 11)]
    assert shown(bench.pass_on([12])) == [("first", 12)]


def test_each_socket_has_a_hold_of_its_own(bench: Bench) -> None:
    bench.ready("first")
    bench.now_ms = 100
    bench.ready("second")
    bench.pass_on([11])
    assert shown(bench.tick(HOLD_MS)) == [("first", 11)]
    assert shown(bench.tick(HOLD_MS + 100)) == [("second", 11)]


def test_without_a_hold_a_socket_goes_on_at_once() -> None:
    bench = Bench(hold_ms=0)
    bench.ready("first")
    assert shown(bench.pass_on([11])) == [("first", 11)]


def test_a_held_socket_that_is_let_in_sees_the_entry_that_does_it(bench: Bench) -> None:
    bench.ready("first")
    joining = Frame("room:44", 1, b"#1", subscribe=(1,))
    bench.gateway.delivered(invite("room:44", 0), 0)
    assert bench.gateway.delivered(joining, 0) == []
    assert shown(bench.gateway.spoke("first")) == [("first", 1)]


def invite(conversation: str, since: int) -> Invite:
    return Invite(1, conversation, since)


# --- a resume ----------------------------------------------------------------------------------------------------


def test_a_resume_shows_what_was_missed_then_says_where_the_streams_stand(bench: Bench) -> None:
    bench.ready("first")
    bench.pass_on([11, 12])
    outputs = bench.resume("first", {ROOM: 10, OTHER: 1}, head=12)
    assert shown(outputs) == [("first", 11), ("first", 12)]
    assert outputs[-1] == Resumed("first", "context", {ROOM: 12, OTHER: 1}, {}, [])
    assert shown(bench.pass_on([13])) == [("first", 13)]


def test_what_memory_does_not_hold_is_read_in_pages_while_everybody_else_goes_on(bench: Bench) -> None:
    head = 2 * RESUME_PAGE + 5
    bench.ready("first", head=head)
    bench.gateway.spoke("first")
    bench.ready("second", head=head)
    (page,) = bench.resume("second", {ROOM: 0, OTHER: 1}, head=head)
    assert page == ReadPage(ROOM, 0, RESUME_PAGE)
    assert bench.gateway.stats()["replays"] == 1
    assert shown(bench.pass_on([head + 1])) == [("first", head + 1)]
    seen = []
    outputs = bench.read(page)
    while not any(isinstance(output, Resumed) for output in outputs):
        seen += shown(outputs)
        last = outputs[-1]
        outputs = bench.gateway.fed("second") if isinstance(last, Feed) else bench.read(last)
    seen += shown(outputs)
    assert seen == [("second", seq) for seq in range(1, head + 2)]
    assert resumed(outputs).reached == {ROOM: head + 1, OTHER: 1}
    assert bench.gateway.stats()["replays"] == 0
    assert set(shown(bench.pass_on([head + 2]))) == {("first", head + 2), ("second", head + 2)}


def test_two_who_lack_the_same_page_have_it_read_once(bench: Bench) -> None:
    bench.ready("first")
    bench.ready("second")
    (page,) = bench.resume("first", {ROOM: 3, OTHER: 1})
    assert bench.resume("second", {ROOM: 3, OTHER: 1}) == []
    assert shown(bench.read(page)) == [(who, seq) for who in ("first", "second") for seq in range(4, 11)]


def test_a_page_that_cannot_be_read_is_asked_for_again(bench: Bench) -> None:
    bench.ready("first")
    (page,) = bench.resume("first", {ROOM: 3, OTHER: 1})
    assert bench.gateway.page_failed(ROOM, 3, bench.now_ms) == []
    assert bench.tick(replays.RETRY_MS - 1) == []
    assert bench.tick(replays.RETRY_MS) == [page]
    assert bench.gateway.page_read(ROOM, 3, [], bench.now_ms) == []  # a database that lags behind
    assert bench.tick(2 * replays.RETRY_MS) == [page]
    assert shown(bench.read(page)) == [("first", seq) for seq in range(4, 11)]


def test_a_retry_that_is_not_due_waits_behind_one_that_is(bench: Bench) -> None:
    bench.ready("first")
    bench.ready("second")
    (one,) = bench.resume("first", {ROOM: 3, OTHER: 1})
    (other,) = bench.resume("second", {ROOM: 4, OTHER: 1})
    bench.gateway.page_failed(ROOM, 3, 0)
    bench.gateway.page_failed(ROOM, 4, 500)
    assert bench.tick(replays.RETRY_MS) == [one]
    assert bench.tick(replays.RETRY_MS + 500) == [other]


def test_conversations_that_are_not_named_are_new_and_shown_from_their_beginning(bench: Bench) -> None:
    bench.ready("first", other=3)
    outputs = bench.resume("first", {ROOM: 10})
    assert outputs == [ReadPage(OTHER, 0, 3)]
    bench.read(outputs[0])
    assert resumed(bench.gateway.fed("first")).reached == {ROOM: 10, OTHER: 3}


def test_a_later_resume_is_about_what_it_names(bench: Bench) -> None:
    bench.ready("first", other=3)
    bench.resume("first", {ROOM: 10, OTHER: 3})
    bench.pass_on([11])
    outputs = bench.resume("first", {ROOM: 10}, head=11)
    assert shown(outputs) == [("first", 11)]
    assert resumed(outputs).reached == {ROOM: 11}


def test_who_has_missed_too_much_reloads(bench: Bench) -> None:
    head = MAX_RESUME_ENTRIES + 10
    bench.ready("first", head=head, other=MAX_NEW_ENTRIES + 2)
    outputs = bench.resume("first", {ROOM: 9}, head=head)
    assert outputs == [Resumed("first", "context", {ROOM: head, OTHER: MAX_NEW_ENTRIES + 2}, {ROOM: 11, OTHER: 3}, [])]
    assert shown(bench.pass_on([head + 1])) == [("first", head + 1)]
    assert bench.resume("first", {ROOM: 11}, head=head + 1) == [ReadPage(ROOM, 11, 11 + RESUME_PAGE)]


def test_who_names_more_than_the_log_holds_reloads(bench: Bench) -> None:
    bench.ready("first")
    (told,) = bench.resume("first", {ROOM: 11, OTHER: 1})
    assert told == Resumed("first", "context", {ROOM: 10, OTHER: 1}, {ROOM: 1}, [])


def test_who_has_seen_more_elsewhere_waits_until_it_has_come_by(bench: Bench) -> None:
    bench.ready("first")
    outputs = bench.resume("first", {ROOM: 12, OTHER: 1}, head=12)
    assert bench.links(outputs) == [CatchUp(10)]
    assert bench.pass_on([11]) == []
    assert bench.pass_on([12]) == [Resumed("first", "context", {ROOM: 12, OTHER: 1}, {}, [])]
    assert shown(bench.pass_on([13])) == [("first", 13)]


def test_two_who_are_ahead_by_different_numbers_wait_each_for_its_own(bench: Bench) -> None:
    bench.ready("first")
    bench.ready("second")
    bench.resume("first", {ROOM: 11, OTHER: 1}, head=12)
    bench.resume("second", {ROOM: 12, OTHER: 1}, head=12)
    assert resumed(bench.pass_on([11])).socket == "first"
    outputs = bench.pass_on([12])
    assert shown(outputs) == [("first", 12)]
    assert resumed(outputs).socket == "second"


def test_what_is_named_and_not_the_users_is_said_to_be_left(bench: Bench) -> None:
    bench.ready("first")
    told = resumed(bench.resume("first", {ROOM: 10, OTHER: 1, "room:9": 7, "room:8": 7}, room_8=3))
    assert told.left == ["room:9"]  # room 8 has let the user in by an entry that is still to come


def test_one_resume_at_a_time(bench: Bench) -> None:
    bench.ready("first")
    assert bench.gateway.resuming("first")
    assert not bench.gateway.resuming("first")
    bench.pass_on([11])
    assert shown(bench.gateway.resume_failed("first")) == [("first", 11)]
    assert bench.gateway.resuming("first")


def test_a_resume_that_comes_while_the_hold_is_made_up_for(bench: Bench) -> None:
    """The first page of the live stream is on its way when the client asks for older entries: they are what it gets."""
    bench.ready("first")
    bench.pass_on([11, 12], size=40_000)
    (feed,) = bench.gateway.spoke("first")
    assert shown([feed]) == [("first", 11), ("first", 12)]
    assert bench.resume("first", {ROOM: 8, OTHER: 1}, head=12) == []
    (page,) = bench.gateway.fed("first")
    assert page == ReadPage(ROOM, 8, 12)


def test_a_page_that_is_not_wanted_any_more_is_not_shown(bench: Bench) -> None:
    bench.ready("first")
    bench.pass_on([11])
    bench.gateway._replays._recent.forget(ROOM)
    (page,) = bench.gateway.spoke("first")
    assert page == ReadPage(ROOM, 10, 11)
    assert bench.resume("first", {ROOM: 9, OTHER: 1}, head=11) == []
    assert bench.read(page) == [ReadPage(ROOM, 9, 11)]


def test_who_leaves_while_behind_is_shown_the_end_and_nothing_after_it(bench: Bench) -> None:
    bench.ready("first")
    (page,) = bench.resume("first", {ROOM: 5, OTHER: 1})
    bench.pass_on([11], unsubscribe=(1,))
    bench.pass_on([12])
    assert shown(bench.read(page)) == [("first", seq) for seq in range(6, 11)]
    outputs = bench.gateway.fed("first")
    assert shown(outputs) == [("first", 11)]
    assert resumed(outputs).reached == {OTHER: 1}
    assert bench.pass_on([13]) == []
    assert bench.gateway.next_deadline_ms() == 0  # nobody needs the topic any more, which `tick` is to note
    bench.tick(0)
    assert bench.gateway.next_deadline_ms() not in {0, None}


def test_who_leaves_is_not_shown_the_rest_of_a_page_that_others_wait_for(bench: Bench) -> None:
    bench.gateway.connect("other", "c-other", 2, 0)
    bench.gateway.delivered(Answer(2, b"null"), 0)
    bench.ready("first")
    bench.gateway.subscriptions_loaded(2, [Subscription(ROOM, 10, 0, 1)], 0)
    bench.pass_on([11], unsubscribe=(2,))
    bench.pass_on([12])
    bench.gateway._replays._recent.forget(ROOM)
    (page,) = bench.gateway.spoke("first")
    assert page == ReadPage(ROOM, 10, 12)
    assert bench.gateway.spoke("other") == []
    assert shown(bench.read(page)) == [("first", 11), ("first", 12), ("other", 11)]


def test_who_leaves_while_behind_and_comes_again_goes_on(bench: Bench) -> None:
    bench.ready("first")
    (page,) = bench.resume("first", {ROOM: 5, OTHER: 1})
    bench.pass_on([11], unsubscribe=(1,))
    bench.pass_on([12], subscribe=(1,))
    bench.read(page)
    assert shown(bench.gateway.fed("first")) == [("first", 11), ("first", 12)]
    assert shown(bench.pass_on([13])) == [("first", 13)]


def test_only_so_many_have_a_page_under_way(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "MAX_REPLAYS", 1)
    for socket in ("first", "second", "third"):
        bench.ready(socket)
    (page,) = bench.resume("first", {ROOM: 5, OTHER: 1})
    assert bench.resume("second", {ROOM: 6, OTHER: 1}) == bench.resume("third", {ROOM: 7, OTHER: 1}) == []
    assert bench.gateway.stats()["replays"] == 3
    bench.read(page)
    outputs = bench.gateway.fed("first")
    assert resumed(outputs).socket == "first"
    (page,) = [output for output in outputs if isinstance(output, ReadPage)]
    assert page == ReadPage(ROOM, 6, 10)
    (page,) = [output for output in bench.gateway.disconnect("second", 0) if isinstance(output, ReadPage)]
    assert page == ReadPage(ROOM, 7, 10)


def test_a_socket_that_ends_while_its_page_is_read_is_not_shown_it(bench: Bench) -> None:
    bench.ready("first")
    (page,) = bench.resume("first", {ROOM: 5, OTHER: 1})
    bench.gateway.disconnect("first", 0)
    assert bench.read(page) == []
    assert bench.gateway.stats()["replays"] == 0


def test_a_socket_that_ends_while_its_page_fails_is_not_tried_again(bench: Bench) -> None:
    bench.ready("first")
    bench.resume("first", {ROOM: 5, OTHER: 1})
    bench.gateway.disconnect("first", 0)
    assert bench.gateway.page_failed(ROOM, 5, 0) == []
    assert not bench.gateway._replays._retrying


# --- while a topic is rewound ------------------------------------------------------------------------------------


def rewound(bench: Bench) -> None:
    """User 2 has been invited by entry 8, and it has come to light after entry 10: entries 8 to 10 come again."""
    bench.ready("first")
    bench.gateway.spoke("first")
    bench.gateway.connect("late", "c-late", 2, 0)
    bench.gateway.delivered(Answer(2, b"null"), 0)
    bench.gateway.subscriptions_loaded(2, [], 0)
    bench.gateway.spoke("late")
    outputs = bench.gateway.delivered(Invite(2, ROOM, 7), 0)
    assert bench.links(outputs) == [CatchUp(7)]


def test_who_resumes_while_the_topic_is_rewound_is_shown_everything_once(bench: Bench) -> None:
    rewound(bench)
    (page,) = bench.resume("first", {ROOM: 6, OTHER: 1})
    assert page == ReadPage(ROOM, 6, 10)
    assert shown(bench.pass_on([8], subscribe=(2,))) == [("late", 8)]
    assert shown(bench.read(page)) == [("first", seq) for seq in range(7, 11)]
    assert resumed(bench.gateway.fed("first")).reached == {ROOM: 10, OTHER: 1}
    assert shown(bench.pass_on([9, 10])) == [("late", 9), ("late", 10)]
    assert set(shown(bench.pass_on([11]))) == {("first", 11), ("late", 11)}


def test_who_is_held_while_the_topic_is_rewound_is_let_in_and_out_by_what_comes_again(bench: Bench) -> None:
    rewound(bench)
    bench.gateway.connect("held", "c-held", 2, 0)
    bench.gateway.subscriptions_loaded(2, [], 0)
    assert shown(bench.pass_on([8], subscribe=(2,))) == [("late", 8)]
    assert shown(bench.pass_on([9], unsubscribe=(2,))) == [("late", 9)]
    bench.pass_on([10])
    outputs = bench.gateway.spoke("held")
    if isinstance(outputs[0], ReadPage):
        outputs = [*bench.read(outputs[0]), *bench.gateway.fed("held")]
    assert shown(outputs) == [("held", 8), ("held", 9)]
    assert shown(bench.pass_on([11])) == [("first", 11)]


# --- pages -------------------------------------------------------------------------------------------------------


def test_a_page_is_bounded_in_bytes_and_has_at_least_one_entry() -> None:
    half = bytes(RESUME_PAGE_BYTES // 2)
    assert page_of([half, half, b"x"]) == [half, half]
    assert page_of([bytes(RESUME_PAGE_BYTES + 1), b"x"]) == [bytes(RESUME_PAGE_BYTES + 1)]
    assert page_of([]) == []
