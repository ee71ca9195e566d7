"""The client's core, by tables: what each close code, refusal and frame leads to."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsock.client import events
from fastsock.client.actions import Action, Connect, Disconnect, Emit, Reject, RenewToken, Resolve, Send, Stop
from fastsock.client.backoff import full_jitter_ms
from fastsock.client.core import Core, Phase
from fastsock.client.errors import Closed, NotAuthenticated, Refused, Stopped
from fastsock.client.settings import Settings
from tests.unit.client_world import WHEN, frame

ME = 3
NOW = 10_000


def half() -> float:
    return 0.5


def ready(**heads: int) -> bytes:
    """``session.ready``; room_5=7 stands for room:5 at 7."""
    listed = [{"conversation": name.replace("_", ":"), "seq": seq, "unread": 0} for name, seq in heads.items()]
    about = {"connection_id": "c1", "user_id": ME, "server_time": WHEN, "heartbeat_s": 20}
    return frame("session.ready", {**about, "conversations": listed})


def live(positions: dict[str, int] | None = None, settings: Settings | None = None, **heads: int) -> Core:
    """A core that is greeted."""
    core = Core(half, positions, settings)
    core.start()
    core.connected(NOW, "t0")
    core.frame(ready(**heads), NOW)
    assert core.phase is Phase.LIVE
    return core


def message(room: int, seq: int, **data: object) -> bytes:
    about = {"id": seq, "content": f"#{seq}", "sender_id": 7, "room_id": room, "receiver_id": None, "timestamp": WHEN}
    return frame("message.receive", {**about, "seq": seq, **data})


def error(code: str, event: str | None = None, **data: object) -> bytes:
    about = {"code": code, "message": f"it is {code}", "context_event": event, "client_msg_id": None}
    return frame("error", {**about, "retryable": False, "retry_after_ms": None, **data})


def resumed(**data: Any) -> bytes:
    return frame("session.resumed", {"conversations": {}, "complete": True, "oldest": {}, "left": [], **data})


def said(actions: list[Action]) -> list[tuple[str, Any]]:
    """What is sent, decoded."""
    decoded = [json.loads(action.frame) for action in actions if isinstance(action, Send)]
    return [(one["event"], one["data"]) for one in decoded]


def emitted(actions: list[Action]) -> list[events.Event]:
    return [action.event for action in actions if isinstance(action, Emit)]


# --- connecting --------------------------------------------------------------------------------------------------


def test_the_first_connection_adopts_what_the_server_says_and_replays_nothing() -> None:
    core = Core(half)
    assert core.start() == [Connect(fresh_token=False)]
    assert said(core.connected(NOW, "t0")) == [("session.authenticate", {"token": "t0"})]
    actions = core.frame(ready(room_5=7, user_7=2), NOW)
    about = events.Connected(connection_id="c1", user_id=ME, resuming=False, unread={})
    assert actions == [Emit(about, {"room:5": 7, "user:7": 2})]
    assert core.positions == {"room:5": 7, "user:7": 2}


def test_a_saved_position_is_resumed_in_the_first_frame_and_unsent_messages_follow_at_once() -> None:
    core = Core(half, {"room:5": 4})
    core.start()
    assert said(core.send("m1", {"content": "hello", "room_id": 5}, NOW)) == []
    core.connected(NOW, None)
    assert said(core.frame(ready(room_5=7), NOW)) == [
        ("session.resume", {"conversations": {"room:5": 4}}),
        ("message.send", {"content": "hello", "room_id": 5, "client_msg_id": "m1"}),
    ]


@pytest.mark.parametrize(
    ("code", "pause_ms", "fresh"),
    [
        (1000, 125, False),
        (1001, 1_000, False),
        (1006, 125, False),
        (1008, 125, True),
        (1009, 125, False),
        (1012, 1_000, False),
        (1013, 1_000, False),
        (4001, 125, True),
        (4008, 125, False),
        (4029, 45_000, False),
        (4500, 500, False),
        (4999, 125, False),
    ],
)
def test_what_a_close_code_leads_to(code: int, pause_ms: int, *, fresh: bool) -> None:
    core = live()
    gone = events.Disconnected(code=code, reason="why", retry_in_ms=pause_ms)
    assert core.closed(code, "why", NOW) == [Emit(gone)]
    assert core.next_deadline_ms() == NOW + pause_ms
    assert core.tick(NOW + pause_ms - 1) == []
    assert core.tick(NOW + pause_ms) == [Connect(fresh_token=fresh)]


@pytest.mark.parametrize("code", [4002, 4003])
def test_codes_after_which_a_client_stays_away(code: int) -> None:
    core = live()
    *_, stop = core.closed(code, "because", NOW)
    assert isinstance(stop, Stop)
    assert type(stop.error) is Stopped
    text = f"the server has closed with {code}, which means: do not come back: because"
    assert (stop.error.code, str(stop.error)) == (code, text)
    assert core.next_deadline_ms() is None
    assert core.tick(NOW + 10**9) == []


def test_the_hint_of_the_server_is_the_pause() -> None:
    core = live()
    assert core.frame(error("going_away", retryable=True, retry_after_ms=3_210), NOW) == []
    assert emitted(core.closed(1012, "", NOW)) == [events.Disconnected(code=1012, reason="", retry_in_ms=3_210)]


def test_refused_tokens_are_renewed_a_few_times_and_then_no_more() -> None:
    core = Core(half)
    core.start()
    for tries in range(3):
        core.connected(NOW, "t")
        assert core.closed(1008, "who?", NOW) == []
        pause_ms = 125 * 2**tries
        assert core.tick(NOW + pause_ms) == [Connect(fresh_token=True)]
    core.connected(NOW, "t")
    (stop,) = core.closed(1008, "who?", NOW)
    assert isinstance(stop, Stop)
    assert isinstance(stop.error, NotAuthenticated)
    assert str(stop.error) == "not authenticated: a token was refused 4 times in a row: who?"


def test_a_session_in_between_makes_the_count_of_refused_tokens_begin_anew() -> None:
    core = live()
    for _ in range(20):
        assert not any(isinstance(action, Stop) for action in core.closed(4001, "expired", NOW))
        core.tick(NOW + 60_000)
        core.connected(NOW, "t")
        core.frame(ready(), NOW)
    assert core.phase is Phase.LIVE


def test_pauses_grow_while_no_session_begins_and_are_short_again_after_one() -> None:
    core = live()
    pauses = []
    for _ in range(9):
        core.closed(1006, "", NOW)
        due_ms = core.next_deadline_ms()
        assert due_ms is not None
        pauses.append(due_ms - NOW)
        core.tick(due_ms)
    assert pauses == [125, 250, 500, 1_000, 2_000, 4_000, 5_000, 5_000, 5_000]
    core.connected(NOW, "t")
    core.frame(ready(), NOW)
    core.closed(1006, "", NOW)
    assert core.next_deadline_ms() == NOW + 125


@given(tries=st.integers(0, 10_000), random=st.floats(0, 1, exclude_max=True))
def test_full_jitter_lies_between_zero_and_the_bound(tries: int, random: float) -> None:
    pause_ms = full_jitter_ms(tries, 250, 10_000, lambda: random)
    assert 0 <= pause_ms <= min(10_000, 250 * 2 ** min(tries, 20))


def test_a_socket_without_a_greeting_is_given_up() -> None:
    core = Core(half)
    core.start()
    core.connected(NOW, "t")
    assert core.next_deadline_ms() == NOW + 45_000
    assert core.tick(NOW + 45_000) == [Disconnect(1000, "no session.ready within 45 s")]
    assert core.frame(ready(), NOW + 45_001) == []  # too late
    assert core.closed(1000, "", NOW + 45_002) == []
    assert core.tick(NOW + 60_000) == [Connect(fresh_token=False)]


def test_a_stopped_core_does_nothing() -> None:
    core = live()
    (stop,) = core.stop()
    assert isinstance(stop, Stop)
    assert isinstance(stop.error, Closed)
    assert core.stop() == core.frame(message(5, 1), NOW) == core.closed(1006, "", NOW) == core.tick(NOW) == []
    assert core.connected(NOW, "t") == []
    assert core.next_deadline_ms() is None


# --- entries -----------------------------------------------------------------------------------------------------


def test_the_next_entry_is_applied_an_old_one_dropped_and_a_gap_resumed_once() -> None:
    core = live(room_5=7)
    (event,) = emitted(core.frame(message(5, 8, reply_to=4, client_msg_id="x"), NOW))
    assert isinstance(event, events.MessageReceived)
    assert (event.conversation, event.seq, event.content, event.reply_to) == ("room:5", 8, "#8", 4)
    assert event.timestamp.isoformat() == "2026-01-31T10:00:00.123000+00:00"
    assert core.frame(message(5, 8), NOW) == []
    assert said(core.frame(message(5, 10), NOW)) == [("session.resume", {"conversations": {"room:5": 8}})]
    assert core.frame(message(5, 11), NOW) == []
    assert [one.seq for seq in (9, 10, 11) for one in emitted(core.frame(message(5, seq), NOW))] == [9, 10, 11]  # type: ignore[union-attr]
    (done,) = emitted(core.frame(resumed(conversations={"room:5": 11}), NOW))
    assert done == events.Resumed(conversations={"room:5": 11}, complete=True)
    assert core.positions == {"room:5": 11}


@pytest.mark.parametrize(
    ("data", "conversation"),
    [
        ({"room_id": 5, "sender_id": 7, "receiver_id": None}, "room:5"),
        ({"room_id": None, "sender_id": 7, "receiver_id": ME}, "user:7"),
        ({"room_id": None, "sender_id": ME, "receiver_id": 7}, "user:7"),
        ({"room_id": None, "sender_id": ME, "receiver_id": ME}, f"user:{ME}"),
    ],
)
def test_which_conversation_an_entry_belongs_to(data: dict[str, object], conversation: str) -> None:
    core = live()
    (event,) = emitted(core.frame(message(5, 1, **data), NOW))
    assert isinstance(event, events.MessageReceived)
    assert event.conversation == conversation
    assert core.positions == {conversation: 1}


def test_entries_of_unknown_kinds_and_shapes_count_as_well() -> None:
    core = live(room_5=7)
    data = {"room_id": 5, "seq": 8, "colour": "green"}
    assert core.frame(frame("room.painted", data), NOW) == [
        Emit(events.Other(event="room.painted", data=data, conversation="room:5", seq=8), {"room:5": 8})
    ]
    (event,) = emitted(core.frame(message(5, 9, content=17), NOW))
    assert isinstance(event, events.Other)
    assert (event.event, event.seq, core.positions["room:5"]) == ("message.receive", 9, 9)


def test_what_is_in_no_log_is_passed_on() -> None:
    core = live(room_5=7)
    data = {"sender_id": 7, "room_id": 5}
    assert emitted(core.frame(frame("typing.start", data), NOW)) == [
        events.Other(event="typing.start", data=data, conversation="room:5")
    ]
    assert emitted(core.frame(frame("shout", "LOUD"), NOW)) == [events.Other(event="shout", data="LOUD")]


@pytest.mark.parametrize("broken", ["{", "[]", b"\xff", '{"event":"message.ack","data":{}}', '{"event":"error"}'])
def test_frames_that_break_the_protocol_are_told_and_do_no_harm(broken: str | bytes) -> None:
    core = live(room_5=7)
    (event,) = emitted(core.frame(broken, NOW))
    assert isinstance(event, events.ServerError)
    assert event.code == "bad_frame"
    assert emitted(core.frame(message(5, 8), NOW))


def test_after_leaving_a_room_its_old_entries_are_dropped_and_a_new_start_is_not() -> None:
    core = live(room_5=7)
    left = frame("room.member_left", {"room_id": 5, "user_ids": [ME], "by": 7, "seq": 8, "timestamp": WHEN})
    (action,) = core.frame(left, NOW)
    assert isinstance(action, Emit)
    assert action.moves == {"room:5": None}
    assert core.frame(left, NOW) == core.frame(message(5, 8), NOW) == []
    assert [type(event) for event in emitted(core.frame(joined(20), NOW))] == [events.MemberJoined]
    assert core.positions == {"room:5": 20}


# --- resuming ----------------------------------------------------------------------------------------------------


def test_what_the_answer_to_a_resume_leads_to() -> None:
    core = live({"room:5": 7, "room:6": 1, "room:9": 3}, room_5=7, room_6=80_001, user_7=0)
    answer = resumed(
        conversations={"room:5": 7, "room:6": 80_002, "user:7": 0},
        complete=False,
        oldest={"room:6": 60_003},
        left=["room:9"],
        markers={"room:5": {"7": {"read_seq": 6, "delivered_seq": 7}}},
    )
    assert core.frame(answer, NOW) == [
        Emit(events.Reload(conversation="room:6", oldest=60_003, seq=80_002), {"room:6": 80_002}),
        Emit(events.Left(conversation="room:9"), {"room:9": None}),
        Emit(
            events.Resumed(
                conversations={"room:5": 7, "room:6": 80_002, "user:7": 0},
                complete=False,
                markers={"room:5": {"7": {"read_seq": 6, "delivered_seq": 7}}},
            ),
            {"room:5": 7, "room:6": 80_002, "user:7": 0},
        ),
    ]
    assert core.positions == {"room:5": 7, "room:6": 80_002, "user:7": 0}


def test_a_new_conversation_begins_with_its_first_entry_although_a_live_one_overtakes() -> None:
    core = live({})
    assert core.frame(message(5, 30), NOW) == []
    created = {"room_id": 5, "name": "r", "owner_id": 7, "member_ids": [ME], "seq": 1, "timestamp": WHEN}
    assert [type(event) for event in emitted(core.frame(frame("room.created", created), NOW))] == [events.RoomCreated]
    assert emitted(core.frame(message(5, 2), NOW))


def joined(seq: int) -> bytes:
    """``room.member_joined`` of this user."""
    return frame("room.member_joined", {"room_id": 5, "user_ids": [ME], "by": 7, "seq": seq, "timestamp": WHEN})


def test_a_return_that_overtakes_the_news_of_having_left_is_not_lost() -> None:
    core = live({"room:5": 7}, room_5=9)
    assert core.frame(joined(20), NOW) == []
    actions = core.frame(resumed(left=["room:5"]), NOW)
    assert actions[0] == Emit(events.Left(conversation="room:5"), {"room:5": 19})
    assert said(actions) == [("session.resume", {"conversations": {"room:5": 19}})]
    assert [type(event) for event in emitted(core.frame(joined(20), NOW))] == [events.MemberJoined]


@pytest.mark.parametrize("positions", [{"room:5": 7}, {}])
def test_entries_of_a_conversation_that_is_left_do_not_begin_it_again(positions: dict[str, int]) -> None:
    """What came before the answer, and was dropped, is dropped when it is repeated after it."""
    core = live(positions)
    gone = frame("room.member_left", {"room_id": 5, "user_ids": [ME], "by": 7, "seq": 12, "timestamp": WHEN})
    early = [message(5, 11), gone]
    assert [core.frame(one, NOW) for one in early] == [[], []]
    core.frame(resumed(left=[*positions]), NOW)
    assert [core.frame(one, NOW) for one in early] == [[], []]
    assert core.positions == {}
    assert [type(event) for event in emitted(core.frame(joined(13), NOW))] == [events.MemberJoined]


def test_a_position_from_a_time_of_no_membership_ends_in_a_reload() -> None:
    core = live({"room:5": 7}, room_5=20)
    assert core.frame(joined(20), NOW) == []
    actions = core.frame(resumed(conversations={"room:5": 20}), NOW)
    assert emitted(actions)[0] == events.Reload(conversation="room:5", oldest=None, seq=19)
    assert said(actions) == [("session.resume", {"conversations": {"room:5": 19}})]


def test_a_conversation_of_which_nothing_was_replayed_is_reloaded() -> None:
    core = live({}, room_5=4)
    actions = core.frame(resumed(conversations={"room:5": 4, "user:7": 0}), NOW)
    assert emitted(actions)[0] == events.Reload(conversation="room:5", oldest=None, seq=4)
    assert core.positions == {"room:5": 4, "user:7": 0}


def test_more_conversations_than_one_frame_holds_are_resumed_one_part_after_the_other() -> None:
    """What is left over is no news to the client, although the server says so: no reload."""
    core = Core(half, {"room:1": 1, "room:2": 2, "room:3": 3}, Settings(resume_names=2))
    core.start()
    core.connected(NOW, "t")
    first = core.frame(ready(room_1=1, room_2=2, room_3=9), NOW)
    assert said(first) == [("session.resume", {"conversations": {"room:1": 1, "room:2": 2}})]
    heads = {"room:1": 1, "room:2": 2, "room:3": 9}
    actions = core.frame(resumed(conversations=heads, complete=False, oldest={"room:3": 8}), NOW)
    assert [type(event) for event in emitted(actions)] == [events.Resumed]
    assert said(actions) == [("session.resume", {"conversations": {"room:3": 3}})]


@pytest.mark.parametrize("code", ["resume_under_way", "storage_unavailable"])
def test_a_resume_that_is_refused_for_now_is_asked_for_again_when_the_server_says(code: str) -> None:
    core = live({"room:5": 7}, room_5=9)
    assert core.frame(error(code, "session.resume", retryable=True, retry_after_ms=900), NOW) == []
    again_ms = NOW + 900 + 250
    assert core.next_deadline_ms() == again_ms
    assert said(core.tick(again_ms)) == [("session.resume", {"conversations": {"room:5": 7}})]


def test_a_resume_that_is_refused_too_often_is_tried_on_another_socket() -> None:
    core = live({"room:5": 7}, room_5=9)
    for _ in range(8):
        core.frame(error("storage_unavailable", "session.resume", retryable=True, retry_after_ms=5), NOW)
        assert said(core.tick(NOW + 60_000))
    core.frame(error("storage_unavailable", "session.resume", retryable=True, retry_after_ms=5), NOW)
    assert core.tick(NOW + 60_000) == [Disconnect(1000, "session.resume was refused 9 times in a row")]
    assert core.positions == {"room:5": 7}


def test_a_server_without_resume_has_what_was_missed_reloaded() -> None:
    core = live({"room:5": 7, "room:6": 2}, room_5=9, room_6=2)
    assert emitted(core.frame(error("unknown_event", "session.resume"), NOW)) == [
        events.ServerError(code="unknown_event", message="it is unknown_event", context_event="session.resume"),
        events.Reload(conversation="room:5", oldest=None, seq=None),
    ]
    assert core.positions == {"room:6": 2}
    assert emitted(core.frame(message(5, 10), NOW))


def test_a_resume_that_brings_nothing_is_asked_for_more_slowly_each_time_and_ends_in_a_reload() -> None:
    core, now_ms, pauses = live({"room:5": 7}, room_5=9), NOW, []
    for _ in range(8):
        actions = core.frame(resumed(conversations={"room:5": 9}), now_ms)
        if not said(actions):
            due_ms = core.next_deadline_ms()
            assert due_ms is not None
            pauses.append(due_ms - now_ms)
            now_ms = due_ms
            actions = core.tick(now_ms)
        assert said(actions) == [("session.resume", {"conversations": {"room:5": 7}})]
    assert pauses == [500, 1_000, 2_000, 4_000, 5_000, 5_000, 5_000]
    core.frame(resumed(conversations={"room:5": 9}), now_ms)
    reload = core.tick(core.next_deadline_ms() or 0)
    assert emitted(reload) == [events.Reload(conversation="room:5", oldest=None, seq=None)]
    assert emitted(core.frame(message(5, 12), now_ms))


def test_a_resume_without_any_answer_is_tried_on_another_socket() -> None:
    core = live({"room:5": 7}, room_5=9)
    assert core.next_deadline_ms() == NOW + 60_000
    core.frame(message(5, 8), NOW + 59_999)  # it goes on
    assert core.tick(NOW + 60_000) == []
    assert core.tick(NOW + 119_999) == [Disconnect(1000, "nothing came of session.resume for 60 s")]
    gone = events.Disconnected(code=1000, reason="nothing came of session.resume for 60 s", retry_in_ms=125)
    assert emitted(core.closed(1000, "", NOW + 120_000)) == [gone]


# --- sending -----------------------------------------------------------------------------------------------------

ACK = {"message_id": 9, "seq": 4, "timestamp": WHEN, "client_msg_id": "m1", "status": "sent", "room_id": 5}


def test_an_ack_resolves_once_and_must_not_change() -> None:
    core = live()
    core.send("m1", {"content": "x", "room_id": 5}, NOW)
    (resolve,) = core.frame(frame("message.ack", ACK), NOW)
    assert isinstance(resolve, Resolve)
    assert (resolve.client_msg_id, resolve.ack.message_id, resolve.ack.seq) == ("m1", 9, 4)
    assert core.frame(frame("message.ack", ACK), NOW) == []
    (event,) = emitted(core.frame(frame("message.ack", {**ACK, "seq": 5}), NOW))
    assert isinstance(event, events.ServerError)
    assert (event.code, event.message) == ("ack_changed", "message 'm1' was acknowledged as #4, then as #5")


def test_a_final_refusal_rejects_and_a_passing_one_is_tried_again() -> None:
    core = live()
    core.send("m1", {"content": "x", "room_id": 5}, NOW)
    core.send("m2", {"content": "y", "room_id": 6}, NOW)
    refusal = error("not_a_member", "message.send", client_msg_id="m1")
    (reject,) = core.frame(refusal, NOW)
    assert isinstance(reject, Reject)
    assert isinstance(reject.error, Refused)
    assert (reject.client_msg_id, str(reject.error)) == ("m1", "it is not_a_member (not_a_member)")
    assert [type(event) for event in emitted(core.frame(refusal, NOW))] == [events.ServerError]  # of nothing we know
    later = error("overloaded", "message.send", client_msg_id="m2", retryable=True, retry_after_ms=400)
    assert core.frame(later, NOW) == []
    due_ms = NOW + 400 + 125
    assert core.next_deadline_ms() == due_ms
    assert core.tick(due_ms - 1) == []
    assert [data["client_msg_id"] for _, data in said(core.tick(due_ms))] == ["m2"]


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        ({"content": " ", "room_id": 5}, "invalid_data", "content: must not be blank"),
        ({"content": "x"}, "invalid_data", "exactly one of room_id and receiver_id is needed, neither was given"),
        ({"content": "x" * 16_385, "room_id": 5}, "content_too_long", None),
        ({"content": "\ud800", "room_id": 5}, "invalid_data", "content: it holds half of a surrogate pair"),
    ],
)
def test_what_the_server_would_refuse_is_refused_before_it_is_sent(
    data: dict[str, object], code: str, text: str | None
) -> None:
    core = live()
    with pytest.raises(Refused) as caught:
        core.send("m1", data, NOW)
    assert caught.value.code == code
    assert text is None or caught.value.message == text
    assert len(core.outbox) == 0


def test_one_name_is_one_message() -> None:
    core = live()
    assert said(core.send("m1", {"content": "x", "room_id": 5}, NOW))
    assert core.send("m1", {"content": "x", "room_id": 5}, NOW) == []
    with pytest.raises(ValueError, match="client_msg_id 'm1' names another message that is not acknowledged yet"):
        core.send("m1", {"content": "y", "room_id": 5}, NOW)


# --- tokens ------------------------------------------------------------------------------------------------------


def test_a_token_that_expires_is_renewed_on_the_same_socket() -> None:
    core = live()
    core.frame(frame("session.expiring", {"expires_at": WHEN, "expires_in": 60}), NOW)
    assert core.next_deadline_ms() == NOW + 5_000
    assert core.tick(NOW + 5_000) == [RenewToken()]
    assert said(core.token_renewed("t1")) == [("session.refresh", {"token": "t1"})]
    assert core.frame(frame("session.refreshed", {"expires_at": WHEN, "expires_in": 900}), NOW) == []
    core.frame(frame("session.expiring", {"expires_at": WHEN, "expires_in": 1}), NOW + 5_001)
    assert core.next_deadline_ms() == NOW + 6_000  # not more often than once a second


def test_a_server_that_cannot_refresh_gets_the_new_token_on_a_new_socket_at_once() -> None:
    core = live()
    core.token_renewed("t1")
    text = "the new token needs a new socket: it is unknown_event"
    assert core.frame(error("unknown_event", "session.refresh"), NOW) == [Disconnect(1000, text)]
    core.closed(1000, "", NOW)
    assert core.tick(NOW) == [Connect(fresh_token=False)]


def test_a_refresh_that_fails_for_now_is_tried_again() -> None:
    core = live()
    core.frame(error("overloaded", "session.refresh", retryable=True, retry_after_ms=4_000), NOW)
    assert core.tick(NOW + 4_000) == [RenewToken()]


# --- the package -------------------------------------------------------------------------------------------------


def test_the_client_is_light() -> None:
    """A bot needs no Ray; and the core none of what makes a program impure."""
    code = "import sys, fastsock.client; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "websockets" in loaded
    assert not {"ray", "fastapi", "starlette", "sqlalchemy", "pydantic", "actors", "uvicorn"} & {*loaded}
