from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
import structlog
from starlette.types import Message
from structlog.testing import capture_logs
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from actors.commands import AddMembers, Attend, Envelope, RemoveMember
from actors.effects import CutSocket, Failure
from fastsock.core.errors import error_of
from fastsock.core.limits import MAX_FRAME_BYTES, REQUEST_TIMEOUT_MS
from fastsock.schemas import names
from fastsock.ws import shell
from fastsock.ws.chats import Chats
from fastsock.ws.session import Limits
from tests.unit.ws_world import Peer, World, until, world

pytestmark = pytest.mark.usefixtures("carrier")

A, B, C = 1, 2, 3


def message(**fields: object) -> dict[str, object]:
    """What a ``message.receive`` has beside its time."""
    return {
        "receiver_id": None,
        "room_id": None,
        "message_type": "text",
        "is_read": False,
        "status": "sent",
        "reply_to": None,
        "reactions": {},
        "client_msg_id": None,
        "edited_at": None,
        "deleted": False,
        **fields,
    }


async def send(peer: Peer, content: str, **where: object) -> dict[str, Any]:
    """Send, and return the ack's data; the sender's own ``message.receive`` comes first."""
    await peer.say("message.send", content=content, **where)
    seen = {(frame := await peer.frame())["event"]: frame["data"] for _ in range(2)}
    assert set(seen) == {"message.receive", "message.ack"}
    ack: dict[str, Any] = seen["message.ack"]
    return ack


# --- talking -----------------------------------------------------------------------------------------------------


async def test_two_people_talk_in_a_room() -> None:
    async with world() as here, AsyncExitStack() as stack:
        here.log.create_room(42, A, [A, B])
        anna, bert, cleo = [await here.ready(user, stack) for user in (A, B, C)]
        assert anna.greeting["user_id"] == A
        assert anna.greeting["heartbeat_s"] == 20
        assert anna.greeting["conversations"] == [{"conversation": "room:42", "seq": 1, "unread": 0}]
        assert cleo.greeting["conversations"] == []
        ack = await send(anna, "hello", room_id=42, client_msg_id="m1")
        received = await bert.expect("message.receive")
        expected = message(id=received["id"], content="hello", sender_id=A, room_id=42, seq=2, client_msg_id="m1")
        assert received == {**expected, "timestamp": received["timestamp"]}
        assert ack == {
            "message_id": received["id"],
            "status": "sent",
            "timestamp": received["timestamp"],
            "seq": 2,
            "client_msg_id": "m1",
            "room_id": 42,
            "receiver_id": None,
        }
        for peer in (anna, bert, cleo):
            await peer.nothing_else()


async def test_the_first_words_between_two_people() -> None:
    async with world() as here, AsyncExitStack() as stack:
        anna, bert, cleo = [await here.ready(user, stack) for user in (A, B, C)]
        anna_too = await here.ready(A, stack)
        ack = await send(anna, "psst", receiver_id=B)
        assert (ack["receiver_id"], ack["room_id"], ack["seq"], ack["client_msg_id"]) == (B, None, 1, None)
        for peer in (anna_too, bert):
            received = await peer.expect("message.receive")
            expected = message(id=ack["message_id"], content="psst", sender_id=A, receiver_id=B, seq=1)
            assert received == {**expected, "timestamp": ack["timestamp"]}
        ack = await send(bert, "yes?", receiver_id=A)
        assert (ack["receiver_id"], ack["seq"]) == (A, 2)
        for peer in (anna, anna_too):
            assert (await peer.expect("message.receive"))["content"] == "yes?"
        for peer in (anna, anna_too, bert, cleo):
            await peer.nothing_else()
        later = await here.ready(B, stack)
        assert later.greeting["conversations"] == [{"conversation": "user:1", "seq": 2, "unread": 0}]


async def test_sending_again_under_the_same_name_gives_the_same_ack_and_nothing_else() -> None:
    async with world() as here, AsyncExitStack() as stack:
        here.log.create_room(42, A, [A, B])
        anna, bert = [await here.ready(user, stack) for user in (A, B)]
        first = await send(anna, "once", room_id=42, client_msg_id="m1")
        await bert.expect("message.receive")
        again = await here.ready(A, stack)
        await again.say("message.send", content="once", room_id=42, client_msg_id="m1")
        assert await again.expect("message.ack") == first
        for peer in (anna, bert, again):
            await peer.nothing_else()


async def test_whoever_is_let_in_sees_it_and_whoever_leaves_sees_that_last() -> None:
    async with world() as here, AsyncExitStack() as stack:
        anna, bert = [await here.ready(user, stack) for user in (A, B)]
        here.log.create_room(42, A, [A])
        here.links.submit(Envelope(names.user(A), 0, Attend("room:42", 0)))
        created = await anna.expect("room.created")
        assert (created["id"], created["name"], created["member_ids"]) == (42, "room 42", [A])
        here.links.submit(Envelope("room:42", 0, AddMembers(A, "s:add", [B])))
        for peer in (anna, bert):
            joined = await peer.expect("room.member_joined")
            assert (joined["room_id"], joined["user_ids"], joined["by"], joined["seq"]) == (42, [B], A, 2)
        await send(bert, "here I am", room_id=42)
        assert (await anna.expect("message.receive"))["seq"] == 3
        here.links.submit(Envelope("room:42", 0, RemoveMember(A, "s:remove", B)))
        for peer in (anna, bert):
            left = await peer.expect("room.member_left")
            assert (left["user_ids"], left["seq"]) == ([B], 4)
        await send(anna, "he is gone", room_id=42)
        await bert.nothing_else()
        await bert.say("message.send", content="am I?", room_id=42, client_msg_id="m9")
        assert await bert.expect("error") == {
            "code": "not_a_member",
            "message": "user 2 is not a member of room:42",
            "context_event": "message.send",
            "client_msg_id": "m9",
            "retryable": False,
            "retry_after_ms": None,
        }


async def test_what_is_wrong_costs_an_error_and_not_the_socket() -> None:
    async with world() as here, AsyncExitStack() as stack:
        anna = await here.ready(A, stack)
        for room, text in [(99, "room 99 does not exist or is not active")]:
            await anna.say("message.send", content="x", room_id=room)
            assert (await anna.expect("error"))["message"] == text
        await anna.socket.send("not json")
        frame = await anna.frame()
        assert frame["error"] == frame["data"]["message"]
        assert frame["data"]["code"] == "bad_json"
        await anna.socket.send(b"binary")
        assert (await anna.expect("error"))["code"] == "binary_frame"
        await anna.say("presence.set", status="away")
        assert (await anna.expect("error"))["code"] == "unknown_event"
        await anna.nothing_else()


async def test_a_message_in_the_first_instant_is_answered_after_the_greeting() -> None:
    async with world() as here:
        here.log.create_room(42, A, [A])
        here.load_gate.clear()
        async with here.socket(A) as anna:
            await anna.say("message.send", content="early", room_id=42, client_msg_id="m1")
            await anna.say("ping")
            await until(lambda: here.loads)
            here.load_gate.set()
            assert (await anna.expect("session.ready"))["conversations"][0]["seq"] == 1
            events = [(await anna.frame())["event"] for _ in range(3)]
            assert sorted(events) == ["message.ack", "message.receive", "pong"]


async def test_changes_go_to_the_messages_service_in_order() -> None:
    async with world() as here, AsyncExitStack() as stack:
        anna = await here.ready(A, stack)
        await anna.say("message.edit", message_id=5, content="better", client_msg_id="e1")
        await anna.say("message.delete", message_id=5)
        await anna.nothing_else()
        connection_id = anna.greeting["connection_id"]
        assert here.messages.changes == [(A, 5, "better", "c:e1"), (A, 5, None, f"s:{connection_id}:1")]
        here.messages.error = error_of("not_the_author", "user 1 may not change it: message 5 is by user 2")
        await anna.say("message.delete", message_id=5, client_msg_id="d1")
        told = await anna.expect("error")
        assert (told["code"], told["context_event"], told["client_msg_id"]) == (
            "not_the_author",
            "message.delete",
            "d1",
        )
        here.messages.error = ZeroDivisionError("a defect")
        with capture_logs() as logs:
            await anna.say("message.edit", message_id=5, content="x")
            told = await anna.expect("error")
        (logged,) = [line for line in logs if line["event"] == "change failed"]
        assert (told["code"], told["message"]) == ("internal", f"internal error {logged['id']}")
        assert logged["exc_info"]
        await anna.nothing_else()


# --- coming in ---------------------------------------------------------------------------------------------------


async def closed(here: World, query: str, first: str | bytes | None = None) -> tuple[int, str]:
    async with connect(here.url(query)) as socket:
        if first is not None:
            await socket.send(first)
        return await Peer(socket).end()


async def test_without_valid_credentials_the_socket_is_closed_with_1008() -> None:
    async with world() as here:
        expired = here.token(A, ttl_s=60)
        here.clock.ahead_ms = 61_000
        authenticate = {"event": "session.authenticate", "data": {"token": "x"}}
        assert await closed(here, "?token=x") == (1008, "the token is not valid")
        assert await closed(here, "?token=") == (1008, "the token is not valid")
        assert await closed(here, f"?token={expired}") == (1008, "the token has expired")
        assert await closed(here, "?ticket=t") == (1008, "tickets are not served by this version yet: send a token")
        assert await closed(here, "", json.dumps(authenticate)) == (1008, "the token is not valid")
        assert await closed(here, "", json.dumps(authenticate).encode()) == (1008, "the token is not valid")
        assert await closed(here, "", '{"event":"ping"}') == (
            1008,
            "the first frame is 'ping', not 'session.authenticate'",
        )
        reason = "the frame is not JSON: JSON is malformed: invalid character (byte 0)"
        assert await closed(here, "", "garbage") == (1008, reason)
        assert len(here.shell) == 0


async def test_authenticating_with_the_first_frame() -> None:
    async with world() as here, connect(here.url()) as socket:
        peer = Peer(socket)
        await peer.say("session.authenticate", token=here.token(A))
        assert (await peer.expect("session.ready"))["user_id"] == A


async def test_whoever_does_not_say_who_they_are_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Chats, "authenticate_within_s", 0.05)
    async with world() as here:
        reason = "no token in the URL, and no session.authenticate within 0.05 s"
        assert await closed(here, "") == (1008, reason)


async def test_a_peer_that_goes_before_it_has_said_who_it_is() -> None:
    async with world(max_sockets=1) as here:
        for _ in range(2):
            async with connect(here.url()):
                pass
        await until(lambda: here.chats.greeting == 0)
        async with here.socket(A) as anna:
            await anna.expect("session.ready")


async def test_a_full_gateway_says_so() -> None:
    async with world(max_sockets=2) as here, AsyncExitStack() as stack:
        await here.ready(A, stack)
        async with connect(here.url()), here.socket(B) as bert:  # one that has not authenticated counts too
            assert await bert.end() == (1013, "this gateway is full: it has 2 of 2 sockets")


async def test_a_gateway_that_is_not_started_or_goes_away_lets_nobody_in() -> None:
    async with world(started=False) as here:
        assert await closed(here, f"?token={here.token(A)}") == (1013, "this gateway is starting: connect again")
        here.shell.start(here.links)
        here.shell.close_all()
        assert await closed(here, f"?token={here.token(A)}") == (1012, "this gateway goes away: connect again")


async def test_paths() -> None:
    async with world() as here:
        for path in ("/api/v1/ws/chat", "/api/v1/ws/chat/", "/chat"):
            async with connect(here.url(f"?token={here.token(A)}", path)) as socket:
                await Peer(socket).expect("session.ready")
        with pytest.raises(InvalidStatus) as refused:
            async with connect(here.url(path="/api/v1/ws/other")):
                pass
        assert refused.value.response.status_code == 403


async def test_a_path_with_its_prefix_as_root_path_too() -> None:
    """As Serve gives it: the whole path, and the route prefix as ``root_path``."""
    async with world() as here:
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request"}

        async def take(message: Message) -> None:
            sent.append(message)

        for root_path, path in [("/api/v1/ws", "/api/v1/ws/healthz"), ("", "/api/v1/ws/healthz"), ("/x", "/x/healthz")]:
            sent.clear()
            await here.app({"type": "http", "path": path, "root_path": root_path}, receive, take)
            assert sent[0]["status"] == 200


async def test_http() -> None:
    async with world(started=False) as here, httpx.AsyncClient(base_url=f"http://127.0.0.1:{here.port}") as http:
        response = await http.get("/api/v1/ws/healthz")
        assert (response.status_code, response.json()) == (503, {"status": "starting", "sockets": 0})
        here.shell.start(here.links)
        async with here.socket(A) as anna:
            await anna.expect("session.ready")
            response = await http.get("/api/v1/ws/healthz")
            assert (response.status_code, response.json()) == (200, {"status": "ok", "sockets": 1})
        response = await http.get("/api/v1/ws/chat")
        assert (response.status_code, response.headers["upgrade"]) == (426, "websocket")
        response = await http.get("/api/v1/ws/nothing")
        assert response.status_code == 404
        here.shell.close_all()
        response = await http.get("/api/v1/ws/healthz")
        assert (response.status_code, response.json()["status"]) == (503, "going away")


# --- going out ---------------------------------------------------------------------------------------------------


async def test_a_socket_lives_as_long_as_its_token() -> None:
    async with world() as here, connect(here.url(f"?token={here.token(A, ttl_s=120)}")) as socket:
        anna = Peer(socket)
        await anna.expect("session.ready")
        here.clock.ahead_ms = 61_000
        expiring = await anna.expect("session.expiring")
        assert 50 <= expiring["expires_in"] <= 60
        await anna.nothing_else()
        here.clock.ahead_ms = 121_000
        assert await anna.end() == (4001, "the token has expired")
        await until(lambda: len(here.shell) == 0)


async def test_a_token_that_ends_soon_is_announced_after_the_greeting() -> None:
    async with world() as here, connect(here.url(f"?token={here.token(A, ttl_s=30)}")) as socket:
        anna = Peer(socket)
        await anna.expect("session.ready")
        assert (await anna.expect("session.expiring"))["expires_in"] <= 30
        here.clock.ahead_ms = 31_000
        assert await anna.end() == (4001, "the token has expired")


async def test_a_frame_that_is_too_large() -> None:
    async with world() as here, AsyncExitStack() as stack:
        anna = await here.ready(A, stack)
        await anna.socket.send("x" * (MAX_FRAME_BYTES + 1))
        assert await anna.end() == (1009, "the frame has 131,073 of at most 131,072 bytes")


async def test_too_fast_for_too_long() -> None:
    limits = Limits(messages_burst=2, refusals_burst=3, refusals_per_s=0.001, messages_per_s=0.001)
    async with world(limits=limits) as here, AsyncExitStack() as stack:
        anna = await here.ready(A, stack)
        for code in ["room_not_found"] * 2 + ["rate_limited"] * 3:
            await anna.say("message.send", content="x", room_id=42)
            assert (await anna.expect("error"))["code"] == code
        await anna.say("message.send", content="x", room_id=42)
        with pytest.raises(ConnectionClosed):
            await anna.frame()
        assert await anna.end() == (4029, "3 frames were refused, and more came")


async def test_a_host_may_cut_a_socket() -> None:
    async with world() as here, AsyncExitStack() as stack:
        anna = await here.ready(A, stack)
        here.shell.deliveries([CutSocket(anna.greeting["connection_id"], 4003), CutSocket("nobody", 4003)])
        assert await anna.end() == (4003, "too_many_connections")


async def test_the_twenty_first_socket_of_a_user_ends_the_first() -> None:
    async with world() as here, AsyncExitStack() as stack:
        peers = [await here.ready(A, stack) for _ in range(21)]
        assert await peers[0].end() == (4003, "too_many_connections")
        await peers[1].nothing_else()


async def test_going_away_tells_everybody_when_to_come_back() -> None:
    async with world() as here, AsyncExitStack() as stack:
        peers = [await here.ready(user, stack) for user in (A, B, C)]
        stopping = asyncio.create_task(here.shell.stop())
        pauses = set()
        for peer in peers:
            told = await peer.expect("error")
            assert (told["code"], told["retryable"]) == ("going_away", True)
            pauses.add(told["retry_after_ms"])
            assert await peer.end() == (1012, "this gateway goes away: connect again")
        await stopping
        assert all(shell.RECONNECT_MIN_MS <= pause <= shell.RECONNECT_MAX_MS for pause in pauses)
        assert len(here.shell) == 0


async def test_a_slow_consumer_is_cut_and_the_others_notice_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Chats, "close_within_s", 0.2)
    limits = Limits(messages_burst=10_000, frames_burst=10_000)
    async with world(limits=limits) as here, AsyncExitStack() as stack:
        here.log.create_room(42, A, [A, B])
        anna = await here.ready(A, stack)
        slow = await stack.enter_async_context(here.socket(B, max_queue=1, compression=None))
        await slow.expect("session.ready")
        slow.socket.transport.pause_reading()  # its kernel's buffers fill, then uvicorn's, then its outbox
        while here.shell.counts.slow_consumers == 0:
            await send(anna, "x" * 16_000, room_id=42)
        await until(lambda: len(here.shell) == 1)
        assert here.shell.counts.slow_consumers == 1
        slow.socket.transport.abort()
        await send(anna, "still here", room_id=42)


async def test_an_old_socket_that_ends_late_takes_nothing_from_the_new_one() -> None:
    async with world() as here, AsyncExitStack() as stack:
        here.log.create_room(42, A, [A, B])
        old = await here.ready(A, stack)
        new, bert = await here.ready(A, stack), await here.ready(B, stack)
        await old.socket.close()
        await until(lambda: len(here.shell) == 2)
        await send(bert, "who is there?", room_id=42)
        assert (await new.expect("message.receive"))["content"] == "who is there?"


async def test_a_cancelled_handler_leaves_nothing_behind() -> None:
    """Under Serve's direct ingress a client's end cancels the task that serves it."""
    async with world() as here:
        frames: asyncio.Queue[Message] = asyncio.Queue()
        sent: list[Message] = []

        async def take(message: Message) -> None:
            sent.append(message)

        scope = {
            "type": "websocket",
            "path": "/api/v1/ws/chat",
            "query_string": f"token={here.token(A)}".encode(),
        }
        await frames.put({"type": "websocket.connect"})
        serving: asyncio.Task[None] = asyncio.create_task(here.app(scope, frames.get, take))  # type: ignore[arg-type]
        await until(lambda: len(sent) == 2)
        assert json.loads(sent[1]["text"])["event"] == "session.ready"
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert len(here.shell) == 0
        assert here.shell.stats()["sockets"] == 0


# --- when something is away --------------------------------------------------------------------------------------


async def test_many_who_connect_at_once_are_loaded_together() -> None:
    async with world() as here, AsyncExitStack() as stack:
        here.load_gate.clear()
        sockets = [await stack.enter_async_context(here.socket(user)) for user in range(1, 21)]
        await until(lambda: here.shell.stats()["users_waiting"] + sum(map(len, here.loads)) == 20)
        here.load_gate.set()
        for socket in sockets:
            await socket.expect("session.ready")
        assert len(here.loads) <= 4
        assert sorted(user for load in here.loads for user in load) == list(range(1, 21))


async def test_a_database_that_is_away_delays_the_greeting() -> None:
    async with world() as here:
        here.load_error = here.away()
        async with here.socket(A) as anna:
            await until(lambda: here.shell.stats()["users_failed"] >= 1)
            here.load_error = None
            await anna.expect("session.ready")


async def test_a_database_that_stays_away_ends_the_socket_with_1013() -> None:
    async with world() as here:
        here.load_error = here.away()
        async with here.socket(A) as anna:
            await until(lambda: here.shell.stats()["users_failed"] >= 1)
            here.clock.ahead_ms = shell.READY_WITHIN_MS
            assert await anna.end() == (1013, "not ready within 30 s: try again")


async def test_a_host_that_restarts_answers_what_was_asked_and_shows_what_was_said() -> None:
    async with world() as here, AsyncExitStack() as stack:
        here.log.create_room(42, A, [A, B])
        anna, bert = [await here.ready(user, stack) for user in (A, B)]
        here.links.silent = True
        await anna.say("message.send", content="lost?", room_id=42, client_msg_id="m1")
        await until(lambda: here.shell.stats()["requests"] == 1)
        here.links.silent = False
        here.links.restart()
        assert {(await anna.frame())["event"] for _ in range(2)} == {"message.ack", "message.receive"}
        assert (await bert.expect("message.receive"))["content"] == "lost?"
        for peer in (anna, bert):
            await peer.nothing_else()


async def test_a_host_that_stays_silent() -> None:
    async with world() as here, AsyncExitStack() as stack:
        anna = await here.ready(A, stack)
        here.links.silent = True
        await anna.say("message.send", content="anyone?", room_id=42, client_msg_id="m1")
        await until(lambda: here.shell.stats()["requests"] == 1)
        here.clock.ahead_ms = REQUEST_TIMEOUT_MS
        told = await anna.expect("error")
        assert (told["code"], told["message"], told["retryable"]) == (
            "actor_unavailable",
            "no answer within 20 s",
            True,
        )
        assert told["client_msg_id"] == "m1"


async def test_links_that_are_full() -> None:
    async with world() as here, AsyncExitStack() as stack:
        anna = await here.ready(A, stack)
        here.links.full = Failure("overloaded", "20,000 of 20,000 commands wait for host-0", 500)
        await anna.say("message.send", content="x", room_id=42)
        assert await anna.expect("error") == {
            "code": "overloaded",
            "message": "20,000 of 20,000 commands wait for host-0",
            "context_event": "message.send",
            "client_msg_id": None,
            "retryable": True,
            "retry_after_ms": 500,
        }


async def test_no_text_and_no_token_gets_into_the_log() -> None:
    with capture_logs() as logs:
        async with world() as here, AsyncExitStack() as stack:
            here.log.create_room(42, A, [A])
            anna = await here.ready(A, stack)
            token = here.token(A)
            await send(anna, "a secret of mine", room_id=42)
            assert await closed(here, f"?token={token}x") == (1008, "the token is not valid")
    lines = json.dumps(logs, default=str)
    assert "socket opened" in lines
    assert "socket ended" in lines
    assert "secret" not in lines
    assert token[:20] not in lines
    structlog.reset_defaults()
