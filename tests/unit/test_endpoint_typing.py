"""Typing, from one socket to the others: a real uvicorn, real sockets, a real host."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from actors.effects import Failure
from fastsock.core.limits import OUTBOX_EPHEMERAL_SHARE, TYPING_EXPIRES_MS
from tests.unit.ws_world import Peer, World, until, world

pytestmark = pytest.mark.usefixtures("carrier")

A, B, C = 1, 2, 3


async def _three(here: World, stack: AsyncExitStack) -> list[Peer]:
    """Anna with two sockets, Ben, and Carl who is no member."""
    here.log.create_room(42, A, [A, B])
    return [await here.ready(user, stack) for user in (A, A, B, C)]


async def test_the_others_are_shown_who_is_typing() -> None:
    async with world() as here, AsyncExitStack() as stack:
        anna, tablet, ben, carl = await _three(here, stack)
        about = {"sender_id": A, "room_id": 42}
        await anna.say("typing.start", room_id=42)
        assert await ben.frame() == {"event": "typing.start", "data": about}
        await anna.say("typing.stop", room_id=42)
        assert await ben.frame() == {"event": "typing.stop", "data": about}
        for peer in (anna, tablet, ben, carl):
            await peer.nothing_else()
        assert here.shell.stats()["told"] == 2
        assert len(here.log.logs["room:42"]) == 1


async def test_it_ends_by_itself() -> None:
    async with world() as here, AsyncExitStack() as stack:
        anna, _, ben, _ = await _three(here, stack)
        await anna.say("typing.start", room_id=42)
        await ben.expect("typing.start")
        here.clock.ahead_ms += TYPING_EXPIRES_MS
        here.links.host.tick(here.clock())
        here.links.pump()
        assert await ben.expect("typing.stop") == {"sender_id": A, "room_id": 42}


async def test_a_refusal_is_told_to_the_socket_that_said_it() -> None:
    async with world() as here, AsyncExitStack() as stack:
        anna, _, ben, carl = await _three(here, stack)
        await carl.say("typing.start", room_id=42)
        assert await carl.expect("error") == {
            "code": "not_a_member",
            "message": "user 3 is not a member of room:42",
            "context_event": "typing.start",
            "client_msg_id": None,
            "retryable": False,
            "retry_after_ms": None,
        }
        for peer in (anna, ben, carl):
            await peer.nothing_else()


async def test_where_the_links_are_full_nobody_is_told_anything() -> None:
    async with world() as here, AsyncExitStack() as stack:
        anna, _, ben, _ = await _three(here, stack)
        here.links.full = Failure("overloaded", "1,250 of 20,000 commands wait for host-0", 500)
        await anna.say("typing.start", room_id=42)
        await until(lambda: here.shell.stats()["dropped_typing"] == 1)
        await anna.nothing_else()
        await ben.nothing_else()


async def test_a_slow_socket_is_not_shown_it() -> None:
    async with world() as here, AsyncExitStack() as stack:
        anna, _, ben, _ = await _three(here, stack)
        (bens,) = [socket for socket in here.shell._sockets.values() if socket.user_id == B]
        bens.connection._limit_bytes = int(40 / OUTBOX_EPHEMERAL_SHARE)  # so that 40 bytes of typing are too many
        await anna.say("typing.start", room_id=42)
        await until(lambda: here.shell.stats()["dropped_ephemeral"] == 1)
        await ben.nothing_else()


async def test_who_comes_first_by_typing_is_not_held_any_longer() -> None:
    async with world(hold_ms=60_000) as here, AsyncExitStack() as stack:
        anna, _, ben, _ = await _three(here, stack)
        await anna.say("typing.start", room_id=42)
        await anna.nothing_else()
        await ben.say("typing.start", room_id=42)
        assert await anna.expect("typing.start") == {"sender_id": B, "room_id": 42}
        await ben.nothing_else()
