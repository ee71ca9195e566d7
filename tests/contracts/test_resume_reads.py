"""What a resume reads of the database: how users stand to their conversations, and pages of the log."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from sqlalchemy import event, insert

from fastsock.core.limits import MAX_MARKERS_SHOWN
from fastsock.db.conversations import Conversations
from fastsock.db.engine import Database
from fastsock.db.log_reads import Page
from fastsock.db.message_log import MessageLog
from fastsock.models import markers, members
from fastsock.schemas import frames
from fastsock.schemas.log import Entry, Marker, Standing, Subscription
from fastsock.schemas.names import MAX_ID
from fastsock.services.reads import GatewayReads
from tests.contracts.entries import NOW_MS, add_users, change, group, membership, message, numbered

ROOM, OTHER = "room:1", "room:2"
NOBODY = Standing({}, {}, {})


@pytest.fixture
def conversations(db: Database) -> Conversations:
    return Conversations(db)


async def make_room(conversations: Conversations, owner: int, *others: int) -> Entry:
    [id_] = await MessageLog(conversations._database).lease_ids(1)
    return await conversations.create_room(owner, "Engine room", others, 10**12 + id_, NOW_MS)


async def say(log: MessageLog, conversation: str, sender: int, *texts: str) -> list[Entry]:
    """Append messages; returns them as they are read back."""
    head = (await log.heads([conversation]))[conversation]
    entries = [message(conversation, sender, text, key=f"c:{conversation} {text}") for text in texts]
    await log.append([group(head, *entries)])
    return [numbered(entry, head + place) for place, entry in enumerate(entries, 1)]


async def delivered(db: Database, user_id: int, conversation: str, seq: int) -> None:
    """Say how far a user has been sent a conversation, as receipts will."""
    row = {"user_id": user_id, "conversation": conversation, "delivered_seq": seq}
    async with db.transaction() as connection:
        await connection.execute(insert(markers).values(row))


async def standing(conversations: Conversations, user_id: int) -> Standing:
    return (await conversations.standings([user_id]))[user_id]


def statements(db: Database) -> list[str]:
    """The statements that are run from now on."""
    seen: list[str] = []

    @event.listens_for(db.engine.sync_engine, "before_cursor_execute")
    def _see(*arguments: object) -> None:
        seen.append(str(arguments[2]))

    return seen


# --- standings ---------------------------------------------------------------------------------------------------


async def test_a_standing_says_where_users_came_in_and_where_logs_end(
    conversations: Conversations, log: MessageLog
) -> None:
    await make_room(conversations, 1, 2)
    await say(log, ROOM, 1, "a", "b")
    await log.append([group(3, membership("joined", ROOM, 1, 3))])
    await say(log, ROOM, 3, "c")
    await say(log, "dm:2:3", 3, "psst")
    assert await conversations.standings([1, 2, 3, 4]) == {
        1: Standing({ROOM: 1}, {ROOM: 5}, {}),
        2: Standing({ROOM: 1, "dm:2:3": 1}, {ROOM: 5, "dm:2:3": 1}, {}),
        3: Standing({ROOM: 4, "dm:2:3": 1}, {ROOM: 5, "dm:2:3": 1}, {}),
        4: NOBODY,
    }


async def test_who_leaves_stands_outside_and_who_comes_back_stands_where_they_came_back(
    conversations: Conversations, log: MessageLog
) -> None:
    await make_room(conversations, 1, 2)
    await log.append([group(1, membership("left", ROOM, 2, 2))])
    assert await standing(conversations, 2) == NOBODY
    await say(log, ROOM, 1, "without 2")
    await log.append([group(3, membership("joined", ROOM, 1, 2))])
    assert await standing(conversations, 2) == Standing({ROOM: 4}, {ROOM: 4}, {})


async def test_the_head_of_an_empty_log_is_0(conversations: Conversations, db: Database) -> None:
    row = {"conversation": "dm:1:2", "user_id": 1, "role": "member", "joined_seq": 1}
    async with db.transaction() as connection:
        await connection.execute(insert(members).values(row))
    assert await standing(conversations, 1) == Standing({"dm:1:2": 1}, {"dm:1:2": 0}, {})


async def test_standings_of_nobody_and_of_who_does_not_exist(conversations: Conversations) -> None:
    assert await conversations.standings([]) == {}
    assert await conversations.standings([99, MAX_ID, 99]) == {99: NOBODY, MAX_ID: NOBODY}


async def test_markers_of_all_members_are_shown_to_each_of_them(
    conversations: Conversations, log: MessageLog, db: Database
) -> None:
    await make_room(conversations, 1, 2, 3)
    await say(log, ROOM, 1, "a", "b", "c")
    await conversations.mark_read(1, ROOM, 4)
    await conversations.mark_read(2, ROOM, 2)
    await delivered(db, 3, ROOM, 3)
    shown = {ROOM: {1: Marker(4, 0), 2: Marker(2, 0), 3: Marker(0, 3)}}
    found = await conversations.standings([1, 2, 3])
    assert [found[user].markers for user in (1, 2, 3)] == [shown, shown, shown]


async def test_markers_of_conversations_that_are_not_the_users_are_not_shown(
    conversations: Conversations, log: MessageLog
) -> None:
    await make_room(conversations, 1, 2)
    await make_room(conversations, 2, 3)
    await say(log, "dm:2:3", 2, "psst")
    for name in (ROOM, OTHER, "dm:2:3"):
        await conversations.mark_read(2, name, 1)
    assert (await standing(conversations, 1)).markers == {ROOM: {2: Marker(1, 0)}}
    assert (await standing(conversations, 3)).markers == {OTHER: {2: Marker(1, 0)}, "dm:2:3": {2: Marker(1, 0)}}


async def test_markers_of_who_has_left_are_not_shown(conversations: Conversations, log: MessageLog) -> None:
    await make_room(conversations, 1, 2, 3)
    await conversations.mark_read(2, ROOM, 1)
    await conversations.mark_read(3, ROOM, 1)
    await log.append([group(1, membership("left", ROOM, 3, 3))])
    assert (await standing(conversations, 1)).markers == {ROOM: {2: Marker(1, 0)}}
    assert await standing(conversations, 3) == NOBODY, "nor is their own"
    await log.append([group(2, membership("joined", ROOM, 1, 3))])
    assert (await standing(conversations, 3)).markers == {ROOM: {2: Marker(1, 0), 3: Marker(1, 0)}}


async def test_of_many_markers_ones_own_and_those_who_have_read_furthest_are_shown(
    conversations: Conversations, log: MessageLog, db: Database
) -> None:
    """Those who have left have read further still, and take nobody's place."""
    people = MAX_MARKERS_SHOWN + 20
    async with db.transaction() as connection:
        await connection.exec_driver_sql("DELETE FROM users")
    await add_users(db, people)
    await make_room(conversations, 1, *range(2, people + 1))
    await say(log, ROOM, 1, *(f"{number}" for number in range(people)))
    for user in range(1, people + 1):
        await conversations.mark_read(user, ROOM, user)
    gone = range(people - 9, people + 1)
    await log.append([group(people + 1, *(membership("left", ROOM, user, user) for user in gone))])
    furthest = {user: Marker(user, 0) for user in range(people - 9 - MAX_MARKERS_SHOWN, people - 9)}
    assert len(furthest) == MAX_MARKERS_SHOWN
    assert (await standing(conversations, people - 10)).markers == {ROOM: furthest}, "one's own among them, once"
    assert (await standing(conversations, 1)).markers == {ROOM: {**furthest, 1: Marker(1, 0)}}
    assert await standing(conversations, people) == NOBODY


async def test_many_standings_cost_one_query(conversations: Conversations, log: MessageLog, db: Database) -> None:
    async with db.transaction() as connection:
        await connection.exec_driver_sql("DELETE FROM users")
    await add_users(db, 700)
    for room in range(1, 8):
        await make_room(conversations, room, *range(room * 100 - 99, room * 100 + 1))
        await say(log, f"room:{room}", room * 100, "hello")
        await conversations.mark_read(room * 100, f"room:{room}", 2)
    seen = statements(db)
    async with asyncio.timeout(5):
        found = await conversations.standings(range(1, 1001))
    assert len([text for text in seen if "wanted" in text]) == len(seen) == 1, seen
    assert [user for user in found if found[user] == NOBODY] == [*range(701, 1001)]
    for user in range(8, 701):
        room = (user + 99) // 100
        expected = Standing({f"room:{room}": 1}, {f"room:{room}": 2}, {f"room:{room}": {room * 100: Marker(2, 0)}})
        assert found[user] == expected


# --- pages -------------------------------------------------------------------------------------------------------


async def test_pages_of_several_conversations_and_of_one(log: MessageLog, db: Database) -> None:
    room = await say(log, ROOM, 1, *(f"r{number}" for number in range(10)))
    dm = await say(log, "dm:1:2", 2, *(f"d{number}" for number in range(5)))
    wanted = [Page(ROOM, 0, 3), Page("dm:1:2", 2, 4), Page(ROOM, 7, 9), Page(ROOM, 2, 8)]
    seen = statements(db)
    assert await log.pages(wanted) == {
        Page(ROOM, 0, 3): room[:3],
        Page("dm:1:2", 2, 4): dm[2:4],
        Page(ROOM, 7, 9): room[7:9],
        Page(ROOM, 2, 8): room[2:8],
    }
    assert len(seen) == 1, seen


async def test_a_page_that_the_log_does_not_fill_is_shorter(log: MessageLog) -> None:
    room = await say(log, ROOM, 1, "a", "b", "c")
    wanted = [Page(ROOM, 1, 200), Page(ROOM, 3, 203), Page(ROOM, 99, 299), Page(OTHER, 0, 200), Page(ROOM, 2, 2)]
    assert await log.pages(wanted) == {
        Page(ROOM, 1, 200): room[1:],
        Page(ROOM, 3, 203): [],
        Page(ROOM, 99, 299): [],
        Page(OTHER, 0, 200): [],
        Page(ROOM, 2, 2): [],
    }


async def test_no_pages(log: MessageLog) -> None:
    assert await log.pages([]) == {}


async def test_one_page_asked_for_twice(log: MessageLog) -> None:
    room = await say(log, ROOM, 1, "a", "b", "c")
    assert await log.pages([Page(ROOM, 0, 2), Page(ROOM, 0, 2)]) == {Page(ROOM, 0, 2): room[:2]}


async def test_a_page_has_all_kinds_and_messages_in_their_present_state(
    conversations: Conversations, log: MessageLog
) -> None:
    created = await make_room(conversations, 1, 2)
    kept, edited, deleted = await say(log, ROOM, 2, "kept", "edited", "deleted")
    edit, delete = change("edit", edited, 2, "edited!"), change("delete", deleted, 1)
    joined, left = membership("joined", ROOM, 1, 3), membership("left", ROOM, 2, 2)
    await log.append([group(4, edit, delete, joined, left)])
    edited.content, edited.edited_at_ms = "edited!", edit.at_ms
    deleted.content, deleted.deleted = "", True
    changes = [numbered(entry, seq) for seq, entry in enumerate((edit, delete, joined, left), 5)]
    everything = [created, kept, edited, deleted, *changes]
    page = Page(ROOM, 0, 200)
    assert await log.pages([page]) == {page: everything}
    assert await log.after(ROOM, 0, 200) == everything, "as a catch-up reads it"


async def test_a_message_that_was_edited_and_deleted_is_replayed_as_its_deletion_says(log: MessageLog) -> None:
    [said] = await say(log, ROOM, 1, "said")
    edit, delete = change("edit", said, 1, "said!"), change("delete", said, 1, at_ms=NOW_MS + 2)
    target = msgspec.structs.asdict(frames.target_of(said))
    edit.detail = delete.detail = target
    await log.append([group(1, edit, delete)])
    page = Page(ROOM, 0, 3)
    replayed, _, deletion = (await log.pages([page]))[page]
    shown = msgspec.structs.asdict(frames.message_of(replayed))
    assert (shown["content"], shown["edited_at"], shown["deleted"]) == ("", None, True)
    event, data = frames.event_of(deletion)
    assert event == "message.delete"
    assert isinstance(data, dict)
    assert shown == {**{field: data[field] for field in shown}, "seq": 1}


async def test_the_gateway_reads_pages_by_plain_tuples(conversations: Conversations, log: MessageLog) -> None:
    created = await make_room(conversations, 5)
    said = await say(log, ROOM, 5, "a", "b", "c")
    reads = GatewayReads(log._database)
    found = await reads.pages([(ROOM, 0, 3), (OTHER, 0, 2)])
    assert found == {(ROOM, 0, 3): [created, *said[:2]], (OTHER, 0, 2): []}
    assert await reads.standings([5]) == {5: Standing({ROOM: 1}, {ROOM: 4}, {})}
    assert await reads.subscriptions([5]) == {5: [Subscription(ROOM, 4, 0, 1)]}


async def test_the_reads_of_a_gateway_are_planned_once(url: str, conversations: Conversations, log: MessageLog) -> None:
    await make_room(conversations, 1, 2)
    said = await say(log, ROOM, 1, "a")
    database = Database(url, pool_size=1, lookups=True)
    reads = GatewayReads(database)
    for _ in range(9):
        assert await reads.subscriptions([2, 9]) == {2: [Subscription(ROOM, 2, 1, 1)], 9: []}
        assert await reads.standings([2, 9]) == {2: Standing({ROOM: 1}, {ROOM: 2}, {}), 9: NOBODY}
        assert await reads.pages([(ROOM, 1, 2)]) == {(ROOM, 1, 2): said}
    if database.dialect == "postgresql":
        async with database.autocommit() as connection:
            about = "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement LIKE '%wanted%'"
            plans = (await connection.exec_driver_sql(about)).all()
            assert [tuple(row) for row in plans if row[0] > 1] == [(9, 0)] * 3
    await database.close()
