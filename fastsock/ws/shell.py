"""The shell around the pure `Gateway`: it performs what the gateway decides, for real sockets, in real time.

One `GatewayShell` per process. It is the *reader* of the links to the hosts (`deliveries`, `reattach`), it reads
memberships from the database through a `Loader`, and it writes to connections. One timer wakes it `TICK_MS` after the
last time, for everything that waits: the gateway's own deadlines, tokens that end, sockets that never get ready. It
never waits for anything itself: every method returns at once, so the order of events is the order of calls.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec
import structlog

from actors import gateway as gw
from actors.commands import Envelope
from actors.effects import Delivery, Failure
from actors.timers import Timers
from fastsock.core.errors import TABLE, FastSockError, error_of
from fastsock.core.limits import RESUME_WITHIN_MS
from fastsock.schemas import events
from fastsock.schemas.log import Subscription
from fastsock.ws.connection import TaskOwner
from fastsock.ws.loader import Loader
from fastsock.ws.outbox import Counts
from fastsock.ws.resumes import Reads, Resumes
from fastsock.ws.session import Ask, Tell, close
from fastsock.ws.socket import Socket

log = structlog.get_logger("fastsock.ws")

TICK_MS = 250
"""The resolution of every timeout here, all of which are seconds."""
READY_WITHIN_MS = 30_000
"""A socket that cannot be greeted for so long is closed with 1013: its user's host or the database stays away."""
EXPIRING_BEFORE_MS = 60_000
"""So long before its token ends a socket is told."""
MAX_USERS = 500
"""Users of one read of memberships."""
RECONNECT_MIN_MS = 500
RECONNECT_MAX_MS = 5_000
RECONNECT_EACH_MS = 3
"""Clients of a gateway that goes away are told to come back after a time between the first two, each another. Where
there are many it grows with them: on 2 cores some 410 connects a second were measured, HAProxy and client included."""

TRY_AGAIN_LATER = TABLE["server_full"].close_code or 0
GOING_AWAY = TABLE["going_away"].close_code or 0
_CLOSE_REASONS = {meaning.close_code: code for code, meaning in TABLE.items() if meaning.close_code is not None}


class Uplinks(Protocol):
    """The links to the hosts."""

    def submit(self, envelope: Envelope) -> Failure | None:
        """Queue an envelope for whoever owns its name; a failure, and nothing queued, at the bound."""
        ...


class Asked(msgspec.Struct, frozen=True, gc=False):
    """Whose question it was, for when it is answered."""

    socket: Socket
    event: str
    client_msg_id: str | None


class GatewayShell:
    """Owns the gateway of this process.

    Call `start` with the links before the first socket, and `stop` at the end. ``reads`` reads from the database,
    ``tasks`` owns every background task, ``now_ms`` is milliseconds since 1970 UTC and never goes back. ``hold_ms``:
    so long a new socket may take to say that it resumes (`Gateway`).
    """

    def __init__(
        self, reads: Reads, tasks: TaskOwner, now_ms: Callable[[], int], hold_ms: int = RESUME_WITHIN_MS
    ) -> None:
        self.tasks = tasks
        self.now_ms = now_ms
        self.counts = Counts()
        self.closing = False
        """Whether this gateway is going away: no new socket is let in."""
        self._gateway: gw.Gateway[Socket] = gw.Gateway(hold_ms)
        self._loader = Loader("users", reads.subscriptions, MAX_USERS, tasks, self._loaded, self._not_loaded)
        self._resumes = Resumes(self._gateway, reads, tasks, self._perform, now_ms)
        self._uplinks: Uplinks | None = None
        self._sockets: dict[str, Socket] = {}
        self._timers = Timers()
        self._ticker: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._empty.set()
        self._events = {"connected": 0, "asked": 0, "answered": 0, "refused": 0, "written": 0, "told": 0}
        self._random = random.Random()  # noqa: S311 - spreads reconnects

    # --- life ----------------------------------------------------------------------------------------------------

    @property
    def started(self) -> bool:
        return self._uplinks is not None

    def start(self, uplinks: Uplinks) -> None:
        """Begin to work, in the running event loop."""
        self._uplinks = uplinks
        self._arm()

    async def stop(self, within_s: float = 5.0) -> None:
        """Close every socket with 1012, wait until they have ended (at most so long), and stop the clock."""
        self.close_all()
        try:
            await asyncio.wait_for(self._empty.wait(), within_s)
        except TimeoutError:
            log.warning("sockets are still open", sockets=len(self._sockets))
        if self._ticker is not None:
            self._ticker.cancel()

    def close_all(self) -> None:
        """Let nobody in any more, tell everybody when to come back, and close with 1012."""
        self.closing = True
        longest_ms = max(RECONNECT_MAX_MS, RECONNECT_EACH_MS * len(self._sockets))
        for socket in list(self._sockets.values()):
            pause_ms = self._random.randint(RECONNECT_MIN_MS, longest_ms)
            error = error_of("going_away", "this gateway goes away: connect again", pause_ms)
            socket.connection.write(events.error_frame(error))
            socket.connection.close(GOING_AWAY, error.message)

    def _arm(self) -> None:
        self._ticker = asyncio.get_running_loop().call_later(TICK_MS / 1000, self._tick)

    def _tick(self) -> None:
        self._arm()  # first, so that a defect below does not stop the clock
        now_ms = self.now_ms()
        for connection_id, what in self._timers.due(now_ms):
            self._due(self._sockets[connection_id], what, now_ms)
        self._perform(self._gateway.tick(now_ms))

    def _due(self, socket: Socket, what: str, now_ms: int) -> None:
        if what == "expiring":
            if socket.ready:
                socket.connection.write(events.expiring_frame(socket.expires_at_ms, now_ms))
        elif what == "expired":
            end = close(error_of("token_expired", "the token has expired"))
            self._end(socket, end.code, end.reason)
        elif not socket.ready:
            text = f"not ready within {READY_WITHIN_MS / 1000:g} s: try again"
            self._end(socket, TRY_AGAIN_LATER, text)

    # --- sockets -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Sockets that are open."""
        return len(self._sockets)

    def open(self, socket: Socket) -> None:
        """Take an authenticated socket in; ``session.ready`` will be the first frame written to it."""
        now_ms = self.now_ms()
        self._events["connected"] += 1
        self._sockets[socket.connection_id] = socket
        self._empty.clear()
        self._timers.set(socket.connection_id, "ready", now_ms + READY_WITHIN_MS)
        self._watch_token(socket)
        log.info("socket opened", connection_id=socket.connection_id, user_id=socket.user_id)
        self._perform(self._gateway.connect(socket, socket.connection_id, socket.user_id, now_ms))

    def ended(self, socket: Socket, code: int) -> None:
        """The socket has ended, by us or by its peer; may be said twice."""
        if self._sockets.pop(socket.connection_id, None) is None:
            return
        self._timers.cancel_all(socket.connection_id, ("ready", "expiring", "expired"))
        now_ms = self.now_ms()
        about = {"connection_id": socket.connection_id, "user_id": socket.user_id, "code": code}
        log.info("socket ended", **about, open_s=(now_ms - socket.opened_ms) // 1000)
        self._perform(self._gateway.disconnect(socket, now_ms))
        if not self._sockets:
            self._empty.set()

    def ask(self, socket: Socket, ask: Ask) -> None:
        """Ask an actor; the answer or the error is written to the socket when it comes."""
        self._events["asked"] += 1
        context = Asked(socket, ask.event, ask.client_msg_id)
        self._perform(self._gateway.request(ask.name, ask.command, context, self.now_ms()))

    def tell(self, tell: Tell) -> None:
        """Tell an actor what nobody misses; should it be refused, the socket that it names is told so."""
        self._events["told"] += 1
        self._perform(self._gateway.tell(tell.name, tell.command))

    def heard(self, socket: Socket) -> None:
        """The socket has said something that is no resume."""
        if socket.silent:
            socket.silent = False
            self._perform(self._gateway.spoke(socket))

    def resume(self, socket: Socket, wanted: dict[str, int]) -> None:
        """Show the socket what follows these numbers, by internal names, then ``session.resumed``."""
        socket.silent = False
        self._resumes.begin(socket, wanted)

    def refresh(self, socket: Socket, expires_at_ms: int) -> None:
        """Let the socket live until then, and tell it so."""
        now_ms = self.now_ms()
        socket.expires_at_ms = expires_at_ms
        self._watch_token(socket)
        socket.connection.write(events.refreshed_frame(expires_at_ms, now_ms))

    def _watch_token(self, socket: Socket) -> None:
        self._timers.set(socket.connection_id, "expiring", socket.expires_at_ms - EXPIRING_BEFORE_MS)
        self._timers.set(socket.connection_id, "expired", socket.expires_at_ms)

    @staticmethod
    def _end(socket: Socket, code: int, reason: str) -> None:
        socket.connection.close(code, reason)

    # --- what the links read into --------------------------------------------------------------------------------

    def deliveries(self, deliveries: list[Delivery]) -> None:
        """Take what a host has sent, in order."""
        now_ms = self.now_ms()
        for delivery in deliveries:
            self._perform(self._gateway.delivered(delivery, now_ms))

    def reattach(self, owned: Callable[[str], bool]) -> None:
        """What was attached or asked under these names is lost: attach and ask again."""
        self._perform(self._gateway.reattach(owned, self.now_ms()))

    # --- what the loader says ------------------------------------------------------------------------------------

    def _loaded(self, user_id: int, subscriptions: list[Subscription]) -> None:
        self._perform(self._gateway.subscriptions_loaded(user_id, subscriptions, self.now_ms()))

    def _not_loaded(self, user_id: int) -> None:
        self._perform(self._gateway.subscriptions_failed(user_id, self.now_ms()))

    # --- doing it ------------------------------------------------------------------------------------------------

    def _perform(self, outputs: list[gw.Output[Socket]]) -> None:  # noqa: C901 - a table of outputs
        waiting = deque(outputs)
        while waiting:
            output = waiting.popleft()
            match output:
                case gw.Write(sockets, payload, ephemeral):
                    self._events["written"] += len(sockets)
                    for socket in sockets:
                        socket.connection.write(payload, ephemeral=ephemeral)
                case gw.Submit(envelope):
                    waiting.extend(self._submit(envelope))
                case gw.Answered(Asked() as asked, payload):
                    self._answered(asked, payload)
                case gw.Refused(Asked() as asked, failure):
                    self._refused(asked, error_of(failure.code, failure.message, failure.retry_after_ms))
                case gw.Decline(socket, event, failure):
                    error = error_of(failure.code, failure.message, failure.retry_after_ms)
                    self._refused(Asked(socket, event, None), error)
                case gw.Ready(socket, conversations):
                    self._ready(socket, conversations)
                case gw.LoadSubscriptions(user_id):
                    self._loader.want(user_id)
                case gw.Feed() | gw.ReadPage() | gw.Resumed():
                    self._resumes.do(output)
                case gw.Close(socket, code):
                    self._end(socket, code, _CLOSE_REASONS.get(code, ""))
                case other:
                    raise AssertionError(f"nobody knows how to do {other!r}")

    def _submit(self, envelope: Envelope) -> list[gw.Output[Socket]]:
        assert self._uplinks is not None, "sockets are let in after start"
        failure = self._uplinks.submit(envelope)
        return [] if failure is None else self._gateway.refused(envelope, failure, self.now_ms())

    def _answered(self, asked: Asked, payload: bytes) -> None:
        self._events["answered"] += 1
        asked.socket.connection.write(events.ack_frame(payload))

    def _refused(self, asked: Asked, error: FastSockError) -> None:
        self._events["refused"] += 1
        if error.code == "internal":
            log.error("request failed", connection_id=asked.socket.connection_id, error=error.message)
        asked.socket.connection.write(events.error_frame(error, asked.event, asked.client_msg_id))

    def _ready(self, socket: Socket, conversations: list[tuple[str, int, int]]) -> None:
        now_ms = self.now_ms()
        frame = events.ready_frame(socket.connection_id, socket.user_id, conversations, now_ms)
        socket.connection.write(frame)
        if socket.expires_at_ms - EXPIRING_BEFORE_MS <= now_ms:
            socket.connection.write(events.expiring_frame(socket.expires_at_ms, now_ms))
            self._timers.set(socket.connection_id, "expiring", None)
        socket.greeted()

    # --- to be looked at -----------------------------------------------------------------------------------------

    def stats(self) -> dict[str, int]:
        """Figures for metrics and ``fastsock top``: counts since the start, and sizes now."""
        return {
            **self._gateway.stats(),
            **self._events,
            **self._loader.counts,
            "users_waiting": len(self._loader),
            **self._resumes.stats(),
            "frames_out": self.counts.frames_out,
            "bytes_out": self.counts.bytes_out,
            "outbox_bytes": sum(socket.connection.waiting_bytes for socket in self._sockets.values()),
            "slow_consumers": self.counts.slow_consumers,
            "failed_writes": self.counts.failed_writes,
            "dropped_ephemeral": self.counts.dropped_ephemeral,
        }
