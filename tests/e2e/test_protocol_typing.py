"""Typing: ``protocol.md``, section WebSocket, on a running server. And that it needs no database."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.test_protocol_messages import everybody_is_shown, message
from tests.e2e.wire import Account, Data, Town, Wire, error_data, send_frame
from tests.postgres import PostgresServer
from tests.server import Server

pytestmark = pytest.mark.cluster

EXPIRES_S = 6.0


def in_room(who: Account, room: int) -> Data:
    return {"sender_id": who.id, "room_id": room}


def between(who: Account, other: Account) -> Data:
    return {"sender_id": who.id, "receiver_id": other.id}


async def shown(wires: list[Wire], event: str, data: Data) -> None:
    """The next frame of each of them is this."""
    for wire in wires:
        assert await wire.frame() == {"event": event, "data": data}


async def opened(town: Town, who: Account) -> Wire:
    """A socket that has spoken: a new one is held for a moment, and misses what is not kept."""
    wire = await town.open(who)
    await wire.quiet()
    return wire


async def test_everybody_else_in_the_room_is_shown_who_is_typing(town: Town) -> None:
    ada, bea, cleo, eve = await town.people("ada", "bea", "cleo", "eve")
    room = await town.room(ada, bea, cleo)
    mine, others = (
        [await opened(town, ada), await opened(town, ada)],
        [await opened(town, who) for who in (bea, bea, cleo)],
    )
    outsider = await opened(town, eve)
    await mine[0].say("typing.start", room_id=room)  # nobody has said anything since the room was made
    await shown(others, "typing.start", in_room(ada, room))
    await mine[0].say("typing.stop", room_id=room)
    await shown(others, "typing.stop", in_room(ada, room))
    await others[0].say("typing.start", room_id=room)
    await shown([*mine, others[2]], "typing.start", in_room(bea, room))
    await others[0].say("typing.stop", room_id=room)
    await shown([*mine, others[2]], "typing.stop", in_room(bea, room))
    await asyncio.gather(*(wire.quiet() for wire in (*mine, *others, outsider)))


async def test_the_other_person_is_shown_who_is_typing_once_they_have_talked(town: Town) -> None:
    ada, bea, eve = await town.people("ada", "bea", "eve")
    wire, other, outsider = [await opened(town, who) for who in (ada, bea, eve)]
    await wire.say("typing.start", receiver_id=bea.id)
    ack = await wire.post("hello", receiver_id=bea.id)
    await everybody_is_shown([wire, other], message(ack, ada, "hello"))
    await other.say("typing.start", receiver_id=ada.id)
    assert await wire.take("typing.start") == between(bea, ada)
    await other.say("typing.stop", receiver_id=ada.id)
    assert await wire.take("typing.stop") == between(bea, ada)
    assert [frame["event"] for frame in other.frames if frame["event"] == "typing.start"] == []
    await asyncio.gather(wire.quiet(), outsider.quiet())


async def test_it_is_forwarded_now_and_then_and_expires_by_itself(town: Town) -> None:
    ada, bea = await town.people("ada", "bea")
    room = await town.room(ada, bea)
    wire, other = await opened(town, ada), await opened(town, bea)
    began_s = time.monotonic()
    await wire.say("typing.start", room_id=room)
    await shown([other], "typing.start", in_room(ada, room))
    for _ in range(5):
        await wire.say("typing.start", room_id=room)
    await wire.quiet()
    await shown([other], "typing.stop", in_room(ada, room))
    assert time.monotonic() - began_s > EXPIRES_S - 0.5
    await wire.say("typing.stop", room_id=room)  # too late to tell anybody
    await wire.say("typing.start", room_id=room)
    await shown([other], "typing.start", in_room(ada, room))
    await other.quiet()


async def test_a_message_ends_it_and_nothing_of_it_is_stored(town: Town) -> None:
    ada, bea = await town.people("ada", "bea")
    room = await town.room(ada, bea)
    wire, other = await opened(town, ada), await opened(town, bea)
    await wire.say("typing.start", room_id=room)
    ack = await wire.post("here it is", room_id=room, client_msg_id="m1")
    assert ack["seq"] == 2
    await shown([other], "typing.start", in_room(ada, room))
    await shown([wire, other], "message.receive", message(ack, ada, "here it is"))
    await shown([other], "typing.stop", in_room(ada, room))
    await wire.say("typing.start", room_id=room)
    await shown([other], "typing.start", in_room(ada, room))
    history = (await town.ask(bea, "GET", f"chat/history/room/{room}")).json()
    assert [item["content"] for item in history] == ["here it is"]
    late = await opened(town, bea)
    assert late.greeting["conversations"] == [{"conversation": f"room:{room}", "seq": 2, "unread": 1}]
    await asyncio.gather(wire.quiet(), late.quiet())


async def test_who_may_not_type_is_told_so_and_nobody_else(town: Town) -> None:
    ada, bea, eve = await town.people("ada", "bea", "eve")
    room = await town.room(ada, bea)
    inside, outside = await opened(town, ada), await opened(town, eve)

    async def refused(event: str, **data: object) -> Data:
        answer: Data = (await outside.refused(json.dumps({"event": event, "data": data})))["data"]
        return answer

    for event in ("typing.start", "typing.stop"):
        text = f"user {eve.id} is not a member of room:{room}"
        assert await refused(event, room_id=room) == error_data("not_a_member", text, event)
        text = "exactly one of room_id and receiver_id is needed, both were given"
        both = await refused(event, room_id=room, receiver_id=ada.id)
        assert both == error_data("invalid_data", text, event)
    nowhere = room + 100_000
    text = f"room {nowhere} does not exist or is not active"
    unknown = await refused("typing.start", room_id=nowhere)
    assert unknown == error_data("room_not_found", text, "typing.start")
    answer = await town.ask(ada, "DELETE", f"chat/rooms/{room}/members/{bea.id}")
    assert answer.status_code == 200, answer.text
    await inside.take("room.member_left")
    await asyncio.gather(inside.quiet(), outside.quiet())


async def test_typing_at_any_pace_costs_no_message(town: Town) -> None:
    ada, bea = await town.people("ada", "bea")
    room = await town.room(ada, bea)
    wire, other = await opened(town, ada), await opened(town, bea)
    ack = await wire.post("hello", room_id=room)  # the room is active now: while it loads, only the latest word counts
    await everybody_is_shown([wire, other], message(ack, ada, "hello"))
    for _ in range(40):
        await wire.say("typing.start", room_id=room)
        await wire.say("typing.stop", room_id=room)
    for number in range(20):
        ack = await wire.post(f"{number}", room_id=room)
        await everybody_is_shown([wire], message(ack, ada, f"{number}"))
    await wire.quiet()  # it was told of no refusal
    await other.take("message.receive", content="19")
    starts = sum(frame["event"] == "typing.start" for frame in other.frames)
    assert 1 <= starts <= 10, "the bucket of a socket has ten"


# --- the database is away --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    """One that may be stopped."""
    with PostgresServer(own=True) as running:
        yield running


async def test_it_goes_on_while_the_database_is_away(
    own_postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("typing") / "fastsock"
    options = ("--database-url", own_postgres.create_database(), "--gateways", "2", "--hosts", "2")
    with Server(directory, *options) as server:
        async with httpx.AsyncClient(timeout=30) as http:
            town = Town(server, http)
            ann, bob = await town.people("ann", "bob")
            quiet_room = await town.room(ann, bob, name="Where nobody talks")
            room = await town.room(ann, bob)
            wire, others = await opened(town, ann), [await opened(town, bob) for _ in range(4)]
            for place in ({"room_id": room}, {"receiver_id": bob.id}):
                ack = await wire.post("before", **place)
                await everybody_is_shown([wire, *others], message(ack, ann, "before"))

            own_postgres.stop()
            began_s = time.monotonic()
            await wire.say("typing.start", room_id=room)
            await shown(others, "typing.start", in_room(ann, room))
            arrived_s = time.monotonic() - began_s
            await wire.say("typing.start", receiver_id=bob.id)
            await shown(others, "typing.start", between(ann, bob))
            await wire.say("typing.start", room_id=quiet_room)  # which is not in memory
            await wire.raw(send_frame(content="during", room_id=room, client_msg_id="d1"))
            refusal = await wire.take("error")
            assert (refusal["code"], refusal["client_msg_id"]) == ("storage_unavailable", "d1")
            for data in (in_room(ann, room), between(ann, bob)):  # it has expired meanwhile
                for other in others:
                    assert await other.take("typing.stop") == data
            await others[0].say("typing.start", room_id=room)
            assert await wire.take("typing.start") == in_room(bob, room)
            await others[0].say("typing.stop", room_id=room)
            assert await wire.take("typing.stop") == in_room(bob, room)
            await asyncio.gather(*(one.quiet() for one in (wire, *others)))

            own_postgres.start()
            ack = await _insist(wire, "during", room_id=room, client_msg_id="d1")
            await everybody_is_shown([wire, *others], message(ack, ann, "during"))
            ack = await _insist(wire, "after", room_id=quiet_room, client_msg_id="d2")
            await everybody_is_shown([wire, *others], message(ack, ann, "after"))
            await asyncio.gather(*(one.quiet() for one in (wire, *others)))
            await town.close()
    print(f"typing reached four sockets {1000 * arrived_s:.0f} ms after the database had gone")


async def _insist(wire: Wire, content: str, **fields: object) -> Data:
    """Send it until it is acknowledged."""
    while True:
        await wire.raw(send_frame(content=content, **fields))
        await wire._until(lambda: any(frame["event"] in {"message.ack", "error"} for frame in wire.frames), "an answer")
        refusals = [frame for frame in wire.frames if frame["event"] == "error"]
        if not refusals:
            return await wire.take("message.ack", client_msg_id=fields["client_msg_id"])
        assert {frame["data"]["code"] for frame in refusals} == {"storage_unavailable"}
        wire.frames = [frame for frame in wire.frames if frame["event"] != "error"]
