"""What routes ask for: the services, who is calling, and the name of an attempt."""

from __future__ import annotations

import uuid
from typing import Annotated, NamedTuple

from fastapi import Depends, Header, Path, Query, Request
from fastapi.security import OAuth2PasswordBearer

from fastsock.core.limits import MAX_CLIENT_MSG_ID_CHARS, MAX_PAGE
from fastsock.db.engine import Database
from fastsock.schemas.log import CLIENT_KEY, SERVER_KEY
from fastsock.schemas.names import MAX_ID
from fastsock.services.auth import Accounts
from fastsock.services.clock import Clock
from fastsock.services.history import History
from fastsock.services.ice import IceServerList
from fastsock.services.messages import Messages
from fastsock.services.rooms import Rooms
from fastsock.services.unread import UnreadMessages
from fastsock.services.users import People

API = "/api/v1"


class Services(NamedTuple):
    """Everything behind the routes; kept as ``app.state.services``."""

    db: Database
    accounts: Accounts
    people: People
    rooms: Rooms
    history: History
    messages: Messages
    unread: UnreadMessages
    ice: IceServerList
    now_ms: Clock


async def _services(request: Request) -> Services:
    found = request.app.state.services
    assert isinstance(found, Services)
    return found


Served = Annotated[Services, Depends(_services)]

_bearer = OAuth2PasswordBearer(
    f"{API}/auth/login/access-token",
    scheme_name="Login",
    description="Username is the e-mail address.",
    auto_error=False,
)


async def _caller(services: Served, token: Annotated[str | None, Depends(_bearer)]) -> int:
    return services.accounts.caller(token)


Caller = Annotated[int, Depends(_caller)]
"""The id of the user whose token came with the request; without a valid one the route is not reached."""


async def _attempt(
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=MAX_CLIENT_MSG_ID_CHARS,
            pattern="^[!-~]+$",
            description="Names this attempt, for ever: sent again with the same key, the request takes effect once.",
        ),
    ] = None,
) -> str:
    return f"{SERVER_KEY}{uuid.uuid4()}" if idempotency_key is None else f"{CLIENT_KEY}{idempotency_key}"


Attempt = Annotated[str, Depends(_attempt)]
"""The key of a logged command: the client's, or one made up here, under which nothing can be repeated."""

PathId = Annotated[int, Path(ge=1, le=MAX_ID)]
Skip = Annotated[int, Query(ge=0, le=MAX_ID, description="rows to leave out")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="rows at most")]
