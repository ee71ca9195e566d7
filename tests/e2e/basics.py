"""The basic scenario: what has to work wherever FastSock runs, and behind whichever ingress."""

from __future__ import annotations

import asyncio
import time

from tests.e2e.test_protocol_messages import everybody_is_shown, message
from tests.e2e.wire import WITHIN_S, Town, error_data, send_frame

LOOK_S = 0.05


async def sockets_are(town: Town, count: int) -> None:
    """Wait until the gateway has so many sockets."""
    give_up_at = time.monotonic() + WITHIN_S
    while (there := await town.sockets()) != count:
        assert time.monotonic() < give_up_at, f"the gateway has {there} sockets, not {count}"
        await asyncio.sleep(LOOK_S)


async def two_people_talk(town: Town) -> None:
    """In a room and 1-to-1, on three sockets; one is cut and comes back."""
    await sockets_are(town, 0)
    ada, bea = await town.people("ada", "bea")
    phone, laptop, other = wires = [await town.open(who) for who in (ada, ada, bea)]
    assert await town.sockets() == 3
    room = await town.room(ada, bea)
    for wire in wires:
        assert (await wire.take("room.created"))["id"] == room

    in_room = await phone.post("hello, room", room_id=room, client_msg_id="r1")
    assert (in_room["seq"], in_room["room_id"], in_room["client_msg_id"]) == (2, room, "r1")
    await everybody_is_shown(wires, message(in_room, ada, "hello, room"))
    between = await other.post("hello, ada", receiver_id=ada.id, client_msg_id="d1")
    assert (between["seq"], between["receiver_id"]) == (1, ada.id)
    await everybody_is_shown(wires, message(between, bea, "hello, ada"))
    refused = await other.refused(send_frame(content="x", room_id=room + 1, client_msg_id="r2"))
    text = f"room {room + 1} does not exist or is not active"
    assert refused["data"] == error_data("room_not_found", text, client_msg_id="r2")

    await phone.cut()
    await sockets_are(town, 2)  # the gateway notices by itself
    missed = await other.post("are you there?", room_id=room, client_msg_id="r3")
    await everybody_is_shown([laptop, other], message(missed, bea, "are you there?"))
    phone = await town.open(ada)
    assert sorted(phone.greeting["conversations"], key=lambda item: str(item["conversation"])) == [
        {"conversation": f"room:{room}", "seq": 3, "unread": 1},
        {"conversation": f"user:{bea.id}", "seq": 1, "unread": 1},
    ]
    assert await phone.post("hello, room", room_id=room, client_msg_id="r1") == in_room  # sent again, to be sure
    back = await phone.post("now I am", room_id=room, client_msg_id="r4")
    await everybody_is_shown([phone, laptop, other], message(back, ada, "now I am"))
    history = (await town.ask(bea, "GET", f"chat/history/room/{room}")).json()
    assert [(item["seq"], item["content"]) for item in history] == [
        (2, "hello, room"),
        (3, "are you there?"),
        (4, "now I am"),
    ]
    assert (await town.ask(ada, "GET", "chat/unread")).json() == {"users": {str(bea.id): 1}, "rooms": {str(room): 1}}
    await town.close()
    await sockets_are(town, 0)
