"""What happens on sockets, whoever carries their frames: who is let in, what a frame does, what an end means.

Nothing here waits, but for `Chats.change`. Two carriers use it, and it makes no difference which: the ASGI application
(`fastsock.ws.endpoint`), and the sockets that uvicorn serves by itself (`fastsock.ws.frame_connection`). For both:

* A socket is accepted before anything is refused, since a browser learns nothing from a handshake that fails: so there
  is a close code for every refusal.
* Frames are read one after the other, and not before ``session.ready`` was written, nor while a change is under way:
  what a client says in order happens in order.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import ClassVar, Protocol
from urllib.parse import parse_qs

import structlog

from fastsock.core.errors import FastSockError, error_of
from fastsock.core.limits import AUTHENTICATE_WITHIN_S
from fastsock.core.security import Claims, verify
from fastsock.schemas import events
from fastsock.ws.outbox import Outbox
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
PATH = f"{PREFIX}/chat"
UNAUTHENTICATED = 1008


class MessageChanges(Protocol):
    """Changing messages; `fastsock.services.messages.Messages` does it."""

    async def edit(self, caller: int, message_id: int, content: str, key: str) -> object:
        """Raises: FastSockError: it is refused, or cannot be done now."""
        ...

    async def delete(self, caller: int, message_id: int, key: str) -> object:
        """Raises: FastSockError: it is refused, or cannot be done now."""
        ...


class Chats:
    """The sockets of one gateway, around a shell that the caller starts and stops.

    ``secret`` is what tokens are signed with; above ``max_sockets`` a new socket is closed with 1013.
    """

    authenticate_within_s: ClassVar[float] = AUTHENTICATE_WITHIN_S
    """A socket without a credential has so long for its first frame."""
    close_within_s: ClassVar[float] = 5.0
    """A socket that was told to end, and has not, is left to the server after so long."""

    def __init__(
        self,
        shell: GatewayShell,
        messages: MessageChanges,
        *,
        secret: str,
        max_sockets: int,
        limits: Limits | None = None,
    ) -> None:
        self.shell = shell
        self.greeting = 0
        """Sockets that are accepted and not authenticated yet; whoever carries them counts them."""
        self._messages = messages
        self._secret = secret
        self._max_sockets = max_sockets
        self._limits = limits or Limits()

    # --- coming ----------------------------------------------------------------------------------------------------

    def refusal(self) -> CloseSocket | None:
        """Why no socket can be taken in now."""
        if self.shell.closing:
            return CloseSocket(GOING_AWAY, "this gateway goes away: connect again")
        if not self.shell.started:
            return CloseSocket(TRY_AGAIN_LATER, "this gateway is starting: connect again")
        count = len(self.shell) + self.greeting
        if count >= self._max_sockets:
            text = f"this gateway is full: it has {count:,} of {self._max_sockets:,} sockets"
            return close(error_of("server_full", text))
        return None

    def identify(self, query_string: bytes) -> Claims | None:
        """Who it is by the URL; None where the first frame shall say so, see `introduced`.

        Raises:
            FastSockError: nobody we know.

        """
        query = parse_qs(query_string.decode("latin-1"), keep_blank_values=True)
        if "token" in query:
            return self._verify(query["token"][0])
        if "ticket" in query:
            raise error_of("not_authenticated", "tickets are not served by this version yet: send a token")
        return None

    def introduced(self, frame: str | bytes) -> Claims:
        """Who it is by the first frame.

        Raises:
            FastSockError: nobody we know, or another frame than ``session.authenticate``.

        """
        return self._verify(events.token_of(frame))

    def silent(self) -> FastSockError:
        """What is wrong where the first frame has not come in time."""
        text = f"no token in the URL, and no session.authenticate within {self.authenticate_within_s:g} s"
        return error_of("not_authenticated", text)

    @staticmethod
    def unknown(error: FastSockError) -> CloseSocket:
        """How a socket ends whose peer is nobody we know."""
        return CloseSocket(UNAUTHENTICATED, close_reason(error.message))

    @staticmethod
    def refused(refusal: CloseSocket) -> None:
        """A socket ends that was not let in."""
        log.info("socket refused", code=refusal.code, reason=refusal.reason)

    def admit(self, claims: Claims, connection: Outbox, on_ready: Callable[[], None]) -> Socket:
        """Let a socket in.

        ``on_ready`` is called once, when ``session.ready`` was written, in the middle of other work: what it has to do,
        it does in a later turn of the event loop.
        """
        now_ms = self.shell.now_ms()
        connection_id = uuid.uuid4().hex
        session = Session(claims.user_id, connection_id, now_ms, self._limits)
        expires_at_ms = int(claims.expires_at * 1000)
        socket = Socket(connection, session, connection_id, claims.user_id, expires_at_ms, now_ms, on_ready)
        self.shell.open(socket)
        return socket

    # --- talking -----------------------------------------------------------------------------------------------------

    def hear(self, socket: Socket, text: str | None) -> Change | None:
        """Do what a frame asks for, None for a binary one; a change is to be handed to `change`, and waited for."""
        now_ms, session, connection = self.shell.now_ms(), socket.session, socket.connection
        for action in session.receive_binary(now_ms) if text is None else session.receive_text(text, now_ms):
            if socket.silent and not isinstance(action, Resume):
                self.shell.heard(socket)
            match action:
                case Ask():
                    self.shell.ask(socket, action)
                case Tell():
                    self.shell.tell(action)
                case Reply(frame):
                    connection.write(frame)
                case Resume(wanted):
                    self.shell.resume(socket, wanted)
                case Refresh(token):
                    self._refresh(socket, token)
                case Change():
                    return action
                case CloseSocket(code, reason):
                    log.info("socket closed", connection_id=socket.connection_id, code=code, reason=reason)
                    connection.close(code, reason)
        return None

    async def change(self, socket: Socket, change: Change) -> None:
        """Edit or delete."""
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

    def _refresh(self, socket: Socket, token: str) -> None:
        try:
            claims = self._verify(token)
            if claims.user_id != socket.user_id:
                text = f"the token is user {claims.user_id}'s, this socket is user {socket.user_id}'s"
                raise error_of("not_allowed", text)
        except FastSockError as error:
            socket.connection.write(events.error_frame(error, "session.refresh"))
        else:
            self.shell.refresh(socket, int(claims.expires_at * 1000))

    def _verify(self, token: str) -> Claims:
        return verify(token, self._secret, self.shell.now_ms() / 1000)

    # --- going -------------------------------------------------------------------------------------------------------

    def ended(self, socket: Socket, code: int) -> None:
        """The socket has ended, with this close code; may be said twice."""
        self.shell.ended(socket, code)

    @staticmethod
    def left(socket: Socket, code: int) -> None:
        """The socket does not end within `close_within_s` after it was closed: nobody waits for it any more."""
        log.info("socket left to the server", connection_id=socket.connection_id, code=code)

    def goodbye(self) -> None:
        """The server ends: close every socket with 1012, once."""
        if not self.shell.closing:
            self.shell.close_all()
