"""What happens to every request before a route sees it, and to every response after.

Plain ASGI, outermost first: response headers, the last catch for what nobody foresaw, paths with or without a slash at
their end, and the bound on what is read.
"""

from __future__ import annotations

import uuid

import structlog
from fastapi import HTTPException
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastsock.api.errors import problem
from fastsock.core.errors import error_of

log = structlog.get_logger(__name__)

MAX_BODY_BYTES = 256 * 1024
"""Of one request: the longest legitimate one is a message's text, escaped, or the ids of a thousand members."""

PAGE_POLICY = (
    "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data: blob:; media-src 'self' blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""Content-Security-Policy: nothing from elsewhere. ``ws:`` is named since Safari's 'self' did not cover it for long."""
DOCS_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
)
"""Swagger UI is started by a script in its page, and sets styles; its files are ours all the same."""

REVALIDATED = ("/web/", "/docs", "/openapi.json")
"""What may be kept and asked for again; everything else is somebody's own and is kept by nobody."""


class ResponseHeaders:
    """Tells browsers what they may do with a response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        cached = "no-cache" if path == "/" or path.startswith(REVALIDATED) else "no-store"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("Cache-Control", cached)
                headers["Content-Security-Policy"] = DOCS_POLICY if path.startswith("/docs") else PAGE_POLICY
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "same-origin"
            await send(message)

        await self._app(scope, receive, send_with_headers)


class LastCatch:
    """Answers what nobody foresaw with an id, under which the log has its cause; clients see no traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except Exception:
            error_id = uuid.uuid4().hex
            log.exception("request failed", id=error_id, method=scope["method"], path=scope["path"])
            if started:  # too late for another status: the server has to cut the connection
                raise
            response = problem(error_of("internal", f"internal error {error_id}"), error_id=error_id)
            await response(scope, receive, send)


class EitherSlash:
    """``/chat/rooms/`` is ``/chat/rooms``, and ``/users`` is ``/users/``.

    Clients of earlier back ends use both, and were redirected; a redirect through a proxy may lose the token.
    """

    def __init__(self, app: ASGIApp, with_slash: frozenset[str]) -> None:
        self._app = app
        self._with_slash = with_slash
        """Paths that end with a slash, the only ones that do."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self._with_slash:
            bare = scope["path"].rstrip("/")
            path = f"{bare}/" if f"{bare}/" in self._with_slash else bare
            scope = {**scope, "path": path or "/"}
        await self._app(scope, receive, send)


class BodyLimit:
    """Refuses a body beyond `MAX_BODY_BYTES` as soon as it is known to be, announced or not."""

    def __init__(self, app: ASGIApp, limit_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        read_bytes = 0

        async def bounded_receive() -> Message:
            nonlocal read_bytes
            message = await receive()
            read_bytes += len(message.get("body", b""))
            if read_bytes > self._limit_bytes:
                raise HTTPException(413, f"the body has more than the {self._limit_bytes:,} bytes allowed")
            return message

        await self._app(scope, bounded_receive, send)
