"""The gateway's ASGI application: ``/api/v1/ws/chat``, and ``/api/v1/ws/healthz`` beside it.

A socket's life: accepted, authenticated (``?token=``, or a first frame ``session.authenticate``), greeted with
``session.ready``, read until it ends; `fastsock.ws.chats` says what that means. A client's frames wait in the server's
buffer while they are not read.

Under Serve's direct ingress a client's end *cancels* the task that runs this application, so everything is cleaned up
in ``finally``, synchronously.
"""

from __future__ import annotations

import asyncio

import msgspec
from starlette.types import Message, Receive, Scope, Send

from fastsock.core.errors import FastSockError
from fastsock.core.security import Claims
from fastsock.ws.chats import PREFIX, Chats
from fastsock.ws.connection import Connection
from fastsock.ws.outbox import GONE
from fastsock.ws.socket import Socket


class GatewayApp:
    """The ASGI application around the sockets of a gateway."""

    def __init__(self, chats: Chats) -> None:
        self._chats = chats
        self._shell = chats.shell

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
        chats = self._chats
        refusal = chats.refusal()
        if refusal is None:
            chats.greeting += 1
            try:
                claims = chats.identify(scope["query_string"]) or await self._introduced(receive)
            except FastSockError as error:
                refusal = chats.unknown(error)
            finally:
                chats.greeting -= 1
        if refusal is not None:
            chats.refused(refusal)
            await send({"type": "websocket.close", "code": refusal.code, "reason": refusal.reason})
        elif claims is not None:
            await self._serve(claims, receive, send)

    async def _introduced(self, receive: Receive) -> Claims | None:
        """Who it is by the first frame; None where the peer has gone already.

        Raises:
            FastSockError: nobody we know.

        """
        try:
            async with asyncio.timeout(self._chats.authenticate_within_s):
                message = await receive()
        except TimeoutError:
            raise self._chats.silent() from None
        if message["type"] == "websocket.disconnect":
            return None
        return self._chats.introduced(message.get("text") or message.get("bytes") or b"")

    async def _serve(self, claims: Claims, receive: Receive, send: Send) -> None:
        chats, shell = self._chats, self._shell
        ready = asyncio.Event()
        code = GONE
        try:
            async with asyncio.timeout(None) as patience:

                def on_close() -> None:
                    patience.reschedule(asyncio.get_running_loop().time() + chats.close_within_s)
                    ready.set()

                connection = Connection(send, shell.tasks, shell.counts, on_close)
                socket = chats.admit(claims, connection, ready.set)
                try:
                    await ready.wait()
                    code = await self._read(socket, receive)
                finally:
                    if connection.closing is not None:
                        code = connection.closing[0]
                    connection.abandon()
                    chats.ended(socket, code)
        except TimeoutError:
            if not patience.expired():
                raise
            chats.left(socket, code)

    async def _read(self, socket: Socket, receive: Receive) -> int:
        """Read frames until the socket ends; its close code."""
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return int(message.get("code") or GONE)
            if socket.connection.closing is None:
                await self._frame(socket, message)

    async def _frame(self, socket: Socket, message: Message) -> None:
        change = self._chats.hear(socket, message.get("text"))
        if change is not None:
            await self._chats.change(socket, change)


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
