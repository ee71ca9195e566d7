"""One socket and the server: who may come in, what is read and what is refused, how it ends.

``protocol.md``, section WebSocket, on a running server.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from datetime import UTC, datetime

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from fastsock.core.limits import AUTHENTICATE_WITHIN_S, HEARTBEAT_S, MAX_CONNECTIONS_PER_USER, MAX_FRAME_BYTES
from fastsock.schemas.events import NOT_SERVED_YET
from tests.e2e.people import until
from tests.e2e.wire import WITHIN_S, Town, Wire, error_data, send_frame

pytestmark = pytest.mark.cluster

ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

# --- session.ready -----------------------------------------------------------------------------------------------


async def test_session_ready_comes_first_and_says_everything(town: Town) -> None:
    ada, bea = await town.people("ada", "bea")
    room, silent = await town.room(ada, bea), await town.room(bea, ada)
    speaker = await town.open(bea)
    for content in ("one", "two", "three"):
        await speaker.post(content, room_id=room)
    await speaker.post("between us", receiver_id=ada.id)
    await speaker.take("message.receive", content="between us")  # else it may come live to who connects now

    first, second = await town.open(ada), await town.open(ada)
    about = first.greeting
    assert set(about) == {"connection_id", "user_id", "server_time", "heartbeat_s", "conversations"}
    assert about["user_id"] == ada.id
    assert about["heartbeat_s"] == HEARTBEAT_S == 20
    assert ISO.fullmatch(about["server_time"])
    away = datetime.now(UTC) - datetime.fromisoformat(about["server_time"])
    assert abs(away.total_seconds()) < WITHIN_S
    assert sorted(about["conversations"], key=lambda item: str(item["conversation"])) == sorted(
        [
            {"conversation": f"room:{room}", "seq": 4, "unread": 3},
            {"conversation": f"room:{silent}", "seq": 1, "unread": 0},
            {"conversation": f"user:{bea.id}", "seq": 1, "unread": 1},
        ],
        key=lambda item: str(item["conversation"]),
    )
    assert isinstance(about["connection_id"], str)
    assert len(about["connection_id"]) >= 16
    assert second.greeting["connection_id"] != about["connection_id"]
    assert second.greeting["conversations"] == about["conversations"]
    await first.quiet()  # nothing is replayed

    again = await town.open(bea)
    unread = {item["conversation"]: item["unread"] for item in again.greeting["conversations"]}
    assert unread == {f"room:{room}": 0, f"room:{silent}": 0, f"user:{ada.id}": 0}  # own messages never count
    await again.quiet()


async def test_somebody_new_has_no_conversations(town: Town) -> None:
    wire = await town.open(await town.person("ada"))
    assert wire.greeting["conversations"] == []
    await wire.quiet()


# --- credentials -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("?token=nonsense", "the token is not valid"),
        ("?token=", "the token is not valid"),
        ("?token=" + "x" * 4_097, "the token has 4,097 of at most 4,096 characters"),
        ("?ticket=abc", "tickets are not served by this version yet: send a token"),
        ("?token=eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIiwiZXhwIjo5OTk5OTk5OTk5fQ.", "the token is not valid"),
    ],
    ids=["nonsense", "empty", "long", "ticket", "unsigned"],
)
async def test_a_wrong_credential_is_closed_with_1008(town: Town, query: str, reason: str) -> None:
    wire = await town.connect(query)
    assert await wire.closed() == (1008, reason)
    assert wire.frames == []


async def test_an_expired_and_a_foreign_token_are_closed_with_1008(town: Town) -> None:
    ada = await town.person("ada")
    expired = await town.connect(f"?token={town.token(ada.id, -1)}")
    assert await expired.closed() == (1008, "the token has expired")
    foreign = await town.connect(f"?token={town.token(ada.id, 60, secret='s' * 64)}")
    assert await foreign.closed() == (1008, "the token is not valid")
    assert expired.frames == foreign.frames == []


async def test_the_first_frame_may_authenticate(town: Town) -> None:
    ada, bea = await town.people("ada", "bea")
    await town.room(ada, bea)
    wire = await town.connect()
    await wire.say("session.authenticate", token=ada.token)
    await wire.greeted()
    assert wire.greeting["user_id"] == ada.id
    assert (await wire.post("hello", receiver_id=bea.id))["receiver_id"] == bea.id
    answer = await _error(await town.open(bea), '{"event":"session.authenticate","data":{"token":"x"}}')
    assert answer == error_data(
        "not_allowed", f"this session is authenticated already, as user {bea.id}", "session.authenticate"
    )


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ('{"event":"session.authenticate","data":{"token":"nonsense"}}', "the token is not valid"),
        ('{"event":"session.authenticate","data":{}}', "data: object missing required field token"),
        ('{"event":"ping","data":1}', "the first frame is 'ping', not 'session.authenticate'"),
        ("hello", "the frame is not JSON: JSON is malformed: invalid character (byte 0)"),
    ],
    ids=["nonsense", "no token", "another event", "not JSON"],
)
async def test_another_first_frame_is_closed_with_1008(town: Town, frame: str, reason: str) -> None:
    wire = await town.connect()
    await wire.raw(frame)
    code, said = await wire.closed()
    assert (code, said) == (1008, reason)
    assert wire.frames == []


async def test_who_says_nothing_is_closed_with_1008_after_5_s(town: Town) -> None:
    assert AUTHENTICATE_WITHIN_S == 5.0
    began = time.monotonic()
    wire = await town.connect()
    accepted = time.monotonic()
    assert await wire.closed() == (1008, "no token in the URL, and no session.authenticate within 5 s")
    assert time.monotonic() - began >= AUTHENTICATE_WITHIN_S
    assert time.monotonic() - accepted < AUTHENTICATE_WITHIN_S + WITHIN_S
    assert wire.frames == []


async def test_a_socket_is_told_that_its_token_ends_and_closed_with_4001(town: Town) -> None:
    ada = await town.person("ada")
    wire = await (await town.connect(f"?token={town.token(ada.id, 3)}")).greeted()
    expiring = await wire.take("session.expiring")
    assert set(expiring) == {"expires_at", "expires_in"}
    assert ISO.fullmatch(expiring["expires_at"])
    assert 0 <= expiring["expires_in"] <= 3
    assert await wire.closed() == (4001, "the token has expired")
    assert wire.frames == []


async def test_what_is_said_before_the_greeting_is_heard_after_it(town: Town) -> None:
    """A client need not wait: ``session.ready`` is the first frame all the same, and nothing gets lost."""
    ada = await town.person("ada")
    hasty = await town.connect(f"?token={ada.token}")
    for number in range(3):
        await hasty.raw(send_frame(content=f"note {number}", receiver_id=ada.id, client_msg_id=f"n{number}"))
    await hasty.greeted()
    assert [(await hasty.take("message.ack"))["client_msg_id"] for _ in range(3)] == ["n0", "n1", "n2"]
    assert [(await hasty.take("message.receive"))["seq"] for _ in range(3)] == [1, 2, 3]
    await hasty.quiet()

    other = await town.connect()
    await other.say("session.authenticate", token=ada.token)
    await other.raw(send_frame(content="note 3", receiver_id=ada.id, client_msg_id="n3"))
    await other.greeted()
    assert (await other.take("message.ack"))["seq"] == 4
    assert (await other.take("message.receive"))["seq"] == 4
    await other.quiet()


async def test_there_is_no_socket_elsewhere(town: Town) -> None:
    ada = await town.person("ada")
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{town.server.ws_url}t?token={ada.token}", open_timeout=WITHIN_S)
    assert refused.value.response.status_code == 403


# --- frames ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", ["null", "1", '"é 😀"', '{"a":[1,{"b":null}],"t":1.5}', "[]", '{"big":12345678901234567890}']
)
async def test_a_ping_is_answered_with_its_own_data(town: Town, data: str) -> None:
    wire = await town.open(await town.person("ada"))
    await wire.raw(f'{{"event":"ping","data":{data}}}')
    assert await wire.frame() == {"event": "pong", "data": json.loads(data)}
    await wire.quiet()


async def test_a_ping_may_come_without_data_and_with_fields_nobody_knows(town: Town) -> None:
    wire = await town.open(await town.person("ada"))
    await wire.raw('{"event":"ping"}')
    assert await wire.frame() == {"event": "pong", "data": None}
    await wire.raw('{"event":"ping","data":7,"version":2}')
    assert await wire.frame() == {"event": "pong", "data": 7}


async def test_an_unknown_event_is_an_error_that_names_it(town: Town) -> None:
    wire = await town.open(await town.person("ada"))
    answer = await wire.refused('{"event":"message.sned","data":{"client_msg_id":"m1"}}')
    assert answer == {
        "event": "error",
        "data": error_data("unknown_event", "there is no event 'message.sned'", "message.sned", "m1"),
    }
    for event in (*sorted(NOT_SERVED_YET), "call.invite"):
        answer = await _error(wire, json.dumps({"event": event, "data": {}}))
        assert answer == error_data("unknown_event", f"{event!r} is not served by this version yet", event)
    await wire.quiet()


async def test_what_is_not_json_gets_an_error_with_the_old_top_level_key(town: Town) -> None:
    wire = await town.open(await town.person("ada"))
    for frame, text in (
        ("hello", "the frame is not JSON: JSON is malformed: invalid character (byte 0)"),
        ('{"event":"ping"', "the frame is not JSON: input data was truncated"),
        ("", "the frame is not JSON: input data was truncated"),
    ):
        assert await wire.refused(frame) == {
            "event": "error",
            "data": error_data("bad_json", text, None),
            "error": text,
        }
    await wire.quiet()


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        ("[]", "frame: expected object, got array"),
        ('{"data":{}}', "frame: object missing required field event"),
        ('{"event":7}', "event: expected str, got int"),
    ],
)
async def test_what_is_no_event_is_an_error(town: Town, frame: str, text: str) -> None:
    wire = await town.open(await town.person("ada"))
    shape = 'a frame is an object {"event": "...", "data": {...}}'
    assert await wire.refused(frame) == {"event": "error", "data": error_data("bad_frame", f"{shape}: {text}", None)}
    await wire.quiet()


async def test_a_binary_frame_is_an_error_and_the_socket_lives_on(town: Town) -> None:
    wire = await town.open(await town.person("ada"))
    text = "frames are JSON texts, this one was binary"
    assert await wire.refused(b'{"event":"ping","data":1}') == {
        "event": "error",
        "data": error_data("binary_frame", text, None),
    }
    await wire.quiet()


async def test_nothing_but_garbage_is_closed_with_1008(town: Town) -> None:
    wire = await town.open(await town.person("ada"))
    for _ in range(20):
        await wire.raw("garbage")
    assert await wire.closed() == (1008, "20 frames in a row were no events")
    assert [frame["data"]["code"] for frame in wire.frames] == ["bad_json"] * 20


async def test_a_frame_may_have_131072_bytes_and_not_one_more(town: Town) -> None:
    wire = await town.open(await town.person("ada"))
    around = len('{"event":"ping","data":""}')
    fits = "x" * (MAX_FRAME_BYTES - around)
    assert MAX_FRAME_BYTES == 131_072
    await wire.raw(f'{{"event":"ping","data":"{fits}"}}')
    assert await wire.frame() == {"event": "pong", "data": fits}
    await wire.raw(f'{{"event":"ping","data":"{fits}x"}}')
    assert await wire.closed() == (1009, "the frame has 131,073 of at most 131,072 bytes")
    assert wire.frames == []


async def test_a_message_in_fragments_counts_as_one_frame(town: Town) -> None:
    wire = await town.open(await town.person("ada"))
    await wire.socket.send(['{"event":"pi', 'ng","data"', ':"in parts"}'])
    assert await wire.frame() == {"event": "pong", "data": "in parts"}
    await wire.socket.send(["x" * 50_000] * 3)
    assert await wire.closed() == (1009, "the frame has 150,000 of at most 131,072 bytes")


async def test_a_frame_too_large_to_be_buffered_is_closed_with_1009(town: Town) -> None:
    wire = await town.open(await town.person("ada"))
    with contextlib.suppress(ConnectionClosed):  # the server need not read it to its end
        await wire.raw("x" * 1_000_000)  # what the kernel takes at once: CPython 3.11 may not abort what it still sends
    code, _ = await wire.closed()
    assert code == 1009
    assert wire.frames == []


# --- too much ----------------------------------------------------------------------------------------------------


async def test_who_sends_too_fast_is_told_when_to_send_again(town: Town) -> None:
    wire = await town.open(ada := await town.person("ada"))
    for number in range(150):
        await wire.raw(send_frame(content=f"note {number}", receiver_id=ada.id, client_msg_id=f"n{number}"))
    await until(lambda: _answers(wire.frames) == 150, WITHIN_S, "150 acks and errors")
    refused = [frame["data"] for frame in wire.frames if frame["event"] == "error"]
    assert 1 <= len(refused) <= 100  # a burst of 50 is taken
    for data in refused:
        wait_ms = data["retry_after_ms"]
        assert isinstance(wait_ms, int)
        assert 1 <= wait_ms <= 1_000
        assert data == {
            "code": "rate_limited",
            "message": f"too fast: send again in {wait_ms:,} ms",
            "context_event": "message.send",
            "client_msg_id": data["client_msg_id"],
            "retryable": True,
            "retry_after_ms": wait_ms,
        }
    acknowledged = {frame["data"]["client_msg_id"] for frame in wire.frames if frame["event"] == "message.ack"}
    named = {data["client_msg_id"] for data in refused}
    assert acknowledged | named == {f"n{number}" for number in range(150)}
    assert not acknowledged & named

    wire.frames.clear()
    last = refused[-1]
    await asyncio.sleep(last["retry_after_ms"] / 1000)  # as told
    ack = await wire.post("again", receiver_id=ada.id, client_msg_id=last["client_msg_id"])
    assert ack["seq"] == len(acknowledged) + 1


def _answers(frames: list[dict[str, object]]) -> int:
    return sum(frame["event"] in {"message.ack", "error"} for frame in frames)


async def test_who_never_slows_down_is_closed_with_4029(town: Town) -> None:
    ada = await town.person("ada")
    other, wire = await town.open(ada), await town.open(ada)
    for _ in range(1_000):
        if wire.socket.close_code is not None:
            break
        await wire.raw(send_frame(content="spam", receiver_id=ada.id))
    assert await wire.closed() == (4029, "200 frames were refused, and more came")
    assert {frame["data"]["code"] for frame in wire.frames if frame["event"] == "error"} == {"rate_limited"}
    other.frames.clear()
    assert (await other.post("I am still here", receiver_id=ada.id))["status"] == "sent"


async def test_the_oldest_of_too_many_sockets_is_closed_with_4003(town: Town) -> None:
    ada = await town.person("ada")
    wires = [await town.open(ada) for _ in range(MAX_CONNECTIONS_PER_USER + 1)]
    assert await wires[0].closed() == (4003, "too_many_connections")
    ack = await wires[1].post("the others stay", receiver_id=ada.id)
    for wire in wires[1:]:
        assert (await wire.take("message.receive"))["id"] == ack["message_id"]
        await wire.quiet()


# --- several sockets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [False, True], ids=["closed", "cut"])
async def test_an_old_socket_that_ends_late_does_not_disturb_the_new_one(town: Town, lost: bool) -> None:
    ada, bea = await town.people("ada", "bea")
    room = await town.room(ada, bea)
    speaker = await town.open(bea)
    old = await town.open(ada)
    new = await town.open(ada)
    count = await town.sockets()
    await (old.cut() if lost else old.close())
    ack = await speaker.post("still there?", room_id=room)
    assert (await new.take("message.receive"))["id"] == ack["message_id"]
    give_up_at = time.monotonic() + WITHIN_S
    while await town.sockets() >= count:
        assert time.monotonic() < give_up_at, "the gateway does not notice"
    for where in ({"room_id": room}, {"receiver_id": ada.id}):
        ack = await speaker.post("and now?", **where)
        assert (await new.take("message.receive"))["id"] == ack["message_id"]
    assert (await new.post("yes", room_id=room))["seq"] == 4
    assert (await new.take("message.receive"))["content"] == "yes"
    await new.quiet()


async def test_nothing_is_replayed_to_a_socket_that_comes_back(town: Town) -> None:
    ada, bea = await town.people("ada", "bea")
    room = await town.room(ada, bea)
    speaker, wire = await town.open(bea), await town.open(ada)
    await speaker.post("one", room_id=room)
    assert (await wire.take("message.receive"))["seq"] == 2
    await wire.cut()
    for content in ("two", "three"):
        await speaker.post(content, room_id=room)
    back = await town.open(ada)
    assert back.greeting["conversations"] == [{"conversation": f"room:{room}", "seq": 4, "unread": 3}]
    await speaker.post("four", room_id=room)
    assert (await back.take("message.receive"))["seq"] == 5
    await back.quiet()


async def _error(wire: Wire, frame: str) -> dict[str, object]:
    answer = await wire.refused(frame)
    assert set(answer) == {"event", "data"}
    data: dict[str, object] = answer["data"]
    return data
