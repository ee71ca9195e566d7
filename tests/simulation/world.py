"""The whole cluster in one process, under a virtual clock and a seeded scheduler.

The very `Host`, `Uplinks`, `GroupCommit` and `Gateway` that run on Ray are driven here by shells that do what the
shells of `actors.runtime` do, over calls that are delayed, lost and answered in vain, with processes that die between
any two events. Everything random comes from one seed: the same seed is the same history.

After every event the guarantees that can be checked at any time are checked (`Checks`); at the end, when all faults are
over and everything has healed, those that need an end.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

import msgspec

from actors import gateway as gw
from actors import persistence, uplinks
from actors.commands import Envelope, LinkCommand
from actors.effects import Delivery, Failure
from actors.host import Host
from actors.link import Batch
from actors.placement import Placement
from fastsock.core.limits import CATCH_UP_PAGE, POLL_HOLD_MS
from fastsock.schemas.log import Append, Outcome, Subscription
from tests.simulation.memory_log import MemoryLog

CALL_TIMEOUT_MS = 10_000
_deliveries: msgspec.msgpack.Decoder[Delivery] = msgspec.msgpack.Decoder(Delivery)


@dataclass(frozen=True)
class Faults:
    """How bad the weather is. Rates are probabilities per call; times are milliseconds."""

    lost_call: float = 0.0
    """The call never arrives, and times out."""
    lost_answer: float = 0.0
    """The call is carried out, and its answer is lost."""
    latency_ms: tuple[int, int] = (1, 5)
    slow: float = 0.0
    """A call takes up to 100 times as long."""
    failed_commit: float = 0.0
    """The transaction fails and stores nothing."""
    blind_commit: float = 0.0
    """The transaction commits, and the writer is told that it failed."""


class Timeout(Exception):  # noqa: N818 - it is what happens to a call
    """A call has no answer."""


class Polled(NamedTuple):
    """What a poll is answered with."""

    session: str
    batch: Batch[bytes] | None


class World:
    """Time, chance, the database, and the processes in it."""

    def __init__(self, seed: int, faults: Faults, hosts: int, users: int) -> None:
        self.rng = random.Random(seed)
        self.faults = faults
        self.now_ms = 1_000_000
        self.steps = 0
        self.trace: list[str] = []
        self.log = MemoryLog(range(1, users + 1))
        names = tuple(f"host-{index}" for index in range(hosts))
        self.placement = Placement(epoch=1, hosts=names)
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self._incarnations = 0
        self.writer = SimWriter(self)
        self.hosts = {name: SimHost(self, name) for name in names}
        self.gateways: list[SimGateway] = []

    def pin(self, name: str, host: str) -> None:
        """Move a name to another host; the hosts learn of it at different times, and own it twice, or not at all."""
        pins = {**self.placement.pins, name: host}
        self.placement = Placement(epoch=self.placement.epoch + 1, hosts=self.placement.hosts, pins=pins)
        self.say(f"{name} moves to {host}, epoch {self.placement.epoch}")
        for sim_host in self.hosts.values():
            sim_host.learn(self.rng.randint(0, 2_000))

    def say(self, what: str) -> None:
        self.trace.append(f"{self.now_ms - 1_000_000:>8} ms  {what}")
        del self.trace[:-400]

    def incarnation(self) -> str:
        self._incarnations += 1
        return str(self._incarnations)

    # --- time ----------------------------------------------------------------------------------------------------

    def after(self, delay_ms: int, what: Callable[[], None]) -> None:
        self._order += 1
        heappush(self._events, (self.now_ms + delay_ms, self._order, what))

    def step(self) -> bool:
        """Let the next thing happen; False when nothing ever will."""
        if not self._events:
            return False
        at_ms, _, what = heappop(self._events)
        self.now_ms = max(self.now_ms, at_ms)
        self.steps += 1
        what()
        return True

    def run(self, until_ms: int, after_step: Callable[[], None]) -> None:
        while self._events and self._events[0][0] <= until_ms:
            self.step()
            after_step()
        self.now_ms = max(self.now_ms, until_ms)

    def latency(self) -> int:
        low, high = self.faults.latency_ms
        delay = self.rng.randint(low, high)
        return delay * self.rng.randint(1, 100) if self.rng.random() < self.faults.slow else delay

    # --- calls between processes ---------------------------------------------------------------------------------

    def call(
        self,
        alive: Callable[[], bool],
        work: Callable[[Callable[[object], None]], None],
        done: Callable[[object], None],
    ) -> None:
        """Call another process: ``work`` runs there if it is ``alive`` then, and is given how to answer.

        ``done`` gets the answer, or a `Timeout`, exactly once, on the caller's side.
        """
        answered = False

        def finish(result: object) -> None:
            nonlocal answered
            if not answered:
                answered = True
                done(result)

        def answer(result: object) -> None:
            if self.rng.random() >= self.faults.lost_answer:
                self.after(self.latency(), lambda: finish(result))

        def arrive() -> None:
            if alive():
                work(answer)
            else:
                self.after(self.latency(), lambda: finish(Timeout()))  # a dead process is noticed soon

        self.after(CALL_TIMEOUT_MS + POLL_HOLD_MS, lambda: finish(Timeout()))
        if self.rng.random() >= self.faults.lost_call:
            self.after(self.latency(), arrive)


class SimWriter:
    """The persistence actor: a `GroupCommit` on the world's log."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.life = 0
        self._start()

    def _start(self) -> None:
        self.life += 1
        self.commits = persistence.GroupCommit()
        self._answers: dict[int, Callable[[object], None]] = {}

    def kill(self) -> None:
        self.world.say("the writer dies")
        self._start()

    def append(self, body: bytes, answer: Callable[[object], None]) -> None:
        ticket = self.commits.offer(body)
        if ticket.answer is not None:
            answer(persistence.encode_answer(ticket.answer))
            return
        self._answers[id(ticket)] = answer
        self._next()

    def _next(self) -> None:
        groups = self.commits.take()
        if groups is not None:
            life = self.life
            self.world.after(self.world.latency(), lambda: self._commit(groups, life))

    def _commit(self, groups: list[Append], life: int) -> None:
        world = self.world
        if world.rng.random() < world.faults.failed_commit:
            outcomes = None
        else:
            outcomes = self.write(groups)
            if world.rng.random() < world.faults.blind_commit:
                outcomes = None
        if life != self.life:
            return  # it died with the commit on its way: whether it happened is known to the database alone
        if outcomes is None:
            failure = Failure("storage_unavailable", "the database is away")
            decided = self.commits.failed(failure)
        else:
            decided = self.commits.committed(outcomes)
        for ticket in decided:
            assert ticket.answer is not None
            self._answers.pop(id(ticket))(persistence.encode_answer(ticket.answer))
        self._next()

    def write(self, groups: list[Append]) -> list[list[Outcome]]:
        return self.world.log.append(groups)


class SimHost:
    """A host actor: what `actors.runtime.host_actor` is on Ray."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.life = 0
        self.host: Host | None = None
        self._polls: dict[str, Callable[[], None]] = {}
        self.start()

    def start(self) -> None:
        self.life += 1
        self.host = Host(self.name, self.world.incarnation(), self.world.placement)
        block = self.host.ids.next_lease(self.world.now_ms)
        assert block is not None
        self.host.ids.leased(self.world.log.lease_ids(block))
        self._polls = {}
        self.world.say(f"{self.host.peer} starts")
        self._tick(self.life)

    def kill(self, back_after_ms: int) -> None:
        """End it between two events; it comes back with nothing in memory."""
        if self.host is None:
            return
        self.world.say(f"{self.host.peer} dies")
        self.host = None
        self.life += 1
        self.world.after(back_after_ms, self.start)

    def _alive(self) -> bool:
        return self.host is not None

    def _mine(self, life: int, what: Callable[[Host], None]) -> None:
        """Do something with the host if it is still the one that asked for it, then what it leads to."""
        if self.host is not None and life == self.life:
            what(self.host)
            self.pump()

    def _tick(self, life: int) -> None:
        if self.host is None or life != self.life:
            return
        self.host.tick(self.world.now_ms)
        self.pump()
        self.world.after(100, lambda: self._tick(life))

    def receive(self, sender: str, number: int, epoch: int, body: bytes, answer: Callable[[object], None]) -> None:
        assert self.host is not None
        said = self.host.receive(sender, number, epoch, uplinks.decode_items(body), self.world.now_ms)
        answer(uplinks.encode_answer(said))
        if isinstance(said, uplinks.Behind):
            self.learn(self.world.latency())
        self.pump()

    def learn(self, delay_ms: int) -> None:
        """Read the placement after a while."""
        life = self.life
        self.world.after(delay_ms, lambda: self._mine(life, lambda h: h.move(self.world.placement, self.world.now_ms)))

    def poll(self, peer: str, session: str, acknowledged: int, answer: Callable[[object], None]) -> None:
        assert self.host is not None
        life = self.life
        waiting = self._polls.pop(peer, None)
        if waiting is not None:
            waiting()
        current, batch = self.host.poll(peer, session, acknowledged, self.world.now_ms)
        if batch is not None or current != session:
            answer(Polled(current, batch))
            return

        def finish() -> None:
            if self.host is not None and life == self.life:
                answer(Polled(*self.host.poll(peer, session, acknowledged, self.world.now_ms)))

        def expire() -> None:
            if self._polls.get(peer) is finish:
                del self._polls[peer]
                finish()

        self._polls[peer] = finish
        self.world.after(POLL_HOLD_MS, expire)

    def pump(self) -> None:  # noqa: C901 - a list of all that a host may offer
        host, world, life = self.host, self.world, self.life
        assert host is not None
        now = world.now_ms
        for peer in host.take_woken():
            finish = self._polls.pop(peer, None)
            if finish is not None:
                finish()
        append = host.next_append(0, now)
        if append is not None:
            body = append[1]
            world.call(
                lambda: True, lambda answer: world.writer.append(body, answer), lambda r: self._appended(life, r)
            )
        wanted = host.next_load(now)
        if wanted is not None:
            world.after(
                world.latency(), lambda: self._mine(life, lambda h: h.loaded(world.log.load(wanted), world.now_ms))
            )
        topics = host.next_check(now)
        if topics is not None:
            world.after(world.latency(), lambda: self._mine(life, lambda h: h.checked(world.log.heads(topics))))
        read = host.next_read(now)
        if read is not None:
            about = read.topic, read.since, CATCH_UP_PAGE
            world.after(world.latency(), lambda: self._mine(life, lambda h: h.read(world.log.after(*about))))
        keys = host.next_recall(now)
        if keys is not None:
            world.after(
                world.latency(), lambda: self._mine(life, lambda h: h.recalled(world.log.by_keys(keys), world.now_ms))
            )
        count = host.next_lease(now)
        if count is not None:
            world.after(world.latency(), lambda: self._mine(life, lambda h: h.ids.leased(world.log.lease_ids(count))))
        for other in host.uplinks.hosts:
            self._forward(host, other)
        if host.placement_suspect:
            host.placement_suspect = False
            self.learn(world.latency())

    def _appended(self, life: int, result: object) -> None:
        def told(host: Host) -> None:
            now = self.world.now_ms
            if isinstance(result, Timeout):
                host.append_failed(0, now)
                return
            assert isinstance(result, bytes)
            answer = persistence.decode_answer(result)
            if isinstance(answer, persistence.Committed):
                host.appended(0, answer.outcomes, now)
            elif isinstance(answer, persistence.OldEpoch):
                host.epoch_refused(0, now)
            else:
                host.append_failed(0, now)

        self._mine(life, told)

    def _forward(self, host: Host, other: str) -> None:
        world, life = self.world, self.life
        taken = host.next_forward(other, world.now_ms)
        if taken is None:
            return
        batch, epoch = taken
        target, body, peer = world.hosts[other], uplinks.encode_items(batch.items), host.peer

        def done(result: object) -> None:
            def told(mine: Host) -> None:
                if isinstance(result, Timeout):
                    mine.uplinks.failed(other, batch.number, world.now_ms)
                else:
                    assert isinstance(result, bytes)
                    mine.forwarded(other, batch.number, uplinks.decode_answer(result), world.now_ms)

            self._mine(life, told)

        world.call(target._alive, lambda answer: target.receive(peer, batch.number, epoch, body, answer), done)


class SimGateway:
    """A gateway replica: what `actors.runtime.links` and the WebSocket shell are on Ray.

    Sockets are the clients' handles; what they would see is handed to them by `Socket` methods.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.peer = f"{name}/{world.incarnation()}"
        self.alive = True
        self.gateway: gw.Gateway[Socket] = gw.Gateway()
        self.uplinks = uplinks.Uplinks(world.placement)
        self._sessions: dict[str, tuple[str, int]] = {}
        self._polled: set[str] = set()
        world.gateways.append(self)
        world.say(f"{self.peer} starts")
        for host in world.placement.hosts:
            self._poll(host)
        self._tick()

    def kill(self) -> None:
        self.alive = False
        self.world.gateways.remove(self)
        self.world.say(f"{self.peer} dies")

    # --- what happens to it --------------------------------------------------------------------------------------

    def connect(self, socket: Socket) -> None:
        self.perform(self.gateway.connect(socket, socket.connection_id, socket.user, self.world.now_ms))

    def disconnect(self, socket: Socket) -> None:
        self.perform(self.gateway.disconnect(socket, self.world.now_ms))

    def request(self, name: str, command: LinkCommand, context: object) -> None:
        self.perform(self.gateway.request(name, command, context, self.world.now_ms))

    def _tick(self) -> None:
        if self.alive:
            self.perform(self.gateway.tick(self.world.now_ms))
            self.flush()
            self.world.after(50, self._tick)

    # --- outputs -------------------------------------------------------------------------------------------------

    def perform(self, outputs: list[gw.Output[Socket]]) -> None:  # noqa: C901 - a table of outputs
        for output in outputs:
            match output:
                case gw.Submit(envelope):
                    failure = self.uplinks.submit(envelope)
                    if failure is not None:
                        self.perform(self.gateway.refused(envelope, failure, self.world.now_ms))
                case gw.LoadSubscriptions(user_id):
                    self._load(user_id)
                case gw.Ready(socket, conversations):
                    socket.ready({conversation: seq for conversation, seq, _unread in conversations})
                case gw.Write(sockets, payload):
                    for socket in list(sockets):
                        socket.frame(payload)
                case gw.Answered(context, payload):
                    self._client_of(context).answered(context, payload)
                case gw.Refused(context, failure):
                    self._client_of(context).refused(context, failure)
                case gw.Close(socket, _code):
                    socket.closed()
        self.flush()

    @staticmethod
    def _client_of(context: object) -> Socket:
        assert isinstance(context, tuple)
        socket = context[0]
        assert isinstance(socket, Socket)
        return socket

    def _load(self, user: int) -> None:
        def loaded() -> None:
            if self.alive:
                subscriptions: list[Subscription] = self.world.log.of_user(user)
                answer_after(lambda: self._loaded(user, subscriptions))

        def answer_after(what: Callable[[], None]) -> None:
            self.world.after(self.world.latency(), what)

        self.world.after(self.world.latency(), loaded)

    def _loaded(self, user: int, subscriptions: list[Subscription]) -> None:
        if self.alive:
            self.perform(self.gateway.subscriptions_loaded(user, subscriptions, self.world.now_ms))

    # --- links ---------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        for host in self.uplinks.hosts:
            taken = self.uplinks.take(host, self.world.now_ms)
            if taken is not None:
                self._push(host, *taken)

    def _push(self, host: str, batch: Batch[Envelope], epoch: int) -> None:
        target, body, peer = self.world.hosts[host], uplinks.encode_items(batch.items), self.peer

        def done(result: object) -> None:
            if not self.alive:
                return
            now = self.world.now_ms
            if isinstance(result, Timeout):
                self.uplinks.failed(host, batch.number, now)
                return
            assert isinstance(result, bytes)
            answer = uplinks.decode_answer(result)
            before = self.uplinks.placement
            self.uplinks.answered(host, batch.number, answer, now)
            if isinstance(answer, uplinks.Accepted):
                self._session(host, answer.session)
            elif isinstance(answer, uplinks.Stale):
                self._moved(before)
            self.flush()

        self.world.call(target._alive, lambda answer: target.receive(peer, batch.number, epoch, body, answer), done)

    def _moved(self, before: Placement) -> None:
        after = self.uplinks.placement
        if after.epoch != before.epoch:
            self.perform(self.gateway.reattach(after.moved_since(before), self.world.now_ms))

    def _poll(self, host: str) -> None:
        session, acknowledged = self._sessions.get(host, ("", 0))
        target, peer = self.world.hosts[host], self.peer

        def done(result: object) -> None:
            if not self.alive:
                return
            if isinstance(result, Timeout):
                self.world.after(100, lambda: self._poll(host))
                return
            assert isinstance(result, Polled)
            current, batch = result
            self._session(host, current)
            if batch is not None and batch.number > self._sessions[host][1]:
                self._sessions[host] = (current, batch.number)
                for item in batch.items:
                    self.perform(self.gateway.delivered(_deliveries.decode(item), self.world.now_ms))
            self._poll(host)

        self.world.call(target._alive, lambda answer: target.poll(peer, session, acknowledged, answer), done)

    def _session(self, host: str, session: str) -> None:
        known = self._sessions.get(host)
        if known is not None and known[0] == session:
            return
        self._sessions[host] = (session, 0)
        if known is not None:
            placement = self.uplinks.placement
            self.perform(self.gateway.reattach(lambda name: placement.owner(name) == host, self.world.now_ms))


class Socket:
    """One socket of one user, seen from its client; `tests.simulation.clients` says what a client makes of it."""

    def __init__(self, gateway: SimGateway, connection_id: str, user: int) -> None:
        self.gateway = gateway
        self.connection_id = connection_id
        self.user = user

    def ready(self, heads: dict[str, int]) -> None:
        raise NotImplementedError

    def frame(self, payload: bytes) -> None:
        raise NotImplementedError

    def answered(self, context: object, payload: bytes) -> None:
        raise NotImplementedError

    def refused(self, context: object, failure: Failure) -> None:
        raise NotImplementedError

    def closed(self) -> None:
        raise NotImplementedError
