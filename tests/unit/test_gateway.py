from __future__ import annotations

import pytest

from actors import gateway as gw
from actors.commands import Attach, CatchUp, Command, Connect, Detach, Disconnect, Envelope, LinkCommand, Send, Typing
from actors.effects import (
    Answer,
    CaughtUp,
    CutSocket,
    Declined,
    Delivery,
    Ephemeral,
    Failed,
    Failure,
    Frame,
    Invite,
)
from actors.gateway import Answered, Close, Decline, LoadSubscriptions, Ready, Refused, Submit, Write
from fastsock.core.limits import DETACH_LINGER_MS, MAX_HELD_FRAMES, RELOAD_MEMBERSHIPS_MS, REQUEST_TIMEOUT_MS
from fastsock.schemas.log import Subscription

FULL = Failure("overloaded", "20,000 of 20,000 commands wait for host-0", 500)
HELLO = Send(1, "c:m1", "hello")
ROOM = "room:42"


class Bench:
    """A gateway whose sockets are texts, and whose clock stands still unless it is set."""

    def __init__(self) -> None:
        self.gateway: gw.Gateway[str] = gw.Gateway()
        self.now_ms = 0

    def connect(self, socket: str, user: int) -> list[gw.Output[str]]:
        return self.gateway.connect(socket, f"c-{socket}", user, self.now_ms)

    def disconnect(self, socket: str) -> list[gw.Output[str]]:
        return self.gateway.disconnect(socket, self.now_ms)

    def deliver(self, delivery: Delivery) -> list[gw.Output[str]]:
        return self.gateway.delivered(delivery, self.now_ms)

    def load(self, user: int, *subscriptions: Subscription) -> list[gw.Output[str]]:
        return self.gateway.subscriptions_loaded(user, list(subscriptions), self.now_ms)

    def refuse(self, envelope: Envelope) -> list[gw.Output[str]]:
        return self.gateway.refused(envelope, FULL, self.now_ms)

    def reattach(self, name: str) -> list[gw.Output[str]]:
        return self.gateway.reattach(lambda other: other == name, self.now_ms)

    def ask(self, context: object = "mine", to: str = ROOM) -> list[gw.Output[str]]:
        return self.gateway.request(to, HELLO, context, self.now_ms)

    def tick(self, at_ms: int) -> list[gw.Output[str]]:
        self.now_ms = at_ms
        return self.gateway.tick(at_ms)

    def ready(self, socket: str, user: int, *subscriptions: Subscription) -> list[gw.Output[str]]:
        """The user's first socket, all the way to its greeting."""
        self.connect(socket, user)
        self.deliver(Answer(self.gateway._last_request, b"null"))
        return self.load(user, *subscriptions)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def submit(to: str, command: LinkCommand, request: int = 0) -> Submit:
    return Submit(Envelope(to, request, command))


def member(head: int = 1, joined_seq: int = 1, unread: int = 0, name: str = ROOM) -> Subscription:
    """A membership, by default of a room that has just been made."""
    return Subscription(name, head, unread, joined_seq)


def frame(seq: int, subscribe: tuple[int, ...] = (), unsubscribe: tuple[int, ...] = ()) -> Frame:
    return Frame(ROOM, seq, b"#%d" % seq, subscribe, unsubscribe)


def shown(outputs: list[gw.Output[str]]) -> list[tuple[set[str], bytes]]:
    """Who is shown what; nothing else may be among the outputs."""
    writes = [output for output in outputs if isinstance(output, Write)]
    assert writes == outputs
    return [(set(write.sockets), write.payload) for write in writes]


# --- connecting --------------------------------------------------------------------------------------------------


def test_a_socket_is_greeted_when_its_topic_is_attached_and_its_memberships_are_loaded(bench: Bench) -> None:
    assert bench.connect("a", 1) == [submit("user:1", Attach(), 1), submit("user:1", Connect("c-a"))]
    assert bench.deliver(Answer(1, b"null")) == [LoadSubscriptions(1)]
    assert bench.load(1, member(head=17, unread=3)) == [Ready("a", [(ROOM, 17, 3)]), submit(ROOM, Attach(17))]
    assert bench.gateway.stats() == {
        "sockets": 1,
        "ready": 1,
        "users": 1,
        "topics": 1,
        "requests": 0,
        "replays": 0,
        "held_frames": 0,
        "dropped_typing": 0,
    }


def test_a_second_socket_joins_where_the_first_has_come_to(bench: Bench) -> None:
    bench.ready("a", 1, member(head=17))
    bench.deliver(frame(18))
    assert bench.connect("b", 1) == [LoadSubscriptions(1), submit("user:1", Connect("c-b"))]
    assert bench.load(1, member(head=17, unread=5)) == [Ready("b", [(ROOM, 18, 5)])]
    assert shown(bench.deliver(frame(19))) == [({"a", "b"}, b"#19")]


def test_a_socket_that_comes_while_its_user_is_loaded_gets_a_load_of_its_own(bench: Bench) -> None:
    bench.connect("a", 1)
    assert bench.connect("b", 1) == [submit("user:1", Connect("c-b"))]
    bench.deliver(Answer(1, b"null"))
    assert bench.connect("c", 1) == [submit("user:1", Connect("c-c"))]
    assert bench.load(1) == [Ready("a", []), Ready("b", []), LoadSubscriptions(1)]
    assert bench.load(1) == [Ready("c", [])]


def test_a_load_that_fails_is_repeated(bench: Bench) -> None:
    bench.connect("a", 1)
    bench.deliver(Answer(1, b"null"))
    assert bench.gateway.subscriptions_failed(1, 0) == []
    assert bench.gateway.next_deadline_ms() == gw.RETRY_MS
    assert bench.tick(gw.RETRY_MS) == [LoadSubscriptions(1)]


def test_answers_to_loads_that_nobody_waits_for(bench: Bench) -> None:
    assert bench.load(1, member()) == []
    assert bench.gateway.subscriptions_failed(1, 0) == []
    bench.ready("a", 1)
    assert bench.load(1, member()) == []
    assert bench.gateway.subscriptions_failed(1, 0) == []
    assert bench.gateway.next_deadline_ms() == RELOAD_MEMBERSHIPS_MS


@pytest.mark.parametrize("how", ["refused", "failed", "silent"])
def test_a_user_that_cannot_be_attached_is_attached_later(bench: Bench, how: str) -> None:
    bench.connect("a", 1)
    if how == "refused":
        assert bench.refuse(Envelope("user:1", 1, Attach())) == []
    elif how == "failed":
        assert bench.deliver(Failed(1, FULL)) == []
    else:
        assert bench.tick(REQUEST_TIMEOUT_MS) == []
    assert bench.tick(bench.now_ms + gw.RETRY_MS) == [submit("user:1", Attach(), 2)]


# --- order -------------------------------------------------------------------------------------------------------


def test_a_gap_is_filled_before_anything_after_it_is_shown(bench: Bench) -> None:
    bench.ready("a", 1, member())
    assert shown(bench.deliver(frame(2))) == [({"a"}, b"#2")]
    assert bench.deliver(frame(2)) == []
    assert bench.deliver(frame(5)) == [submit(ROOM, CatchUp(2))]
    assert bench.deliver(frame(4)) == []
    assert shown(bench.deliver(frame(3))) == [({"a"}, b"#3"), ({"a"}, b"#4"), ({"a"}, b"#5")]
    assert bench.deliver(CaughtUp(ROOM, 5)) == []
    assert shown(bench.deliver(frame(6))) == [({"a"}, b"#6")]


def test_a_page_that_ends_early_is_followed_by_the_next(bench: Bench) -> None:
    bench.ready("a", 1, member())
    bench.deliver(frame(2))
    assert bench.deliver(CaughtUp(ROOM, 3)) == [submit(ROOM, CatchUp(2))]
    assert bench.deliver(CaughtUp(ROOM, 2)) == []  # nothing follows
    assert bench.gateway.next_deadline_ms() == RELOAD_MEMBERSHIPS_MS
    bench.deliver(frame(3))
    assert bench.deliver(CaughtUp(ROOM, 3)) == []


def test_what_one_page_said_is_not_forgotten_over_another(bench: Bench) -> None:
    """Two readings of the log cross: the later page ends before the point that the earlier one has reached."""
    bench.ready("a", 1, member(head=3))
    bench.ready("b", 2)
    for seq in (4, 5):
        bench.deliver(frame(seq))
    bench.deliver(Invite(2, ROOM, 1))  # rewound, while a page that ends with #7 is on its way
    for seq in (6, 7):
        assert bench.deliver(frame(seq)) == []
    bench.deliver(CaughtUp(ROOM, 8))
    for seq in (2, 3, 4, 5):
        bench.deliver(frame(seq))
    assert bench.deliver(CaughtUp(ROOM, 6)) == [submit(ROOM, CatchUp(7))]


def test_a_page_that_brings_nothing_is_asked_for_again_after_a_pause(bench: Bench) -> None:
    bench.ready("a", 1, member())
    assert bench.deliver(frame(3)) == [submit(ROOM, CatchUp(1))]
    assert bench.deliver(CaughtUp(ROOM, 1)) == []
    assert bench.deliver(frame(4)) == []
    assert bench.tick(gw.RETRY_MS - 1) == []
    assert bench.tick(gw.RETRY_MS) == [submit(ROOM, Attach(1)), submit(ROOM, CatchUp(1))]


def test_frames_that_wait_for_a_gap_are_bounded(bench: Bench) -> None:
    bench.ready("a", 1, member())
    for seq in range(3, MAX_HELD_FRAMES + 3):
        bench.deliver(frame(seq))
    assert bench.gateway.stats()["held_frames"] == MAX_HELD_FRAMES
    bench.deliver(frame(MAX_HELD_FRAMES + 3))
    assert bench.gateway.stats()["held_frames"] == 1
    for seq in range(2, MAX_HELD_FRAMES + 2):  # they are read again
        assert shown(bench.deliver(frame(seq))) == [({"a"}, b"#%d" % seq)]
    assert len(shown(bench.deliver(frame(MAX_HELD_FRAMES + 2)))) == 2


def test_frames_of_topics_that_nobody_knows(bench: Bench) -> None:
    assert bench.deliver(frame(1)) == []
    assert bench.deliver(CaughtUp(ROOM, 1)) == []
    assert bench.deliver(Invite(1, ROOM, 0)) == []


def test_what_was_handed_out_to_be_written_does_not_change(bench: Bench) -> None:
    bench.ready("a", 1, member())
    bench.ready("b", 2, member())
    assert bench.deliver(frame(3, unsubscribe=(2,))) == [submit(ROOM, CatchUp(1))]
    outputs = bench.deliver(frame(2))
    bench.disconnect("a")
    assert shown(outputs) == [({"a", "b"}, b"#2"), ({"a", "b"}, b"#3")]
    assert shown(bench.deliver(frame(4))) == []


# --- who is let in -----------------------------------------------------------------------------------------------


def test_an_invitation_to_a_conversation_that_is_not_attached_here(bench: Bench) -> None:
    bench.ready("a", 1)
    assert bench.deliver(Invite(1, ROOM, 6)) == [submit(ROOM, Attach(6))]
    assert bench.deliver(Invite(1, ROOM, 6)) == []
    assert shown(bench.deliver(frame(7, subscribe=(1, 2)))) == [({"a"}, b"#7")]
    assert bench.deliver(Invite(1, ROOM, 6)) == []


def test_an_invitation_that_is_late_reads_the_log_again_for_that_user_alone(bench: Bench) -> None:
    bench.ready("b", 2)  # user 2 is let in by #7; before the invitation arrives ...
    bench.ready("a", 1, member(head=8))  # ... the conversation is attached for user 1, after #8
    assert bench.deliver(Invite(2, ROOM, 6)) == [submit(ROOM, CatchUp(6))]
    assert shown(bench.deliver(frame(7, subscribe=(2,)))) == [({"b"}, b"#7")]
    assert bench.deliver(frame(9)) == []
    assert shown(bench.deliver(frame(8))) == [({"b"}, b"#8"), ({"a", "b"}, b"#9")]


def test_a_second_late_invitation_while_the_first_is_read(bench: Bench) -> None:
    bench.ready("b", 2)
    bench.ready("c", 3)
    bench.ready("a", 1, member(head=9))
    bench.deliver(Invite(2, ROOM, 7))
    bench.deliver(frame(8, subscribe=(2,)))
    assert bench.deliver(Invite(3, ROOM, 6)) == [submit(ROOM, CatchUp(6))]
    assert shown(bench.deliver(frame(7, subscribe=(3,)))) == [({"c"}, b"#7")]
    assert shown(bench.deliver(frame(8, subscribe=(2,)))) == [({"c"}, b"#8")]
    assert shown(bench.deliver(frame(9))) == [({"b", "c"}, b"#9")]
    assert shown(bench.deliver(frame(10))) == [({"a", "b", "c"}, b"#10")]


def test_a_socket_that_is_greeted_while_the_log_is_read_again_is_shown_nothing_twice(bench: Bench) -> None:
    bench.ready("b", 2)
    bench.ready("a", 1, member(head=8))
    bench.deliver(Invite(2, ROOM, 6))
    bench.connect("c", 1)
    assert bench.load(1, member(head=8)) == [Ready("c", [(ROOM, 8, 0)])]
    assert shown(bench.deliver(frame(7, subscribe=(2,)))) == [({"b"}, b"#7")]
    assert shown(bench.deliver(frame(8))) == [({"b"}, b"#8")]
    assert shown(bench.deliver(frame(9))) == [({"a", "b", "c"}, b"#9")]


def test_two_invitations_by_one_entry_that_are_both_late(bench: Bench) -> None:
    bench.ready("b", 2)
    bench.ready("c", 3)
    bench.ready("a", 1, member(head=7))
    assert bench.deliver(Invite(2, ROOM, 6)) == [submit(ROOM, CatchUp(6))]
    assert bench.deliver(Invite(3, ROOM, 6)) == []
    assert shown(bench.deliver(frame(7, subscribe=(2, 3)))) == [({"b", "c"}, b"#7")]


def test_an_invitation_to_what_was_left_since_lets_nobody_in(bench: Bench) -> None:
    bench.ready("a", 1, member(head=6))
    bench.deliver(frame(7, unsubscribe=(1,)))
    assert bench.deliver(Invite(1, ROOM, 5)) == []
    bench.tick(DETACH_LINGER_MS)
    assert bench.deliver(Invite(1, ROOM, 5)) == []
    assert bench.gateway.stats()["topics"] == 0


def test_an_invitation_that_is_older_than_the_socket_lets_nobody_in(bench: Bench) -> None:
    bench.ready("a", 1, member(head=6))
    bench.deliver(frame(7, subscribe=(2,)))
    bench.deliver(frame(8, unsubscribe=(2,)))
    bench.ready("b", 2)
    assert bench.deliver(Invite(2, ROOM, 6)) == []
    assert shown(bench.deliver(frame(9))) == [({"a"}, b"#9")]


def test_a_late_invitation_to_a_socket_that_is_still_loading_lets_nobody_in(bench: Bench) -> None:
    """User 2 was let in by #7 and left by #8, before the socket came; the invitation is older than both."""
    bench.ready("a", 1, member(head=6))
    bench.deliver(frame(7, subscribe=(2,)))
    bench.deliver(frame(8, unsubscribe=(2,)))
    bench.connect("b", 2)
    bench.deliver(Invite(2, ROOM, 6))
    bench.deliver(Answer(bench.gateway._last_request, b"null"))
    assert bench.load(2) == [Ready("b", [])]
    assert shown(bench.deliver(frame(9))) == [({"a"}, b"#9")]


def test_an_entry_of_an_earlier_membership_lets_nobody_in(bench: Bench) -> None:
    """The load has seen #9 let user 2 in; that #6 did too, and #8 ended it, comes late."""
    bench.ready("a", 1, member(head=5))
    assert bench.ready("b", 2, member(head=9, joined_seq=9)) == [Ready("b", [(ROOM, 8, 0)])]
    for seq in (6, 7, 8):
        subscribe, unsubscribe = ((2,), ()) if seq == 6 else ((), (2,) if seq == 8 else ())
        assert shown(bench.deliver(frame(seq, subscribe, unsubscribe))) == [({"a"}, b"#%d" % seq)]
    assert shown(bench.deliver(frame(9, subscribe=(2,)))) == [({"a", "b"}, b"#9")]


def test_what_is_passed_on_while_a_socket_is_loading_corrects_the_load(bench: Bench) -> None:
    bench.ready("a", 1, member(head=5), member(head=5, name="room:43"))
    bench.connect("b", 2)
    bench.deliver(Answer(bench.gateway._last_request, b"null"))
    bench.deliver(frame(6, unsubscribe=(2,)))
    bench.deliver(Frame("room:43", 6, b"", subscribe=(2,)))
    assert bench.load(2, member(head=5, joined_seq=2)) == [Ready("b", [("room:43", 6, 0)])]
    assert shown(bench.deliver(frame(7))) == [({"a"}, b"#7")]


def test_an_invitation_while_a_socket_is_loading(bench: Bench) -> None:
    bench.connect("a", 1)
    bench.deliver(Answer(1, b"null"))
    assert bench.deliver(Invite(1, ROOM, 6)) == []
    assert bench.load(1) == [Ready("a", []), submit(ROOM, Attach(6))]


def test_an_invitation_whose_entry_is_still_to_come(bench: Bench) -> None:
    bench.ready("a", 1, member(head=5))
    bench.ready("b", 2)
    assert bench.deliver(Invite(2, ROOM, 6)) == []
    bench.disconnect("a")
    assert submit(ROOM, Detach()) not in bench.tick(DETACH_LINGER_MS)  # user 2 waits for it
    assert bench.deliver(frame(6)) == []
    assert shown(bench.deliver(frame(7, subscribe=(2,)))) == [({"b"}, b"#7")]


def test_a_load_that_is_older_than_what_is_known_here_is_repeated(bench: Bench) -> None:
    bench.connect("a", 1)
    bench.deliver(Answer(1, b"null"))
    bench.ready("b", 2, member(head=9))
    assert bench.load(1, member(head=8)) == [LoadSubscriptions(1)]
    assert bench.load(1, member(head=9)) == [Ready("a", [(ROOM, 9, 0)])]


def test_memberships_are_read_again_from_time_to_time(bench: Bench) -> None:
    """An invitation went to a host that this gateway has never heard of, on the other side of a split network."""
    bench.ready("a", 1, member())
    bench.now_ms = 1_000
    bench.ready("b", 2)
    assert bench.tick(RELOAD_MEMBERSHIPS_MS - 1) == []
    assert bench.tick(RELOAD_MEMBERSHIPS_MS) == [LoadSubscriptions(1)]
    new = member(name="dm:1:2", joined_seq=1, head=1)
    assert bench.load(1, member(), new) == [submit("dm:1:2", Attach(0))]
    first = Frame("dm:1:2", 1, b"first", subscribe=(1, 2))
    assert shown(bench.deliver(first)) == [({"a", "b"}, b"first")]
    assert bench.tick(RELOAD_MEMBERSHIPS_MS + 1_000) == [LoadSubscriptions(2)]
    bench.load(2)
    assert bench.gateway.next_deadline_ms() == 2 * RELOAD_MEMBERSHIPS_MS


# --- going -------------------------------------------------------------------------------------------------------


def test_one_of_two_sockets_ends(bench: Bench) -> None:
    bench.ready("a", 1, member())
    bench.connect("b", 1)
    bench.load(1, member())
    assert bench.disconnect("a") == [submit("user:1", Disconnect("c-a"))]
    assert shown(bench.deliver(frame(2))) == [({"b"}, b"#2")]
    assert bench.gateway.next_deadline_ms() == RELOAD_MEMBERSHIPS_MS


def test_topics_linger_and_are_detached(bench: Bench) -> None:
    bench.ready("a", 1, member())
    assert bench.disconnect("a") == [submit("user:1", Disconnect("c-a"))]
    assert bench.disconnect("a") == []
    assert bench.gateway.next_deadline_ms() == DETACH_LINGER_MS
    assert bench.tick(DETACH_LINGER_MS - 1) == []
    assert bench.tick(DETACH_LINGER_MS) == [submit(ROOM, Detach()), submit("user:1", Detach())]
    assert bench.gateway.next_deadline_ms() is None
    assert set(bench.gateway.stats().values()) == {0}


def test_what_was_to_be_tried_again_for_a_topic_is_forgotten_with_it(bench: Bench) -> None:
    bench.ready("a", 1, member())
    bench.disconnect("a")
    bench.now_ms = DETACH_LINGER_MS - 1
    bench.refuse(Envelope(ROOM, 0, Attach()))
    bench.tick(DETACH_LINGER_MS)
    assert bench.gateway.next_deadline_ms() is None
    assert bench.tick(2 * DETACH_LINGER_MS) == []


def test_who_comes_back_in_time_finds_everything_attached(bench: Bench) -> None:
    bench.ready("a", 1, member(head=3))
    bench.disconnect("a")
    bench.deliver(frame(4))
    assert bench.connect("b", 1) == [LoadSubscriptions(1), submit("user:1", Connect("c-b"))]
    assert bench.load(1, member(head=4)) == [Ready("b", [(ROOM, 4, 0)])]
    assert bench.tick(DETACH_LINGER_MS) == []


def test_each_lingers_since_it_was_needed_last(bench: Bench) -> None:
    other = Subscription("room:43", 1, 0, 1)
    bench.ready("a", 1, member())
    bench.ready("b", 2, other)
    bench.disconnect("a")
    bench.now_ms = 10
    bench.connect("c", 1)
    bench.load(1, member())
    bench.now_ms = 20
    bench.disconnect("b")
    bench.now_ms = 30
    bench.disconnect("c")
    assert bench.tick(DETACH_LINGER_MS + 19) == []
    assert bench.tick(DETACH_LINGER_MS + 20) == [submit("room:43", Detach()), submit("user:2", Detach())]
    assert bench.gateway.next_deadline_ms() == DETACH_LINGER_MS + 30
    assert bench.tick(DETACH_LINGER_MS + 29) == []
    assert bench.tick(DETACH_LINGER_MS + 30) == [submit(ROOM, Detach()), submit("user:1", Detach())]
    assert bench.gateway.next_deadline_ms() is None


def test_a_user_stays_while_a_load_is_under_way(bench: Bench) -> None:
    bench.connect("a", 1)
    bench.deliver(Answer(1, b"null"))
    bench.disconnect("a")
    assert bench.tick(DETACH_LINGER_MS) == []
    assert bench.load(1, member()) == []
    assert bench.tick(2 * DETACH_LINGER_MS) == [submit("user:1", Detach())]


def test_a_user_who_went_before_being_attached(bench: Bench) -> None:
    bench.connect("a", 1)
    bench.disconnect("a")
    assert bench.deliver(Answer(1, b"null")) == []
    bench.reattach("user:1")
    bench.refuse(Envelope("user:1", 2, Attach()))
    assert bench.tick(DETACH_LINGER_MS) == [submit("user:1", Attach(), 3), submit("user:1", Detach())]
    assert bench.deliver(Answer(3, b"null")) == []
    assert bench.gateway.next_deadline_ms() is None


def test_a_host_may_close_a_socket(bench: Bench) -> None:
    bench.connect("a", 1)
    assert bench.deliver(CutSocket("c-a", 4003)) == [Close("a", 4003)]
    assert bench.deliver(CutSocket("c-b", 4003)) == []


# --- requests ----------------------------------------------------------------------------------------------------


def test_a_request_is_answered_once(bench: Bench) -> None:
    assert bench.ask() == [submit(ROOM, HELLO, 1)]
    assert bench.deliver(Answer(1, b"{}")) == [Answered("mine", b"{}")]
    assert bench.deliver(Answer(1, b"{}")) == []
    assert bench.deliver(Failed(1, FULL)) == []


def test_a_request_that_comes_to_nothing(bench: Bench) -> None:
    bench.ask()
    bench.ask("yours")
    assert bench.deliver(Failed(1, FULL)) == [Refused("mine", FULL)]
    assert bench.refuse(Envelope(ROOM, 2, HELLO)) == [Refused("yours", FULL)]


def test_a_request_without_an_answer(bench: Bench) -> None:
    bench.ask()
    bench.now_ms = 1
    bench.ask("yours")
    assert bench.gateway.next_deadline_ms() == REQUEST_TIMEOUT_MS
    late = Failure("actor_unavailable", "no answer within 20 s", 500)
    assert bench.tick(REQUEST_TIMEOUT_MS) == [Refused("mine", late)]
    assert bench.tick(REQUEST_TIMEOUT_MS + 1) == [Refused("yours", late)]
    assert bench.deliver(Answer(1, b"{}")) == []


def test_requests_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gw, "MAX_REQUESTS", 1)
    bench.ask()
    text = "1 of 1 requests wait for an answer"
    assert bench.ask("yours") == [Refused("yours", Failure("overloaded", text, 500))]


# --- when hosts change -------------------------------------------------------------------------------------------


def test_what_a_host_has_forgotten_it_is_told_again_in_order(bench: Bench) -> None:
    bench.ready("a", 1, member(head=3))
    bench.deliver(frame(4))
    bench.ask()
    bench.ask("yours", "room:99")
    assert bench.reattach(ROOM) == [submit(ROOM, Attach(4)), submit(ROOM, HELLO, 2)]
    assert bench.reattach("user:1") == [submit("user:1", Attach(), 4), submit("user:1", Connect("c-a"))]
    assert bench.reattach("room:99") == [submit("room:99", HELLO, 3)]


def test_an_invitation_that_was_lost_with_its_host_is_found_by_the_load(bench: Bench) -> None:
    bench.ready("a", 1)
    bench.reattach("user:1")
    assert bench.deliver(Answer(2, b"null")) == [LoadSubscriptions(1)]
    assert bench.load(1, member(head=9, joined_seq=7)) == [submit(ROOM, Attach(6))]
    assert shown(bench.deliver(frame(7, subscribe=(1,)))) == [({"a"}, b"#7")]


def test_a_host_that_restarts_while_a_load_is_under_way(bench: Bench) -> None:
    bench.connect("a", 1)
    bench.deliver(Answer(1, b"null"))
    bench.reattach("user:1")
    assert bench.deliver(Answer(2, b"null")) == []
    assert bench.load(1) == [Ready("a", []), LoadSubscriptions(1)]
    assert bench.load(1) == []


def test_frames_held_from_before_a_restart_do_not_hide_what_came_after(bench: Bench) -> None:
    bench.ready("a", 1, member())
    bench.deliver(frame(4))
    bench.reattach(ROOM)
    assert bench.gateway.stats()["held_frames"] == 0
    for seq in (2, 3):
        bench.deliver(frame(seq))
    assert bench.deliver(CaughtUp(ROOM, 4)) == [submit(ROOM, CatchUp(3))]


# --- what is ephemeral -------------------------------------------------------------------------------------------


def whisper(sender: int, topic: str = ROOM) -> Ephemeral:
    return Ephemeral(topic, b"~", sender)


def test_everybody_but_the_sender_is_shown_it(bench: Bench) -> None:
    bench.ready("a", 1, member())
    bench.connect("a2", 1)
    bench.load(1, member())
    bench.ready("b", 2, member())
    bench.ready("c", 3)
    (write,) = bench.deliver(whisper(1))
    assert write == Write(["b"], b"~", ephemeral=True)
    (write,) = bench.deliver(whisper(2))
    assert write == Write(["a", "a2"], b"~", ephemeral=True)
    (write,) = bench.deliver(whisper(9))  # whose sockets are elsewhere
    assert write == Write(["a", "a2", "b"], b"~", ephemeral=True)
    assert bench.deliver(whisper(1, "room:99")) == []
    bench.disconnect("b")
    assert bench.deliver(whisper(1)) == []


def test_it_moves_no_number(bench: Bench) -> None:
    bench.ready("a", 1, member())
    bench.deliver(whisper(2))
    assert shown(bench.deliver(frame(2))) == [({"a"}, b"#2")]


def test_who_has_left_or_may_have_is_not_shown_it(bench: Bench) -> None:
    bench.ready("a", 1, member())
    bench.ready("b", 2, member())
    assert bench.deliver(frame(3)) == [submit(ROOM, CatchUp(1))]
    assert bench.deliver(whisper(3)) == []
    assert len(bench.deliver(frame(2, unsubscribe=(2,)))) == 2
    assert bench.deliver(whisper(3)) == [Write(["a"], b"~", ephemeral=True)]


def test_who_is_held_misses_it() -> None:
    bench = Bench()
    bench.gateway = gw.Gateway(hold_ms=250)
    bench.ready("a", 1, member())
    assert bench.deliver(whisper(2)) == []
    assert bench.gateway.spoke("a") == []
    assert bench.deliver(whisper(2)) == [Write(["a"], b"~", ephemeral=True)]


def test_it_is_told_once_or_dropped(bench: Bench) -> None:
    bench.ready("a", 1, member())
    command = Typing(1, on=True, connection_id="c-a")
    assert bench.gateway.tell(ROOM, command) == [submit(ROOM, command)]
    assert bench.gateway.stats()["requests"] == 0
    assert bench.refuse(Envelope(ROOM, 0, command)) == []
    assert bench.gateway.next_deadline_ms() == RELOAD_MEMBERSHIPS_MS
    assert bench.gateway.stats()["dropped_typing"] == 1
    assert submit(ROOM, command) not in bench.reattach(ROOM)


def test_a_refusal_reaches_the_socket_if_it_is_there(bench: Bench) -> None:
    bench.ready("a", 1, member())
    failure = Failure("not_a_member", "user 1 is not a member of room:7")
    assert bench.deliver(Declined("c-a", "typing.start", failure)) == [Decline("a", "typing.start", failure)]
    assert bench.deliver(Declined("c-b", "typing.start", failure)) == []


# --- when links are full -----------------------------------------------------------------------------------------


def test_an_attachment_that_was_refused_is_tried_again(bench: Bench) -> None:
    bench.ready("a", 1, member(head=3))
    assert bench.refuse(Envelope(ROOM, 0, Attach(3))) == []
    assert bench.tick(gw.RETRY_MS) == [submit(ROOM, Attach(3)), submit(ROOM, CatchUp(3))]
    assert bench.refuse(Envelope("room:99", 0, Attach(3))) == []  # nobody needs it any more


@pytest.mark.parametrize("command", [Disconnect("c-x"), Detach()])
def test_a_notice_that_was_refused_is_sent_again(bench: Bench, command: Command) -> None:
    assert not isinstance(command, Connect)
    envelope = Envelope("user:1", 0, command)  # type: ignore[arg-type]
    assert bench.refuse(envelope) == []
    assert bench.gateway.next_deadline_ms() == gw.RETRY_MS
    assert bench.tick(gw.RETRY_MS - 1) == []
    assert bench.tick(gw.RETRY_MS) == [Submit(envelope)]
    assert bench.gateway.next_deadline_ms() is None


def test_a_notice_that_is_not_true_any_more_is_not_sent_again(bench: Bench) -> None:
    bench.connect("a", 1)
    bench.refuse(Envelope("user:1", 0, Connect("c-a")))
    bench.refuse(Envelope("user:1", 0, Connect("c-gone")))
    bench.refuse(Envelope("user:1", 0, Detach()))
    assert bench.tick(gw.RETRY_MS) == [submit("user:1", Connect("c-a"))]


def test_notices_that_wait_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gw, "MAX_UNSENT", 1)
    bench.refuse(Envelope("user:1", 0, Detach()))
    bench.refuse(Envelope("user:2", 0, Detach()))
    assert bench.tick(gw.RETRY_MS) == [submit("user:1", Detach())]
