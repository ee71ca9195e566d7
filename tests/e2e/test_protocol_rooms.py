"""Rooms over sockets: everybody hears of them, and who comes or goes hears what is theirs and nothing else.

``protocol.md``, section WebSocket, on a running server; the changes themselves are made over HTTP.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.test_protocol_messages import everybody_is_shown, message
from tests.e2e.test_protocol_socket import ISO
from tests.e2e.wire import Town, Wire, error_data, send_frame

pytestmark = pytest.mark.cluster


async def test_a_new_room_is_announced_to_every_open_socket_of_every_member(town: Town) -> None:
    ada, bea, cleo, eve = await town.people("ada", "bea", "cleo", "eve")
    wires = [await town.open(who) for who in (ada, ada, bea, bea)]
    outsider = await town.open(eve)
    room = await town.room(ada, bea, cleo, name="Plans")
    created = await wires[0].take("room.created")
    assert created == {
        "id": room,
        "name": "Plans",
        "is_group": True,
        "owner_id": ada.id,
        "member_ids": [ada.id, bea.id, cleo.id],
        "room_id": room,
        "seq": 1,
        "timestamp": created["timestamp"],
    }
    assert ISO.fullmatch(created["timestamp"])
    await everybody_is_shown(wires[1:], created, "room.created")
    await wires[0].quiet()

    late = await town.open(cleo)  # who was not there finds it in the greeting, and nothing is replayed
    assert late.greeting["conversations"] == [{"conversation": f"room:{room}", "seq": 1, "unread": 0}]
    ack = await wires[2].post("hello", room_id=room)
    await everybody_is_shown([*wires, late], message(ack, bea, "hello"))
    await outsider.quiet()


async def test_who_joins_is_shown_what_comes_from_then_on(town: Town) -> None:
    ada, bea, cleo = await town.people("ada", "bea", "cleo")
    room = await town.room(ada, bea)
    inside, outside = [await town.open(ada), await town.open(bea)], [await town.open(cleo), await town.open(cleo)]
    ack = await inside[0].post("before", room_id=room)
    await everybody_is_shown(inside, message(ack, ada, "before"))
    await asyncio.gather(*(wire.quiet() for wire in outside))

    answer = await town.ask(ada, "POST", f"chat/rooms/{room}/members", user_ids=[cleo.id])
    assert answer.status_code == 200, answer.text
    joined = answer.json()
    assert joined == {
        "room_id": room,
        "seq": 3,
        "timestamp": joined["timestamp"],
        "user_ids": [cleo.id],
        "by": ada.id,
    }
    await everybody_is_shown([*inside, *outside], joined, "room.member_joined")
    ack = await outside[0].post("I am here", room_id=room, client_msg_id="c1")
    assert ack["seq"] == 4
    await everybody_is_shown([*inside, *outside], message(ack, cleo, "I am here"))
    greeting = (await town.open(cleo)).greeting
    assert greeting["conversations"] == [{"conversation": f"room:{room}", "seq": 4, "unread": 0}]


async def test_who_is_removed_is_shown_that_and_then_nothing_any_more(town: Town) -> None:
    ada, bea, cleo = await town.people("ada", "bea", "cleo")
    room = await town.room(ada, bea, cleo)
    staying, leaving = [await town.open(ada), await town.open(bea)], [await town.open(cleo), await town.open(cleo)]
    mine = await leaving[0].post("mine", room_id=room, client_msg_id="c1")
    await everybody_is_shown([*staying, *leaving], message(mine, cleo, "mine"))

    answer = await town.ask(ada, "DELETE", f"chat/rooms/{room}/members/{cleo.id}")
    assert answer.status_code == 200, answer.text
    left = answer.json()
    assert left == {"room_id": room, "seq": 3, "timestamp": left["timestamp"], "user_ids": [cleo.id], "by": ada.id}
    await everybody_is_shown([*staying, *leaving], left, "room.member_left")

    ack = await staying[0].post("now that we are alone", room_id=room)
    await everybody_is_shown(staying, message(ack, ada, "now that we are alone"))
    update = await town.ask(ada, "PUT", f"chat/messages/{ack['message_id']}", content="alone at last")
    assert update.status_code == 200
    for wire in staying:
        assert (await wire.take("message.update"))["content"] == "alone at last"
    refused = await leaving[1].refused(send_frame(content="hey", room_id=room))
    assert refused["data"] == error_data("not_a_member", f"user {cleo.id} is not a member of room:{room}")
    refused = await leaving[1].refused(
        f'{{"event":"message.edit","data":{{"message_id":{mine["message_id"]},"content":"x"}}}}'
    )
    assert refused["data"]["code"] == "not_a_member"
    for wire in (*staying, *leaving):
        await wire.quiet()
    assert (await town.open(cleo)).greeting["conversations"] == []
    note = await leaving[0].post("a note", receiver_id=cleo.id)  # by the way that a wrong invitation would have come
    await everybody_is_shown(leaving, message(note, cleo, "a note"))


async def test_who_leaves_and_is_let_in_again_misses_what_was_said_between(town: Town) -> None:
    ada, bea = await town.people("ada", "bea")
    room = await town.room(ada, bea)
    hers, other = await town.open(ada), await town.open(bea)
    left = await town.ask(bea, "DELETE", f"chat/rooms/{room}/members/{bea.id}")
    assert left.json()["by"] == bea.id
    await everybody_is_shown([hers, other], left.json(), "room.member_left")
    ack = await hers.post("a secret", room_id=room)
    await everybody_is_shown([hers], message(ack, ada, "a secret"))
    joined = await town.ask(ada, "POST", f"chat/rooms/{room}/members", user_ids=[bea.id])
    await everybody_is_shown([hers, other], joined.json(), "room.member_joined")
    ack = await other.post("what did I miss?", room_id=room)
    assert ack["seq"] == 5
    await everybody_is_shown([hers, other], message(ack, bea, "what did I miss?"))


async def test_the_first_message_between_two_people_needs_no_room(town: Town) -> None:
    """Both have been connected since before the conversation existed."""
    ada, bea = await town.people("ada", "bea")
    wires = [await town.open(who) for who in (ada, ada, bea, bea)]
    acks = await asyncio.gather(
        wires[0].post("hi", receiver_id=bea.id, client_msg_id="a1"),
        wires[2].post("hello", receiver_id=ada.id, client_msg_id="b1"),
    )
    assert sorted(ack["seq"] for ack in acks) == [1, 2]
    shown = [[await wire.take("message.receive") for _ in range(2)] for wire in wires]
    assert [received["seq"] for received in shown[0]] == [1, 2]
    assert all(stream == shown[0] for stream in shown)
    for wire in wires:
        await wire.quiet()


async def test_a_room_is_one_conversation_for_everybody_however_it_changes(town: Town) -> None:
    """Messages, edits, deletes and membership take one number after the other; who was there saw all of them."""
    ada, bea, cleo = await town.people("ada", "bea", "cleo")
    room = await town.room(ada, bea)
    wire = await town.open(bea)
    first = (await (await town.open(ada)).post("one", room_id=room))["message_id"]
    await town.ask(ada, "PUT", f"chat/messages/{first}", content="first")
    await town.ask(ada, "POST", f"chat/rooms/{room}/members", user_ids=[cleo.id])
    await town.ask(ada, "DELETE", f"chat/messages/{first}")
    await town.ask(cleo, "DELETE", f"chat/rooms/{room}/members/{cleo.id}")
    await wire.take("room.member_left", room_id=room, seq=6)
    assert [(frame["event"], frame["data"]["seq"]) for frame in wire.frames] == [
        ("message.receive", 2),
        ("message.update", 3),
        ("room.member_joined", 4),
        ("message.delete", 5),
    ]


async def test_who_comes_and_goes_while_others_talk_is_shown_exactly_their_part(town: Town) -> None:
    ada, bea, cleo = await town.people("ada", "bea", "cleo")
    room = await town.room(ada, bea)
    speakers = [await town.open(who) for who in (ada, ada, bea, bea)]
    visitor = [await town.open(cleo), await town.open(cleo)]
    greeted: list[Wire] = []

    async def speak(number: int, wire: Wire) -> None:
        for place in range(45):
            await wire.post(f"{number}-{place}", room_id=room)

    async def visit() -> tuple[int, int]:
        await speakers[0].take("message.receive", seq=20)
        joined = await town.ask(ada, "POST", f"chat/rooms/{room}/members", user_ids=[cleo.id])
        greeted.extend([await town.open(cleo) for _ in range(4)])
        left = await town.ask(ada, "DELETE", f"chat/rooms/{room}/members/{cleo.id}")
        return joined.json()["seq"], left.json()["seq"]

    async with asyncio.TaskGroup() as group:
        for number, wire in enumerate(speakers):
            group.create_task(speak(number, wire))
        visiting = group.create_task(visit())
    joined, left = visiting.result()
    assert joined > 20
    assert left < 1 + len(speakers) * 45 + 2, "the visit ended while they were talking"
    for wire in visitor:
        await wire.take("room.member_left")
        assert wire.frames[0]["event"] == "room.member_joined"
        assert [frame["data"]["seq"] for frame in wire.frames] == list(range(joined, left))
        wire.frames.clear()
    for wire in greeted:
        await wire.take("room.member_left")
        [conversation] = wire.greeting["conversations"]
        assert joined - 1 <= conversation["seq"] < left  # less one: the entry that lets them in is still to be shown
        assert [frame["data"]["seq"] for frame in wire.frames] == list(range(conversation["seq"] + 1, left))
        wire.frames.clear()
    for wire in (*visitor, *greeted):
        await wire.quiet()
