from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.commands import Send, Typing
from fastsock.core.errors import ProtocolError, error_of
from fastsock.core.limits import (
    MAX_CONTENT_BYTES,
    MAX_CONTENT_CHARS,
    MAX_FRAME_BYTES,
    MAX_RESUME_CONVERSATIONS,
    TYPING_REPEAT_MS,
)
from fastsock.schemas import events
from fastsock.ws.session import (
    Action,
    Ask,
    Change,
    CloseSocket,
    Limits,
    Refresh,
    Reply,
    Resume,
    Session,
    Tell,
    TokenBucket,
    close,
    close_reason,
)

ME = 7
GENEROUS = Limits(messages_burst=10_000, frames_burst=10_000, refusals_burst=10_000)


def session(limits: Limits = GENEROUS) -> Session:
    return Session(ME, "c0ffee", 0, limits)


def receive(frame: object, to: Session | None = None, now_ms: int = 0) -> list[Action]:
    text = frame if isinstance(frame, str | bytes) else json.dumps(frame)
    return (to or session()).receive_text(text, now_ms)


def send_frame(**data: object) -> dict[str, object]:
    return {"event": "message.send", "data": {"content": "hello", "room_id": 42, **data}}


def only(actions: list[Action]) -> Action:
    (action,) = actions
    return action


def reply(actions: list[Action]) -> dict[str, Any]:
    action = only(actions)
    assert isinstance(action, Reply)
    frame: dict[str, Any] = json.loads(action.frame)
    return frame


def error(actions: list[Action]) -> dict[str, Any]:
    frame = reply(actions)
    assert frame["event"] == "error"
    data: dict[str, Any] = frame["data"]
    return data


def refusal(code: str, message: str, event: str | None = "message.send", name: str | None = None) -> dict[str, object]:
    return {
        "code": code,
        "message": message,
        "context_event": event,
        "client_msg_id": name,
        "retryable": False,
        "retry_after_ms": None,
    }


# --- sending -----------------------------------------------------------------------------------------------------


def test_a_message_to_a_room() -> None:
    frame = send_frame(client_msg_id="m1", reply_to=12, message_type="image", unknown={"a": 1})
    assert receive(frame) == [Ask("room:42", Send(ME, "c:m1", "hello", "image", 12), "message.send", "m1")]


@pytest.mark.parametrize(("receiver", "name"), [(3, "dm:3:7"), (9, "dm:7:9"), (ME, "dm:7:7")])
def test_a_message_to_a_person(receiver: int, name: str) -> None:
    ask = only(receive(send_frame(room_id=None, receiver_id=receiver)))
    assert isinstance(ask, Ask)
    assert ask.name == name


def test_a_message_without_a_name_gets_one_that_is_never_used_again() -> None:
    mine = session()
    asks = [only(receive(send_frame(), mine)) for _ in range(2)]
    assert [ask.command.key for ask in asks if isinstance(ask, Ask)] == ["s:c0ffee:1", "s:c0ffee:2"]
    assert [ask.client_msg_id for ask in asks if isinstance(ask, Ask)] == [None, None]


def test_text_is_kept_as_it_was_sent() -> None:
    ask = only(receive(send_frame(content="  <b>café</b> 😀\n\u200b ")))
    assert isinstance(ask, Ask)
    assert ask.command.content == "  <b>café</b> 😀\n\u200b "


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"room_id": None}, "exactly one of room_id and receiver_id is needed, neither was given"),
        ({"receiver_id": 3}, "exactly one of room_id and receiver_id is needed, both were given"),
        ({"room_id": "42"}, "room_id: expected int | null, got str"),
        ({"room_id": True}, "room_id: expected int | null, got bool"),
        ({"room_id": 4.5}, "room_id: expected int | null, got float"),
        ({"room_id": 0}, "room_id: 0 is not an id; ids are integers from 1 to 9007199254740991"),
        ({"room_id": 2**53}, "room_id: 9007199254740992 is not an id; ids are integers from 1 to 9007199254740991"),
        ({"reply_to": -1}, "reply_to: -1 is not an id; ids are integers from 1 to 9007199254740991"),
        ({"message_type": "system"}, "message_type: 'system' is not text, image or file"),
        ({"message_type": 1}, "message_type: expected str, got int"),
        ({"content": None}, "content: expected str, got null"),
        ({"content": ""}, "content: must not be blank"),
        ({"content": " \n\t\u3000"}, "content: must not be blank"),
        ({"content": "a\0b"}, "content: a NUL character at position 1 is not allowed"),
        ({"client_msg_id": ""}, "client_msg_id: 0 characters; 1 to 128 are allowed"),
        ({"client_msg_id": "x" * 129}, "client_msg_id: 129 characters; 1 to 128 are allowed"),
        ({"client_msg_id": 5}, "client_msg_id: expected str | null, got int"),
        ({"client_msg_id": "\0"}, "client_msg_id: a NUL character at position 0 is not allowed"),
    ],
)
def test_a_message_that_is_refused(data: dict[str, object], message: str) -> None:
    assert error(receive(send_frame(**data))) == refusal("invalid_data", message)


def test_a_refusal_names_the_message() -> None:
    told = error(receive(send_frame(content="", client_msg_id="m1")))
    assert told == refusal("invalid_data", "content: must not be blank", name="m1")


def test_data_that_is_no_object() -> None:
    told = error(receive({"event": "message.send", "data": [1]}))
    assert told == refusal("invalid_data", "data: expected object, got array")
    assert error(receive({"event": "message.send"}))["message"] == "data: expected object, got null"


def test_the_longest_message_and_one_character_more() -> None:
    assert isinstance(only(receive(send_frame(content="x" * MAX_CONTENT_CHARS))), Ask)
    assert isinstance(only(receive(send_frame(content="한" * MAX_CONTENT_CHARS))), Ask)
    told = error(receive(send_frame(content="x" * (MAX_CONTENT_CHARS + 1))))
    limit = "at most 16,384 characters and 49,152 bytes are allowed"
    assert told == refusal("content_too_long", f"content: 16,385 characters in 16,385 bytes; {limit}")
    emoji = "😀" * (MAX_CONTENT_BYTES // 4 + 1)
    told = error(receive(json.dumps(send_frame(content=emoji), ensure_ascii=False)))
    assert told == refusal("content_too_long", f"content: 12,289 characters in 49,156 bytes; {limit}")


# --- the other events --------------------------------------------------------------------------------------------


def test_edit_and_delete() -> None:
    edit = {"event": "message.edit", "data": {"message_id": 5, "content": "better", "client_msg_id": "e1"}}
    assert receive(edit) == [Change(5, "better", "c:e1", "message.edit", "e1")]
    delete = {"event": "message.delete", "data": {"message_id": 5}}
    assert receive(delete) == [Change(5, None, "s:c0ffee:1", "message.delete", None)]


@pytest.mark.parametrize(
    ("event", "data", "message"),
    [
        ("message.edit", {"message_id": 0, "content": "x"}, "message_id: 0 is not an id; ids are integers from 1 to "),
        ("message.edit", {"message_id": 5, "content": " "}, "content: must not be blank"),
        ("message.edit", {"message_id": 5}, "data: object missing required field content"),
        ("message.delete", {"message_id": "5"}, "message_id: expected int, got str"),
        ("message.delete", {"message_id": 5, "client_msg_id": ""}, "client_msg_id: 0 characters; 1 to 128 are allowed"),
    ],
)
def test_changes_that_are_refused(event: str, data: dict[str, object], message: str) -> None:
    told = error(receive({"event": event, "data": data}))
    assert (told["code"], told["context_event"]) == ("invalid_data", event)
    assert told["message"].startswith(message)


@pytest.mark.parametrize("data", ['{"t":1,"x":[null,"\\u00e9"]}', "null", '"hello"', "12.50", "[1, 2 ]"])
def test_a_ping_comes_back_as_it_was_sent(data: str) -> None:
    assert receive(f'{{"event":"ping","data":{data}}}') == [Reply(f'{{"event":"pong","data":{data}}}'.encode())]


def test_a_ping_without_data() -> None:
    assert reply(receive({"event": "ping"})) == {"event": "pong", "data": None}


@pytest.mark.parametrize("event", ["message.read", "presence.set", "call.invite", "call.group.join"])
def test_what_is_not_served_yet(event: str) -> None:
    told = error(receive({"event": event, "data": {"client_msg_id": "x1"}}))
    assert told == refusal("unknown_event", f"{event!r} is not served by this version yet", event, "x1")


# --- typing ------------------------------------------------------------------------------------------------------


def typing(*, on: bool = True, **data: object) -> dict[str, object]:
    return {"event": "typing.start" if on else "typing.stop", "data": data or {"room_id": 42}}


def told(name: str = "room:42", *, on: bool = True) -> list[Tell]:
    return [Tell(name, Typing(ME, on, "c0ffee"))]


def test_typing_is_told_to_its_conversation() -> None:
    assert receive(typing(room_id=42, unknown=1)) == told()
    assert receive(typing(receiver_id=3, on=False)) == told("dm:3:7", on=False)
    assert receive(typing(receiver_id=3, room_id=None)) == told("dm:3:7")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"unknown": 1}, "exactly one of room_id and receiver_id is needed, neither was given"),
        ({"room_id": 1, "receiver_id": 3}, "exactly one of room_id and receiver_id is needed, both were given"),
        ({"room_id": "42"}, "room_id: expected int | null, got str"),
        ({"receiver_id": 0}, "receiver_id: 0 is not an id; ids are integers from 1 to 9007199254740991"),
    ],
)
@pytest.mark.parametrize("on", [True, False])
def test_typing_nowhere(data: dict[str, object], message: str, on: bool) -> None:
    event = "typing.start" if on else "typing.stop"
    assert error(receive(typing(on=on, **data))) == refusal("invalid_data", message, event)


def test_what_is_said_with_each_key_is_told_now_and_then() -> None:
    mine = session()
    said = [at_ms for at_ms in range(0, 5_000, 100) if receive(typing(), mine, at_ms)]
    assert said == [0, TYPING_REPEAT_MS, 2 * TYPING_REPEAT_MS]
    assert receive(typing(on=False), mine, 4_950) == told(on=False)
    assert receive(typing(on=False), mine, 4_960) == []
    assert receive(typing(), mine, 4_970) == told()
    assert receive(typing(room_id=43), mine, 4_980) == told("room:43"), "somewhere else it is new"


def test_after_a_message_typing_is_new() -> None:
    mine = session()
    assert receive(typing(), mine) == told()
    receive(send_frame(), mine)
    assert receive(typing(), mine) == told()


def test_too_much_typing_is_dropped_and_costs_no_message() -> None:
    mine = session(Limits(messages_burst=1, typing_burst=2, typing_per_s=1.0))
    said = [receive(typing(on=on), mine) for on in (True, False, True)]
    assert said == [told(on=True), told(on=False), []]
    assert isinstance(only(receive(send_frame(), mine)), Ask)
    assert receive(typing(), mine, 1_000) == told()


def resume(conversations: object) -> dict[str, object]:
    return {"event": "session.resume", "data": {"conversations": conversations}}


def test_a_resume_names_conversations_as_their_user_knows_them() -> None:
    assert receive(resume({"room:42": 17, "user:3": 0, "user:7": 5})) == [
        Resume({"room:42": 17, "dm:3:7": 0, "dm:7:7": 5})
    ]
    assert receive(resume({})) == [Resume({})]


@pytest.mark.parametrize(
    ("conversations", "message"),
    [
        ({"room:42": "17"}, "conversations[...]: expected int, got str"),
        ({"room:42": -1}, "conversations.room:42: -1 is not a seq, 0 to 9007199254740991"),
        ({"room:42": 2**53}, "conversations.room:42: 9007199254740992 is not a seq, 0 to 9007199254740991"),
        ({"dm:3:7": 1}, "conversations: 'dm:3:7' is no conversation; they are called room:42 or user:7"),
        ({"room:x": 1}, "conversations: 'room:x' is no conversation; they are called room:42 or user:7"),
        ([], "conversations: expected object, got array"),
        (
            {f"room:{room}": 1 for room in range(1, MAX_RESUME_CONVERSATIONS + 2)},
            "conversations: 5,001 are named; at most 5,000 are allowed",
        ),
    ],
)
def test_a_resume_that_says_nonsense(conversations: object, message: str) -> None:
    assert error(receive(resume(conversations))) == refusal("invalid_data", message, "session.resume")


def test_resumes_are_limited() -> None:
    here = session(Limits(resumes_burst=2, resumes_per_s=1))
    assert [receive(resume({}), here) for _ in range(2)] == [[Resume({})]] * 2
    told = error(receive(resume({}), here))
    assert (told["code"], told["retry_after_ms"], told["context_event"]) == ("rate_limited", 1001, "session.resume")
    assert receive(resume({}), here, 1_001) == [Resume({})]


def test_a_new_token_is_handed_on() -> None:
    assert receive({"event": "session.refresh", "data": {"token": "abc"}}) == [Refresh("abc")]
    told = error(receive({"event": "session.refresh", "data": {}}))
    assert told == refusal("invalid_data", "data: object missing required field token", "session.refresh")


def test_an_event_that_does_not_exist() -> None:
    told = error(receive({"event": "message.shout", "data": 1}))
    assert told == refusal("unknown_event", "there is no event 'message.shout'", "message.shout")


def test_authenticating_twice() -> None:
    told = error(receive({"event": "session.authenticate", "data": {"token": "x"}}))
    text = "this session is authenticated already, as user 7"
    assert told == refusal("not_allowed", text, "session.authenticate")


# --- frames that are none ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ("", "the frame is not JSON: input data was truncated"),
        ("hello", "the frame is not JSON: JSON is malformed: invalid character (byte 0)"),
        ('{"event":"ping"', "the frame is not JSON: input data was truncated"),
        ('{"event":"ping","data":NaN}', "the frame is not JSON: JSON is malformed: invalid character (byte 23)"),
        ('{"event":"ping","data":' + "[" * 60_000 + "]" * 60_000 + "}", "the frame is nested too deeply"),
    ],
)
def test_what_is_not_json_has_the_error_on_top_too(frame: str, message: str) -> None:
    answer = reply(receive(frame))
    assert answer == {"event": "error", "data": refusal("bad_json", message, None), "error": message}


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ("[]", "frame: expected object, got array"),
        ("{}", "frame: object missing required field event"),
        ('{"event":5}', "event: expected str, got int"),
        ('{"event":null,"data":{}}', "event: expected str, got null"),
    ],
)
def test_json_that_is_no_event(frame: str, message: str) -> None:
    shape = 'a frame is an object {"event": "...", "data": {...}}'
    assert error(receive(frame)) == refusal("bad_frame", f"{shape}: {message}", None)
    assert "error" not in reply(receive(frame))


def test_half_an_emoji_is_refused_by_name() -> None:
    text = "a text in the frame is not Unicode: it holds half of a surrogate pair"
    for content in (r"cut \ud83d", r"\ude00 cut", r"\ud83d\ud83d"):
        frame = f'{{"event":"message.send","data":{{"room_id":42,"content":"{content}","client_msg_id":"m1"}}}}'
        assert error(receive(frame)) == refusal("invalid_data", text, name="m1")
    assert error(receive(r'"\ud83d"')) == refusal("invalid_data", text, None)
    nameless = r'{"event":"message.send","data":{"client_msg_id":"\ud83d"}}'
    assert error(receive(nameless)) == refusal("invalid_data", text)
    assert isinstance(only(receive(r'{"event":"message.send","data":{"room_id":4,"content":"\ud83d\ude00"}}')), Ask)


def test_bytes_that_are_no_utf_8() -> None:
    assert error(receive(b'{"event":"message.send","data":{"room_id":42,"content":"\xff"}}'))["code"] == "invalid_data"
    assert error(receive(b"\xff"))["code"] == "bad_json"


def test_binary_frames() -> None:
    text = "frames are JSON texts, this one was binary"
    assert error(session().receive_binary(0)) == refusal("binary_frame", text, None)


def test_garbage_in_a_row_ends_the_socket() -> None:
    mine = session(Limits(bad_frames=3))
    assert len(receive("x", mine)) == len(mine.receive_binary(0)) == 1
    receive({"event": "ping"}, mine)  # well-formed: begins anew
    assert len(receive("x", mine)) == len(receive("[]", mine)) == 1
    last = receive("x", mine)
    assert last[1:] == [CloseSocket(1008, "3 frames in a row were no events")]


def test_the_largest_frame_and_one_byte_more() -> None:
    frame = '{"event":"ping","data":""}'
    largest = frame[:-2] + "x" * (MAX_FRAME_BYTES - len(frame)) + frame[-2:]
    assert isinstance(only(receive(largest)), Reply)
    text = "the frame has 131,073 of at most 131,072 bytes"
    assert receive(largest + " ") == [CloseSocket(1009, text)]
    assert receive((largest + " ").encode()) == [CloseSocket(1009, text)]
    assert receive("é" * 65_537) == [CloseSocket(1009, "the frame has 131,074 of at most 131,072 bytes")]


@given(st.one_of(st.text(), st.binary(), st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps)))
def test_no_frame_is_too_strange(frame: str | bytes) -> None:
    actions = session().receive_text(frame, 0)
    assert actions
    for action in actions:
        assert isinstance(action, Reply)
        assert json.loads(action.frame)["event"] == "error"


DATA = st.dictionaries(
    st.sampled_from(["content", "room_id", "receiver_id", "message_type", "reply_to", "client_msg_id", "message_id"]),
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.lists(st.integers()),
)


@given(st.sampled_from(["message.send", "message.edit", "message.delete"]), DATA, st.booleans())
def test_no_data_is_too_strange(event: str, data: dict[str, object], ascii_only: bool) -> None:
    frame = json.dumps({"event": event, "data": data}, ensure_ascii=ascii_only)
    action = only(session().receive_text(frame, 0))
    if isinstance(action, Reply):
        told = json.loads(action.frame)["data"]
        assert told["context_event"] == event
        assert told["code"] in {"invalid_data", "content_too_long"}
    else:
        assert isinstance(action, Ask | Change)


# --- how fast ----------------------------------------------------------------------------------------------------


def test_sending_too_fast_is_refused_with_the_time_to_wait() -> None:
    mine = session(Limits(messages_burst=2, messages_per_s=10))
    assert [type(only(receive(send_frame(), mine))) for _ in range(2)] == [Ask, Ask]
    told = error(receive(send_frame(client_msg_id="m3"), mine))
    assert told == {
        "code": "rate_limited",
        "message": "too fast: send again in 101 ms",
        "context_event": "message.send",
        "client_msg_id": "m3",
        "retryable": True,
        "retry_after_ms": 101,
    }
    assert isinstance(only(receive(send_frame(client_msg_id="m3"), mine, 101)), Ask)
    change = {"event": "message.delete", "data": {"message_id": 5}}
    assert error(receive(change, mine, 101))["context_event"] == "message.delete"


def test_what_is_refused_as_wrong_costs_no_message() -> None:
    mine = session(Limits(messages_burst=1))
    assert error(receive(send_frame(content=""), mine))["code"] == "invalid_data"
    assert isinstance(only(receive(send_frame(), mine)), Ask)


def test_frames_of_all_kinds_are_counted() -> None:
    mine = session(Limits(frames_burst=1, frames_per_s=100))
    ping = {"event": "ping"}
    assert reply(receive(ping, mine))["event"] == "pong"
    assert error(receive(ping, mine))["code"] == "rate_limited"
    assert error(receive("garbage", mine))["code"] == "rate_limited"
    assert error(mine.receive_binary(0))["code"] == "rate_limited"
    assert reply(receive(ping, mine, 11))["event"] == "pong"


def test_going_on_in_spite_of_refusals_ends_the_socket() -> None:
    mine = session(Limits(messages_burst=1, refusals_burst=3, refusals_per_s=1))
    receive(send_frame(), mine)
    assert [error(receive(send_frame(), mine))["code"] for _ in range(3)] == ["rate_limited"] * 3
    assert receive(send_frame(), mine) == [CloseSocket(4029, "3 frames were refused, and more came")]


def test_whoever_waits_as_told_is_never_closed() -> None:
    mine, now_ms = session(Limits()), 0
    for _ in range(2_000):
        action = only(receive(send_frame(), mine, now_ms))
        if isinstance(action, Reply):
            now_ms += json.loads(action.frame)["data"]["retry_after_ms"]
        else:
            assert isinstance(action, Ask)


def test_a_bucket_is_never_fuller_than_full() -> None:
    bucket = TokenBucket(2, 10, 0)
    assert [bucket.take(1_000_000) for _ in range(3)] == [0, 0, 101]


# --- closing -----------------------------------------------------------------------------------------------------


def test_what_an_error_closes_with() -> None:
    assert close(error_of("token_expired", "x")) == CloseSocket(4001, "x")
    assert close(error_of("not_a_member", "x")).code == 1008
    assert close(error_of("storage_unavailable", "x")).code == 4500


def test_a_close_reason_fits_its_frame() -> None:
    assert close_reason("x" * 200) == "x" * 123
    assert close_reason("é" * 100) == "é" * 61


# --- events to one socket ----------------------------------------------------------------------------------------


def test_the_token_of_a_first_frame() -> None:
    assert events.token_of('{"event":"session.authenticate","data":{"token":"t"}}') == "t"
    for frame, message in [
        ("x", "the frame is not JSON: JSON is malformed: invalid character (byte 0)"),
        ('{"event":"ping"}', "the first frame is 'ping', not 'session.authenticate'"),
        ('{"event":"session.authenticate","data":{}}', "data: object missing required field token"),
    ]:
        with pytest.raises(ProtocolError) as caught:
            events.token_of(frame)
        assert str(caught.value) == message


def test_ready_names_conversations_as_the_viewer_knows_them() -> None:
    frame = json.loads(events.ready_frame("c1", 7, [("room:42", 17, 2), ("dm:3:7", 3, 0)], 1_000))
    assert frame == {
        "event": "session.ready",
        "data": {
            "connection_id": "c1",
            "user_id": 7,
            "server_time": "1970-01-01T00:00:01.000Z",
            "heartbeat_s": 20,
            "conversations": [
                {"conversation": "room:42", "seq": 17, "unread": 2},
                {"conversation": "user:3", "seq": 3, "unread": 0},
            ],
        },
    }


def test_expiring() -> None:
    frame = json.loads(events.expiring_frame(61_500, 1_000))
    assert frame == {"event": "session.expiring", "data": {"expires_at": "1970-01-01T00:01:01.500Z", "expires_in": 60}}
