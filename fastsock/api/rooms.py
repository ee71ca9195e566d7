"""Rooms and their members."""

from __future__ import annotations

from fastapi import APIRouter, Response

from fastsock.api.dependencies import Attempt, Caller, PathId, Served
from fastsock.api.errors import documented
from fastsock.db.conversations import MemberRow, RoomRow
from fastsock.schemas import frames, http

router = APIRouter(prefix="/chat/rooms", tags=["rooms"])

_TOKEN = ("not_authenticated", "token_expired")
_ROOM = (*_TOKEN, "not_a_member", "room_not_found")
_CHANGE = (*_ROOM, "not_allowed", "key_reused", "overloaded", "actor_unavailable")


@router.get("", responses=documented(*_TOKEN))
async def rooms(caller: Caller, services: Served) -> list[http.Room]:
    """The rooms that the caller belongs to."""
    return [_shown(room) for room in await services.rooms.of(caller)]


@router.post(
    "",
    responses=documented(*_TOKEN, "user_not_found", "too_many_members", "bad_json", "overloaded", "actor_unavailable"),
)
async def create_room(body: http.NewRoom, caller: Caller, services: Served) -> http.Room:
    """Make a room; every member, the caller included, gets the event `room.created`."""
    return _shown(await services.rooms.create(caller, body.name, body.member_ids))


@router.get("/{room_id}", responses=documented(*_ROOM))
async def room(room_id: PathId, caller: Caller, services: Served) -> http.Room:
    """One room, for its members."""
    return _shown(await services.rooms.get(caller, room_id))


@router.get("/{room_id}/members", response_model=list[http.Member], responses=documented(*_ROOM))
async def members(room_id: PathId, caller: Caller, services: Served) -> list[MemberRow]:
    """Who belongs to the room, for its members."""
    return await services.rooms.members(caller, room_id)


@router.post(
    "/{room_id}/members",
    response_model=http.Joined,
    responses=documented(*_CHANGE, "user_not_found", "already_a_member", "room_full", "bad_json"),
)
async def add_members(
    room_id: PathId, body: http.NewMembers, caller: Caller, attempt: Attempt, services: Served
) -> Response:
    """Add users; every member gets the event `room.member_joined`. For the owner and admins."""
    return _json(await services.rooms.add(caller, room_id, body.user_ids, attempt))


@router.delete("/{room_id}/members/{user_id}", response_model=http.Left, responses=documented(*_CHANGE))
async def remove_member(
    room_id: PathId, user_id: PathId, caller: Caller, attempt: Attempt, services: Served
) -> Response:
    """Leave, or remove somebody; every member gets the event `room.member_left`."""
    return _json(await services.rooms.remove(caller, room_id, user_id, attempt))


def _json(payload: bytes) -> Response:
    """An actor's answer is JSON already."""
    return Response(payload, media_type="application/json")


def _shown(room: RoomRow) -> http.Room:
    return http.Room(
        id=room.id,
        name=room.name,
        owner_id=room.owner_id,
        member_count=room.member_count,
        created_at=frames.iso(room.created_at_ms),
    )
