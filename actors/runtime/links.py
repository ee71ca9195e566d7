"""The way from a process to the hosts and back: batches up, long polls down.

The Ray shell around `Uplinks`. For each host there is at most one push under way and exactly one long poll. Measured on
2 cores (`tests.benchmarks.edges`), latency from idle / CPU a batch of both ends at 50 batches a
second, then CPU back to back: poll 1.2 / 2.4 / 0.9 ms, stream 1.6 / 2.4 / 0.8 ms, a call back 1.9 / 3.4 / 1.4 ms. So it
is the poll: what it brings comes as the answer to a call that is there already. Its next call is also the
acknowledgement, nothing has to be torn down when either side dies, and a poll that fails is how a gateway learns at
once that a host is gone.

Whoever reads the deliveries is told of a *new session* of a host's downlink (the host restarted, or forgot this peer,
or dropped what waited for it), and of names that moved; both mean: attach again, ask again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import msgspec
import structlog

from actors.commands import Envelope
from actors.effects import Delivery, Failure
from actors.link import Backoff, Batch
from actors.placement import Placement, shard_of
from actors.runtime.alarm import Alarm
from actors.runtime.calls import CALL_ERRORS, CALL_TIMEOUT_S, Actors, in_short
from actors.runtime.clock import now_ms
from actors.runtime.tasks import Tasks
from actors.uplinks import Accepted, Behind, Stale, Uplinks, decode_answer, encode_items
from fastsock.core.limits import POLL_HOLD_MS

log = structlog.get_logger("fastsock.links")

POLL_TIMEOUT_S = POLL_HOLD_MS / 1000 + CALL_TIMEOUT_S
Down = tuple[str, int, list[Delivery]]
"""What a poll is answered with: the session, the batch's number (0: no batch), the deliveries."""
_down: msgspec.msgpack.Decoder[Down] = msgspec.msgpack.Decoder(Down)


class Reader(Protocol):
    """Who sits behind the links: a gateway, or whoever asks questions."""

    def deliveries(self, deliveries: list[Delivery]) -> None:
        """Take what a host has sent, in order."""
        ...

    def reattach(self, owned: Callable[[str], bool]) -> None:
        """What was attached or asked under these names is lost: attach and ask again."""
        ...


class HostLinks:
    """The links of one peer to all hosts. ``peer`` must be new with each start of the process."""

    def __init__(self, peer: str, placement: Placement, reader: Reader) -> None:
        self.peer = peer
        self._uplinks = Uplinks(placement)
        self._reader = reader
        self._actors = Actors()
        self._tasks = Tasks()
        self._polls: dict[str, asyncio.Task[None]] = {}
        self._sessions: dict[str, tuple[str, int]] = {}
        self._flush_scheduled = False
        self._alarm = Alarm(self._flush)
        self.counts = {"batches_up": 0, "items_up": 0, "batches_down": 0, "items_down": 0, "failed_calls": 0}

    @property
    def placement(self) -> Placement:
        return self._uplinks.placement

    @property
    def waiting(self) -> int:
        """Envelopes that wait or are in flight."""
        return len(self._uplinks)

    def start(self) -> None:
        """Begin to poll every host of the placement."""
        self._follow(self.placement)

    async def stop(self) -> None:
        self._alarm.stop()
        await self._tasks.stop()

    def submit(self, envelope: Envelope) -> Failure | None:
        """Queue an envelope; what one turn of the event loop submits leaves as one batch."""
        failure = self._uplinks.submit(envelope)
        if failure is None and not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)
        return failure

    async def report(self, figures: dict[str, int]) -> None:
        """Leave this peer's figures with one host, for ``fastsock top``; lost if that host is away."""
        hosts = self.placement.hosts
        try:
            await self._actors.call(hosts[shard_of(self.peer) % len(hosts)], "report", self.peer, figures)
        except CALL_ERRORS as error:
            log.debug("report lost", error=type(error).__name__)

    # --- up ------------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._flush_scheduled = False
        now = now_ms()
        for host in self._uplinks.hosts:
            taken = self._uplinks.take(host, now)
            if taken is not None:
                self._tasks.start(self._push(host, *taken), f"push-{host}")
        self._alarm.set(self._uplinks.retry_at_ms(), now)

    async def _push(self, host: str, batch: Batch[Envelope], epoch: int) -> None:
        body = encode_items(batch.items)
        try:
            answer = decode_answer(await self._actors.call(host, "receive", self.peer, batch.number, epoch, body))
        except CALL_ERRORS as error:
            self._call_failed(host, "push", error)
            self._uplinks.failed(host, batch.number, now_ms())
            self._flush()
            return
        self.counts["batches_up"] += 1
        self.counts["items_up"] += len(batch.items)
        before = self.placement
        self._uplinks.answered(host, batch.number, answer, now_ms())
        if isinstance(answer, Accepted):
            self._session(host, answer.session)
        elif isinstance(answer, Stale):
            self._moved(before)
        else:
            assert isinstance(answer, Behind)
        self._flush()

    # --- placement -------------------------------------------------------------------------------------------------

    def _moved(self, before: Placement) -> None:
        """After the placement has changed: poll new hosts, and have what changed hands attached anew."""
        after = self.placement
        if after.epoch == before.epoch:
            return
        log.info("placement moved", epoch=after.epoch, hosts=len(after.hosts))
        self._follow(after)
        self._reader.reattach(after.moved_since(before))
        self._flush()

    def _follow(self, placement: Placement) -> None:
        for host in placement.hosts:
            if host not in self._polls:
                self._polls[host] = self._tasks.start(self._poll(host), f"poll-{host}")
        for host in [host for host in self._polls if host not in placement.hosts]:
            self._polls.pop(host).cancel()
            self._sessions.pop(host, None)

    # --- down ------------------------------------------------------------------------------------------------------

    async def _poll(self, host: str) -> None:
        backoff = Backoff()
        while True:
            session, acknowledged = self._sessions.get(host, ("", 0))
            try:
                about = self.peer, session, acknowledged
                body = await self._actors.call(host, "poll", *about, timeout_s=POLL_TIMEOUT_S)
                session, number, deliveries = _down.decode(body)
            except CALL_ERRORS as error:
                self._call_failed(host, "poll", error)
                backoff.failed(now_ms())
                await asyncio.sleep((backoff.ready_at_ms - now_ms()) / 1000)
                continue
            if backoff.ready_at_ms:  # it was away, and what waits for it need not find out by itself
                backoff.succeeded()
                self._uplinks.retry_now(host)
                self._flush()
            self._session(host, session)
            if number and number > self._sessions[host][1]:
                self._sessions[host] = (session, number)
                self.counts["batches_down"] += 1
                self.counts["items_down"] += len(deliveries)
                self._reader.deliveries(deliveries)
                await asyncio.sleep(0)  # what they have written leaves first: the next call takes half a millisecond

    def _session(self, host: str, session: str) -> None:
        known = self._sessions.get(host)
        if known is not None and known[0] == session:
            return
        self._sessions[host] = (session, 0)
        if known is not None:
            log.info("new session", host=host, session=session)
            placement = self.placement
            self._reader.reattach(lambda name: placement.owner(name) == host)

    def _call_failed(self, host: str, call: str, error: BaseException) -> None:
        self.counts["failed_calls"] += 1
        log.warning("call failed", host=host, call=call, error=in_short(error))
