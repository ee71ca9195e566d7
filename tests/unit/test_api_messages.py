"""History, unread counts, and changing what was said."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastsock.schemas import frames, http, names
from tests.unit.api_world import World, new_world, refusal, refused


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with new_world(tmp_path) as made:
        yield made


def contents(messages: list[dict[str, Any]]) -> list[str]:
    return [message["content"] for message in messages]


# --- history


async def test_a_message_in_the_history_is_the_message_that_sockets_got(world: World) -> None:
    ann, bob = await world.people("Ann", "Bob")
    room = names.room(await world.room(ann, bob))
    for where, path in ((room, f"/chat/history/{room.replace(':', '/')}"), (names.dm(ann.id, bob.id), "")):
        entry = await world.say(ann, where, "Good morning! \u263a")
        [message] = await world.get(bob, path or f"/chat/history/user/{ann.id}")
        event, live = frames.event_of(entry)
        assert event == "message.receive"
        assert message == msgspec.to_builtins(live)
        assert http.Message.model_validate(message).model_dump() == message


def test_the_documented_message_has_the_fields_of_the_real_one() -> None:
    assert list(http.Message.model_fields) == list(frames.Message.__struct_fields__)


async def test_the_history_of_a_room_is_for_members_all_of_it(world: World) -> None:
    ann, bob, cat = await world.people("Ann", "Bob", "Cat")
    room_id = await world.room(ann, bob)
    await world.say(ann, names.room(room_id), "before Cat came")
    path = f"/chat/history/room/{room_id}"
    assert refusal(await world.ask(cat, "GET", path)) == refused(
        403, "not_a_member", f"user {cat.id} is not a member of room:{room_id}"
    )
    await world.add(ann, room_id, cat)
    assert contents(await world.get(cat, path)) == ["before Cat came"]
    assert refusal(await world.ask(ann, "GET", "/chat/history/room/99")) == refused(
        404, "room_not_found", "room 99 does not exist"
    )


async def test_two_people_have_a_history_before_they_have_said_anything(world: World) -> None:
    ann, bob, cat = await world.people("Ann", "Bob", "Cat")
    assert await world.get(ann, f"/chat/history/user/{bob.id}") == []
    await world.say(ann, names.dm(ann.id, bob.id), "hello")
    await world.say(bob, names.dm(ann.id, bob.id), "hello yourself")
    both = await world.get(ann, f"/chat/history/user/{bob.id}")
    assert [(message["sender_id"], message["receiver_id"], message["room_id"]) for message in both] == [
        (ann.id, bob.id, None),
        (bob.id, ann.id, None),
    ]
    assert await world.get(bob, f"/chat/history/user/{ann.id}/") == both
    assert await world.get(cat, f"/chat/history/user/{ann.id}") == []
    assert refusal(await world.ask(ann, "GET", "/chat/history/user/99")) == refused(
        404, "user_not_found", "no such users, or not active: 99"
    )


async def test_pages_of_a_history_are_oldest_first(world: World) -> None:
    ann = await world.person("Ann")
    room_id = await world.room(ann)
    for number in range(2, 8):  # the number is the seq: 1 is the room's creation
        await world.say(ann, names.room(room_id), str(number))
    path = f"/chat/history/room/{room_id}"
    assert contents(await world.get(ann, path)) == list("234567")
    assert contents(await world.get(ann, path, limit=2)) == list("67")
    assert contents(await world.get(ann, path, skip=2, limit=3)) == list("345")
    assert contents(await world.get(ann, path, skip=5)) == list("2")
    assert contents(await world.get(ann, path, skip=6)) == []
    assert contents(await world.get(ann, path, before=5)) == list("234")
    assert contents(await world.get(ann, path, before=5, limit=2)) == list("34")
    assert contents(await world.get(ann, path, after=5)) == list("67")
    assert contents(await world.get(ann, path, after=2, limit=2)) == list("34")
    assert contents(await world.get(ann, path, after=7)) == []
    assert contents(await world.get(ann, path, before=names.MAX_ID)) == list("234567")
    answer = await world.ask(ann, "GET", path, params={"before": 5, "after": 2})
    assert refusal(answer) == refused(422, "invalid_data", "before: 5 and after: 2 exclude each other")


# --- unread


async def test_unread_messages_are_counted_per_person_and_per_room(world: World) -> None:
    ann, bob, cat = await world.people("Ann", "Bob", "Cat")
    room_id = await world.room(ann, bob)
    assert await world.get(bob, "/chat/unread") == {"users": {}, "rooms": {}}
    for text in ("one", "two", "three"):
        await world.say(ann, names.room(room_id), text)
    await world.say(ann, names.dm(ann.id, bob.id), "psst")
    await world.say(cat, names.dm(bob.id, cat.id), "hey")
    await world.say(bob, names.dm(bob.id, cat.id), "hey hey")
    assert await world.get(bob, "/chat/unread") == {
        "users": {str(ann.id): 1, str(cat.id): 1},
        "rooms": {str(room_id): 3},
    }
    assert await world.get(ann, "/chat/unread") == {"users": {}, "rooms": {}}
    await world.conversations.mark_read(bob.id, names.room(room_id), 4)
    await world.conversations.mark_read(bob.id, names.dm(ann.id, bob.id), 1)
    assert await world.get(bob, "/chat/unread") == {"users": {str(cat.id): 1}, "rooms": {}}


# --- edit and delete


async def test_an_edited_message_keeps_its_place(world: World) -> None:
    ann, bob = await world.people("Ann", "Bob")
    room_id = await world.room(ann, bob)
    sent = await world.say(ann, names.room(room_id), "Good mourning")
    await world.say(bob, names.room(room_id), "what?")
    world.now_ms += 1_500
    answer = await world.ask(ann, "PUT", f"/chat/messages/{sent.id}", json={"content": "Good morning"})
    assert answer.status_code == 200
    expected = {
        **msgspec.to_builtins(frames.message_of(sent)),
        "content": "Good morning",
        "edited_at": "2027-01-15T08:00:01.500Z",
    }
    assert answer.json() == expected
    assert (await world.get(bob, f"/chat/history/room/{room_id}"))[0] == expected
    [edit] = await world.log.after(f"room:{room_id}", 3, 10)
    assert (edit.kind, edit.seq, edit.target_id, edit.content) == ("edit", 4, sent.id, "Good morning")


async def test_a_deleted_message_leaves_a_tombstone(world: World) -> None:
    ann, bob = await world.people("Ann", "Bob")
    sent = await world.say(ann, names.dm(ann.id, bob.id), "Never mind")
    answer = await world.ask(ann, "DELETE", f"/chat/messages/{sent.id}")
    assert (answer.status_code, answer.json()) == (200, {"ok": True})
    [tombstone] = await world.get(bob, f"/chat/history/user/{ann.id}")
    assert tombstone == {**msgspec.to_builtins(frames.message_of(sent)), "content": "", "deleted": True}
    assert await world.get(bob, "/chat/unread") == {"users": {}, "rooms": {}}
    again = await world.ask(ann, "PUT", f"/chat/messages/{sent.id}", json={"content": "Never mind me"})
    status, body = refusal(again)
    assert (status, body["code"]) == (409, "message_deleted")


async def test_only_the_author_edits_and_a_moderator_may_delete(world: World) -> None:
    ann, bob, cat = await world.people("Ann", "Bob", "Cat")
    room_id = await world.room(ann, bob)
    sent = await world.say(bob, names.room(room_id), "Spam")
    path = f"/chat/messages/{sent.id}"
    not_the_author = f"user {ann.id} may not change it: message {sent.id} is by user {bob.id}"
    assert refusal(await world.ask(ann, "PUT", path, json={"content": "Ham"})) == refused(
        403, "not_the_author", not_the_author
    )
    stranger = refused(403, "not_a_member", f"user {cat.id} is not a member of room:{room_id}")
    assert refusal(await world.ask(cat, "PUT", path, json={"content": "Ham"})) == stranger
    assert refusal(await world.ask(cat, "DELETE", path)) == stranger
    assert (await world.ask(ann, "DELETE", path)).json() == {"ok": True}


async def test_what_is_no_message_cannot_be_changed(world: World) -> None:
    ann = await world.person("Ann")
    room_id = await world.room(ann)
    [created] = await world.log.after(f"room:{room_id}", 0, 1)
    for message_id in (created.id, 999_999, names.MAX_ID):
        expected = refused(404, "message_not_found", f"there is no message {message_id}")
        assert refusal(await world.ask(ann, "DELETE", f"/chat/messages/{message_id}")) == expected
        answer = await world.ask(ann, "PUT", f"/chat/messages/{message_id}", json={"content": "x"})
        assert refusal(answer) == expected


@pytest.mark.parametrize(
    ("content", "code", "detail"),
    [
        ("", "invalid_data", "content: must not be blank"),
        (" \n\t", "invalid_data", "content: must not be blank"),
        ("a\0b", "invalid_data", "content: must not contain the character U+0000, not 'a\\x00b'"),
        (None, "invalid_data", "content: input should be a valid string, not null"),
        (
            "n" * 16_385,
            "content_too_long",
            "content: 16,385 characters in 16,385 bytes; at most 16,384 characters and 49,152 bytes are allowed",
        ),
        (
            "\U0001f600" * 16_384,
            "content_too_long",
            "content: 16,384 characters in 65,536 bytes; at most 16,384 characters and 49,152 bytes are allowed",
        ),
    ],
)
async def test_a_text_has_limits(world: World, content: object, code: str, detail: str) -> None:
    ann = await world.person("Ann")
    sent = await world.say(ann, names.dm(ann.id, ann.id), "to myself")
    answer = await world.ask(ann, "PUT", f"/chat/messages/{sent.id}", json={"content": content})
    assert refusal(answer) == refused(422, code, detail)


async def test_the_longest_text_is_taken(world: World) -> None:
    ann = await world.person("Ann")
    sent = await world.say(ann, names.dm(ann.id, ann.id), "to myself")
    answer = await world.ask(ann, "PUT", f"/chat/messages/{sent.id}", json={"content": "\u4e2d" * 16_384})
    assert answer.status_code == 200
    assert answer.json()["content"] == "\u4e2d" * 16_384


async def test_an_edit_repeated_with_its_key_takes_effect_once(world: World) -> None:
    ann = await world.person("Ann")
    sent = await world.say(ann, names.dm(ann.id, ann.id), "to myself")
    answers = [
        await world.ask(
            ann,
            "PUT",
            f"/chat/messages/{sent.id}",
            json={"content": "to me"},
            headers={"Idempotency-Key": "edit-1"},
        )
        for _ in range(2)
    ]
    assert answers[0].status_code == 200
    assert answers[0].json() == answers[1].json()
    assert len(await world.log.after(sent.conversation, 0, 10)) == 2
