"""The asyncio shell around `Core`: a socket, a timer, and what the program holds in its hands.

Every task belongs to the client: one `_connection` at a time, and `_renew` beside it now and then. Whatever fails
unexpectedly in one of them ends the client and is raised to the program. The core is synchronous and is called by
whichever of them has something to say, so calls never overlap.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import Any, Self

from websockets.exceptions import WebSocketException

from fastsock.client import actions as do
from fastsock.client import wire
from fastsock.client.answers import Answers
from fastsock.client.api import PREFIX, Api, Message
from fastsock.client.core import BYE, Core
from fastsock.client.errors import Closed, Refused
from fastsock.client.events import Ack, Connected, Disconnected, Event, ServerError
from fastsock.client.inbox import Inbox
from fastsock.client.settings import RENEW_AGAIN_S, Settings
from fastsock.client.streams import Moves
from fastsock.client.tokens import Tokens, TokenSource, passing
from fastsock.client.transport import LOST, Transport, socket_url


class Client:
    """One user's connection to a FastSock server, at ``url`` (``http://`` or ``https://``); use it by ``async with``.

    ``token`` is an access token, or an async function that gives a fresh one each time it is called; a plain token
    cannot be renewed: when it has expired, the client stops with `NotAuthenticated`. ``positions`` are the `positions`
    of an earlier process: everything since then is yielded; None: only what happens from now on. ``listen`` False is
    for programs that only send: events are dropped instead of waiting for the iterator. ``flush_s`` is how long the
    end of the ``async with`` waits for acks that are outstanding.
    """

    def __init__(
        self,
        url: str,
        token: TokenSource,
        *,
        positions: Mapping[str, int] | None = None,
        listen: bool = True,
        flush_s: float = 5.0,
        settings: Settings | None = None,
    ) -> None:
        settings = settings or Settings()
        self._url = socket_url(url, f"{PREFIX}ws/chat")
        self._tokens = Tokens(token)
        self.api = Api(url, self._tokens)
        """HTTP requests as the same user: rooms, members, history."""
        self._core = Core(random.random, positions, settings)
        self._listen = listen
        self._flush_s = flush_s
        self._inbox = Inbox(positions, settings.events_limit)
        self._answers = Answers(settings.outbox_limit)
        self._transport = Transport(self._url)
        self._token: str | None = None
        """The last token that the server was given."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._started = False
        self._failure: BaseException | None = None
        """Why nothing happens any more; None: it does."""
        self._last_failure = "not tried yet"
        self._ready = asyncio.Event()
        self._answered = asyncio.Event()

    @classmethod
    def login(
        cls,
        url: str,
        email: str,
        password: str,
        *,
        positions: Mapping[str, int] | None = None,
        listen: bool = True,
        flush_s: float = 5.0,
        settings: Settings | None = None,
    ) -> Self:
        """A client that logs in whenever it needs a token, for as long as it lives."""

        async def fresh() -> str:
            api = Api(url)
            try:
                return (await api.login(email, password)).access_token
            finally:
                await api.aclose()

        return cls(url, fresh, positions=positions, listen=listen, flush_s=flush_s, settings=settings)

    # --- what there is to know -----------------------------------------------------------------------------------

    @property
    def positions(self) -> dict[str, int]:
        """The ``seq`` up to which the program has been handed each conversation: save it when events are dealt with.

        Another client that is given these goes on after the last event that the iterator has yielded here.
        """
        return dict(self._inbox.positions)

    @property
    def user_id(self) -> int | None:
        """Who the token belongs to; None before the first connection."""
        return self._core.user_id

    @property
    def outstanding(self) -> int:
        """Messages that are not acknowledged yet."""
        return len(self._core.outbox)

    @property
    def connected(self) -> bool:
        """Whether there is a socket that is greeted."""
        return self._ready.is_set()

    async def wait_connected(self, limit_s: float | None = None) -> None:
        """Wait until `connected`.

        Raises:
            TimeoutError: not within ``limit_s`` seconds; the text says what the last attempt failed with.
            Stopped: there will be no connection.

        """
        self._check()
        try:
            async with asyncio.timeout(limit_s):
                await self._ready.wait()
        except TimeoutError:
            text = f"not connected within {limit_s:g} s; the last attempt: {self._last_failure}"
            raise TimeoutError(text) from None
        self._check()

    # --- life ----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Begin to connect; `send` and the iterator wait for it by themselves."""
        if self._started:
            raise RuntimeError("a client is used once: make another")
        self._started = True
        self._perform(self._core.start())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close; without waiting for acks if the program fails."""
        await self.close(None if kind is None else 0.0)

    async def close(self, flush_s: float | None = None) -> None:
        """Wait for outstanding acks, at most ``flush_s`` seconds (None: those of the class), and disconnect for good.

        Afterwards the iterator yields what has come already, and ends. Whoever still waits in `send` gets `Closed`.
        """
        self._inbox.unbound()  # what the iterator leaves must not keep acks from being read
        try:
            async with asyncio.timeout(self._flush_s if flush_s is None else flush_s):
                while self.outstanding and self._failure is None:
                    self._answered.clear()
                    await self._answered.wait()
        except TimeoutError:
            pass  # `outstanding` says how many, and each `send` is told below
        finally:
            self._end(Closed(BYE, "the client is closed"))
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self.api.aclose()

    def _end(self, error: BaseException) -> None:
        """Nothing happens any more, for this reason; whoever waits is told."""
        if self._failure is not None:
            return
        self._failure = error
        self._core.stop()
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        self._answers.fail(error)
        self._ready.set()
        self._inbox.close()
        self._answered.set()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if not self._started:
            raise RuntimeError("the client is not open: use it by `async with`")

    # --- sending -------------------------------------------------------------------------------------------------

    async def send(
        self,
        content: str,
        *,
        room_id: int | None = None,
        to: int | None = None,
        reply_to: int | None = None,
        message_type: str = "text",
        client_msg_id: str | None = None,
        timeout_s: float | None = None,
    ) -> Ack:
        """Send a message to a room or to a user; return when it is committed.

        It is sent again, on this connection or a later one, until the server has answered for good: however often,
        it is delivered once. Messages that wait together keep their order unless the server refuses one for a while;
        where order matters, wait for each ack. ``client_msg_id`` repeats a message of an earlier process (or one that
        timed out), None: this is a new one. ``reply_to`` is a message's id.

        Raises:
            Refused: for good.
            TimeoutError: no answer within ``timeout_s`` seconds (None: wait for ever). *The message stays in the
                outbox and may still be delivered*, also if the task that waits here is cancelled; a later refusal
                comes as a `ServerError` event. Sending it again with the same ``client_msg_id`` waits for the same
                answer.
            Stopped: the client has stopped; the message may have been delivered.

        """
        self._check()
        name = client_msg_id or uuid.uuid4().hex
        data = {
            "content": content,
            "room_id": room_id,
            "receiver_id": to,
            "reply_to": reply_to,
            "message_type": message_type,
        }
        wire.message_frame(name, data)  # what is refused need not wait for space
        try:
            async with asyncio.timeout(timeout_s):
                return await self._sent(name, data)
        except TimeoutError:
            text = f"no answer within {timeout_s:g} s; message {name!r} may still be delivered"
            raise TimeoutError(text) from None

    async def _sent(self, name: str, data: dict[str, Any]) -> Ack:
        if await self._answers.reserve(name):
            self._perform(self._core.send(name, data, self._now_ms()))
        else:
            self._check()
            self._core.send(name, data, self._now_ms())  # for its complaint, if that is another message
        return await self._answers.wait(name)

    async def edit(self, message_id: int, content: str) -> Message:
        """Change one's own message, by HTTP. Raises: ApiError: it is refused."""
        return await self.api.edit(message_id, content)

    async def delete(self, message_id: int) -> None:
        """Delete a message, by HTTP. Raises: ApiError: it is refused."""
        await self.api.delete(message_id)

    # --- events --------------------------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """The next event. For one task at a time.

        Raises:
            Stopped: and whatever else has ended the client, when all events before it were taken.

        """
        while (event := self._inbox.take()) is None:
            if isinstance(self._failure, Closed):
                raise StopAsyncIteration
            self._check()
            await self._inbox.news()
        return event

    def _emit(self, event: Event, moves: Moves) -> None:
        match event:
            case Connected():
                self._ready.set()
            case Disconnected():
                self._ready.clear()
        if self._listen:
            self._inbox.put(event, moves)
        else:
            self._inbox.pass_by(moves)

    # --- doing what the core says --------------------------------------------------------------------------------

    def _perform(self, actions: list[do.Action]) -> None:
        for action in actions:
            match action:
                case do.Send(frame):
                    self._transport.send(frame)
                case do.Emit(event, moves):
                    self._emit(event, moves)
                case do.Resolve(name, ack):
                    self._answer(name, ack)
                case do.Reject(name, error):
                    self._answer(name, error)
                case do.Connect(fresh_token):
                    self._spawn(self._connection(fresh_token=fresh_token))
                case do.Disconnect(code, reason):
                    self._spawn(self._transport.close(code, reason))
                case do.RenewToken():
                    self._spawn(self._renew())
                case do.Stop(error):
                    self._end(error)
        self._arm()

    def _answer(self, name: str, answer: Ack | Refused) -> None:
        self._answered.set()
        if not self._answers.settle(name, answer) and isinstance(answer, Refused):
            about = ServerError(
                code=answer.code, message=answer.message, context_event="message.send", client_msg_id=name
            )
            self._emit(about, {})

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._end(error)

    # --- time ----------------------------------------------------------------------------------------------------

    @staticmethod
    def _now_ms() -> int:
        return int(asyncio.get_running_loop().time() * 1000)

    def _arm(self) -> None:
        """Have the core ticked when it wants to be; a tick that comes too early does no harm."""
        deadline_ms = self._core.next_deadline_ms()
        if deadline_ms is None:
            return
        at_s = (deadline_ms + 1) / 1000  # the clock is read in whole milliseconds, rounded down
        if self._timer is not None and not self._timer.cancelled():
            if self._timer.when() <= at_s:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(at_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        try:
            self._perform(self._core.tick(self._now_ms()))
        except Exception as error:  # noqa: BLE001 - a timer has nobody to raise it to
            self._end(error)

    # --- the socket ----------------------------------------------------------------------------------------------

    async def _connection(self, *, fresh_token: bool) -> None:
        """Open a socket and read it until it ends."""
        transport = self._transport = Transport(self._url)

        def opened() -> None:
            self._perform(self._core.connected(self._now_ms(), self._token))

        async def received(frame: bytes) -> None:
            self._perform(self._core.frame(frame, self._now_ms()))
            await self._inbox.space()

        try:
            self._token = await (self._tokens.renewed(self._token) if fresh_token else self._tokens.current())
            code, reason = await transport.run(opened, received)
        except Exception as error:
            if not passing(error) and not isinstance(error, WebSocketException):
                raise
            code, reason = LOST, f"{type(error).__name__}: {error}"
        self._last_failure = f"{reason or 'no reason'} ({code})"
        self._perform(self._core.closed(code, reason, self._now_ms()))

    async def _renew(self) -> None:
        """Get a fresh token for the socket that there is; a plain token stays as it is until it has expired."""
        transport = self._transport
        while self._tokens.renewable and transport is self._transport:
            try:
                token = await self._tokens.renewed(self._token)
            except Exception as error:
                if not passing(error):
                    raise
                await asyncio.sleep(RENEW_AGAIN_S)
                continue
            if transport is self._transport:
                self._token = token
                self._perform(self._core.token_renewed(token))
            return
