"""What was said: history, unread counts, and changing a message."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Response

from fastsock.api.dependencies import Attempt, Caller, Limit, PathId, Served, Skip
from fastsock.api.errors import documented
from fastsock.core.limits import DEFAULT_PAGE
from fastsock.schemas import frames, http
from fastsock.schemas.names import MAX_ID
from fastsock.services.history import Page

router = APIRouter(prefix="/chat", tags=["messages"])

_TOKEN = ("not_authenticated", "token_expired")
_CHANGE = (*_TOKEN, "not_a_member", "not_the_author", "message_not_found", "message_deleted", "key_reused")
_AWAY = ("overloaded", "actor_unavailable")

Seq = Annotated[int | None, Query(ge=0, le=MAX_ID)]


async def _page(skip: Skip = 0, limit: Limit = DEFAULT_PAGE, before: Seq = None, after: Seq = None) -> Page:
    return Page(skip, limit, before, after)


Paged = Annotated[Page, Depends(_page)]


@router.get("/unread", responses=documented(*_TOKEN))
async def unread(caller: Caller, services: Served) -> http.Unread:
    """Unread messages, per person and per room."""
    users, rooms = await services.unread.of(caller)
    return http.Unread(users=users, rooms=rooms)


@router.get(
    "/history/room/{room_id}",
    response_model=list[http.Message],
    responses=documented(*_TOKEN, "not_a_member", "room_not_found"),
)
async def room_history(room_id: PathId, page: Paged, caller: Caller, services: Served) -> Response:
    """A room's messages, oldest first: the newest page, or the one before or after a `seq`. For members."""
    return _json(await services.history.of_room(caller, room_id, page))


@router.get(
    "/history/user/{user_id}",
    response_model=list[http.Message],
    responses=documented(*_TOKEN, "user_not_found"),
)
async def user_history(user_id: PathId, page: Paged, caller: Caller, services: Served) -> Response:
    """What the caller and another user said to each other, oldest first."""
    return _json(await services.history.with_user(caller, user_id, page))


@router.put(
    "/messages/{message_id}",
    response_model=http.Message,
    responses=documented(*_CHANGE, "content_too_long", "bad_json", *_AWAY),
)
async def edit(
    message_id: PathId, body: http.NewContent, caller: Caller, attempt: Attempt, services: Served
) -> Response:
    """Change the text of one's own message; the conversation gets the event `message.update`."""
    return _json(await services.messages.edit(caller, message_id, body.content, attempt))


@router.delete("/messages/{message_id}", responses=documented(*_CHANGE, *_AWAY))
async def delete(message_id: PathId, caller: Caller, attempt: Attempt, services: Served) -> http.Done:
    """Delete one's own message, or as a room's owner or admin anybody's; the event is `message.delete`."""
    await services.messages.delete(caller, message_id, attempt)
    return http.Done()


def _json(messages: frames.Message | list[frames.Message]) -> Response:
    """Encoded by the same code as live frames, so that a message looks the same wherever it comes from."""
    return Response(msgspec.json.encode(messages), media_type="application/json")
