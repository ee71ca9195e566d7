"""The Python client at a running server: nothing lost, nothing twice, whatever is cut."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from fastsock.client import (
    Ack,
    Api,
    ApiError,
    Client,
    Connected,
    Disconnected,
    Event,
    Left,
    MemberJoined,
    MemberLeft,
    MessageDeleted,
    MessageReceived,
    MessageUpdated,
    Refused,
    Resumed,
    RoomCreated,
)
from fastsock.client.settings import Settings
from tests.e2e.people import PASSWORD
from tests.e2e.wire import WITHIN_S, Town
from tests.server import Server

E = TypeVar("E", bound=Event)


async def account(url: str, name: str) -> tuple[int, str]:
    """Somebody new: id and address."""
    email = f"{name}.{uuid.uuid4().hex[:12]}@example.com"
    api = Api(url)
    try:
        return (await api.signup(email, PASSWORD, name.title())).id, email
    finally:
        await api.aclose()


async def next_of(client: Client, kind: type[E], true: Callable[[E], bool] = lambda _: True) -> E:
    """The next event of this kind for which this is true; those before it are passed over."""
    async with asyncio.timeout(WITHIN_S):
        async for event in client:
            if isinstance(event, kind) and true(event):
                return event
    raise AssertionError(f"the events ended without a {kind.__name__}")


async def messages(client: Client, until: str) -> list[MessageReceived]:
    """The messages up to the one that says ``until``."""
    taken: list[MessageReceived] = []
    while not taken or taken[-1].content != until:
        taken.append(await next_of(client, MessageReceived))
    return taken


async def test_two_clients_talk(server: Server) -> None:
    """In a room and directly; with edits, members and refusals, all typed."""
    (ada_id, ada_email), (bea_id, bea_email) = [await account(server.url, name) for name in ("ada", "bea")]
    async with (
        Client.login(server.url, ada_email, PASSWORD) as ada,
        Client.login(server.url, bea_email, PASSWORD) as bea,
    ):
        await asyncio.gather(ada.wait_connected(WITHIN_S), bea.wait_connected(WITHIN_S))
        assert (ada.user_id, bea.user_id) == (ada_id, bea_id)
        room = await ada.api.create_room("Engine room", [bea_id])
        created = await next_of(bea, RoomCreated)
        assert (created.room_id, created.owner_id, created.member_ids) == (room.id, ada_id, [ada_id, bea_id])

        ack = await ada.send("hello, room", room_id=room.id, client_msg_id="r1")
        assert ack == await ada.send("hello, room", room_id=room.id, client_msg_id="r1")
        shown = await next_of(bea, MessageReceived)
        assert (shown.id, shown.seq, shown.timestamp) == (ack.message_id, ack.seq, ack.timestamp)
        assert (shown.conversation, shown.sender_id, shown.client_msg_id) == (f"room:{room.id}", ada_id, "r1")
        direct = await bea.send("hello, ada", to=ada_id, reply_to=None)
        said = await next_of(ada, MessageReceived, lambda event: event.id == direct.message_id)
        assert (said.conversation, said.seq) == (f"user:{bea_id}", 1)

        assert (await ada.edit(ack.message_id, "hello, engine room")).content == "hello, engine room"
        edited = await next_of(bea, MessageUpdated)
        assert (edited.id, edited.content, edited.message_seq, edited.by) == (
            ack.message_id,
            "hello, engine room",
            ack.seq,
            ada_id,
        )
        await ada.delete(ack.message_id)
        deleted = await next_of(bea, MessageDeleted)
        assert (deleted.id, deleted.content, deleted.deleted, deleted.seq) == (ack.message_id, "", True, 4)

        assert [one.seq for one in await bea.api.history(room_id=room.id)] == [2]
        assert [one.content for one in await bea.api.history(user_id=ada_id)] == ["hello, ada"]
        assert (await ada.api.unread()).users == {bea_id: 1}
        assert [one.id for one in await bea.api.rooms()] == [room.id]
        assert [(one.user_id, one.role) for one in await bea.api.members(room.id)] == [
            (ada_id, "owner"),
            (bea_id, "member"),
        ]
        assert [one.id for one in await ada.api.users(q=bea_email)] == [bea_id]
        left = await bea.api.leave(room.id)
        assert left.user_ids == (await next_of(bea, MemberLeft)).user_ids == [bea_id]
        assert bea.positions == {f"user:{ada_id}": 1}
        with pytest.raises(Refused) as refused:
            await bea.send("still here?", room_id=room.id)
        assert refused.value.code == "not_a_member"
        with pytest.raises(ApiError) as forbidden:
            await bea.api.history(room_id=room.id)
        assert (forbidden.value.status, forbidden.value.code, forbidden.value.retryable) == (403, "not_a_member", False)
        await ada.api.add_members(room.id, [bea_id])
        joined = await next_of(bea, MemberJoined)
        assert (joined.seq, bea.positions[f"room:{room.id}"]) == (6, 6)


async def test_a_client_that_is_cut_again_and_again_misses_and_doubles_nothing(server: Server) -> None:
    (_, ada_email), (bea_id, bea_email) = [await account(server.url, name) for name in ("ada", "bea")]
    settings = Settings(messages_per_s=20.0)
    async with (
        Client.login(server.url, ada_email, PASSWORD, settings=settings) as ada,
        Client.login(server.url, bea_email, PASSWORD, settings=settings) as bea,
    ):
        await asyncio.gather(ada.wait_connected(WITHIN_S), bea.wait_connected(WITHIN_S))
        room = (await ada.api.create_room("Engine room", [bea_id])).id
        await next_of(bea, RoomCreated)

        async def talk(client: Client, who: str) -> list[Ack]:
            return list(await asyncio.gather(*(client.send(f"{who} {n}", room_id=room) for n in range(80))))

        async def cut() -> None:
            for _ in range(5):
                await bea.wait_connected(WITHIN_S)
                bea._transport.cut()
                await asyncio.sleep(0.4)  # into what follows: a reconnect, a resume, live traffic

        acks_of_ada, acks_of_bea, _ = await asyncio.gather(talk(ada, "ada"), talk(bea, "bea"), cut())
        last = await ada.send("the end", room_id=room)
        for client in (ada, bea):
            seen = await messages(client, "the end")
            assert [event.seq for event in seen] == list(range(2, last.seq + 1))
            acked = {ack.seq: ack.client_msg_id for ack in (*acks_of_ada, *acks_of_bea, last)}
            assert {event.seq: event.client_msg_id for event in seen} == acked
        assert last.seq == 162


async def test_another_process_goes_on_where_one_has_ended(server: Server) -> None:
    """What happened in between is yielded; new rooms, lost rooms, and a message whose ack was never seen."""
    (ada_id, ada_email), (bea_id, bea_email) = [await account(server.url, name) for name in ("ada", "bea")]
    async with Client.login(server.url, ada_email, PASSWORD) as ada:
        async with Client.login(server.url, bea_email, PASSWORD) as bea:
            await bea.wait_connected(WITHIN_S)
            one, two, four = [(await ada.api.create_room(name, [bea_id])).id for name in ("one", "two", "four")]
            await next_of(bea, RoomCreated, lambda event: event.room_id == four)
            first = await bea.send("from bea", room_id=one, client_msg_id="kept")
            await messages(bea, "from bea")
        for number in range(120):
            ada_said = asyncio.create_task(ada.send(f"#{number}", room_id=one, client_msg_id=f"a{number}"))
            if number % 40 == 39:
                await ada_said
        await ada_said
        await ada.api.remove_member(two, bea_id)
        await ada.api.remove_member(four, bea_id)
        await ada.send("without bea", room_id=four)
        await ada.api.add_members(four, [bea_id])
        three = (await ada.api.create_room("three", [bea_id])).id
        await ada.send("welcome", room_id=three)
        await ada.send("psst", to=bea_id)

        again = Client.login(server.url, bea_email, PASSWORD, positions=bea.positions)
        async with again as bea:
            sent = asyncio.create_task(bea.send("from bea", room_id=one, client_msg_id="kept"))
            events = [await anext(bea)]
            while not isinstance(events[-1], Resumed):
                events.append(await anext(bea))
            assert await sent == first
            resumed = events[-1]
            assert isinstance(resumed, Resumed)
            assert resumed.complete
            assert resumed.conversations == {
                f"room:{one}": 122,
                f"room:{three}": 2,
                f"room:{four}": 4,
                f"user:{ada_id}": 1,
            }
            assert bea.positions == resumed.conversations
            said = [event for event in events if isinstance(event, MessageReceived)]
            assert [event.seq for event in said if event.room_id == one] == list(range(3, 123))
            assert [event.content for event in said if event.room_id != one] in (
                ["welcome", "psst"],
                ["psst", "welcome"],
            )
            away = [(type(event), event.seq) for event in events if isinstance(event, MemberLeft | MemberJoined)]
            assert away == [(MemberLeft, 2), (MemberJoined, 4)]
            assert [event.room_id for event in events if isinstance(event, RoomCreated)] == [three]
            assert [event.conversation for event in events if isinstance(event, Left)] == [f"room:{two}"]


async def test_a_token_that_expires_soon_is_renewed_on_the_same_socket(town: Town) -> None:
    ada = await town.person("ada")
    lives = iter([3.0, 900.0])

    async def fresh() -> str:
        return town.token(ada.id, next(lives))

    async with Client(town.server.url, fresh) as client:
        connected = await next_of(client, Connected)
        await asyncio.sleep(4.0)  # longer than the first token lives
        assert (await client.send("still here", to=ada.id)).seq == 1
        assert (await next_of(client, MessageReceived)).content == "still here"
        assert client.connected
        assert next(lives, None) is None
        assert connected.user_id == ada.id


async def test_a_token_that_ends_unrenewed_is_replaced_by_another_socket(town: Town) -> None:
    """The provider is slow: the socket is closed with 4001, and what was missed comes after it."""
    ada = await town.person("ada")
    enough = asyncio.Event()
    count = 0

    async def fresh() -> str:
        nonlocal count
        count += 1
        if count == 2:
            await enough.wait()
        return town.token(ada.id, 2.0 if count == 1 else 900.0)

    async with Client(town.server.url, fresh) as client:
        await client.wait_connected(WITHIN_S)
        gone = await next_of(client, Disconnected)
        assert gone.code == 4001
        other = await town.open(ada)
        await other.post("missed", receiver_id=ada.id)
        enough.set()
        assert (await next_of(client, MessageReceived)).content == "missed"


@pytest.mark.cluster
async def test_a_client_survives_a_restart_of_the_server(tmp_path: Path) -> None:
    with Server(tmp_path / "restarted", "--hosts", "1") as server:
        (ada_id, ada_email) = await account(server.url, "ada")
        async with Client.login(server.url, ada_email, PASSWORD) as ada:
            before = await ada.send("before", to=ada_id)
            await asyncio.to_thread(server.stop)
            sends = [asyncio.create_task(ada.send(f"meanwhile {number}", to=ada_id)) for number in range(20)]
            await asyncio.to_thread(server.start)
            acks = await asyncio.gather(*sends)
            after = await ada.send("after", to=ada_id)
            seen = await messages(ada, "after")
        assert [event.seq for event in seen] == list(range(1, 23))
        assert [before.seq, *(ack.seq for ack in acks), after.seq] == [event.seq for event in seen]
