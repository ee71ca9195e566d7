"""Messages over sockets: who is shown what, once; what is refused; changing what was said; the order.

``protocol.md``, section WebSocket, on a running server.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from fastsock.schemas.names import MAX_ID
from tests.e2e.test_protocol_socket import ISO
from tests.e2e.wire import Account, Town, Wire, error_data, send_frame

pytestmark = pytest.mark.cluster

SENDERS, SOCKETS, EACH = 2, 2, 50
"""200 messages at once: from each of two senders' two sockets as many as one socket may send in a burst."""


def message(ack: dict[str, Any], sender: Account, content: str, **fields: object) -> dict[str, object]:
    """The message object of ``protocol.md``, as its ack foretells it."""
    return {
        "id": ack["message_id"],
        "content": content,
        "sender_id": sender.id,
        "receiver_id": ack["receiver_id"],
        "room_id": ack["room_id"],
        "message_type": "text",
        "timestamp": ack["timestamp"],
        "is_read": False,
        "status": "sent",
        "reply_to": None,
        "reactions": {},
        "seq": ack["seq"],
        "client_msg_id": ack["client_msg_id"],
        "edited_at": None,
        "deleted": False,
        **fields,
    }


async def everybody_is_shown(wires: list[Wire], expected: dict[str, object], event: str = "message.receive") -> None:
    """Each of them gets exactly this, once, and nothing else."""
    for wire in wires:
        assert await wire.take(event) == expected
    for wire in wires:
        await wire.quiet()


# --- send, ack, receive ------------------------------------------------------------------------------------------


async def test_a_message_to_a_room_reaches_every_socket_of_every_member(town: Town) -> None:
    ada, bea, cleo, eve = await town.people("ada", "bea", "cleo", "eve")
    room = await town.room(ada, bea, cleo)
    wires = [await town.open(who) for who in (ada, ada, bea, bea, cleo)]
    outsider = await town.open(eve)
    ack = await wires[0].post("hello", room_id=room, client_msg_id="m1")
    assert ack == {
        "message_id": ack["message_id"],
        "status": "sent",
        "timestamp": ack["timestamp"],
        "seq": 2,
        "client_msg_id": "m1",
        "room_id": room,
        "receiver_id": None,
    }
    assert isinstance(ack["message_id"], int)
    assert 1 <= ack["message_id"] <= MAX_ID
    assert ISO.fullmatch(ack["timestamp"])
    await everybody_is_shown(wires, message(ack, ada, "hello"))
    await outsider.quiet()


async def test_a_message_to_a_person_reaches_every_socket_of_both(town: Town) -> None:
    ada, bea, eve = await town.people("ada", "bea", "eve")
    await town.room(ada, bea, eve)  # who shares a room with both is none the wiser
    wires = [await town.open(who) for who in (ada, ada, bea, bea)]
    outsider = await town.open(eve)
    for seq, (speaker, sender, receiver) in enumerate(
        [(wires[0], ada, bea), (wires[3], bea, ada), (wires[1], ada, bea)], start=1
    ):
        ack = await speaker.post(f"number {seq}", receiver_id=receiver.id, client_msg_id=f"m{seq}")
        assert ack == {
            "message_id": ack["message_id"],
            "status": "sent",
            "timestamp": ack["timestamp"],
            "seq": seq,
            "client_msg_id": f"m{seq}",
            "room_id": None,
            "receiver_id": receiver.id,
        }
        await everybody_is_shown(wires, message(ack, sender, f"number {seq}"))
    await outsider.quiet()


async def test_a_note_to_oneself(town: Town) -> None:
    ada = await town.person("ada")
    wires = [await town.open(ada), await town.open(ada)]
    ack = await wires[0].post("milk", receiver_id=ada.id)
    await everybody_is_shown(wires, message(ack, ada, "milk"))


async def test_a_message_may_have_a_type_and_a_reply_and_any_text(town: Town) -> None:
    ada, bea = await town.people("ada", "bea")
    wires = [await town.open(ada), await town.open(bea)]
    first = await wires[0].post("/static/cat.png", receiver_id=bea.id, message_type="image")
    await everybody_is_shown(wires, message(first, ada, "/static/cat.png", message_type="image"))
    text = ' <b>"é"</b> \u2028 😀 \r\n\t' + "\u00a0"
    reply = await wires[1].post(text, receiver_id=ada.id, reply_to=first["message_id"], message_type="text")
    await everybody_is_shown(wires, message(reply, bea, text, reply_to=first["message_id"]))
    sheet = await wires[1].post("/static/sheet.pdf", receiver_id=ada.id, message_type="file", priority="unknown field")
    await everybody_is_shown(wires, message(sheet, bea, "/static/sheet.pdf", message_type="file"))
    history = await town.ask(ada, "GET", f"chat/history/user/{bea.id}")
    assert [(item["message_type"], item["reply_to"]) for item in history.json()] == [
        ("image", None),
        ("text", first["message_id"]),
        ("file", None),
    ]


async def test_the_longest_message_there_may_be(town: Town) -> None:
    ada = await town.person("ada")
    wire = await town.open(ada)
    longest = "€" * 16_384  # 49,152 bytes; as json.dumps writes it, 98,304
    ack = await wire.post(longest, receiver_id=ada.id)
    await everybody_is_shown([wire], message(ack, ada, longest))


async def test_nothing_reaches_who_does_not_belong(town: Town) -> None:
    """Even who asks for it: sending to a room that one has not joined neither joins it nor shows it."""
    ada, bea, eve = await town.people("ada", "bea", "eve")
    room = await town.room(ada, bea)
    inside, outside = [await town.open(ada), await town.open(bea)], [await town.open(eve), await town.open(eve)]
    refused = await outside[0].refused(send_frame(content="let me in", room_id=room, client_msg_id="e1"))
    text = f"user {eve.id} is not a member of room:{room}"
    assert refused["data"] == error_data("not_a_member", text, client_msg_id="e1")
    for content in ("one", "two"):
        ack = await inside[0].post(content, room_id=room)
        await everybody_is_shown(inside, message(ack, ada, content))
    for wire in outside:
        await wire.quiet()
    note = await outside[1].post("a note", receiver_id=eve.id)  # by the way that wrong invitations would have come
    await everybody_is_shown(outside, message(note, eve, "a note"))


# --- idempotence -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to_room", [True, False], ids=["room", "person"])
async def test_a_message_sent_again_is_acknowledged_again_and_shown_once(town: Town, to_room: bool) -> None:
    ada, bea = await town.people("ada", "bea")
    where = {"room_id": await town.room(ada, bea)} if to_room else {"receiver_id": bea.id}
    phone, laptop, other = await town.open(ada), await town.open(ada), await town.open(bea)
    ack = await phone.post("once", client_msg_id="m1", **where)
    await everybody_is_shown([phone, laptop, other], message(ack, ada, "once"))

    assert await phone.post("once", client_msg_id="m1", **where) == ack
    assert await laptop.post("once", client_msg_id="m1", **where) == ack
    assert await laptop.post("other words change nothing", client_msg_id="m1", **where) == ack
    await phone.cut()
    back = await town.open(ada)
    assert await back.post("once", client_msg_id="m1", **where) == ack
    for wire in (back, laptop, other):
        await wire.quiet()

    following = await back.post("twice", client_msg_id="m2", **where)
    assert following["seq"] == ack["seq"] + 1
    await everybody_is_shown([back, laptop, other], message(following, ada, "twice"))
    path = f"chat/history/room/{where['room_id']}" if to_room else f"chat/history/user/{bea.id}"
    history = (await town.ask(ada, "GET", path)).json()
    assert [(item["id"], item["content"]) for item in history] == [
        (ack["message_id"], "once"),
        (following["message_id"], "twice"),
    ]


async def test_the_same_message_from_two_sockets_at_once_is_one_message(town: Town) -> None:
    ada = await town.person("ada")
    wires = [await town.open(ada) for _ in range(5)]
    acks = await asyncio.gather(*(wire.post("now", receiver_id=ada.id, client_msg_id="m1") for wire in wires))
    assert all(ack == acks[0] for ack in acks)
    await everybody_is_shown(wires, message(acks[0], ada, "now"))


async def test_a_client_msg_id_is_its_senders_own(town: Town) -> None:
    ada, bea = await town.people("ada", "bea")
    hers, other = await town.open(ada), await town.open(bea)
    first = await hers.post("from ada", receiver_id=bea.id, client_msg_id="m1")
    second = await other.post("from bea", receiver_id=ada.id, client_msg_id="m1")
    assert (first["seq"], second["seq"]) == (1, 2)
    for wire in (hers, other):
        assert [(await wire.take("message.receive"))["content"] for _ in range(2)] == ["from ada", "from bea"]


async def test_a_client_msg_id_cannot_name_a_message_elsewhere(town: Town) -> None:
    ada, bea = await town.people("ada", "bea")
    room = await town.room(ada, bea)
    wire, other = await town.open(ada), await town.open(bea)
    ack = await wire.post("here", room_id=room, client_msg_id="m1")
    await everybody_is_shown([wire, other], message(ack, ada, "here"))
    refused = await wire.refused(send_frame(content="there", receiver_id=bea.id, client_msg_id="m1"))
    text = f"the id 'm1' is taken: it names an entry of kind 'message' in room:{room}"
    assert refused["data"] == error_data("key_reused", text, client_msg_id="m1")
    for each in (wire, other):
        await each.quiet()


async def test_messages_without_a_client_msg_id_are_all_different(town: Town) -> None:
    """So earlier clients send, and two equal messages are two."""
    ada, bea = await town.people("ada", "bea")
    wires = [await town.open(ada), await town.open(bea)]
    for seq in (1, 2):
        ack = await wires[0].post("same", receiver_id=bea.id)
        assert (ack["seq"], ack["client_msg_id"]) == (seq, None)
        await everybody_is_shown(wires, message(ack, ada, "same"))


# --- refused -----------------------------------------------------------------------------------------------------


async def test_a_message_to_nobody_and_to_nowhere(town: Town) -> None:
    ada = await town.person("ada")
    wire = await town.open(ada)
    refused = await wire.refused(send_frame(content="x", receiver_id=MAX_ID, client_msg_id="m1"))
    text = f"user {ada.id} or {MAX_ID} does not exist or is not active"
    assert refused["data"] == error_data("user_not_found", text, client_msg_id="m1")
    refused = await wire.refused(send_frame(content="x", room_id=MAX_ID))
    assert refused["data"] == error_data("room_not_found", f"room {MAX_ID} does not exist or is not active")
    await wire.quiet()


NOT_AN_ID = f"ids are integers from 1 to {MAX_ID}"


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        ({"content": "x"}, "invalid_data", "exactly one of room_id and receiver_id is needed, neither was given"),
        (
            {"content": "x", "room_id": 1, "receiver_id": 1},
            "invalid_data",
            "exactly one of room_id and receiver_id is needed, both were given",
        ),
        ({"content": "x", "room_id": 0}, "invalid_data", f"room_id: 0 is not an id; {NOT_AN_ID}"),
        ({"content": "x", "receiver_id": -1}, "invalid_data", f"receiver_id: -1 is not an id; {NOT_AN_ID}"),
        (
            {"content": "x", "receiver_id": MAX_ID + 1},
            "invalid_data",
            f"receiver_id: {MAX_ID + 1} is not an id; {NOT_AN_ID}",
        ),
        ({"content": "x", "room_id": "1"}, "invalid_data", "room_id: expected int | null, got str"),
        ({"content": "x", "room_id": True}, "invalid_data", "room_id: expected int | null, got bool"),
        ({"room_id": 1}, "invalid_data", "data: object missing required field content"),
        ({"content": 7, "room_id": 1}, "invalid_data", "content: expected str, got int"),
        ({"content": "", "room_id": 1}, "invalid_data", "content: must not be blank"),
        ({"content": " \n\t\u2003", "room_id": 1}, "invalid_data", "content: must not be blank"),
        ({"content": "a\0b", "room_id": 1}, "invalid_data", "content: a NUL character at position 1 is not allowed"),
        (
            {"content": "x" * 16_385, "room_id": 1},
            "content_too_long",
            "content: 16,385 characters in 16,385 bytes; at most 16,384 characters and 49,152 bytes are allowed",
        ),
        (
            {"content": "😀" * 12_289, "room_id": 1},
            "content_too_long",
            "content: 12,289 characters in 49,156 bytes; at most 16,384 characters and 49,152 bytes are allowed",
        ),
        (
            {"content": "x", "room_id": 1, "message_type": "system"},
            "invalid_data",
            "message_type: 'system' is not text, image or file",
        ),
        (
            {"content": "x", "room_id": 1, "message_type": "Text"},
            "invalid_data",
            "message_type: 'Text' is not text, image or file",
        ),
        ({"content": "x", "room_id": 1, "reply_to": 0}, "invalid_data", f"reply_to: 0 is not an id; {NOT_AN_ID}"),
    ],
)
async def test_a_message_that_breaks_the_contract(town: Town, data: dict[str, object], code: str, text: str) -> None:
    wire = await town.open(await town.person("ada"))
    frame = {"event": "message.send", "data": {**data, "client_msg_id": "m1"}}
    refused = await wire.refused(json.dumps(frame, ensure_ascii=False))  # as browsers write it
    assert refused == {"event": "error", "data": error_data(code, text, client_msg_id="m1")}
    await wire.quiet()


@pytest.mark.parametrize(
    ("client_msg_id", "text"),
    [
        ("", "client_msg_id: 0 characters; 1 to 128 are allowed"),
        ("x" * 129, "client_msg_id: 129 characters; 1 to 128 are allowed"),
        ("a\0", "client_msg_id: a NUL character at position 1 is not allowed"),
        (7, "client_msg_id: expected str | null, got int"),
    ],
    ids=["empty", "long", "NUL", "number"],
)
async def test_a_client_msg_id_that_is_no_name(town: Town, client_msg_id: object, text: str) -> None:
    ada = await town.person("ada")
    wire = await town.open(ada)
    refused = await wire.refused(send_frame(content="x", receiver_id=ada.id, client_msg_id=client_msg_id))
    assert refused == {"event": "error", "data": error_data("invalid_data", text)}
    ack = await wire.post("x", receiver_id=ada.id, client_msg_id="x" * 128)
    assert (ack["seq"], ack["client_msg_id"]) == (1, "x" * 128)


@pytest.mark.parametrize(("data", "got"), [("null", "null"), ("[1]", "array"), ('"x"', "str")])
async def test_data_that_is_no_object(town: Town, data: str, got: str) -> None:
    wire = await town.open(await town.person("ada"))
    refused = await wire.refused(f'{{"event":"message.send","data":{data}}}')
    assert refused["data"] == error_data("invalid_data", f"data: expected object, got {got}")


async def test_half_an_emoji_is_refused_by_name(town: Town) -> None:
    ada = await town.person("ada")
    wire = await town.open(ada)
    refused = await wire.refused(send_frame(content="\ud83d", receiver_id=ada.id, client_msg_id="m1"))
    text = "a text in the frame is not Unicode: it holds half of a surrogate pair"
    assert refused["data"] == error_data("invalid_data", text, client_msg_id="m1")
    await wire.quiet()


# --- edit and delete ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("over_http", [True, False], ids=["http", "socket"])
@pytest.mark.parametrize("to_room", [True, False], ids=["room", "person"])
async def test_edits_and_deletes_are_shown_to_the_participants_alone(
    town: Town, to_room: bool, over_http: bool
) -> None:
    ada, bea, eve = await town.people("ada", "bea", "eve")
    where = {"room_id": await town.room(ada, bea)} if to_room else {"receiver_id": bea.id}
    wires = [await town.open(who) for who in (ada, ada, bea, bea)]
    outsider = await town.open(eve)
    ack = await wires[0].post("helo", client_msg_id="m1", **where)
    await everybody_is_shown(wires, message(ack, ada, "helo"))
    path = f"chat/messages/{ack['message_id']}"
    change = {"message_id": ack["message_id"], "message_seq": ack["seq"], "by": ada.id}

    if over_http:
        answer = await town.ask(ada, "PUT", path, content="hello")
        assert answer.status_code == 200
    else:
        await wires[1].say("message.edit", message_id=ack["message_id"], content="hello")
    edited_at = await _edited_at(wires[0])
    edited = {**message(ack, ada, "hello"), "edited_at": edited_at, "seq": ack["seq"] + 1, **change}
    await everybody_is_shown(wires, edited, "message.update")
    if over_http:
        assert answer.json() == {**message(ack, ada, "hello"), "edited_at": edited_at}

    if over_http:
        answer = await town.ask(ada, "DELETE", path)
        assert (answer.status_code, answer.json()) == (200, {"ok": True})
    else:
        await wires[1].say("message.delete", message_id=ack["message_id"])
    gone = {**message(ack, ada, ""), "deleted": True, "seq": ack["seq"] + 2, **change}
    await everybody_is_shown(wires, gone, "message.delete")
    await outsider.quiet()


async def _edited_at(wire: Wire) -> str:
    """When the edit happened: the update says it, and stays."""
    update = await wire.take("message.update")
    wire.frames.insert(0, {"event": "message.update", "data": update})
    assert ISO.fullmatch(update["edited_at"])
    assert update["edited_at"] >= update["timestamp"]
    edited_at: str = update["edited_at"]
    return edited_at


async def test_who_may_not_change_a_message(town: Town) -> None:
    ada, bea, eve = await town.people("ada", "bea", "eve")
    room = await town.room(ada, bea)
    author, member, outsider = await town.open(bea), await town.open(ada), await town.open(eve)
    first = await author.post("mine", room_id=room)
    await everybody_is_shown([author, member], message(first, bea, "mine"))
    identity = first["message_id"]
    by_another = f"user {ada.id} may not change it: message {identity} is by user {bea.id}"
    not_a_member = f"user {eve.id} is not a member of room:{room}"
    for wire, event, code, text in (
        (member, "message.edit", "not_the_author", by_another),
        (outsider, "message.edit", "not_a_member", not_a_member),
        (outsider, "message.delete", "not_a_member", not_a_member),
    ):
        data = {"message_id": identity, "content": "yours", "client_msg_id": "c1"}
        refused = await wire.refused(json.dumps({"event": event, "data": data}))
        assert refused["data"] == error_data(code, text, event, "c1")
    nowhere = await author.refused('{"event":"message.edit","data":{"message_id":9007199254740991,"content":"x"}}')
    assert nowhere["data"] == error_data("message_not_found", f"there is no message {MAX_ID}", "message.edit")
    for wire in (author, member, outsider):
        await wire.quiet()

    await member.say("message.delete", message_id=identity)  # the owner of the room may
    for wire in (author, member):
        deleted = await wire.take("message.delete")
        assert (deleted["by"], deleted["deleted"], deleted["content"]) == (ada.id, True, "")
    refused = await author.refused(
        json.dumps({"event": "message.edit", "data": {"message_id": identity, "content": "but"}})
    )
    text = f"message {identity} has been deleted"
    assert refused["data"] == error_data("message_deleted", text, "message.edit")
    for wire in (author, member, outsider):
        await wire.quiet()


async def test_a_change_sent_again_happens_once(town: Town) -> None:
    ada = await town.person("ada")
    wire, other = await town.open(ada), await town.open(ada)
    ack = await wire.post("helo", receiver_id=ada.id, client_msg_id="m1")
    await everybody_is_shown([wire, other], message(ack, ada, "helo"))
    edit = json.dumps(
        {
            "event": "message.edit",
            "data": {"message_id": ack["message_id"], "content": "hello", "client_msg_id": "e1"},
        }
    )
    await wire.raw(edit)
    await wire.raw(edit)
    for each in (wire, other):
        assert (await each.take("message.update"))["content"] == "hello"
    reused = edit.replace('"e1"', '"m1"')
    refused = await wire.refused(reused)
    conversation = f"dm:{ada.id}:{ada.id}"
    text = f"the id 'm1' is taken: it names an entry of kind 'message' in {conversation}"
    assert refused["data"] == error_data("key_reused", text, "message.edit", "m1")
    for each in (wire, other):
        await each.quiet()

    path = f"chat/messages/{ack['message_id']}"
    assert (await town.ask(ada, "DELETE", path)).status_code == 200
    for each in (wire, other):
        assert (await each.take("message.delete"))["deleted"]
    again = await town.ask(ada, "DELETE", path)
    assert (again.status_code, again.json()["code"]) == (409, "message_deleted")
    for each in (wire, other):
        await each.quiet()


# --- order -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to_room", [True, False], ids=["room", "person"])
async def test_everybody_is_shown_two_hundred_quick_messages_in_one_order(town: Town, to_room: bool) -> None:
    ada, bea = await town.people("ada", "bea")
    room = await town.room(ada, bea)
    first = 2 if to_room else 1
    wires = [await town.open(who) for who in (ada, ada, bea, bea)]

    async def speak(number: int, wire: Wire) -> None:
        other = bea.id if number < SOCKETS else ada.id
        where = {"room_id": room} if to_room else {"receiver_id": other}
        for place in range(EACH):
            await wire.raw(send_frame(content=f"{number}-{place}", client_msg_id=f"{number}-{place}", **where))

    await asyncio.gather(*(speak(number, wire) for number, wire in enumerate(wires)))
    shown = [[await wire.take("message.receive") for _ in range(SENDERS * SOCKETS * EACH)] for wire in wires]
    assert [received["seq"] for received in shown[0]] == list(range(first, first + SENDERS * SOCKETS * EACH))
    assert all(stream == shown[0] for stream in shown)
    contents = [received["content"] for received in shown[0]]
    for number, wire in enumerate(wires):
        mine = [content for content in contents if content.startswith(f"{number}-")]
        assert mine == [f"{number}-{place}" for place in range(EACH)]  # one socket's messages keep their order
        acks = [await wire.take("message.ack") for _ in range(EACH)]
        assert [ack["client_msg_id"] for ack in acks] == mine
        by_id = {received["client_msg_id"]: received for received in shown[0]}
        assert [ack["seq"] for ack in acks] == [by_id[name]["seq"] for name in mine]
        await wire.quiet()
