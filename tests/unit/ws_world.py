"""The WebSocket gateway as its tests see it: a real uvicorn server, real sockets, a real `Host` in the same process.

Only Ray and the database are missing: `InProcess` carries batches between the gateway's shell and one host by plain
calls, and the log is `MemoryLog`, the model that the real one is tested against.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import uvicorn
import uvicorn.config
from starlette.types import ASGIApp
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from actors import persistence
from actors.commands import Envelope
from actors.effects import Delivery, Failure
from actors.host import Host
from actors.link import Batch
from actors.placement import Placement
from actors.runtime.alarm import Alarm
from actors.runtime.clock import now_ms as real_now_ms
from actors.runtime.tasks import Tasks
from fastsock.core.errors import FastSockError, error_of
from fastsock.core.limits import CATCH_UP_PAGE
from fastsock.core.security import create_access_token
from fastsock.schemas.log import Append, Entry, Outcome, Standing, Subscription
from fastsock.ws import uvicorn_frames
from fastsock.ws.chats import Chats
from fastsock.ws.endpoint import GatewayApp
from fastsock.ws.resumes import Page
from fastsock.ws.session import Limits
from fastsock.ws.shell import GatewayShell
from tests.simulation.memory_log import MemoryLog

SECRET = "a secret of more than thirty-two bytes for the tests"
HOST = "host-0"
PEER = "gateway/1"
CARRIERS = ("asgi", "frames")
"""Who carries the frames: any ASGI server's ``send`` and ``receive``, or our own sockets on uvicorn's transport."""
_deliveries: msgspec.msgpack.Decoder[Delivery] = msgspec.msgpack.Decoder(Delivery)


class InProcess:
    """The uplinks of one gateway to one host, and the host's other shells: everything happens in the next turns."""

    def __init__(self, log: MemoryLog, shell: GatewayShell, now_ms: Clock) -> None:
        self.log = log
        self.shell = shell
        self.now_ms = now_ms
        self._alarm = Alarm(self.pump)
        self.full: Failure | None = None
        """What every submission comes to instead, where the links are full."""
        self.silent = False
        """Whether the host takes what is submitted and never answers."""
        self._incarnations = 0
        self._start()

    def _start(self) -> None:
        self._incarnations += 1
        self.host = Host(HOST, str(self._incarnations), Placement(epoch=1, hosts=(HOST,)))
        block = self.host.ids.next_lease(self.now_ms())
        assert block is not None, "a new host has no ids"
        self.host.ids.leased(self.log.lease_ids(block))
        self.writer = persistence.GroupCommit()
        self._waiting: list[Envelope] = []
        self._numbers = 0
        self._acknowledged = 0
        self._session = ""

    def restart(self) -> None:
        """The host dies and comes back with nothing in memory; the links notice a new session."""
        self._start()
        self.shell.reattach(lambda _name: True)

    def submit(self, envelope: Envelope) -> Failure | None:
        if self.full is not None:
            return self.full
        self._waiting.append(envelope)
        asyncio.get_running_loop().call_soon(self._flush)
        return None

    def _flush(self) -> None:
        if self.silent or not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        self._numbers += 1
        self.host.receive(PEER, self._numbers, 1, waiting, self.now_ms())
        self.pump()

    def pump(self) -> None:
        """Let the host do all that it can do, and bring down what it has for the gateway."""
        host, now = self.host, self.now_ms()
        while self._once(host, now):
            pass
        while (batch := self._poll()) is not None:
            self.shell.deliveries([_deliveries.decode(item) for item in batch.items])
        self._alarm.set(host.send_at_ms(), now)

    def _once(self, host: Host, now: int) -> bool:
        wanted = host.next_load(now)
        if wanted is not None:
            host.loaded(self.log.load(wanted), now)
        topics = host.next_check(now)
        if topics is not None:
            host.checked(self.log.heads(topics), now)
        read = host.next_read(now)
        if read is not None:
            host.read(self.log.after(read.topic, read.since, CATCH_UP_PAGE))
        keys = host.next_recall(now)
        if keys is not None:
            host.recalled(self.log.by_keys(keys), now)
        count = host.next_lease(now)
        if count is not None:
            host.ids.leased(self.log.lease_ids(count))
        taken = host.next_append(0, now)
        if taken is not None:
            ticket = self.writer.offer(taken[1])
            groups: list[Append] | None = self.writer.take()
            assert groups is not None
            outcomes: list[list[Outcome]] = self.log.append(groups)
            self.writer.committed(outcomes)
            assert isinstance(ticket.answer, persistence.Committed)
            host.appended(0, persistence.decode_answer(persistence.encode_answer(ticket.answer)).outcomes, now)  # type: ignore[union-attr]
        return any(what is not None for what in (wanted, topics, read, keys, count, taken))

    def _poll(self) -> Batch[bytes] | None:
        session, batch = self.host.poll(PEER, self._session, self._acknowledged, self.now_ms())
        if session != self._session:
            self._session, self._acknowledged = session, 0
        if batch is not None:
            self._acknowledged = batch.number
        return batch


class Clock:
    """The real clock, which a test may set forward."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> int:
        return real_now_ms() + self.ahead_ms


class FakeMessages:
    """Remembers what it was asked to change; ``error`` is what it comes to instead."""

    def __init__(self) -> None:
        self.changes: list[tuple[int, int, str | None, str]] = []
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = 0

    async def edit(self, caller: int, message_id: int, content: str, key: str) -> None:
        await self._change(caller, message_id, content, key)

    async def delete(self, caller: int, message_id: int, key: str) -> None:
        await self._change(caller, message_id, None, key)

    async def _change(self, caller: int, message_id: int, content: str | None, key: str) -> None:
        self.waiting += 1
        await self.gate.wait()
        self.waiting -= 1
        if self.error is not None:
            raise self.error
        self.changes.append((caller, message_id, content, key))


class World:
    """One gateway, one host, one log, and a server on a free port of the loopback interface."""

    def __init__(self, max_sockets: int, limits: Limits, hold_ms: int) -> None:
        self.clock = Clock()
        self.log = MemoryLog(range(1, 100))
        self.tasks = Tasks()
        self.loads: list[list[int]] = []
        self.load_error: FastSockError | None = None
        self.fail_pages = False
        self.load_gate = asyncio.Event()
        self.load_gate.set()
        self.shell = GatewayShell(self, self.tasks, self.clock, hold_ms)
        self.links = InProcess(self.log, self.shell, self.clock)
        self.messages = FakeMessages()
        self.chats = Chats(self.shell, self.messages, secret=SECRET, max_sockets=max_sockets, limits=limits)
        self.app: ASGIApp = GatewayApp(self.chats)
        self.port = 0
        self.server: uvicorn.Server

    async def subscriptions(self, user_ids: Sequence[int]) -> dict[int, list[Subscription]]:
        self.loads.append(list(user_ids))
        await self._read()
        return {user: self.log.of_user(user) for user in user_ids}

    async def standings(self, user_ids: Sequence[int]) -> dict[int, Standing]:
        await self._read()
        return {user: self.log.standing(user) for user in user_ids}

    async def pages(self, wanted: Sequence[Page]) -> dict[Page, list[Entry]]:
        await self._read()
        if self.fail_pages:
            raise self.away()
        return {page: self.log.after(page[0], page[1], page[2] - page[1]) for page in wanted}

    async def _read(self) -> None:
        await self.load_gate.wait()
        if self.load_error is not None:
            raise self.load_error

    def away(self) -> FastSockError:
        return error_of("storage_unavailable", "the database is away", 500)

    def token(self, user_id: int, ttl_s: int = 3600) -> str:
        return create_access_token(user_id, SECRET, ttl_s, self.clock() / 1000)

    def url(self, query: str = "", path: str = "/api/v1/ws/chat") -> str:
        return f"ws://127.0.0.1:{self.port}{path}{query}"

    @asynccontextmanager
    async def socket(self, user_id: int, ttl_s: int = 3600, **options: Any) -> AsyncIterator[Peer]:
        async with connect(self.url(f"?token={self.token(user_id, ttl_s)}"), ping_interval=None, **options) as socket:
            yield Peer(socket)

    async def ready(self, user_id: int, stack: Any) -> Peer:
        """A socket of this user that has been greeted; it is closed with the stack."""
        peer: Peer = await stack.enter_async_context(self.socket(user_id))
        peer.greeting = await peer.expect("session.ready")
        return peer


class Peer:
    """The client's end of a socket."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.greeting: dict[str, Any] = {}

    async def say(self, event: str, **data: object) -> None:
        await self.socket.send(json.dumps({"event": event, "data": data}))

    async def frame(self) -> dict[str, Any]:
        text = await asyncio.wait_for(self.socket.recv(), 5)
        assert isinstance(text, str), "frames are texts"
        frame: dict[str, Any] = json.loads(text)
        return frame

    async def expect(self, event: str) -> dict[str, Any]:
        """The data of the next frame, which must be this event."""
        frame = await self.frame()
        assert frame["event"] == event, frame
        data: dict[str, Any] = frame["data"]
        return data

    async def nothing_else(self) -> None:
        """Nothing was sent before the answer to a ping."""
        await self.say("ping", all="quiet")
        assert await self.frame() == {"event": "pong", "data": {"all": "quiet"}}

    async def end(self) -> tuple[int, str]:
        """How the server closed the socket; frames before that are skipped."""
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await self.socket.recv()
        return self.socket.close_code or 0, self.socket.close_reason or ""


class _Chosen:
    """Which of them the servers of a test have."""

    carrier = CARRIERS[0]


@pytest.fixture(params=CARRIERS)
def carrier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test that uses it is played with each."""
    monkeypatch.setattr(uvicorn.config, "WS_PROTOCOLS", dict(uvicorn.config.WS_PROTOCOLS))
    monkeypatch.setattr(_Chosen, "carrier", request.param)
    monkeypatch.setattr(uvicorn_frames.Upgraded, "chats", None)
    name: str = request.param
    return name


@asynccontextmanager
async def world(
    *,
    max_sockets: int = 100,
    limits: Limits | None = None,
    started: bool = True,
    hold_ms: int = 0,
    ping_interval_s: float | None = None,
) -> AsyncIterator[World]:
    """A running server. Everything of it has ended when the context does, or the test fails."""
    here = World(max_sockets, limits or Limits(), hold_ms)
    by_frames = _Chosen.carrier == "frames"
    if by_frames:
        uvicorn_frames.install(here.chats)
    config = uvicorn.Config(
        here.app,
        host="127.0.0.1",
        port=0,
        log_level="warning",
        lifespan="on",
        ws="auto" if by_frames else "websockets-sansio",
        ws_ping_interval=ping_interval_s,
    )
    here.server = server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve(None))
    await until(lambda: server.started)
    here.port = server.servers[0].sockets[0].getsockname()[1]
    if started:
        here.shell.start(here.links)
    try:
        yield here
    finally:
        await here.shell.stop()
        server.should_exit = True
        await asyncio.wait_for(serving, 10)
        await here.tasks.stop()
    assert len(here.shell) == 0, "sockets are left"
    assert here.tasks.failures == 0, "background tasks failed"


async def until(true: Any, limit_s: float = 5.0) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(limit_s):
        while not true():  # noqa: ASYNC110 - what is waited for happens in a server that knows no event of ours
            await asyncio.sleep(0.005)
