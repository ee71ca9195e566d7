"""Several writers at once, each with connections of its own: one wins, and no log ever has a hole or a fork."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import event
from sqlalchemy.util import await_only

from fastsock.db.engine import Database
from fastsock.db.message_log import MessageLog
from fastsock.schemas.log import Append, Duplicate, Entry, Fenced, Outcome, Stored
from tests.contracts.entries import change, group, membership, message, numbered
from tests.fixtures_database import DatabaseUrl

ROUNDS = 25


@pytest.fixture
async def writers(url: str, db: Database) -> AsyncIterator[list[MessageLog]]:
    """Three writers; ``db`` has made their users."""
    assert str(db.url.database) in url
    databases = [Database(url, pool_size=1) for _ in range(3)]
    yield [MessageLog(database) for database in databases]
    for database in databases:
        await database.close()


async def all_of(log: MessageLog, conversation: str) -> list[Entry]:
    entries = await log.after(conversation, 0, 10_000)
    assert [entry.seq for entry in entries] == [*range(1, len(entries) + 1)], "gap-free"
    return entries


async def test_of_two_that_follow_the_same_head_one_wins(writers: list[MessageLog]) -> None:
    wins = {0: 0, 1: 0}
    for round_ in range(ROUNDS):
        head = len(await all_of(writers[2], "room:1"))
        tries = [
            group(head, *(message("room:1", writer + 1, f"{round_}-{place}") for place in range(writer + 1)))
            for writer in range(2)
        ]
        outcomes = await asyncio.gather(*(writers[n].append([tries[n]]) for n in range(2)))
        won = [n for n in range(2) if isinstance(outcomes[n][0][0], Stored)]
        [winner] = won
        loser = 1 - winner
        wins[winner] += 1
        stored = [numbered(entry, head + place) for place, entry in enumerate(tries[winner].entries, 1)]
        assert outcomes[winner] == [[Stored(entry.seq) for entry in stored]]
        assert outcomes[loser] == [[Fenced(head + len(stored))] * len(tries[loser].entries)]
        assert (await all_of(writers[2], "room:1"))[head:] == stored


async def test_writers_of_many_conversations_in_any_order(writers: list[MessageLog]) -> None:
    """Each pushes into all conversations until everything of its own is stored."""
    rooms = [f"room:{number}" for number in range(1, 6)]

    async def push(writer: int) -> None:
        log = writers[writer]
        order = rooms[writer:] + rooms[:writer]
        waiting = {room: [message(room, writer + 1, f"{room} {writer} {n}") for n in range(8)] for room in order}
        for _ in range(1000):
            if not waiting:
                return
            heads = await log.heads(list(waiting))
            groups = [Append(room, heads[room], entries[:3]) for room, entries in waiting.items()]
            for sent, outcomes in zip(groups, await log.append(groups), strict=True):
                stored = sum(isinstance(outcome, Stored) for outcome in outcomes)
                assert stored in {0, len(outcomes)}, "a group is stored as a whole"
                waiting[sent.conversation] = waiting[sent.conversation][stored:]
            waiting = {room: entries for room, entries in waiting.items() if entries}
        raise AssertionError("never through")

    await asyncio.gather(*(push(writer) for writer in range(3)))
    for room in rooms:
        entries = await all_of(writers[0], room)
        for sender in (1, 2, 3):
            mine = [entry.content for entry in entries if entry.sender_id == sender]
            assert mine == [f"{room} {sender - 1} {n}" for n in range(8)]


async def test_one_append_sent_by_two_is_stored_once(writers: list[MessageLog]) -> None:
    """A batch whose first try still runs, on another connection, when it is tried again."""
    for round_ in range(ROUNDS):
        rooms = (f"room:{10 + round_}", f"room:{100 + round_}")
        groups = [group(0, *(message(room, 1, f"{room} {n}") for n in range(5))) for room in rooms]
        outcomes: list[list[list[Outcome]]] = await asyncio.gather(*(log.append(groups) for log in writers))
        expected = [[Stored(seq) for seq in range(1, 6)] for _ in rooms]
        assert outcomes == [expected] * 3
        for room in rooms:
            assert len(await all_of(writers[0], room)) == 5


async def test_one_key_in_two_conversations_at_once(writers: list[MessageLog]) -> None:
    for round_ in range(ROUNDS):
        tries = [message(f"room:{writer + 1}", 1, "x", key=f"c:{round_}") for writer in range(2)]
        heads = await writers[2].heads(["room:1", "room:2"])
        groups = [group(heads[entry.conversation], entry) for entry in tries]
        outcomes = await asyncio.gather(*(writers[n].append([groups[n]]) for n in range(2)))
        [winner] = [n for n in range(2) if isinstance(outcomes[n][0][0], Stored)]
        original = numbered(tries[winner], heads[tries[winner].conversation] + 1)
        assert outcomes[1 - winner] == [[Duplicate(original)]]


async def test_changes_of_one_message_by_two(writers: list[MessageLog]) -> None:
    """The fence decides here too: the loser's change is not made."""
    for round_ in range(ROUNDS):
        room = f"room:{10 + round_}"
        said = message(room, 1, f"said in {room}")
        await writers[2].append([group(0, said, membership("joined", room, 1, 3))])
        tries = [group(2, change("edit", said, 1, f"by {n}"), membership("left", room, 1, 3)) for n in range(2)]
        outcomes = await asyncio.gather(*(writers[n].append([tries[n]]) for n in range(2)))
        [winner] = [n for n in range(2) if outcomes[n] == [[Stored(3), Stored(4)]]]
        assert outcomes[1 - winner] == [[Fenced(4)] * 2]
        assert [entry.content for entry in await all_of(writers[2], room)] == [f"by {winner}", "", f"by {winner}", ""]


async def test_two_who_look_before_they_write(writers: list[MessageLog]) -> None:
    """Each append repeats an entry, so that it is looked at; what they see may be old when they write."""
    for round_ in range(ROUNDS):
        room = f"room:{10 + round_}"
        old = message(room, 3, f"old in {room}")
        await writers[2].append([group(0, old)])
        tries = [group(1, old, *(message(room, n + 1, f"{room} {n} {place}") for place in range(3))) for n in range(2)]
        outcomes = await asyncio.gather(*(writers[n].append([tries[n]]) for n in range(2)))
        [winner] = [n for n in range(2) if outcomes[n] == [[Stored(1), Stored(2), Stored(3), Stored(4)]]]
        assert outcomes[1 - winner] == [[Stored(1), *[Fenced(4)] * 3]]
        assert [entry.sender_id for entry in await all_of(writers[2], room)] == [3, *[winner + 1] * 3]


async def test_a_first_try_that_commits_while_the_second_looks(
    database_url: DatabaseUrl,
) -> None:
    """All that it looks at is one snapshot; else it would miss the entries, see their head, and call them fenced.

    PostgreSQL's, that is: on SQLite whoever looks holds the write lock.
    """
    url = database_url("postgresql")
    first, second = Database(url), Database(url)
    groups = [group(0, message("room:1", 1, "a"), message("room:1", 1, "b"))]
    retry = [group(0, *groups[0].entries, groups[0].entries[0])]  # one of them twice: it has to be looked at
    meanwhile: list[object] = []

    @event.listens_for(second.engine.sync_engine, "before_cursor_execute")
    def _before(*arguments: object) -> None:
        if "max(seq)" in str(arguments[2]) and not meanwhile:
            meanwhile.append("begun")
            meanwhile.append(await_only(MessageLog(first).append(groups)))

    assert await MessageLog(second).append(retry) == [[Stored(1), Stored(2), Stored(1)]]
    assert meanwhile == ["begun", [[Stored(1), Stored(2)]]]
    assert [entry.content for entry in await all_of(MessageLog(first), "room:1")] == ["a", "b"]
    await first.close()
    await second.close()
