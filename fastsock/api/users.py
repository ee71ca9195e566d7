"""Users: oneself and the others."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from fastsock.api.dependencies import Caller, Limit, Served, Skip
from fastsock.api.errors import documented
from fastsock.db.users import UserRow
from fastsock.schemas import http

router = APIRouter(prefix="/users", tags=["users"])

DEFAULT_USERS = 100
"""What clients of earlier back ends count on when they name no limit (the default of FastAPI's project template)."""


@router.get(
    "/me", response_model=http.User, responses=documented("not_authenticated", "token_expired", "account_inactive")
)
async def me(caller: Caller, services: Served) -> UserRow:
    """Who the token belongs to."""
    return await services.people.me(caller)


@router.patch(
    "/me",
    response_model=http.User,
    responses=documented("not_authenticated", "token_expired", "account_inactive", "bad_json"),
)
async def change_me(body: http.Profile, caller: Caller, services: Served) -> UserRow:
    """Change one's name; what is left out stays as it is."""
    if "full_name" not in body.model_fields_set:
        return await services.people.me(caller)
    return await services.people.rename(caller, body.full_name)


@router.get("/", response_model=list[http.User], responses=documented("not_authenticated", "token_expired"))
async def users(
    caller: Caller,  # noqa: ARG001 - anybody who is logged in
    services: Served,
    skip: Skip = 0,
    limit: Limit = DEFAULT_USERS,
    q: Annotated[http.Text | None, Query(max_length=200, description="part of a name or an address")] = None,
) -> list[UserRow]:
    """Active users, by id."""
    return await services.people.list(skip, limit, q or None)
