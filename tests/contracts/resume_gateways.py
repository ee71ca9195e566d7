"""Gateways of `tests.contracts.resume_world`: what `actors.runtime.links` and `fastsock.ws` are on Ray."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from actors import gateway as gw
from actors.commands import Envelope, LinkCommand
from actors.effects import Delivery, Failure
from actors.placement import Placement
from actors.uplinks import Accepted, Uplinks
from fastsock.schemas import events
from fastsock.schemas.frames import frame_of
from fastsock.schemas.log import Entry, Standing, Subscription
from tests.contracts.resume_hosts import Answer, Luck

if TYPE_CHECKING:
    from tests.contracts.resume_world import World

HOLD_MS = 250

_deliveries: msgspec.msgpack.Decoder[Delivery] = msgspec.msgpack.Decoder(Delivery)


@dataclass(eq=False)
class Wish:
    """What somebody wants of an actor; asked again, under the same key, until it is answered or finally refused."""

    name: str
    command: LinkCommand
    gateway: LiveGateway | None = None
    answer: Any = None
    refusal: Failure | None = None
    again_at_ms: int | None = None
    """When it is asked again; None while an answer may come."""

    @property
    def open(self) -> bool:
        return self.answer is None and self.refusal is None


@dataclass(eq=False)
class Socket:
    """One socket, seen from the server; what is written to it waits in ``inbox`` until its client reads."""

    gateway: LiveGateway
    connection_id: str
    user_id: int
    inbox: deque[bytes] = field(default_factory=deque)
    closed: bool = False


class Api:
    """The replica that makes rooms; it never dies."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.uplinks = Uplinks(world.placement)
        self.peer = "api/1"

    def alive(self) -> bool:
        return True

    def tell(self, name: str, command: LinkCommand) -> None:
        assert self.uplinks.submit(Envelope(name, 0, command)) is None
        self.flush()

    def flush(self) -> None:
        for host in self.uplinks.hosts:
            taken = self.uplinks.take(host, self.world.now_ms)
            if taken is not None:
                self.world.push(self, host, *taken)

    def pushed(self, host: str, number: int, answer: Answer | None) -> None:
        if answer is None:
            self.uplinks.failed(host, number, self.world.now_ms)
        else:
            self.uplinks.answered(host, number, answer, self.world.now_ms)
        self.flush()


class LiveGateway:
    """A gateway's process."""

    def __init__(self, world: World, placement: Placement) -> None:
        self.world = world
        self.peer = f"g/{world.incarnation()}"
        self.gateway: gw.Gateway[Socket] = gw.Gateway(HOLD_MS)
        self.uplinks = Uplinks(placement)
        self._sessions: dict[str, tuple[str, int]] = {}
        self._dead = False

    def alive(self) -> bool:
        return not self._dead

    def kill(self) -> None:
        """End it, with its sockets, and start another; who had asked through it asks another."""
        world = self.world
        self._dead = True
        world.gateways[world.gateways.index(self)] = LiveGateway(world, self.uplinks.placement)
        for wish in world.wishes:
            if wish.open and wish.gateway is self:
                world.ask(wish)

    # --- sockets -------------------------------------------------------------------------------------------------

    def connect(self, user: int) -> Socket:
        socket = Socket(self, f"c{self.world.incarnation()}", user)
        self.perform(self.gateway.connect(socket, socket.connection_id, user, self.world.now_ms))
        return socket

    def disconnect(self, socket: Socket) -> None:
        if not self._dead:
            self.perform(self.gateway.disconnect(socket, self.world.now_ms))

    def spoke(self, socket: Socket) -> None:
        self.perform(self.gateway.spoke(socket))

    def resume(self, socket: Socket, frame: bytes) -> None:
        """A ``session.resume`` has come: as `fastsock.ws.resumes` takes it."""
        event = events.decode_event(frame)
        assert event.event == "session.resume"
        wanted = events.decode_resume(event.data, socket.user_id)
        assert self.gateway.resuming(socket), "clients here resume one at a time"

        def told(found: dict[int, Standing]) -> None:
            if not self._dead:
                standing = found[socket.user_id]
                self.perform(self.gateway.resume(socket, wanted, standing, standing, self.world.now_ms))

        def failed() -> None:
            if not self._dead:
                socket.inbox.append(b'{"event":"error","data":{"context_event":"session.resume"}}')
                self.perform(self.gateway.resume_failed(socket))

        what = f"{self.peer} {socket.connection_id} resumes {wanted}"
        self.world.read(what, lambda: self.world.reads.standings([socket.user_id]), told, failed)

    def tick(self) -> None:
        self.perform(self.gateway.tick(self.world.now_ms))

    # --- outputs -------------------------------------------------------------------------------------------------

    def perform(self, outputs: list[gw.Output[Socket]]) -> None:  # noqa: C901, PLR0912 - a table of outputs
        now = self.world.now_ms
        for output in outputs:
            match output:
                case gw.Submit(envelope):
                    failure = self.uplinks.submit(envelope)
                    if failure is not None:
                        self.perform(self.gateway.refused(envelope, failure, now))
                case gw.LoadSubscriptions(user_id):
                    self._load(user_id)
                case gw.Ready(socket, conversations):
                    frame = events.ready_frame(socket.connection_id, socket.user_id, conversations, now)
                    socket.inbox.append(frame)
                case gw.Write(sockets, payload):
                    for socket in sockets:
                        socket.inbox.append(payload)
                case gw.ReadPage(conversation, since, upto):
                    self._read_page(conversation, since, upto)
                case gw.Feed(socket, payloads):
                    self._feed(socket, payloads)
                case gw.Resumed(socket, standing, reached, oldest, left):
                    assert isinstance(standing, Standing)
                    frame = events.resumed_frame(socket.user_id, reached, oldest, left, standing.markers)
                    socket.inbox.append(frame)
                case gw.Answered(wish, payload):
                    assert isinstance(wish, Wish)
                    wish.answer = json.loads(payload)
                case gw.Refused(wish, failure):
                    assert isinstance(wish, Wish)
                    self._refused(wish, failure)
                case gw.Close(socket, _code):
                    socket.closed = True
        self._flush()

    def _refused(self, wish: Wish, failure: Failure) -> None:
        if failure.retry_after_ms is None:
            wish.refusal = failure
            return
        wish.again_at_ms = self.world.now_ms + failure.retry_after_ms

    def _load(self, user_id: int) -> None:
        def told(found: dict[int, list[Subscription]]) -> None:
            if not self._dead:
                self.perform(self.gateway.subscriptions_loaded(user_id, found[user_id], self.world.now_ms))

        def failed() -> None:
            if not self._dead:
                self.perform(self.gateway.subscriptions_failed(user_id, self.world.now_ms))

        question = self.world.reads.subscriptions
        self.world.read(f"{self.peer} loads user {user_id}", lambda: question([user_id]), told, failed)

    def _read_page(self, conversation: str, since: int, upto: int) -> None:
        page = conversation, since, upto

        def told(found: dict[tuple[str, int, int], list[Entry]]) -> None:
            if not self._dead:
                payloads = [frame_of(entry) for entry in found[page]]
                self.perform(self.gateway.page_read(conversation, since, payloads, self.world.now_ms))

        def failed() -> None:
            if not self._dead:
                self.perform(self.gateway.page_failed(conversation, since, self.world.now_ms))

        self.world.read(f"{self.peer} reads {page}", lambda: self.world.reads.pages([page]), told, failed)

    def _feed(self, socket: Socket, payloads: list[bytes]) -> None:
        """Frame by frame, among what else is written to it."""
        waiting = deque(payloads)

        async def take(_luck: Luck) -> None:
            if waiting:
                socket.inbox.append(waiting.popleft())
            if waiting:
                self.world.later(what, take)
            elif not self._dead:
                self.perform(self.gateway.fed(socket))

        what = f"{self.peer} feeds {socket.connection_id}"
        self.world.later(what, take)

    # --- links ---------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        for host in self.uplinks.hosts:
            taken = self.uplinks.take(host, self.world.now_ms)
            if taken is not None:
                self.world.push(self, host, *taken)

    def pushed(self, host: str, number: int, answer: Answer | None) -> None:
        if answer is None:
            self.uplinks.failed(host, number, self.world.now_ms)
            return
        before = self.uplinks.placement
        self.uplinks.answered(host, number, answer, self.world.now_ms)
        if isinstance(answer, Accepted):
            self._session(host, answer.session)
        after = self.uplinks.placement
        if after.epoch != before.epoch:
            self.perform(self.gateway.reattach(after.moved_since(before), self.world.now_ms))
        self._flush()

    def poll(self, name: str, luck: Luck = "done") -> bool:
        """Ask a host for what it has for this gateway; whether there was anything."""
        host = self.world.hosts[name].host
        if host is None or luck == "failed":
            return False
        known, acknowledged = self._sessions.get(name, ("", 0))
        session, batch = host.poll(self.peer, known, acknowledged, self.world.now_ms)
        if luck == "lost":
            return False
        self._session(name, session)
        if batch is not None and batch.number > self._sessions[name][1]:
            self._sessions[name] = (session, batch.number)
            for item in batch.items:
                self.perform(self.gateway.delivered(_deliveries.decode(item), self.world.now_ms))
        return batch is not None or session != known

    def _session(self, host: str, session: str) -> None:
        known = self._sessions.get(host)
        if known is not None and known[0] == session:
            return
        self._sessions[host] = (session, 0)
        if known is not None:
            placement = self.uplinks.placement
            self.perform(self.gateway.reattach(lambda name: placement.owner(name) == host, self.world.now_ms))
