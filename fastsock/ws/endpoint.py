"""The gateway's ASGI application: ``/api/v1/ws/chat``, and ``/api/v1/ws/healthz`` beside it.

A socket's life: accepted, authenticated (``?token=``, or a first frame ``session.authenticate``), greeted with
``session.ready``, read until it ends. It is accepted before anything is refused, since a browser learns nothing from a
handshake that fails: so there is a close code for every refusal. Frames are read one after the other, and not before
``session.ready`` was written: what a client sends early waits in the server's buffer.

Under Serve's direct ingress a client's end *cancels* the task that runs this application, so everything is cleaned up
in ``finally``, synchronously.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Protocol
from urllib.parse import parse_qs

import msgspec
import structlog
from starlette.types import Message, Receive, Scope, Send

from fastsock.core.errors import FastSockError, error_of
from fastsock.core.limits import AUTHENTICATE_WITHIN_S
from fastsock.core.security import Claims, verify
from fastsock.schemas import events
from fastsock.ws.connection import GONE, Connection
from fastsock.ws.session import (
    Ask,
    Change,
    CloseSocket,
    Limits,
    Refresh,
    Reply,
    Resume,
    Session,
    Tell,
    close,
    close_reason,
)
from fastsock.ws.shell import GOING_AWAY, TRY_AGAIN_LATER, GatewayShell
from fastsock.ws.socket import Socket

log = structlog.get_logger("fastsock.ws")

PREFIX = "/api/v1/ws"
CLOSE_WITHIN_S = 5.0
"""A socket that was told to end, and has not, is left to the server after so long."""
UNAUTHENTICATED = 1008


class MessageChanges(Protocol):
    """Changing messages; `fastsock.services.messages.Messages` does it."""

    async def edit(self, caller: int, message_id: int, content: str, key: str) -> object:
        """Raises: FastSockError: it is refused, or cannot be done now."""
        ...

    async def delete(self, caller: int, message_id: int, key: str) -> object:
        """Raises: FastSockError: it is refused, or cannot be done now."""
        ...


def build_gateway(
    shell: GatewayShell,
    messages: MessageChanges,
    *,
    secret: str,
    max_sockets: int,
    limits: Limits | None = None,
) -> GatewayApp:
    """The ASGI application around a shell that the caller starts and stops.

    ``secret`` is what tokens are signed with; above ``max_sockets`` a new socket is closed with 1013.
    """
    return GatewayApp(shell, messages, secret, max_sockets, limits or Limits())


class GatewayApp:
    """See `build_gateway`."""

    def __init__(
        self, shell: GatewayShell, messages: MessageChanges, secret: str, max_sockets: int, limits: Limits
    ) -> None:
        self._shell = shell
        self._messages = messages
        self._secret = secret
        self._max_sockets = max_sockets
        self._limits = limits
        self._greeting = 0
        """Sockets that are accepted and not authenticated yet."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one socket or one request."""
        if scope["type"] == "websocket":
            if _path(scope) == "/chat":
                await self._chat(scope, receive, send)
            else:
                await send({"type": "websocket.close"})  # before it is accepted: HTTP 403
        elif scope["type"] == "http":
            await self._http(scope, send)
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)

    # --- HTTP ----------------------------------------------------------------------------------------------------

    async def _http(self, scope: Scope, send: Send) -> None:
        path, shell = _path(scope), self._shell
        if path == "/healthz":
            state = "going away" if shell.closing else "ok" if shell.started else "starting"
            await _answer(send, 200 if state == "ok" else 503, {"status": state, "sockets": len(shell)})
        elif path == "/chat":
            detail = f"{PREFIX}/chat is a WebSocket: ask for an upgrade"
            await _answer(send, 426, {"detail": detail, "code": "bad_frame"}, (b"upgrade", b"websocket"))
        else:
            await _answer(send, 404, {"detail": f"there is nothing at {scope['path']}", "code": "unknown_event"})

    # --- the socket ----------------------------------------------------------------------------------------------

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        await send({"type": "websocket.accept"})
        refusal = self._refusal()
        if refusal is None:
            self._greeting += 1
            try:
                claims = await self._authenticate(scope, receive)
            except FastSockError as error:
                refusal = CloseSocket(UNAUTHENTICATED, close_reason(error.message))
            finally:
                self._greeting -= 1
        if refusal is not None:
            log.info("socket refused", code=refusal.code, reason=refusal.reason)
            await send({"type": "websocket.close", "code": refusal.code, "reason": refusal.reason})
        elif claims is not None:
            await self._serve(claims, receive, send)

    def _refusal(self) -> CloseSocket | None:
        """Why no socket can be taken in now."""
        if self._shell.closing:
            return CloseSocket(GOING_AWAY, "this gateway goes away: connect again")
        if not self._shell.started:
            return CloseSocket(TRY_AGAIN_LATER, "this gateway is starting: connect again")
        count = len(self._shell) + self._greeting
        if count >= self._max_sockets:
            text = f"this gateway is full: it has {count:,} of {self._max_sockets:,} sockets"
            return close(error_of("server_full", text))
        return None

    async def _authenticate(self, scope: Scope, receive: Receive) -> Claims | None:
        """Who it is; None where the peer has gone already.

        Raises:
            FastSockError: nobody we know.

        """
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if "token" in query:
            token = query["token"][0]
        elif "ticket" in query:
            raise error_of("not_authenticated", "tickets are not served by this version yet: send a token")
        else:
            message = await _first_frame(receive)
            if message["type"] == "websocket.disconnect":
                return None
            token = events.token_of(message.get("text") or message.get("bytes") or b"")
        return verify(token, self._secret, self._shell.now_ms() / 1000)

    async def _serve(self, claims: Claims, receive: Receive, send: Send) -> None:
        shell, now_ms = self._shell, self._shell.now_ms()
        connection_id = uuid.uuid4().hex
        ready = asyncio.Event()
        code = GONE
        try:
            async with asyncio.timeout(None) as patience:

                def on_close() -> None:
                    patience.reschedule(asyncio.get_running_loop().time() + CLOSE_WITHIN_S)
                    ready.set()

                socket = Socket(
                    Connection(send, shell.tasks, shell.counts, on_close),
                    Session(claims.user_id, connection_id, now_ms, self._limits),
                    connection_id,
                    claims.user_id,
                    int(claims.expires_at * 1000),
                    now_ms,
                    ready,
                )
                try:
                    shell.open(socket)
                    await ready.wait()
                    code = await self._read(socket, receive)
                finally:
                    if socket.connection.closing is not None:
                        code = socket.connection.closing[0]
                    socket.connection.abandon()
                    shell.ended(socket, code)
        except TimeoutError:
            if not patience.expired():
                raise
            log.info("socket left to the server", connection_id=connection_id, code=code)

    async def _read(self, socket: Socket, receive: Receive) -> int:
        """Read frames until the socket ends; its close code."""
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return int(message.get("code") or GONE)
            if socket.connection.closing is None:
                await self._frame(socket, message)

    async def _frame(self, socket: Socket, message: Message) -> None:
        now_ms, text = self._shell.now_ms(), message.get("text")
        session = socket.session
        for action in session.receive_binary(now_ms) if text is None else session.receive_text(text, now_ms):
            if not isinstance(action, Resume):
                self._shell.heard(socket)
            match action:
                case Ask():
                    self._shell.ask(socket, action)
                case Tell():
                    self._shell.tell(action)
                case Reply(frame):
                    socket.connection.write(frame)
                case Resume(wanted):
                    self._shell.resume(socket, wanted)
                case Refresh(token):
                    self._refresh(socket, token)
                case Change():
                    await self._change(socket, action)
                case CloseSocket(code, reason):
                    log.info("socket closed", connection_id=socket.connection_id, code=code, reason=reason)
                    socket.connection.close(code, reason)

    def _refresh(self, socket: Socket, token: str) -> None:
        try:
            claims = verify(token, self._secret, self._shell.now_ms() / 1000)
            if claims.user_id != socket.user_id:
                text = f"the token is user {claims.user_id}'s, this socket is user {socket.user_id}'s"
                raise error_of("not_allowed", text)
        except FastSockError as error:
            socket.connection.write(events.error_frame(error, "session.refresh"))
        else:
            self._shell.refresh(socket, int(claims.expires_at * 1000))

    async def _change(self, socket: Socket, change: Change) -> None:
        """Edit or delete before the next frame is read: what a client says in order happens in order."""
        try:
            if change.content is None:
                await self._messages.delete(socket.user_id, change.message_id, change.key)
            else:
                await self._messages.edit(socket.user_id, change.message_id, change.content, change.key)
        except FastSockError as error:
            failure = error
        except Exception:
            error_id = uuid.uuid4().hex
            about = {"connection_id": socket.connection_id, "message_id": change.message_id}
            log.exception("change failed", id=error_id, event_name=change.event, **about)
            failure = error_of("internal", f"internal error {error_id}")
        else:
            return
        socket.connection.write(events.error_frame(failure, change.event, change.client_msg_id))


async def _first_frame(receive: Receive) -> Message:
    try:
        async with asyncio.timeout(AUTHENTICATE_WITHIN_S):
            return await receive()
    except TimeoutError:
        text = f"no token in the URL, and no session.authenticate within {AUTHENTICATE_WITHIN_S:g} s"
        raise error_of("not_authenticated", text) from None


def _path(scope: Scope) -> str:
    """The path below `PREFIX`. Serve gives the whole path, and its route prefix as ``root_path`` too."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")).removeprefix(PREFIX).rstrip("/") or "/"


async def _answer(send: Send, status: int, body: object, *headers: tuple[bytes, bytes]) -> None:
    content = msgspec.json.encode(body)
    about = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    always = [*about, (b"cache-control", b"no-store"), *headers]
    await send({"type": "http.response.start", "status": status, "headers": always})
    await send({"type": "http.response.body", "body": content})


async def _lifespan(receive: Receive, send: Send) -> None:
    """Servers ask; the shell is started and stopped by whoever built it."""
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": f"{message['type']}.complete"})
    await send({"type": "lifespan.shutdown.complete"})
