"""Conversations, members, rooms and read markers."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import event

from fastsock.core.errors import PolicyError
from fastsock.db.conversations import Conversations, MemberRow, RoomRow
from fastsock.db.engine import Database
from fastsock.db.message_log import MessageLog
from fastsock.schemas.log import ConversationState, Entry, Role, Stored, Subscription
from tests.contracts.entries import (
    NOW_MS,
    add_users,
    change,
    deactivate,
    group,
    members_of,
    membership,
    message,
    read_marker,
)


@pytest.fixture
def conversations(db: Database) -> Conversations:
    return Conversations(db)


async def make_room(conversations: Conversations, owner: int, *others: int, name: str = "Engine room") -> Entry:
    [id_] = await MessageLog(conversations._database).lease_ids(1)
    return await conversations.create_room(owner, name, others, 10**12 + id_, NOW_MS)


def statements(db: Database) -> list[str]:
    """The statements that are run from now on."""
    seen: list[str] = []

    @event.listens_for(db.engine.sync_engine, "before_cursor_execute")
    def _see(*arguments: object) -> None:
        seen.append(str(arguments[2]))

    return seen


def state(
    name: str, head: int, members: dict[int, Role], title: str = "", last_at_ms: int = NOW_MS
) -> ConversationState:
    return ConversationState(conversation=name, head=head, last_at_ms=last_at_ms, members=members, name=title)


# --- rooms -------------------------------------------------------------------------------------------------------


async def test_a_room_is_made_complete(conversations: Conversations, log: MessageLog, db: Database) -> None:
    entry = await make_room(conversations, 2, 3, 1, 2, name="Ö & Co")
    assert entry == Entry(
        conversation="room:1",
        kind="created",
        sender_id=2,
        key="s:room-1",
        at_ms=NOW_MS,
        id=10**12 + 1,
        seq=1,
        content="Ö & Co",
        detail={"members": {"2": "owner", "3": "member", "1": "member"}},
    )
    assert await log.after("room:1", 0, 10) == [entry]
    assert await members_of(db, "room:1") == {1: ("member", 1), 2: ("owner", 1), 3: ("member", 1)}
    assert await conversations.room(1) == RoomRow(1, "Ö & Co", 2, NOW_MS, 3)
    assert await log.append([group(1, message("room:1", 3, "first"))]) == [[Stored(2)]]


async def test_a_room_of_nobodies_is_not_made(conversations: Conversations, log: MessageLog, db: Database) -> None:
    await deactivate(db, 5)
    with pytest.raises(PolicyError) as caught:
        await make_room(conversations, 1, 99, 5, 2, 98)
    assert (caught.value.code, caught.value.message) == ("user_not_found", "no such users, or not active: 5, 98, 99")
    with pytest.raises(PolicyError) as caught:
        await make_room(conversations, 1, *range(100, 1112))
    named = ", ".join(map(str, range(100, 110)))
    assert caught.value.message == f"no such users, or not active: {named} and 1,002 more"
    assert await conversations.room(1) is None
    assert await log.heads(["room:1"]) == {"room:1": 0}


async def test_rooms_and_members(conversations: Conversations, log: MessageLog) -> None:
    await make_room(conversations, 1, 2, name="one")
    await make_room(conversations, 3, name="two")
    await make_room(conversations, 2, 1, 3, name="three")
    await log.append([group(0, message("dm:1:2", 1, "hello")), group(1, membership("joined", "room:1", 1, 4))])
    one, two, three = (
        RoomRow(1, "one", 1, NOW_MS, 3),
        RoomRow(2, "two", 3, NOW_MS, 1),
        RoomRow(3, "three", 2, NOW_MS, 3),
    )
    assert await conversations.rooms_of(1) == [three, one]
    assert await conversations.rooms_of(3) == [three, two]
    assert await conversations.rooms_of(9) == []
    assert await conversations.room(4) is None
    assert await conversations.members(1) == [
        MemberRow(1, "owner", 1),
        MemberRow(2, "member", 1),
        MemberRow(4, "member", 2),
    ]
    assert await conversations.members(99) == []


# --- loading -----------------------------------------------------------------------------------------------------


async def test_states_are_loaded(conversations: Conversations, log: MessageLog, db: Database) -> None:
    await make_room(conversations, 1, 2)
    late = message("room:1", 2, "late")
    late.at_ms = NOW_MS + 9
    left = membership("left", "room:1", 2, 2)
    left.at_ms = NOW_MS + 9
    await log.append([group(0, message("dm:1:2", 1, "hi")), group(1, late, left)])
    await deactivate(db, 5)
    wanted = ["room:1", "room:2", "dm:1:2", "dm:3:4", "dm:3:3", "dm:4:5", "dm:4:99", "room:1"]
    assert await conversations.load(wanted) == {
        "room:1": state("room:1", 3, {1: "owner"}, "Engine room", NOW_MS + 9),
        "room:2": None,
        "dm:1:2": state("dm:1:2", 1, {1: "member", 2: "member"}),
        "dm:3:4": state("dm:3:4", 0, {3: "member", 4: "member"}, last_at_ms=0),
        "dm:3:3": state("dm:3:3", 0, {3: "member"}, last_at_ms=0),
        "dm:4:5": None,
        "dm:4:99": None,
    }
    assert await conversations.load([]) == {}


async def test_many_states_cost_few_queries(conversations: Conversations, db: Database) -> None:
    for number in range(30):
        await make_room(conversations, 1, number % 8 + 2)
    wanted = [f"room:{number}" for number in range(1, 3001)] + [
        f"dm:{a}:{b}" for a in range(1, 9) for b in range(a, 900)
    ]
    seen = statements(db)
    loaded = await conversations.load(wanted)
    assert len(seen) <= 4, seen
    assert len(loaded) == len(wanted)
    assert sum(found is not None for found in loaded.values()) == 30 + sum(10 - low for low in range(1, 9))
    seen.clear()
    await conversations.of_users(range(1, 2000))
    assert len(seen) == 1, seen


# --- subscriptions and unread messages ---------------------------------------------------------------------------


async def test_subscriptions(conversations: Conversations, log: MessageLog) -> None:
    await make_room(conversations, 1, 2)
    deleted = message("room:1", 1, "deleted")
    say = [message("room:1", 1, "a"), deleted, message("room:1", 2, "b"), change("delete", deleted, 1)]
    await log.append([group(1, *say, membership("joined", "room:1", 1, 3), message("room:1", 1, "c"))])
    await log.append(
        [group(0, message("dm:2:3", 3, "psst"), message("dm:2:3", 3, "here"), message("dm:2:3", 2, "what"))]
    )
    assert await conversations.of_users([1, 2, 3, 4]) == {
        1: [Subscription("room:1", 7, 1, 1)],
        2: [Subscription("dm:2:3", 3, 2, 1), Subscription("room:1", 7, 2, 1)],
        3: [Subscription("dm:2:3", 3, 1, 1), Subscription("room:1", 7, 1, 6)],
        4: [],
    }
    assert await conversations.unread(2) == {"dm:2:3": 2, "room:1": 2}
    await conversations.mark_read(2, "dm:2:3", 1)
    await conversations.mark_read(2, "room:1", 7)
    assert await conversations.unread(2) == {"dm:2:3": 1}
    await log.append([group(7, membership("left", "room:1", 2, 2))])
    assert [found.conversation for found in (await conversations.of_users([2]))[2]] == ["dm:2:3"]


async def test_who_comes_back_starts_anew(conversations: Conversations, log: MessageLog) -> None:
    await make_room(conversations, 1, 2)
    await conversations.mark_read(2, "room:1", 1)
    gone = [membership("left", "room:1", 1, 2), message("room:1", 1, "without 2"), membership("joined", "room:1", 1, 2)]
    await log.append([group(1, *gone, message("room:1", 1, "with 2"))])
    assert await conversations.unread(2) == {"room:1": 1}


async def test_markers_only_move_forward(conversations: Conversations, log: MessageLog, db: Database) -> None:
    await log.append([group(0, *(message("dm:1:2", 1, text) for text in "abcde"))])

    async def mark(seq: int) -> tuple[bool, int | None]:
        return await conversations.mark_read(2, "dm:1:2", seq), await read_marker(db, 2, "dm:1:2")

    assert await mark(0) == (False, None)
    assert await mark(2) == (True, 2)
    assert await mark(2) == (False, 2)
    assert await mark(1) == (False, 2)
    assert await mark(99) == (True, 5), "what has not been written yet cannot have been read"
    assert await conversations.mark_read(2, "dm:2:3", 4) is False
    assert await read_marker(db, 1, "dm:1:2") is None, "markers are each user's own"


async def test_markers_moved_at_once_end_at_the_furthest(url: str, log: MessageLog, db: Database) -> None:
    await log.append([group(0, *(message("dm:1:2", 1, f"{number}") for number in range(40)))])
    databases = [Database(url, pool_size=2) for _ in range(2)]
    order = [(number * 7) % 40 + 1 for number in range(40)]
    marks = [Conversations(databases[seq % 2]).mark_read(2, "dm:1:2", seq) for seq in order]
    moved = await asyncio.gather(*marks)
    assert any(moved)
    assert await read_marker(db, 2, "dm:1:2") == 40
    for database in databases:
        await database.close()


async def test_a_user_with_a_thousand_conversations(
    conversations: Conversations, log: MessageLog, db: Database
) -> None:
    """The point of it is the time, which no index would make bearable if it were not used: this takes 0.1 s."""
    pairs = 1000
    async with db.transaction() as connection:
        await connection.exec_driver_sql("DELETE FROM users")
    await add_users(db, pairs + 1)
    for start in range(2, pairs + 2, 250):
        people = range(start, start + 250)
        await log.append([group(0, *(message(f"dm:1:{n}", n, f"{n}-{i}") for i in range(10))) for n in people])
    async with asyncio.timeout(5):
        mine = (await conversations.of_users([1]))[1]
    assert len(mine) == pairs
    assert {(found.head, found.unread) for found in mine} == {(10, 10)}
    assert sum((await conversations.unread(1)).values()) == 10 * pairs
