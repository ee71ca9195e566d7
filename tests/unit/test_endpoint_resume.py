"""Resuming over a real socket: uvicorn, the gateway's shell and a host in this process; the log is the model of it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from fastsock.core.limits import RESUME_PAGE
from fastsock.schemas.log import Append, Entry
from tests.unit.ws_world import Peer, World, until, world

pytestmark = pytest.mark.usefixtures("carrier")

A, B, C = 1, 2, 3
HOLD_MS = 250


def said(here: World, room: int, count: int, content: str = "text") -> None:
    """Messages of B that were stored while A was away."""
    name = f"room:{room}"
    head = len(here.log.logs[name])
    entries = [
        Entry(
            conversation=name, kind="message", sender_id=B, key=f"c:{name}-{head + n}", at_ms=0, id=id_, content=content
        )
        for n, id_ in enumerate(here.log.lease_ids(count))
    ]
    here.log.append([Append(name, head, entries)])


async def resume(peer: Peer, **conversations: int) -> None:
    await peer.say("session.resume", conversations={name.replace("_", ":"): seq for name, seq in conversations.items()})


async def replayed(peer: Peer) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    """What the socket is shown until ``session.resumed``, and the data of that."""
    shown = []
    while (frame := await peer.frame())["event"] != "session.resumed":
        shown.append((frame["event"], frame["data"]["seq"]))
    return shown, frame["data"]


async def test_what_was_missed_is_shown_in_order_and_the_live_stream_follows() -> None:
    async with world(hold_ms=HOLD_MS) as here, AsyncExitStack() as stack:
        here.log.create_room(1, A, [B])
        said(here, 1, 3 * RESUME_PAGE)
        anna, bela = await here.ready(A, stack), await here.ready(B, stack)
        assert anna.greeting["conversations"] == [{"conversation": "room:1", "seq": 601, "unread": 0}]
        await bela.say("message.send", content="live", room_id=1)
        await bela.expect("message.receive")
        await resume(anna, room_1=1)
        shown, told = await replayed(anna)
        assert shown == [("message.receive", seq) for seq in range(2, 603)]
        nothing_else = {"complete": True, "oldest": {}, "left": [], "markers": {}}
        assert told == {"conversations": {"room:1": 602}, **nothing_else}
        await bela.say("message.send", content="later", room_id=1)
        assert (await anna.expect("message.receive"))["seq"] == 603
        stats = here.shell.stats()
        assert (stats["resumes_begun"], stats["resumes_done"], stats["pages_read"]) == (1, 1, 3)


async def test_a_client_that_does_not_resume_gets_the_live_stream_after_a_moment() -> None:
    async with world(hold_ms=HOLD_MS) as here, AsyncExitStack() as stack:
        here.log.create_room(1, A, [B])
        anna, bela = await here.ready(A, stack), await here.ready(B, stack)
        await bela.say("message.send", content="hello", room_id=1)
        assert (await anna.expect("message.receive"))["seq"] == 2
        assert here.shell.stats()["resumes_begun"] == 0


async def test_texts_larger_than_the_outbox_are_replayed_to_a_slow_reader_too() -> None:
    async with world(hold_ms=HOLD_MS) as here:
        here.log.create_room(1, A, [B])
        said(here, 1, 300, content="x" * 16_000)
        async with here.socket(A, max_queue=1) as anna:
            await anna.expect("session.ready")
            await resume(anna, room_1=1)
            shown, _ = await replayed(anna)
            assert [seq for _, seq in shown] == list(range(2, 302))
            assert here.shell.stats()["slow_consumers"] == 0


async def test_one_resume_at_a_time() -> None:
    async with world() as here, AsyncExitStack() as stack:
        here.log.create_room(1, A, [B])
        anna = await here.ready(A, stack)
        here.load_gate.clear()
        await resume(anna, room_1=1)
        await resume(anna, room_1=1)
        assert await anna.expect("error") == {
            "code": "resume_under_way",
            "message": "a resume of this socket is under way",
            "context_event": "session.resume",
            "client_msg_id": None,
            "retryable": True,
            "retry_after_ms": 500,
        }
        here.load_gate.set()
        assert (await anna.expect("session.resumed"))["conversations"] == {"room:1": 1}


async def test_a_database_that_is_away_refuses_the_resume_and_the_live_stream_goes_on() -> None:
    async with world(hold_ms=60_000) as here, AsyncExitStack() as stack:
        here.log.create_room(1, A, [B])
        anna, bela = await here.ready(A, stack), await here.ready(B, stack)
        here.load_error = here.away()
        await resume(anna, room_1=0)
        told = await anna.expect("error")
        assert (told["code"], told["retryable"], told["context_event"]) == (
            "storage_unavailable",
            True,
            "session.resume",
        )
        await bela.say("message.send", content="hello", room_id=1)
        assert (await anna.expect("message.receive"))["seq"] == 2
        here.load_error = None
        await resume(anna, room_1=0)
        assert (await replayed(anna))[0] == [("room.created", 1), ("message.receive", 2)]


async def test_a_page_that_cannot_be_read_is_read_when_the_database_is_back() -> None:
    async with world(hold_ms=60_000) as here, AsyncExitStack() as stack:
        here.log.create_room(1, A, [B])
        said(here, 1, 3)
        anna = await here.ready(A, stack)
        here.load_gate.clear()
        await resume(anna, room_1=1)
        await until(lambda: here.shell.stats()["standings_reads"] == 1)
        here.load_gate.set()
        here.fail_pages = True
        await until(lambda: here.shell.stats()["pages_failed"] == 1)
        here.fail_pages = False
        here.clock.ahead_ms += 1_000
        assert [seq for _, seq in (await replayed(anna))[0]] == [2, 3, 4]


async def test_a_socket_that_goes_while_it_resumes_leaves_nothing() -> None:
    async with world() as here, AsyncExitStack() as stack:
        here.log.create_room(1, A, [B])
        said(here, 1, 3)
        anna = await here.ready(A, stack)
        here.load_gate.clear()
        await resume(anna, room_1=1)
        await until(lambda: here.shell.stats()["standings_reads"] == 1)
        await anna.socket.close()
        await until(lambda: len(here.shell) == 0)
        here.load_gate.set()
        await until(lambda: here.shell.stats()["standings_read"] == 1)
        assert here.shell.stats()["replays"] == 0


# --- session.refresh ---------------------------------------------------------------------------------------------


async def test_a_new_token_lets_the_socket_live_on() -> None:
    async with world() as here, here.socket(A, ttl_s=30) as anna:
        await anna.expect("session.ready")
        await anna.expect("session.expiring")
        await anna.say("session.refresh", token=here.token(A, 3600))
        told = await anna.expect("session.refreshed")
        assert 3590 <= told["expires_in"] <= 3600
        assert told["expires_at"].endswith("Z")
        here.clock.ahead_ms += 60_000  # its first token has ended by now
        await asyncio.sleep(0.6)  # two looks at the clock
        await anna.nothing_else()


async def test_a_token_of_somebody_else_or_none_changes_nothing() -> None:
    async with world() as here, AsyncExitStack() as stack:
        anna = await here.ready(A, stack)
        await anna.say("session.refresh", token=here.token(C))
        told = await anna.expect("error")
        assert (told["code"], told["message"]) == ("not_allowed", "the token is user 3's, this socket is user 1's")
        await anna.say("session.refresh", token="nonsense")
        told = await anna.expect("error")
        assert (told["code"], told["context_event"]) == ("not_authenticated", "session.refresh")
        await anna.nothing_else()
