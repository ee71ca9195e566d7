"""The HTTP application: everything of FastSock that is asked and answered once.

`build_api` composes and nothing else: it opens no connection and starts no actor, so a test gives it a database in a
folder and actors in memory, and the runtime gives it the real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from fastsock.api import auth, errors, messages, operations, pages, rooms, users, webrtc
from fastsock.api.dependencies import API, Services
from fastsock.api.edge import BodyLimit, EitherSlash, LastCatch, ResponseHeaders
from fastsock.core.config import Settings
from fastsock.core.security import Passwords
from fastsock.db.conversations import Conversations
from fastsock.db.engine import Database
from fastsock.db.message_log import MessageLog
from fastsock.db.users import Users
from fastsock.services.auth import Accounts
from fastsock.services.clock import Clock, wall_clock_ms
from fastsock.services.history import History
from fastsock.services.ice import IceServerList
from fastsock.services.messages import Messages
from fastsock.services.ports import Actors
from fastsock.services.rooms import Rooms
from fastsock.services.unread import UnreadMessages
from fastsock.services.users import People

DESCRIPTION = """
Chat and call signalling: accounts, rooms, history. What is said travels over the WebSocket at
`/api/v1/ws/chat?token=ACCESS_TOKEN`, as frames `{"event": "...", "data": {...}}`.

**Authorize** with an e-mail address and a password, or sign up first. Every error's body has `detail` for people and a
stable `code` for programs; one with `retryable: true` may succeed when it is sent again unchanged. Ids are integers
from 1 to 2^53 - 1, times are ISO 8601 in UTC, lists are paged with `skip` and `limit`.
"""

TAGS = [
    {"name": "auth", "description": "Sign up and log in."},
    {"name": "users", "description": "Oneself and the others."},
    {"name": "rooms", "description": "Conversations of many, and who belongs to them."},
    {"name": "messages", "description": "History, unread counts, changing what was said."},
    {"name": "calls", "description": "What WebRTC needs before a call."},
    {"name": "operation", "description": "For load balancers and orchestrators."},
]

WITH_SLASH = frozenset({f"{API}/users/"})
"""The one path that ``protocol.md`` writes with a slash at its end."""


def build_api(settings: Settings, db: Database, actors: Actors, *, now_ms: Clock = wall_clock_ms) -> FastAPI:
    """The ASGI application. The caller opens and closes ``db`` and ``actors``; ``now_ms`` is the time."""
    app = FastAPI(
        title="FastSock",
        description=DESCRIPTION,
        version=_version(),
        openapi_tags=TAGS,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        middleware=[
            Middleware(ResponseHeaders),
            *_cors(settings.cors_origins),
            Middleware(LastCatch),
            Middleware(EitherSlash, with_slash=WITH_SLASH),
            Middleware(BodyLimit),
        ],
    )
    app.state.services = _services(settings, db, actors, now_ms)
    errors.install(app)
    for resource in (auth, users, rooms, messages, webrtc):
        app.include_router(resource.router, prefix=API)
    app.include_router(operations.router)
    pages.install(app)
    return app


def _services(settings: Settings, db: Database, actors: Actors, now_ms: Clock) -> Services:
    assert settings.secret_key is not None, "settings without their secret: see fastsock.core.datadir.resolve_secret"
    secret = settings.secret_key.get_secret_value()
    turn_secret = None if settings.turn_secret is None else settings.turn_secret.get_secret_value()
    users_table, conversations, log = Users(db), Conversations(db), MessageLog(db)
    people = People(users_table)
    rooms_service = Rooms(conversations, people, actors, now_ms)
    return Services(
        db=db,
        accounts=Accounts(users_table, Passwords(), secret=secret, ttl_s=settings.access_token_ttl_s, now_ms=now_ms),
        people=people,
        rooms=rooms_service,
        history=History(log, rooms_service, people),
        messages=Messages(log, actors),
        unread=UnreadMessages(conversations),
        ice=IceServerList(settings.ice_servers, turn_urls=settings.turn_urls, turn_secret=turn_secret),
        now_ms=now_ms,
    )


def _cors(origins: Sequence[str]) -> list[Middleware]:
    """Pages of these origins may call. No cookies are in use, so the token is all that there is to send."""
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key"],
            expose_headers=["Retry-After"],
        )
    ]


def _operation_id(route: APIRoute) -> str:
    """Short names for generated clients: ``create_room``."""
    return route.name


def _version() -> str:
    try:
        return version("fastsock")
    except PackageNotFoundError:  # run from a source tree that was not installed
        return "unreleased"
