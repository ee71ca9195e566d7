"""Rooms: making them, and who belongs to them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from actors.commands import Attend
from fastsock.core.errors import error_of
from fastsock.schemas import frames
from tests.unit.api_world import World, new_world, refusal, refused


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with new_world(tmp_path) as made:
        yield made


# --- making one


async def test_a_new_room_belongs_to_its_maker_and_is_shown_to_every_member(world: World) -> None:
    ann, bob, cat = await world.people("Ann", "Bob", "Cat")
    body = {"name": "  Engine room ", "member_ids": [cat.id, bob.id, ann.id, bob.id], "is_group": True}
    answer = await world.ask(ann, "POST", "/chat/rooms", json=body)
    assert answer.status_code == 200
    assert answer.json() == {
        "id": 1,
        "name": "Engine room",
        "is_group": True,
        "owner_id": ann.id,
        "member_count": 3,
        "created_at": "2027-01-15T08:00:00.000Z",
    }
    told = dict(world.actors.told)
    assert told == {f"user:{who.id}": Attend("room:1", 0) for who in (ann, bob, cat)}
    assert len(world.actors.told) == 3
    [entry] = await world.log.after("room:1", 0, 10)
    event, data = frames.event_of(entry)
    assert (event, entry.seq) == ("room.created", 1)
    assert isinstance(data, dict)
    assert sorted(data["member_ids"]) == [ann.id, bob.id, cat.id]


async def test_a_room_of_one(world: World) -> None:
    ann = await world.person("Ann")
    answer = await world.ask(ann, "POST", "/chat/rooms", json={"name": "Notes"})
    assert answer.json()["member_count"] == 1


async def test_nobody_can_be_invited_who_does_not_exist(world: World) -> None:
    ann, bob = await world.people("Ann", "Bob")
    body = {"name": "Engine room", "member_ids": [bob.id, 77, 78]}
    answer = await world.ask(ann, "POST", "/chat/rooms", json=body)
    assert refusal(answer) == refused(404, "user_not_found", "no such users, or not active: 77, 78")
    assert await world.get(ann, "/chat/rooms") == []
    assert world.actors.told == []


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({}, "name: field required"),
        ({"name": "   "}, "name: string should have at least 1 character, not '   '"),
        ({"name": "n" * 201}, "name: string should have at most 200 characters, not 201 characters"),
        ({"name": "a\0"}, "name: must not contain the character U+0000, not 'a\\x00'"),
        ({"name": 7}, "name: input should be a valid string, not 7"),
        ({"name": "n", "member_ids": [0]}, "member_ids.0: input should be greater than or equal to 1, not 0"),
        (
            {"name": "n", "member_ids": [2**53]},
            "member_ids.0: input should be less than or equal to 9007199254740991, not 9007199254740992",
        ),
        ({"name": "n", "member_ids": [True]}, "member_ids.0: must be an integer, not true"),
        ({"name": "n", "member_ids": None}, "member_ids: input should be a valid list, not null"),
    ],
)
async def test_what_cannot_be_a_room_is_named(world: World, body: dict[str, Any], detail: str) -> None:
    ann = await world.person("Ann")
    assert refusal(await world.ask(ann, "POST", "/chat/rooms", json=body)) == refused(422, "invalid_data", detail)


async def test_a_room_holds_so_many_members(world: World) -> None:
    ann = await world.person("Ann")
    body = {"name": "Stadium", "member_ids": [*range(2, 5_002), *range(2, 5_002)]}
    answer = await world.ask(ann, "POST", "/chat/rooms", json=body)
    assert refusal(answer) == refused(
        422, "too_many_members", "a room has at most 5,000 members, and 5,001 members were asked for"
    )


async def test_so_many_may_be_added_at_once(world: World) -> None:
    ann = await world.person("Ann")
    room_id = await world.room(ann)
    body = {"user_ids": [*range(2, 1_003)]}
    answer = await world.ask(ann, "POST", f"/chat/rooms/{room_id}/members", json=body)
    detail = "user_ids: list should have at most 1000 items after validation, not 1001"
    assert refusal(answer) == refused(422, "invalid_data", detail)


async def test_many_mistakes_are_counted(world: World) -> None:
    ann = await world.person("Ann")
    body = {"name": "n", "member_ids": [0] * 900}
    answer = (await world.ask(ann, "POST", "/chat/rooms", json=body)).json()
    assert answer["detail"].endswith("member_ids.4: input should be greater than or equal to 1, not 0; and 895 more")


async def test_without_actors_no_room_is_made(world: World) -> None:
    ann = await world.person("Ann")
    world.actors.away = error_of("actor_unavailable", "host 1 does not answer", 500)
    answer = await world.ask(ann, "POST", "/chat/rooms", json={"name": "n"})
    assert refusal(answer) == (
        503,
        {
            "detail": "host 1 does not answer",
            "code": "actor_unavailable",
            "retryable": True,
            "retry_after_ms": 500,
        },
    )
    assert await world.get(ann, "/chat/rooms") == []


# --- looking at them


async def test_everybody_lists_their_own_rooms(world: World) -> None:
    ann, bob, cat = await world.people("Ann", "Bob", "Cat")
    first = await world.room(ann, bob, name="First")
    second = await world.room(bob, name="Second")
    assert [room["id"] for room in await world.get(ann, "/chat/rooms")] == [first]
    assert sorted(room["id"] for room in await world.get(bob, "/chat/rooms/")) == [first, second]
    assert await world.get(cat, "/chat/rooms") == []


async def test_a_room_and_its_members_are_for_members(world: World) -> None:
    ann, bob, cat = await world.people("Ann", "Bob", "Cat")
    room_id = await world.room(ann, bob)
    [listed] = await world.get(bob, "/chat/rooms")
    assert await world.get(bob, f"/chat/rooms/{room_id}") == listed
    assert await world.get(bob, f"/chat/rooms/{room_id}/members") == [
        {"user_id": ann.id, "role": "owner", "joined_seq": 1},
        {"user_id": bob.id, "role": "member", "joined_seq": 1},
    ]
    stranger = refused(403, "not_a_member", f"user {cat.id} is not a member of room:{room_id}")
    nowhere = refused(404, "room_not_found", "room 99 does not exist")
    for tail in ("", "/members"):
        assert refusal(await world.ask(cat, "GET", f"/chat/rooms/{room_id}{tail}")) == stranger
        assert refusal(await world.ask(cat, "GET", f"/chat/rooms/99{tail}")) == nowhere


@pytest.mark.parametrize("room_id", ["0", "-1", "9007199254740992", "9" * 5_000, "one", "1.5", "1e3", "%00", "٣"])
async def test_what_cannot_be_an_id_is_refused(world: World, room_id: str) -> None:
    ann = await world.person("Ann")
    status, body = refusal(await world.ask(ann, "GET", f"/chat/rooms/{room_id}"))
    assert (status, body["code"]) == (422, "invalid_data")
    assert body["detail"].startswith("room_id: ")
    assert len(body["detail"]) < 200


# --- who belongs


async def test_the_owner_adds_members_and_they_see_everything(world: World) -> None:
    ann, bob, cat = await world.people("Ann", "Bob", "Cat")
    room_id = await world.room(ann, bob)
    world.actors.told.clear()
    body = {"user_ids": [cat.id, cat.id, bob.id]}
    answer = await world.ask(ann, "POST", f"/chat/rooms/{room_id}/members", json=body)
    assert answer.json() == {
        "room_id": room_id,
        "seq": 2,
        "timestamp": "2027-01-15T08:00:00.000Z",
        "user_ids": [cat.id],
        "by": ann.id,
    }
    assert world.actors.told == [(f"user:{cat.id}", Attend(f"room:{room_id}", 1))]
    members = await world.get(cat, f"/chat/rooms/{room_id}/members")
    assert (members[-1]["user_id"], members[-1]["role"], members[-1]["joined_seq"]) == (cat.id, "member", 2)
    assert (await world.get(cat, f"/chat/rooms/{room_id}"))["member_count"] == 3


async def test_adding_is_refused(world: World) -> None:
    ann, bob, cat = await world.people("Ann", "Bob", "Cat")
    room_id = await world.room(ann, bob)
    path = f"/chat/rooms/{room_id}/members"

    async def add(who: Any, *user_ids: Any, path: str = path) -> Any:
        return refusal(await world.ask(who, "POST", path, json={"user_ids": [*user_ids]}))

    assert await add(cat, cat.id) == refused(403, "not_a_member", f"user {cat.id} is not a member of room:{room_id}")
    assert await add(bob, cat.id) == refused(
        403, "not_allowed", f"user {bob.id} is a member of room:{room_id}, not its owner or an admin"
    )
    assert await add(ann, bob.id) == refused(409, "already_a_member", f"already in room:{room_id}: {bob.id}")
    assert await add(ann, 88, cat.id, 77) == refused(404, "user_not_found", "no such users, or not active: 77, 88")
    assert await add(ann) == refused(
        422, "invalid_data", "user_ids: list should have at least 1 item after validation, not 0"
    )
    assert await add(ann, cat.id, path="/chat/rooms/99/members") == refused(
        404, "room_not_found", "room 99 does not exist or is not active"
    )


async def test_members_leave_and_are_removed(world: World) -> None:
    ann, bob, cat = await world.people("Ann", "Bob", "Cat")
    room_id = await world.room(ann, bob, cat)
    path = f"/chat/rooms/{room_id}/members"
    left = await world.ask(bob, "DELETE", f"{path}/{bob.id}")
    assert left.json() == {
        "room_id": room_id,
        "seq": 2,
        "timestamp": "2027-01-15T08:00:00.000Z",
        "user_ids": [bob.id],
        "by": bob.id,
    }
    removed = await world.ask(ann, "DELETE", f"{path}/{cat.id}")
    assert (removed.json()["user_ids"], removed.json()["by"]) == ([cat.id], ann.id)
    assert [member["user_id"] for member in await world.get(ann, path)] == [ann.id]
    assert await world.get(bob, "/chat/rooms") == []
    assert (await world.ask(bob, "GET", path)).status_code == 403


async def test_removing_is_refused(world: World) -> None:
    ann, bob, cat = await world.people("Ann", "Bob", "Cat")
    room_id = await world.room(ann, bob)
    path = f"/chat/rooms/{room_id}/members"
    assert refusal(await world.ask(bob, "DELETE", f"{path}/{ann.id}")) == refused(
        403, "not_allowed", f"user {bob.id} is a member of room:{room_id}, not its owner or an admin"
    )
    assert refusal(await world.ask(ann, "DELETE", f"{path}/{cat.id}")) == refused(
        403, "not_a_member", f"user {cat.id} is not a member of room:{room_id}"
    )


async def test_a_repeated_attempt_takes_effect_once(world: World) -> None:
    ann, bob = await world.people("Ann", "Bob")
    room_id = await world.room(ann, bob)
    other = await world.room(ann, bob)
    key = {"Idempotency-Key": "leave-1"}
    first = await world.ask(bob, "DELETE", f"/chat/rooms/{room_id}/members/{bob.id}", headers=key)
    assert first.status_code == 200
    again = await world.ask(bob, "DELETE", f"/chat/rooms/{other}/members/{bob.id}", headers=key)
    assert refusal(again) == refused(
        409, "key_reused", f"the id 'leave-1' is taken: it names an entry of kind 'left' in room:{room_id}"
    )


@pytest.mark.parametrize("key", ["", " ", "k" * 129, "two words", "caf\u00e9"])
async def test_a_key_has_limits(world: World, key: str) -> None:
    ann = await world.person("Ann")
    room_id = await world.room(ann)
    headers = {**ann.bearer, "Idempotency-Key": key}
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    answer = await world.http.delete(f"/api/v1/chat/rooms/{room_id}/members/{ann.id}", headers=raw)
    status, body = refusal(answer)
    assert (status, body["code"]) == (422, "invalid_data")
    assert body["detail"].startswith("idempotency-key: string should ")
