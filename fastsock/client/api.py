"""The HTTP interface, typed: accounts, rooms, history, edits. What happens live comes through `Client`.

Each request is tried once, and a second time with a new token where the first is refused. `ApiError.retryable` says
what is worth another try; with the same ``key`` a change takes effect once, however often it is tried.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from http import HTTPStatus
from typing import Any, Literal, TypeVar

import httpx
import msgspec

from fastsock.client.errors import ApiError
from fastsock.client.settings import HTTP_WITHIN_S
from fastsock.client.tokens import Tokens

PREFIX = "/api/v1/"

T = TypeVar("T")


class Token(msgspec.Struct, kw_only=True):
    """What a login gives; ``expires_in`` in seconds."""

    access_token: str
    expires_in: int


class User(msgspec.Struct, kw_only=True):
    """A user."""

    id: int
    email: str
    full_name: str | None = None
    is_active: bool = True


class Room(msgspec.Struct, kw_only=True):
    """A room."""

    id: int
    name: str
    owner_id: int
    member_count: int
    created_at: datetime


class Member(msgspec.Struct, kw_only=True):
    """A member of a room; ``joined_seq`` is the entry of the log that made it one."""

    user_id: int
    role: Literal["owner", "admin", "member"]
    joined_seq: int


class Message(msgspec.Struct, kw_only=True):
    """A message in its present state; fields as in `fastsock.client.events.MessageReceived`."""

    id: int
    content: str
    sender_id: int
    receiver_id: int | None = None
    room_id: int | None = None
    message_type: str = "text"
    timestamp: datetime
    reply_to: int | None = None
    reactions: dict[str, list[str]] = msgspec.field(default_factory=dict)
    seq: int
    client_msg_id: str | None = None
    edited_at: datetime | None = None
    deleted: bool = False


class Change(msgspec.Struct, kw_only=True):
    """Members who came or went, and the entry of the log that says so."""

    room_id: int
    seq: int
    user_ids: list[int]
    by: int
    timestamp: datetime


class Unread(msgspec.Struct, kw_only=True):
    """Unread messages, per user id and per room id; those without any are left out."""

    users: dict[int, int]
    rooms: dict[int, int]


class _Problem(msgspec.Struct, kw_only=True):
    detail: str
    code: str = "internal"
    retryable: bool = False
    retry_after_ms: int | None = None


class Api:
    """HTTP requests to one server, for one user if there are ``tokens``; close it with `aclose`.

    Every method raises `ApiError` where the server refuses, and an `httpx.TransportError` where it is not reached.
    ``url`` is that of the server, ``http://127.0.0.1:8000``.
    """

    def __init__(self, url: str, tokens: Tokens | None = None) -> None:
        self._tokens = tokens
        self._http = httpx.AsyncClient(base_url=url.rstrip("/") + PREFIX, timeout=HTTP_WITHIN_S)
        self._me: User | None = None

    async def aclose(self) -> None:
        await self._http.aclose()

    # --- accounts ------------------------------------------------------------------------------------------------

    async def signup(self, email: str, password: str, full_name: str | None = None) -> User:
        """Make an account."""
        body = {"email": email, "password": password, "full_name": full_name}
        return await self._ask(User, "POST", "auth/signup", anonymous=True, json=body)

    async def login(self, email: str, password: str) -> Token:
        form = {"username": email, "password": password}
        return await self._ask(Token, "POST", "auth/login/access-token", anonymous=True, data=form)

    async def me(self) -> User:
        """Who the token belongs to."""
        if self._me is None:
            self._me = await self._ask(User, "GET", "users/me")
        return self._me

    async def users(self, *, q: str | None = None, skip: int = 0, limit: int = 100) -> list[User]:
        """Active users by id; ``q``: with this in their name or address."""
        return await self._ask(list[User], "GET", "users/", params=_given(q=q, skip=skip, limit=limit))

    # --- rooms ---------------------------------------------------------------------------------------------------

    async def rooms(self) -> list[Room]:
        """The rooms that the user belongs to."""
        return await self._ask(list[Room], "GET", "chat/rooms")

    async def create_room(self, name: str, member_ids: list[int]) -> Room:
        """Make a room; the caller owns it, and need not be named. Every member gets `RoomCreated`."""
        return await self._ask(Room, "POST", "chat/rooms", json={"name": name, "member_ids": member_ids})

    async def members(self, room_id: int) -> list[Member]:
        return await self._ask(list[Member], "GET", f"chat/rooms/{room_id}/members")

    async def add_members(self, room_id: int, user_ids: list[int], *, key: str | None = None) -> Change:
        """Add users; every member gets `MemberJoined`."""
        path = f"chat/rooms/{room_id}/members"
        return await self._ask(Change, "POST", path, key=key or uuid.uuid4().hex, json={"user_ids": user_ids})

    async def remove_member(self, room_id: int, user_id: int, *, key: str | None = None) -> Change:
        """Remove somebody; every member, the removed one as well, gets `MemberLeft`."""
        path = f"chat/rooms/{room_id}/members/{user_id}"
        return await self._ask(Change, "DELETE", path, key=key or uuid.uuid4().hex)

    async def leave(self, room_id: int, *, key: str | None = None) -> Change:
        """Leave a room."""
        return await self.remove_member(room_id, (await self.me()).id, key=key)

    # --- messages ------------------------------------------------------------------------------------------------

    async def history(
        self,
        *,
        room_id: int | None = None,
        user_id: int | None = None,
        before: int | None = None,
        after: int | None = None,
        limit: int = 50,
    ) -> list[Message]:
        """Messages of a room or with a user, oldest first: the newest page, or that before or after a ``seq``."""
        if (room_id is None) == (user_id is None):
            raise ValueError("exactly one of room_id and user_id is needed")
        path = f"chat/history/user/{user_id}" if room_id is None else f"chat/history/room/{room_id}"
        params = _given(before=before, after=after, limit=limit)
        return await self._ask(list[Message], "GET", path, params=params)

    async def edit(self, message_id: int, content: str, *, key: str | None = None) -> Message:
        """Change one's own message; everybody gets `MessageUpdated`."""
        path = f"chat/messages/{message_id}"
        return await self._ask(Message, "PUT", path, key=key or uuid.uuid4().hex, json={"content": content})

    async def delete(self, message_id: int, *, key: str | None = None) -> None:
        """Delete one's own message, or as a room's owner or admin anybody's; everybody gets `MessageDeleted`."""
        await self._ask(dict[str, Any], "DELETE", f"chat/messages/{message_id}", key=key or uuid.uuid4().hex)

    async def unread(self) -> Unread:
        return await self._ask(Unread, "GET", "chat/unread")

    # --- the request ---------------------------------------------------------------------------------------------

    async def _ask(
        self,
        answer: type[T],
        method: str,
        path: str,
        *,
        anonymous: bool = False,
        key: str | None = None,
        **request: Any,
    ) -> T:
        headers = {} if key is None else {"Idempotency-Key": key}
        token = None
        if not anonymous and self._tokens is not None:
            token = await self._tokens.current()
        response = await self._once(method, path, headers, token, request)
        if response.status_code == HTTPStatus.UNAUTHORIZED and self._tokens is not None and self._tokens.renewable:
            token = await self._tokens.renewed(token)
            response = await self._once(method, path, headers, token, request)
        if response.is_success:
            return msgspec.json.decode(response.content, type=answer)
        raise _error_of(response)

    async def _once(
        self, method: str, path: str, headers: dict[str, str], token: str | None, request: dict[str, Any]
    ) -> httpx.Response:
        authorized = headers if token is None else {**headers, "Authorization": f"Bearer {token}"}
        return await self._http.request(method, path, headers=authorized, **request)


def _given(**params: str | int | None) -> dict[str, str | int]:
    return {name: value for name, value in params.items() if value is not None}


def _error_of(response: httpx.Response) -> ApiError:
    """What the server's error body says; a proxy's page on the way has none."""
    try:
        problem = msgspec.json.decode(response.content, type=_Problem)
    except msgspec.DecodeError:
        retryable = response.is_server_error
        problem = _Problem(detail=f"the server answered {response.reason_phrase!r}", retryable=retryable)
    return ApiError(
        response.status_code,
        problem.code,
        problem.detail,
        retryable=problem.retryable,
        retry_after_ms=problem.retry_after_ms,
    )
