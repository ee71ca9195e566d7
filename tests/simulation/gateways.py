"""A gateway replica: what `actors.runtime.links` and the WebSocket shell are on Ray, and its end of the sockets.

Sockets are the clients' handles; what they would see is handed to them by `Socket` methods. A socket ends for its
client and for its gateway at different times, and what the gateway writes to it in between is lost.
"""

from __future__ import annotations

import json

import msgspec

from actors import gateway as gw
from actors import uplinks
from actors.commands import Envelope, LinkCommand
from actors.effects import Delivery, Failure
from actors.link import Batch
from actors.placement import Placement
from actors.recent import Recent
from fastsock.core.limits import RESUME_WITHIN_MS, RETRY_MAX_MS
from fastsock.schemas import frames, names
from fastsock.schemas.log import Entry, Standing, Subscription
from tests.simulation.calls import Process, Timeout
from tests.simulation.hosts import Polled
from tests.simulation.world import World

CONNECT_PATIENCE_MS = 5_000
"""A client gives a gateway up that has not greeted it for so long because it is frozen."""
POLL_AGAIN_MS = 100
NOTICED_MS = 40_000
"""A socket that ends without a word is noticed at the latest after so long: two WebSocket pings."""
READS_WITHIN_MS = 200
"""A client has taken a page of its resume after at most so long."""
RECENT_BYTES, RECENT_FRAMES = 3_000, 10
"""What a gateway remembers; little, so that pages are read too."""
_deliveries: msgspec.msgpack.Decoder[Delivery] = msgspec.msgpack.Decoder(Delivery)


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

    def resume_taken(self, standing: Standing, reached: dict[str, int]) -> None:
        """From now on the streams go on from what the resume has named, where so much has been reached, or stored."""
        raise NotImplementedError

    def resume_failed(self) -> None:
        raise NotImplementedError

    def resumed(self, reached: dict[str, int], oldest: dict[str, int], left: list[str]) -> None:
        raise NotImplementedError


class SimGateway(Process):
    """One life of a gateway; it is replaced by another one of another name."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.gateway: gw.Gateway[Socket] = gw.Gateway(RESUME_WITHIN_MS)
        self.gateway._replays._recent = Recent(RECENT_BYTES, RECENT_FRAMES)
        self.uplinks = uplinks.Uplinks(world.placement)
        self._sessions: dict[str, tuple[str, int]] = {}
        self._open: dict[Socket, None] = {}
        self._ending: dict[Socket, None] = {}
        """Ended for their clients, and this gateway does not know it yet."""
        self._submitted = False
        self._retrying_until_ms = 0
        """Until then a batch that was not taken may wait for its next try."""
        self._slow: dict[Socket, None] = {}
        """The next frame is one too many for them."""
        world.gateways.append(self)
        world.say(f"{self.peer} starts")
        for host in world.placement.hosts:
            self._poll(host)

    def kill(self) -> None:
        """End it, and with it its sockets."""
        self.world.count("killed gateways")
        self.world.gateways.remove(self)
        self.end()
        for socket in list(self._open):
            socket.closed()

    # --- sockets ---------------------------------------------------------------------------------------------------

    def connect(self, socket: Socket) -> None:
        self._open[socket] = None
        self.run(self._connect, socket)
        if self.frozen:
            self.world.after(CONNECT_PATIENCE_MS, self._lose_patience, socket)

    def _connect(self, socket: Socket) -> None:
        self.perform(self.gateway.connect(socket, socket.connection_id, socket.user, self.world.now_ms))

    def _lose_patience(self, socket: Socket) -> None:
        if self.frozen and socket in self._open:
            socket.closed()

    def disconnect(self, socket: Socket) -> None:
        """The client's end is closed; this end notices at once, or if the weather wants it much later."""
        if socket not in self._open:
            return
        del self._open[socket]
        self._slow.pop(socket, None)
        self._ending[socket] = None
        drawn = self.world.stream(f"{socket.connection_id} ends").random()
        missed = self.world.weather.missed_notice
        if drawn < missed:
            self.world.count("missed notices")
        self.later(int(drawn / missed * NOTICED_MS) if drawn < missed else 0, self._disconnect, socket)

    def _disconnect(self, socket: Socket) -> None:
        del self._ending[socket]
        self.perform(self.gateway.disconnect(socket, self.world.now_ms))

    def slow_down(self, socket: Socket) -> None:
        """Let this socket's client read so slowly that its next frame is one too many: it is cut."""
        if socket in self._open:
            self._slow[socket] = None

    def request(self, name: str, command: LinkCommand, context: object) -> None:
        self.run(self._request, name, command, context)

    def _request(self, name: str, command: LinkCommand, context: object) -> None:
        if self.world.trace is not None:
            socket = self._client_of(context)
            self.world.say(f"{self.name} takes from {socket.connection_id} {command}", name, f"user {socket.user}")
        self.perform(self.gateway.request(name, command, context, self.world.now_ms))

    def resume(self, socket: Socket, wanted: dict[str, int]) -> None:
        self.run(self._resume, socket, wanted)

    def _resume(self, socket: Socket, wanted: dict[str, int]) -> None:
        if not self.gateway.resuming(socket):
            return  # it has ended here meanwhile: a client asks again only when it was answered
        self.world.count("resumes")
        self.world.say(f"{self.name} resumes {socket.connection_id}: {wanted}", f"user {socket.user}")

        def stands(standing: Standing) -> None:
            seat = self.gateway._seats.get(socket)
            if seat is not None and socket in self._open:
                topics = self.gateway._topics
                socket.resume_taken(standing, {name: topics[name].reached for name in seat.topics})
            self.perform(self.gateway.resume(socket, wanted, standing, None, self.world.now_ms))

        def failed() -> None:
            if socket in self._open:
                socket.resume_failed()
            self.perform(self.gateway.resume_failed(socket))

        question = lambda: self.world.log.standing(socket.user)  # noqa: E731 - as short as it is
        self.world.ask(self, f"how user {socket.user} stands", question, stands, failed)

    def _read_page(self, page: gw.ReadPage) -> None:
        name, since = page.conversation, page.since

        def read(entries: list[Entry]) -> None:
            payloads = [frames.frame_of(entry) for entry in entries]
            self.perform(self.gateway.page_read(name, since, payloads, self.world.now_ms))

        def failed() -> None:
            self.perform(self.gateway.page_failed(name, since, self.world.now_ms))

        question = lambda: self.world.log.after(name, since, page.upto - since)  # noqa: E731
        self.world.ask(self, f"a page of {name}", question, read, failed)

    def _feed(self, socket: Socket, payloads: list[bytes]) -> None:
        for payload in payloads:
            self._write([socket], payload)
        self.world.count("fed pages")
        self.later(self.world.stream(f"{socket.connection_id} reads").randint(0, READS_WITHIN_MS), self._fed, socket)

    def _fed(self, socket: Socket) -> None:
        self.perform(self.gateway.fed(socket))

    # --- outputs ---------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        self.perform(self.gateway.tick(self.world.now_ms))

    def perform(self, outputs: list[gw.Output[Socket]]) -> None:
        self._do(outputs)
        if self._submitted or self.world.now_ms <= self._retrying_until_ms:
            self.flush()
        self.wake_by(self.gateway.next_deadline_ms())

    def _do(self, outputs: list[gw.Output[Socket]]) -> None:  # noqa: C901, PLR0912 - a table of outputs
        for output in outputs:
            match output:
                case gw.Submit(envelope):
                    self._submitted = True
                    failure = self.uplinks.submit(envelope)
                    if failure is not None:
                        self._do(self.gateway.refused(envelope, failure, self.world.now_ms))
                case gw.LoadSubscriptions(user_id):
                    self._load(user_id)
                case gw.Ready(socket, conversations):
                    if socket in self._open:
                        heads = {conversation: seq for conversation, seq, _unread in conversations}
                        self.world.say(f"{self.name} greets {socket.connection_id}: {heads}", f"user {socket.user}")
                        socket.ready(heads)
                case gw.Write(sockets, payload):
                    self._write(list(sockets), payload)
                case gw.ReadPage():
                    self._read_page(output)
                case gw.Feed(socket, payloads):
                    self._feed(socket, payloads)
                case gw.Resumed(socket, _, reached, oldest, left):
                    if socket in self._open:
                        text = f"{self.name} has resumed {socket.connection_id}: {reached}"
                        self.world.say(text, f"user {socket.user}")
                        socket.resumed(reached, oldest, left)
                case gw.Answered(context, payload):
                    socket = self._client_of(context)
                    if socket in self._open:
                        socket.answered(context, payload)
                case gw.Refused(context, failure):
                    socket = self._client_of(context)
                    if socket in self._open:
                        socket.refused(context, failure)
                case gw.Close(socket, code):
                    self._cut(socket, code)

    @staticmethod
    def _client_of(context: object) -> Socket:
        assert isinstance(context, tuple), "a context is a socket, and what its client says of the request"
        socket = context[0]
        assert isinstance(socket, Socket), "a context is a socket, and what its client says of the request"
        return socket

    def _write(self, sockets: list[Socket], payload: bytes) -> None:
        for socket in sockets:
            if socket in self._ending:
                continue
            if socket in self._slow:
                self.world.count("overflows")
                self._cut(socket, 4008)
                continue
            self.world.count("frames shown")
            self._say_shown(socket, payload)
            socket.frame(payload)

    def _say_shown(self, socket: Socket, payload: bytes) -> None:
        if self.world.trace is not None:
            shown = json.loads(payload)
            event, data = shown["event"], shown["data"]
            room = data.get("room_id")
            name = names.room(room) if room is not None else names.dm(data["sender_id"], data["receiver_id"])
            text = f"{self.name} shows {socket.connection_id} {name} #{data['seq']} ({event})"
            self.world.say(text, name, f"user {socket.user}")

    def _cut(self, socket: Socket, code: int) -> None:
        if socket in self._open:
            self.world.say(f"{self.name} closes {socket.connection_id} with {code}", f"user {socket.user}")
            socket.closed()

    def _load(self, user: int) -> None:
        def loaded(subscriptions: list[Subscription]) -> None:
            self.perform(self.gateway.subscriptions_loaded(user, subscriptions, self.world.now_ms))

        def failed() -> None:
            self.perform(self.gateway.subscriptions_failed(user, self.world.now_ms))

        self.world.ask(self, f"loading user {user}", lambda: self.world.log.of_user(user), loaded, failed)

    # --- links -----------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        self._submitted = False
        for host in self.uplinks.hosts:
            taken = self.uplinks.take(host, self.world.now_ms)
            if taken is not None:
                self._push(host, *taken)
        if self.world.now_ms <= self._retrying_until_ms:
            self.wake_by(self.uplinks.retry_at_ms())

    def _push(self, host: str, batch: Batch[Envelope], epoch: int) -> None:
        body, peer = uplinks.encode_items(batch.items), self.peer

        def done(result: object) -> None:
            self._pushed(host, batch.number, result)

        self.world.call(
            self,
            f"{self.name} to {host}",
            self.world.hosts[host],
            lambda process, call: process.receive(peer, batch.number, epoch, body, call),
            done,
        )

    def _pushed(self, host: str, number: int, result: object) -> None:
        now_ms = self.world.now_ms
        self._retrying_until_ms = now_ms + RETRY_MAX_MS
        if isinstance(result, Timeout):
            self.uplinks.failed(host, number, now_ms)
        else:
            assert isinstance(result, bytes), "a host answers in bytes"
            answer = uplinks.decode_answer(result)
            before = self.uplinks.placement
            self.uplinks.answered(host, number, answer, now_ms)
            if isinstance(answer, uplinks.Accepted):
                self._session(host, answer.session)
            elif isinstance(answer, uplinks.Stale):
                self._moved(before)
        self.flush()

    def _moved(self, before: Placement) -> None:
        after = self.uplinks.placement
        if after.epoch != before.epoch:
            self.world.say(f"{self.peer} knows epoch {after.epoch}")
            self.perform(self.gateway.reattach(after.moved_since(before), self.world.now_ms))

    def _poll(self, host: str) -> None:
        session, acknowledged = self._sessions.get(host, ("", 0))
        peer = self.peer

        def done(result: object) -> None:
            self._polled(host, result)

        self.world.call(
            self,
            f"{self.name} polls {host}",
            self.world.hosts[host],
            lambda process, call: process.poll(peer, session, acknowledged, call),
            done,
            poll=True,
        )

    def _polled(self, host: str, result: object) -> None:
        if isinstance(result, Timeout):
            self.later(POLL_AGAIN_MS, self._poll, host)
            return
        assert isinstance(result, Polled), "a poll is answered with what was polled"
        self._session(host, result.session)
        batch = result.batch
        if batch is not None and batch.number > self._sessions[host][1]:
            self._sessions[host] = (result.session, batch.number)
            for item in batch.items:
                self._do(self.gateway.delivered(_deliveries.decode(item), self.world.now_ms))
            self.perform([])
        self._poll(host)

    def _session(self, host: str, session: str) -> None:
        known = self._sessions.get(host)
        if known is not None and known[0] == session:
            return
        self._sessions[host] = (session, 0)
        if known is not None:
            self.world.say(f"{self.peer} begins session {session}")
            placement = self.uplinks.placement
            self.perform(self.gateway.reattach(lambda name: placement.owner(name) == host, self.world.now_ms))
