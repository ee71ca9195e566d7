"""The client on real sockets, against a small server in the same process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

import pytest
import pytest_asyncio

from fastsock.client import (
    Ack,
    Client,
    Closed,
    Connected,
    Disconnected,
    Event,
    MessageReceived,
    NotAuthenticated,
    Refused,
    Resumed,
    ServerError,
    Settings,
    Stopped,
)
from tests.unit.client_server import ME, WITHIN_S, FakeServer, running, until

E = TypeVar("E", bound=Event)

FAST = Settings(backoff_base_ms=1, outbox_limit=5, window=4)


@pytest_asyncio.fixture
async def fake() -> AsyncIterator[FakeServer]:
    async with running() as server:
        yield server


async def next_of(client: Client, kind: type[E]) -> E:
    """The next event of this kind; those before it are passed over."""
    async with asyncio.timeout(WITHIN_S):
        async for event in client:
            if isinstance(event, kind):
                return event
    raise AssertionError(f"the events ended without a {kind.__name__}")


async def test_a_message_is_acknowledged_and_comes_back_as_an_event(fake: FakeServer) -> None:
    async with Client(fake.url, "good") as client:
        await client.wait_connected(WITHIN_S)
        assert (client.connected, client.user_id) == (True, ME)
        ack = await client.send("hello", room_id=1, reply_to=5, client_msg_id="m1")
        assert isinstance(ack, Ack)
        assert (ack.seq, ack.client_msg_id, client.outstanding) == (1, "m1", 0)
        event = await next_of(client, MessageReceived)
        assert (event.content, event.conversation, event.seq) == ("hello", "room:1", 1)
    assert fake.paths == ["/api/v1/ws/chat"]  # no token, which logs would keep
    assert fake.heard("session.authenticate") == [{"token": "good"}]
    message = {"content": "hello", "room_id": 1, "reply_to": 5, "message_type": "text", "client_msg_id": "m1"}
    assert fake.heard("message.send") == [message]
    await until(lambda: not fake.sockets, "the server notices")


async def test_positions_move_when_an_event_is_taken(fake: FakeServer) -> None:
    async with Client(fake.url, "good") as client:
        await client.wait_connected(WITHIN_S)
        await fake.post("one")
        await fake.post("two")
        await client.send("three", room_id=1)  # now the others have come
        assert client.positions == {}
        assert isinstance(await anext(client), Connected)
        assert client.positions == {"room:1": 0}
        await anext(client)
        assert client.positions == {"room:1": 1}
    later = Client(fake.url, "good", positions=client.positions)
    async with later:
        assert [(await next_of(later, MessageReceived)).content for _ in range(2)] == ["two", "three"]
        assert (await next_of(later, Resumed)).conversations == {"room:1": 3}
        assert later.positions == {"room:1": 3}


async def test_a_cut_loses_nothing_and_doubles_nothing(fake: FakeServer) -> None:
    async with Client(fake.url, "good", settings=FAST) as client:
        await client.wait_connected(WITHIN_S)
        sends: list[asyncio.Task[Ack]] = []
        for number in range(40):
            sends.append(asyncio.create_task(client.send(f"mine {number}", room_id=1)))
            await fake.post(f"other {number}")
            if number % 8 == 3:
                client._transport.cut()
            elif number % 8 == 7:
                sockets = number // 8 + 2
                await until(lambda: client.connected and len(fake.paths) == sockets, "another socket")  # noqa: B023
        acks = await asyncio.gather(*sends)
        await fake.post("last")
        seen: list[MessageReceived] = []
        while not seen or seen[-1].content != "last":
            seen.append(await next_of(client, MessageReceived))
    assert [event.seq for event in seen] == list(range(1, len(fake.log) + 1))
    assert [event.content for event in seen] == [entry["content"] for entry in fake.log]
    mine = [entry["content"] for entry in fake.log if entry["sender_id"] == ME]
    assert sorted(mine) == sorted(f"mine {number}" for number in range(40))
    assert {ack.seq for ack in acks} == {entry["seq"] for entry in fake.log if entry["sender_id"] == ME}
    assert len(fake.paths) == 6


async def test_a_refused_token_is_renewed(fake: FakeServer) -> None:
    tokens = iter(["stale", "staler", "good"])

    async def fresh() -> str:
        return next(tokens)

    async with Client(fake.url, fresh, settings=FAST) as client:
        await client.send("hello", room_id=1)
    assert [data["token"] for data in fake.heard("session.authenticate")] == ["stale", "staler", "good"]


async def test_a_plain_token_that_is_refused_stops_the_client(fake: FakeServer) -> None:
    async with Client(fake.url, "bad", settings=FAST) as client:
        text = "not authenticated: a token was refused 4 times in a row: the token is not valid"
        with pytest.raises(NotAuthenticated) as caught:
            await client.send("hello", room_id=1)
        assert str(caught.value) == text
        for _ in range(2):
            with pytest.raises(NotAuthenticated):
                await anext(client)
        with pytest.raises(NotAuthenticated):
            await client.wait_connected(WITHIN_S)
        with pytest.raises(NotAuthenticated):
            await client.send("hello", room_id=1)


async def test_a_provider_may_fail_for_a_moment_and_not_otherwise(fake: FakeServer) -> None:
    results: list[object] = [ConnectionRefusedError("away"), TimeoutError("slow"), "stale", ZeroDivisionError("a bug")]

    async def fresh() -> str:
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return str(result)

    async with Client(fake.url, fresh, settings=FAST) as client:
        with pytest.raises(ZeroDivisionError, match="a bug"):
            await client.send("hello", room_id=1)
        with pytest.raises(ZeroDivisionError, match="a bug"):
            await anext(client)
    assert not results


async def test_revocation_reaches_everybody_who_waits(fake: FakeServer) -> None:
    fake.silent = True
    async with Client(fake.url, "good", settings=FAST) as client:
        sends = [asyncio.create_task(client.send(f"m{number}", room_id=1)) for number in range(8)]  # 3 wait for space
        await until(lambda: len(fake.heard("message.send")) == 4, "a window of messages")
        await fake.sockets[0].close(4002, "logged out")
        for send in sends:
            with pytest.raises(Stopped, match="4002, which means: do not come back: logged out"):
                await send
        assert isinstance(await anext(client), Connected)
        gone = await anext(client)
        assert gone == Disconnected(code=4002, reason="logged out", retry_in_ms=None)
        with pytest.raises(Stopped):
            await anext(client)


async def test_an_expiring_token_is_replaced_on_the_same_socket(fake: FakeServer) -> None:
    count = 0

    async def fresh() -> str:
        nonlocal count
        count += 1
        fake.tokens.add(f"t{count}")
        return f"t{count}"

    async with Client(fake.url, fresh, settings=Settings(refresh_spread_ms=1)) as client:
        await client.wait_connected(WITHIN_S)
        await until(lambda: fake.sockets, "the socket")
        await fake.say(fake.sockets[0], "session.expiring", {"expires_in": 60})
        await until(lambda: fake.heard("session.refresh"), "a new token")
        assert fake.heard("session.refresh") == [{"token": "t2"}]
        await client.send("still here", room_id=1)
    assert len(fake.paths) == 1


async def test_at_the_bound_of_the_outbox_send_waits(fake: FakeServer) -> None:
    fake.silent = True
    async with Client(fake.url, "good", settings=FAST, flush_s=0) as client:
        sends = [asyncio.create_task(client.send(f"m{number}", room_id=1)) for number in range(7)]
        await until(lambda: len(fake.heard("message.send")) == 4, "a window of messages")
        assert client.outstanding == 5
        fake.silent = False
        client._transport.cut()
        acks = await asyncio.gather(*sends)
        assert sorted(ack.seq for ack in acks) == [1, 2, 3, 4, 5, 6, 7]
        assert [entry["content"] for entry in fake.log] == [f"m{number}" for number in range(7)]


async def test_a_send_that_times_out_stays_and_can_be_waited_for_again(fake: FakeServer) -> None:
    fake.silent = True
    async with Client(fake.url, "good", settings=FAST) as client:
        with pytest.raises(TimeoutError) as caught:
            await client.send("hello", room_id=1, client_msg_id="m1", timeout_s=0.05)
        assert str(caught.value) == "no answer within 0.05 s; message 'm1' may still be delivered"
        assert client.outstanding == 1
        with pytest.raises(ValueError, match="names another message"):
            await client.send("something else", room_id=1, client_msg_id="m1")
        fake.silent = False
        client._transport.cut()
        assert (await client.send("hello", room_id=1, client_msg_id="m1")).seq == 1
        assert len(fake.log) == 1


async def test_a_refusal_is_raised_or_if_nobody_waits_an_event(fake: FakeServer) -> None:
    final = {"code": "not_a_member", "retryable": False, "retry_after_ms": None}
    async with Client(fake.url, "good", settings=FAST) as client:
        fake.refusal = final
        with pytest.raises(Refused, match=r"no \(not_a_member\)"):
            await client.send("hello", room_id=1)
        fake.refusal = {"code": "overloaded", "retryable": True, "retry_after_ms": 1}
        assert (await client.send("hello", room_id=1)).seq == 1
        with pytest.raises(Refused, match="content: must not be blank"):
            await client.send("", room_id=1)
        fake.silent = True
        with pytest.raises(TimeoutError):
            await client.send("hello", room_id=1, client_msg_id="m1", timeout_s=0.05)
        await until(lambda: len(fake.heard("message.send")) == 4, "all messages")
        fake.refusal = final
        client._transport.cut()
        error = await next_of(client, ServerError)
        assert (error.code, error.client_msg_id, client.outstanding) == ("not_a_member", "m1", 0)


async def test_a_full_queue_of_events_stops_the_reading_and_nothing_is_lost(fake: FakeServer) -> None:
    async with Client(fake.url, "good", settings=Settings(events_limit=5)) as client:
        await client.wait_connected(WITHIN_S)
        await until(lambda: fake.sockets, "the socket")
        text = "x" * 16_000
        posting = asyncio.create_task(_post_many(fake, text, 1_000))
        await until(lambda: len(client._inbox) >= 5, "a full queue")
        with pytest.raises(TimeoutError):  # 16 MB do not fit into the kernel's buffers
            await asyncio.wait_for(asyncio.shield(posting), 0.3)
        assert len(client._inbox) == 5
        seen = [(await next_of(client, MessageReceived)).seq for _ in range(1_000)]
        assert seen == list(range(1, 1_001))
        await posting


async def _post_many(fake: FakeServer, text: str, count: int) -> None:
    for _ in range(count):
        await fake.post(text)


async def test_who_only_sends_is_not_stopped_by_events(fake: FakeServer) -> None:
    async with Client(fake.url, "good", listen=False, settings=Settings(events_limit=2)) as client:
        for number in range(10):
            await client.send(f"m{number}", room_id=1)
        await until(lambda: client.positions == {"room:1": 10}, "positions move all the same")


async def test_closing_waits_for_acks_and_then_the_iterator_ends(fake: FakeServer) -> None:
    async with Client(fake.url, "good", settings=Settings(events_limit=2)) as client:
        sends = [asyncio.create_task(client.send(f"m{number}", room_id=1)) for number in range(20)]
        await asyncio.sleep(0)
        assert client.outstanding == 20
    assert [(await send).seq for send in sends] == list(range(1, 21))
    kinds = [type(event) async for event in client]
    assert kinds == [Connected, *[MessageReceived] * 20]
    assert client.positions == {"room:1": 20}
    with pytest.raises(Closed, match="the client is closed"):
        await client.send("late", room_id=1)


async def test_closing_does_not_wait_longer_than_told(fake: FakeServer) -> None:
    fake.silent = True
    async with Client(fake.url, "good", flush_s=0.05) as client:
        send = asyncio.create_task(client.send("m", room_id=1))
        await until(lambda: fake.heard("message.send"), "the message")
    with pytest.raises(Closed):
        await send
    assert client.outstanding == 1
    assert not client._tasks


async def test_a_server_that_is_not_there_is_waited_for() -> None:
    async with Client("http://127.0.0.1:9", "good", flush_s=0, settings=FAST) as client:
        with pytest.raises(TimeoutError, match=r"not connected within 0\.2 s; the last attempt: .*Error: .*\(1006\)"):
            await client.wait_connected(0.2)
        assert not client.connected


async def test_how_a_client_may_not_be_used(fake: FakeServer) -> None:
    with pytest.raises(ValueError, match="not a server's address: 'ws://x'; addresses look like http://127"):
        Client("ws://x", "good")
    client = Client(fake.url, "good")
    with pytest.raises(RuntimeError, match="the client is not open: use it by `async with`"):
        await client.send("x", room_id=1)
    async with client:
        pass
    with pytest.raises(RuntimeError, match="a client is used once: make another"):
        await client.__aenter__()
