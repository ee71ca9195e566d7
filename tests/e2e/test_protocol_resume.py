"""Coming back: ``session.resume`` and ``session.refresh`` of ``protocol.md``, on a running server."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from fastsock.db.conversations import Conversations
from fastsock.db.engine import Database
from fastsock.db.message_log import MessageLog
from fastsock.schemas import names
from fastsock.schemas.log import Append, Entry
from tests.e2e.people import until
from tests.e2e.wire import WITHIN_S, Account, Data, Town, Wire, error_data

pytestmark = pytest.mark.cluster

MISSED = 10_000
EACH_APPEND = 1_000


async def resume(wire: Wire, conversations: dict[str, int]) -> tuple[list[Data], Data]:
    """What the socket is shown until ``session.resumed``, and the data of that; what came before must be nothing."""
    assert wire.frames == []
    await wire.say("session.resume", conversations=conversations)
    shown = []
    while (frame := await wire.frame())["event"] != "session.resumed":
        shown.append(frame)
    return shown, frame["data"]


def seqs(frames: list[Data]) -> list[tuple[str, int]]:
    return [(frame["event"], frame["data"]["seq"]) for frame in frames]


def resumed(conversations: dict[str, int], **fields: object) -> dict[str, object]:
    """The data of ``session.resumed`` where nothing is special."""
    return {"conversations": conversations, "complete": True, "oldest": {}, "left": [], "markers": {}, **fields}


async def stored(town: Town, room: int, sender: Account, count: int) -> None:
    """Messages of one sender, put into a log to which nobody has said anything yet."""
    database = Database(f"sqlite+aiosqlite:///{town.server.data_dir / 'fastsock.db'}")
    log, name = MessageLog(database), str(names.room(room))
    head = (await log.heads([name]))[name]
    for first in range(0, count, EACH_APPEND):
        ids = await log.lease_ids(EACH_APPEND)
        entries = [
            Entry(
                conversation=name,
                kind="message",
                sender_id=sender.id,
                key=f"c:{room}-{first + place}",
                at_ms=int(time.time() * 1000),
                id=id_,
                content=f"message {first + place}",
            )
            for place, id_ in enumerate(ids)
        ]
        outcomes = await log.append([Append(name, head + first, entries)])
        assert len(outcomes[0]) == EACH_APPEND
    await database.close()


# --- what was missed ---------------------------------------------------------------------------------------------


async def test_everything_that_happened_meanwhile_comes_in_order_and_then_the_live_stream(town: Town) -> None:
    ada, bea, cleo = await town.people("ada", "bea", "cleo")
    room = await town.room(ada, bea)
    away = await town.open(ada)
    bea_wire = await town.open(bea)
    first = await bea_wire.post("one", room_id=room)
    assert (await away.take("message.receive"))["seq"] == 2
    await away.cut()

    second = await bea_wire.post("two", room_id=room)
    await bea_wire.say("message.edit", message_id=first["message_id"], content="ONE")
    await bea_wire.take("message.update")
    await bea_wire.say("message.delete", message_id=second["message_id"])
    await bea_wire.take("message.delete")
    answer = await town.ask(ada, "POST", f"chat/rooms/{room}/members", user_ids=[cleo.id])
    assert answer.status_code == 200, answer.text
    await bea_wire.take("room.member_joined")
    direct = await bea_wire.post("psst", receiver_id=ada.id)
    await bea_wire.take("message.receive", id=direct["message_id"])  # this gateway knows of it

    back = await town.open(ada)
    heads = {item["conversation"]: item["seq"] for item in back.greeting["conversations"]}
    assert heads == {f"room:{room}": 6, f"user:{bea.id}": 1}
    shown, told = await resume(back, {f"room:{room}": 2})
    by_place = sorted(shown, key=lambda frame: frame["data"]["room_id"] is None)
    assert seqs(by_place) == [
        ("message.receive", 3),
        ("message.update", 4),
        ("message.delete", 5),
        ("room.member_joined", 6),
        ("message.receive", 1),
    ]
    assert [frame["data"].get("content") for frame in by_place] == ["", "ONE", "", None, "psst"]
    assert by_place[4]["data"]["id"] == direct["message_id"]
    assert told == resumed(heads)

    await bea_wire.post("live", room_id=room)
    assert (await back.take("message.receive"))["seq"] == 7
    await back.quiet()


async def test_a_client_that_has_everything_is_told_so_and_shown_nothing(town: Town) -> None:
    ada, bea = await town.people("ada", "bea")
    room = await town.room(ada, bea)
    wire = await town.open(ada)
    assert await resume(wire, {f"room:{room}": 1}) == ([], resumed({f"room:{room}": 1}))
    nobody = await town.open(await town.person("cleo"))
    assert await resume(nobody, {}) == ([], resumed({}))


async def test_a_room_that_is_new_is_shown_from_the_entry_that_lets_one_in(town: Town) -> None:
    ada, bea = await town.people("ada", "bea")
    wire = await town.open(bea)
    new = await town.room(bea, ada, name="News")
    assert (await wire.take("room.created"))["id"] == new
    joined = await town.room(bea)
    await wire.take("room.created", id=joined)
    await wire.post("before", room_id=joined)
    await town.ask(bea, "POST", f"chat/rooms/{joined}/members", user_ids=[ada.id])
    await wire.post("after", room_id=joined)

    shown, told = await resume(await town.open(ada), {})
    created = [frame for frame in shown if frame["data"]["room_id"] == new]
    assert [(frame["event"], frame["data"]["name"]) for frame in created] == [("room.created", "News")]
    let_in = [frame for frame in shown if frame["data"]["room_id"] == joined]
    assert seqs(let_in) == [("room.member_joined", 3), ("message.receive", 4)]
    assert told == resumed({f"room:{new}": 1, f"room:{joined}": 4})


async def test_a_room_that_one_was_removed_from_is_said_to_be_left(town: Town) -> None:
    ada, bea = await town.people("ada", "bea")
    room = await town.room(bea, ada)
    await town.ask(bea, "DELETE", f"chat/rooms/{room}/members/{ada.id}")
    wire, other = await town.open(ada), await town.open(bea)
    assert await resume(wire, {f"room:{room}": 1}) == ([], resumed({}, left=[f"room:{room}"]))
    await other.post("without her", room_id=room)
    await wire.quiet()


async def test_who_names_more_than_there_is_reloads_and_goes_on_live(town: Town) -> None:
    ada, bea = await town.people("ada", "bea")
    room = await town.room(ada, bea)
    wire, other = await town.open(ada), await town.open(bea)
    shown, told = await resume(wire, {f"room:{room}": 40})
    assert (shown, told) == ([], resumed({f"room:{room}": 1}, complete=False, oldest={f"room:{room}": 1}))
    await other.post("hello", room_id=room)
    assert (await wire.take("message.receive"))["seq"] == 2


async def test_a_gap_is_healed_at_any_time_by_naming_one_conversation(town: Town) -> None:
    ada, bea = await town.people("ada", "bea")
    room = await town.room(ada, bea)
    wire, other = await town.open(ada), await town.open(bea)
    for number in range(3):
        await other.post(f"{number}", room_id=room)
        await wire.take("message.receive")
    shown, told = await resume(wire, {f"room:{room}": 2})
    assert seqs(shown) == [("message.receive", 3), ("message.receive", 4)]
    assert told == resumed({f"room:{room}": 4})


async def test_the_markers_come_with_it(town: Town) -> None:
    ada, bea = await town.people("ada", "bea")
    room = await town.room(ada, bea)
    wire = await town.open(ada)
    await wire.post("hello", room_id=room)
    await wire.take("message.receive")
    database = Database(f"sqlite+aiosqlite:///{town.server.data_dir / 'fastsock.db'}")
    assert await Conversations(database).mark_read(bea.id, f"room:{room}", 2)
    await database.close()
    _, told = await resume(wire, {f"room:{room}": 2})
    assert told["markers"] == {f"room:{room}": {str(bea.id): {"read_seq": 2, "delivered_seq": 0}}}


async def test_ten_thousand_missed_messages_come_in_order_while_people_talk(town: Town) -> None:
    ada, bea = await town.people("ada", "bea")
    room = await town.room(bea, ada)
    await stored(town, room, bea, MISSED)
    other = await town.open(bea)
    said: list[int] = []
    enough = asyncio.Event()

    async def talk() -> None:
        while not enough.is_set():
            said.append((await other.post(f"live {len(said)}", room_id=room))["seq"])
            await asyncio.sleep(0.06)  # below the limit of 20 messages a second

    talking = asyncio.create_task(talk())
    await until(lambda: len(said) >= 3, WITHIN_S, "bea talks")
    wire = await town.open(ada)
    shown, told = await resume(wire, {f"room:{room}": 1})
    head = told["conversations"][f"room:{room}"]
    assert told == resumed({f"room:{room}": head})
    assert [frame["data"]["seq"] for frame in shown] == list(range(2, head + 1))
    assert head > MISSED + 3
    goal = len(said) + 5
    await until(lambda: len(said) >= goal, WITHIN_S, "bea goes on talking")
    enough.set()
    await talking
    live = [(await wire.take("message.receive"))["seq"] for _ in range(head + 1, said[-1] + 1)]
    assert live == list(range(head + 1, said[-1] + 1))
    await wire.quiet()


async def test_a_resume_that_says_nonsense_is_refused_and_the_socket_lives(town: Town) -> None:
    wire = await town.open(await town.person("ada"))
    answer = await wire.refused('{"event":"session.resume","data":{"conversations":{"room:x":1}}}')
    text = "conversations: 'room:x' is no conversation; they are called room:42 or user:7"
    assert answer["data"] == error_data("invalid_data", text, "session.resume")
    await wire.quiet()


# --- session.refresh ---------------------------------------------------------------------------------------------


async def test_a_new_token_lets_the_socket_live_on(town: Town) -> None:
    ada, bea = await town.people("ada", "bea")
    wire = await (await town.connect(f"?token={town.token(ada.id, 3)}")).greeted()
    await wire.take("session.expiring")
    await wire.say("session.refresh", token=town.token(ada.id, 3600))
    told: dict[str, Any] = await wire.take("session.refreshed")
    assert set(told) == {"expires_at", "expires_in"}
    assert 3_590 <= told["expires_in"] <= 3_600
    await asyncio.sleep(4)  # the first token has ended by now, and the socket with it, if it had counted
    await wire.quiet()
    answer = await wire.refused(f'{{"event":"session.refresh","data":{{"token":"{bea.token}"}}}}')
    text = f"the token is user {bea.id}'s, this socket is user {ada.id}'s"
    assert answer["data"] == error_data("not_allowed", text, "session.refresh")
