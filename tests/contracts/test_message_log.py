"""Appending and reading, case by case; `test_message_log_model` does the same at random."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from fastsock.db.engine import Database
from fastsock.db.message_log import MessageLog
from fastsock.schemas.log import Append, Duplicate, Entry, Fenced, Kind, Refused, Stored
from fastsock.schemas.names import MAX_ID
from tests.contracts.entries import NOW_MS, change, group, members_of, membership, message, numbered

ROOM, OTHER = "room:1", "room:2"


async def all_of(log: MessageLog, conversation: str) -> list[Entry]:
    return await log.after(conversation, 0, 10_000)


# --- storing and numbering ---------------------------------------------------------------------------------------


async def test_entries_are_numbered_from_the_expected_head_on(log: MessageLog) -> None:
    one, two, three = (message(ROOM, 1, text) for text in "abc")
    assert await log.append([group(0, one, two)]) == [[Stored(1), Stored(2)]]
    assert await log.append([group(2, three)]) == [[Stored(3)]]
    assert await all_of(log, ROOM) == [numbered(one, 1), numbered(two, 2), numbered(three, 3)]


async def test_many_groups_in_one_transaction_keep_the_shape(log: MessageLog) -> None:
    groups = [group(0, *(message(f"room:{room}", 1, f"{room}-{place}") for place in range(room))) for room in (1, 2, 3)]
    assert await log.append([groups[0], Append("room:9", 0, []), *groups[1:]]) == [
        [Stored(1)],
        [],
        [Stored(1), Stored(2)],
        [Stored(1), Stored(2), Stored(3)],
    ]
    assert await log.heads(["room:1", "room:2", "room:3", "room:9"]) == {
        "room:1": 1,
        "room:2": 2,
        "room:3": 3,
        "room:9": 0,
    }


async def test_nothing_is_appended_by_nothing(log: MessageLog) -> None:
    assert await log.append([]) == []
    assert await log.append([Append(ROOM, 0, []), Append(OTHER, 7, [])]) == [[], []]
    assert await log.heads([]) == {}


async def test_what_means_something_in_an_array_is_stored_as_it_was(log: MessageLog) -> None:
    texts = ["NULL", "null", "{}", "{1,NULL}", '{"a"}', ",", '"', "\\", '\\"', "\\N", " spaced ", "two\nlines", "'; --"]
    entries = [message(ROOM, 1, text) for text in texts]
    await log.append([group(0, *entries)])
    assert [entry.content for entry in await all_of(log, ROOM)] == texts


async def test_an_entry_is_read_back_as_it_was(log: MessageLog) -> None:
    entry = Entry(
        conversation="dm:1:2",
        kind="message",
        sender_id=2,
        key="c:ключ '\"\\ 🔑",
        at_ms=NOW_MS + 123,
        id=MAX_ID,
        content="a\nb\tc '\" \\ \\u0000 %s :name {x} \u2028 \ud83d\ude00".encode("utf-16", "surrogatepass").decode(
            "utf-16"
        ),
        message_type="image",
        reply_to=MAX_ID - 1,
        detail={"nested": {"list": [1, None, True, "ü", 1.5], "empty": {}}, "big": MAX_ID},
    )
    before = msgspec.structs.replace(entry)
    assert await log.append([group(0, entry)]) == [[Stored(1)]]
    assert entry == before, "the caller's entry stays as it is"
    assert await log.get(MAX_ID) == numbered(entry, 1)
    assert await log.after("dm:1:2", 0, 1) == [numbered(entry, 1)]
    assert await log.history("dm:1:2") == [numbered(entry, 1)]


async def test_every_kind_is_read_back_by_after(log: MessageLog) -> None:
    created = membership("created", ROOM, 1, 1, 2)
    said = message(ROOM, 2, "hello")
    joined = membership("joined", ROOM, 1, 3)
    left = membership("left", ROOM, 3, 3)
    edited = change("edit", said, 2, "hello!")
    entries = [created, said, joined, left, edited]
    await log.append([group(0, *entries)])
    said.content, said.edited_at_ms = "hello!", edited.at_ms
    assert await all_of(log, ROOM) == [numbered(entry, seq) for seq, entry in enumerate(entries, 1)]


# --- the fence ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("expected_head", [0, 1, 3, 4, 1000])
async def test_a_wrong_head_is_fenced_and_stores_nothing(log: MessageLog, expected_head: int) -> None:
    await log.append([group(0, message(ROOM, 1, "a"), message(ROOM, 1, "b"))])
    late = group(expected_head, message(ROOM, 2, "late"), message(ROOM, 2, "later"))
    well = group(0, message(OTHER, 2, "well"))
    assert await log.append([late, well]) == [[Fenced(2), Fenced(2)], [Stored(1)]]
    assert [entry.content for entry in await all_of(log, ROOM)] == ["a", "b"]


async def test_a_head_expected_in_an_empty_log_is_fenced(log: MessageLog) -> None:
    assert await log.append([group(1, message(ROOM, 1, "a"))]) == [[Fenced(0)]]
    assert await all_of(log, ROOM) == []


async def test_two_groups_for_one_conversation_follow_each_other(log: MessageLog) -> None:
    one, two, three = (message(ROOM, 1, text) for text in "abc")
    assert await log.append([group(0, one), group(1, two), group(1, three)]) == [[Stored(1)], [Stored(2)], [Fenced(2)]]


# --- retries and duplicates --------------------------------------------------------------------------------------


async def test_a_retried_append_is_stored_under_its_old_numbers(log: MessageLog) -> None:
    groups = [group(0, message(ROOM, 1, "a"), message(ROOM, 2, "b")), group(0, message(OTHER, 1, "c"))]
    expected = [[Stored(1), Stored(2)], [Stored(1)]]
    assert await log.append(groups) == expected
    assert await log.append(groups) == expected
    await log.append([group(2, message(ROOM, 3, "somebody else"))])
    assert await log.append(groups) == expected, "not fenced, although the head has moved on"
    assert len(await all_of(log, ROOM)) == 3


async def test_what_is_new_in_a_retry_is_fenced(log: MessageLog) -> None:
    first = message(ROOM, 1, "a")
    await log.append([group(0, first)])
    assert await log.append([group(0, first, message(ROOM, 1, "b"))]) == [[Stored(1), Fenced(1)]]
    assert await log.append([group(1, first, message(ROOM, 1, "c"))]) == [[Stored(1), Stored(2)]]


async def test_a_used_key_is_a_duplicate_and_takes_no_number(log: MessageLog) -> None:
    original = message(ROOM, 1, "a", key="c:1")
    await log.append([group(0, original)])
    again = message(ROOM, 1, "changed my mind", key="c:1")
    outcomes = await log.append([group(1, message(ROOM, 1, "b"), again, message(ROOM, 1, "c"))])
    assert outcomes == [[Stored(2), Duplicate(numbered(original, 1)), Stored(3)]]
    assert [entry.content for entry in await all_of(log, ROOM)] == ["a", "b", "c"]


async def test_a_key_used_in_another_conversation_is_a_duplicate_too(log: MessageLog) -> None:
    original = message(ROOM, 1, "a", key="c:1")
    await log.append([group(0, original)])
    assert await log.append([group(0, message(OTHER, 1, "a", key="c:1"))]) == [[Duplicate(numbered(original, 1))]]
    assert await log.append([group(0, message(OTHER, 2, "a", key="c:1"))]) == [[Stored(1)]], (
        "keys are each sender's own"
    )


async def test_duplicates_within_one_call(log: MessageLog) -> None:
    one, two = message(ROOM, 1, "a", key="c:1"), message(ROOM, 1, "b", key="c:1")
    three, four = message(OTHER, 1, "c", key="c:1"), message(OTHER, 1, "d", key="c:2")
    original = Duplicate(numbered(one, 1))
    assert await log.append([group(0, one, two), group(0, three, four)]) == [
        [Stored(1), original],
        [original, Stored(1)],
    ]
    assert await log.append([group(1, one, one, two)]) == [[Stored(1), Stored(1), original]]


async def test_a_duplicate_shows_the_original_as_it_is_now(log: MessageLog) -> None:
    said = message(ROOM, 1, "a", key="c:1")
    await log.append([group(0, said)])
    await log.append([group(1, change("edit", said, 1, "b", at_ms=NOW_MS + 5))])
    [[outcome]] = await log.append([group(2, message(ROOM, 1, "a", key="c:1"))])
    assert outcome == Duplicate(msgspec.structs.replace(said, seq=1, content="b", edited_at_ms=NOW_MS + 5))


async def test_a_duplicate_is_one_even_behind_a_fence(log: MessageLog) -> None:
    original = message(ROOM, 1, "a", key="c:1")
    await log.append([group(0, original)])
    retry = group(7, message(ROOM, 1, "a", key="c:1"), message(ROOM, 1, "b"))
    assert await log.append([retry]) == [[Duplicate(numbered(original, 1)), Fenced(1)]]


@pytest.mark.parametrize("conversation", [ROOM, OTHER])
async def test_an_id_is_never_taken_for_another_entry(log: MessageLog, conversation: str) -> None:
    await log.append([group(0, message(ROOM, 1, "a", id_=77_000_001))])
    head = (await log.heads([conversation]))[conversation]
    refused = Refused("refused_by_storage", "the id 77000001 belongs to another entry, in room:1")
    for sender, text in ((2, "a"), (1, "b")):
        stranger = message(conversation, sender, text, id_=77_000_001)
        assert await log.append([group(head, stranger)]) == [[refused]]


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"content": "a\0b"}, "content contains the character U+0000"),
        ({"content": "a\ud800b"}, "content contains U+D800, half of a surrogate pair"),
        ({"key": "c:\0"}, "key contains the character U+0000"),
        ({"message_type": "\udfff"}, "message_type contains U+DFFF, half of a surrogate pair"),
        ({"id": 0}, "id is 0, which is not from 1 to 9,007,199,254,740,991"),
        ({"id": 2**53}, "id is 9,007,199,254,740,992, which is not from 1 to 9,007,199,254,740,991"),
        ({"id": 2**70}, "id is 1,180,591,620,717,411,303,424, which is not from 1 to 9,007,199,254,740,991"),
        ({"sender_id": 0}, "sender_id is 0, which is not from 1 to 9,007,199,254,740,991"),
        ({"at_ms": -1}, "at_ms is -1, which is not from 0 to 9,007,199,254,740,991"),
        ({"reply_to": 2**64}, "reply_to is 18,446,744,073,709,551,616, which is not from 0 to 9,007,199,254,740,991"),
        ({"conversation": OTHER}, "an entry of room:2 cannot go to room:1"),
        (
            {"kind": "joined", "detail": {"members": {"1": "king"}}},
            "detail does not say who: Invalid enum value 'king' - at `$[...]`",
        ),
    ],
)
async def test_what_no_database_takes_is_refused_alone(
    log: MessageLog, changes: dict[str, object], reason: str
) -> None:
    before, after, elsewhere = message(ROOM, 1, "before"), message(ROOM, 1, "after"), message(OTHER, 1, "elsewhere")
    bad = msgspec.structs.replace(message(ROOM, 1, "bad"), **changes)
    refused = Refused("refused_by_storage", reason)
    outcomes = await log.append([Append(ROOM, 0, [before, bad, after]), group(0, elsewhere)])
    assert outcomes == [[Stored(1), refused, Stored(2)], [Stored(1)]]
    assert [entry.content for entry in await all_of(log, ROOM)] == ["before", "after"]


async def test_what_the_database_refuses_is_found_among_many(log: MessageLog, db: Database) -> None:
    entries = [message(ROOM, 1, f"{place}") for place in range(100)]
    for place in (0, 41, 42, 99):
        entries[place].kind = "shout"  # type: ignore[assignment]
    words = {
        "sqlite": "CHECK constraint failed: ck_log_kind_known",
        "postgresql": 'new row for relation "log" violates check constraint "ck_log_kind_known"',
    }
    refused = Refused("refused_by_storage", f"the database refuses it: {words[db.dialect]}")
    [outcomes, [elsewhere]] = await log.append([group(0, *entries), group(0, message(OTHER, 1, "elsewhere"))])
    assert [place for place, outcome in enumerate(outcomes) if outcome == refused] == [0, 41, 42, 99]
    assert [outcome for outcome in outcomes if outcome != refused] == [Stored(seq) for seq in range(1, 97)]
    assert elsewhere == Stored(1)
    assert [entry.seq for entry in await all_of(log, ROOM)] == [*range(1, 97)]


async def test_the_key_of_a_refused_entry_is_free(log: MessageLog) -> None:
    bad, good = message(ROOM, 1, "bad", key="c:1"), message(ROOM, 1, "good", key="c:1")
    bad.kind = "shout"  # type: ignore[assignment]
    [[refused, stored]] = await log.append([group(0, bad, good)])
    assert isinstance(refused, Refused)
    assert stored == Stored(1)


async def test_a_member_who_does_not_exist_is_refused_alone(log: MessageLog, db: Database) -> None:
    joined = membership("joined", ROOM, 1, 2, 99)
    [[first, refused, last]] = await log.append([group(0, message(ROOM, 1, "a"), joined, message(ROOM, 1, "b"))])
    assert (first, last) == (Stored(1), Stored(2))
    assert isinstance(refused, Refused)
    assert refused.code == "refused_by_storage"
    assert await members_of(db, ROOM) == {}


async def test_a_name_that_is_none_is_refused(log: MessageLog) -> None:
    reason = "not an actor's name: 'lobby'; names look like room:42, dm:3:7 or user:7"
    assert await log.append([group(0, message("lobby", 1, "a"))]) == [[Refused("refused_by_storage", reason)]]


# --- edits and deletes -------------------------------------------------------------------------------------------


async def test_an_edit_changes_the_message_and_is_an_entry(log: MessageLog) -> None:
    said = message(ROOM, 1, "helo")
    await log.append([group(0, said)])
    edit = change("edit", said, 1, "hello", at_ms=NOW_MS + 7)
    assert await log.append([group(1, edit)]) == [[Stored(2)]]
    now = msgspec.structs.replace(said, seq=1, content="hello", edited_at_ms=NOW_MS + 7)
    assert await all_of(log, ROOM) == [now, numbered(edit, 2)]
    assert await log.history(ROOM) == [now]


async def test_a_delete_leaves_a_tombstone_that_keeps_its_edit(log: MessageLog) -> None:
    said = message(ROOM, 1, "helo")
    await log.append([group(0, said, change("edit", said, 1, "hello", at_ms=NOW_MS + 7), change("delete", said, 2))])
    assert await log.get(said.id) == msgspec.structs.replace(
        said, seq=1, content="", edited_at_ms=NOW_MS + 7, deleted=True
    )


@pytest.mark.parametrize("kind", ["edit", "delete"])
async def test_what_is_deleted_or_not_there_is_not_changed(log: MessageLog, kind: Kind) -> None:
    gone, there, elsewhere = message(ROOM, 1, "gone"), message(ROOM, 1, "there"), message(OTHER, 1, "elsewhere")
    await log.append([group(0, gone, there, change("delete", gone, 1)), group(0, elsewhere)])
    [edit] = (await all_of(log, ROOM))[2:]
    missing = message(ROOM, 1, "never stored")
    moved = msgspec.structs.replace(elsewhere, conversation=ROOM)
    tries = [change(kind, target, 1, "x" * (kind == "edit")) for target in (gone, missing, moved, edit)]
    last = message(ROOM, 1, "last")
    assert await log.append([group(3, *tries, last)]) == [
        [
            Refused("message_deleted", f"message {gone.id} has been deleted"),
            Refused("message_not_found", f"message {missing.id} is not in room:1"),
            Refused("message_not_found", f"message {elsewhere.id} is not in room:1"),
            Refused("message_not_found", f"message {edit.id} is not in room:1"),
            Stored(4),
        ]
    ]
    assert [entry.content for entry in await log.history(ROOM)] == ["", "there", "last"]
    assert [entry.content for entry in await log.history(OTHER)] == ["elsewhere"]


@pytest.mark.parametrize("kind", ["edit", "delete"])
async def test_a_late_change_alone_does_not_bring_a_message_back(log: MessageLog, kind: Kind) -> None:
    gone = message(ROOM, 1, "gone")
    await log.append([group(0, gone, change("delete", gone, 1))])
    refused = Refused("message_deleted", f"message {gone.id} has been deleted")
    assert await log.append([group(2, change(kind, gone, 1))]) == [[refused]]
    assert await log.get(gone.id) == msgspec.structs.replace(gone, seq=1, content="", deleted=True)
    assert await log.heads([ROOM]) == {ROOM: 2}


async def test_changes_within_one_call_follow_each_other(log: MessageLog) -> None:
    said = message(ROOM, 1, "a")
    edits = [change("edit", said, 1, text, at_ms=NOW_MS + at) for at, text in enumerate("bc")]
    late = change("edit", said, 1, "too late")
    outcomes = await log.append([group(0, said, *edits, change("delete", said, 1), late)])
    deleted = Refused("message_deleted", f"message {said.id} has been deleted")
    assert outcomes == [[Stored(1), Stored(2), Stored(3), Stored(4), deleted]]
    assert await log.get(said.id) == msgspec.structs.replace(
        said, seq=1, content="", edited_at_ms=NOW_MS + 1, deleted=True
    )


async def test_a_refused_edit_changes_nothing(log: MessageLog) -> None:
    said = message(ROOM, 1, "a")
    await log.append([group(0, said)])
    [[refused]] = await log.append([group(1, change("edit", said, 1, "\0"))])
    assert refused == Refused("refused_by_storage", "content contains the character U+0000")
    assert await log.get(said.id) == numbered(said, 1)


# --- members -----------------------------------------------------------------------------------------------------


async def test_entries_make_and_end_memberships(log: MessageLog, db: Database) -> None:
    await log.append([group(0, membership("created", ROOM, 1, 1, 2))])
    assert await members_of(db, ROOM) == {1: ("owner", 1), 2: ("member", 1)}
    await log.append([group(1, membership("joined", ROOM, 1, 2, 3), membership("left", ROOM, 2, 2))])
    assert await members_of(db, ROOM) == {1: ("owner", 1), 3: ("member", 2)}
    await log.append([group(3, membership("left", ROOM, 3, 3), membership("joined", ROOM, 1, 3))])
    assert await members_of(db, ROOM) == {1: ("owner", 1), 3: ("member", 5)}


async def test_only_the_first_message_makes_a_direct_conversation(log: MessageLog, db: Database) -> None:
    await log.append(
        [group(0, message("dm:1:2", 2, "a"), message("dm:1:2", 1, "b")), group(0, message("dm:3:3", 3, "n"))]
    )
    assert await members_of(db, "dm:1:2") == {1: ("member", 1), 2: ("member", 1)}
    assert await members_of(db, "dm:3:3") == {3: ("member", 1)}
    await log.append([group(0, message(ROOM, 1, "c"))])
    assert await members_of(db, ROOM) == {}


async def test_a_fenced_group_changes_neither_members_nor_messages(log: MessageLog, db: Database) -> None:
    said = message(ROOM, 1, "a")
    await log.append([group(0, membership("created", ROOM, 1, 1, 2), said)])
    late = group(1, membership("left", ROOM, 2, 2), membership("joined", ROOM, 1, 3), change("delete", said, 1))
    assert await log.append([late]) == [[Fenced(2)] * 3]
    assert await members_of(db, ROOM) == {1: ("owner", 1), 2: ("member", 1)}
    assert await log.get(said.id) == numbered(said, 2)


# --- reading -----------------------------------------------------------------------------------------------------


async def test_pages(log: MessageLog) -> None:
    said = [message(ROOM, 1, text) for text in "abcde"]
    await log.append([group(0, membership("created", ROOM, 1, 1), *said, change("delete", said[2], 1))])

    async def page(**bounds: int) -> str:
        return "".join(entry.content or "-" for entry in await log.history(ROOM, **bounds))

    assert await page() == "ab-de"
    assert await page(limit=2) == "de"
    assert await page(limit=2, skip=1) == "-d"
    assert await page(skip=5) == ""
    assert await page(before=4) == "ab"
    assert await page(before=4, limit=1) == "b"
    assert await page(after=3) == "-de"
    assert await page(after=2, limit=2) == "b-"
    assert await page(after=2, limit=2, skip=1) == "-d"
    assert [entry.seq for entry in await log.after(ROOM, 2, 3)] == [3, 4, 5]
    assert await log.after(ROOM, 7, 3) == []
    assert await log.get(MAX_ID) is None


# --- ids ---------------------------------------------------------------------------------------------------------


async def test_leased_ids_are_nobody_elses(url: str) -> None:
    databases = [Database(url, pool_size=2) for _ in range(3)]
    try:
        leases = await asyncio.gather(*(MessageLog(databases[n % 3]).lease_ids(n + 1) for n in range(30)))
    finally:
        for database in databases:
            await database.close()
    assert [len(lease) for lease in leases] == [*range(1, 31)]
    ids = sorted(id_ for lease in leases for id_ in lease)
    assert ids == [*range(1, 30 * 31 // 2 + 1)]


async def test_attempts_are_found_by_their_keys(log: MessageLog) -> None:
    mine, other, later = message(ROOM, 1, "one"), message(ROOM, 2, "two"), message("room:2", 1, "three")
    await log.append([group(0, mine, other), group(0, later)])
    found = await log.by_keys([(1, mine.key), (1, later.key), (2, mine.key), (9, "c:nobody")])
    assert found == {(1, mine.key): numbered(mine, 1), (1, later.key): numbered(later, 1)}
    assert await log.by_keys([]) == {}


async def test_every_group_of_a_careful_append_keeps_its_own_numbers(log: MessageLog) -> None:
    rooms = [f"room:{number}" for number in range(1, 8)]
    again = message(rooms[0], 1, "first")
    await log.append([group(0, again)])
    repeated = message(rooms[6], 1, "the same key elsewhere", key=again.key)
    groups = [
        group(1 if room == rooms[0] else 0, *(message(room, 1, f"{room} {n}") for n in range(3))) for room in rooms
    ]
    groups[6].entries.insert(1, repeated)
    outcomes = await log.append(groups)
    assert outcomes[0] == [Stored(2), Stored(3), Stored(4)]
    assert outcomes[1:6] == [[Stored(1), Stored(2), Stored(3)]] * 5
    assert outcomes[6] == [Stored(1), Duplicate(numbered(again, 1)), Stored(2), Stored(3)]
    for room in rooms:
        entries = await all_of(log, room)
        assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
