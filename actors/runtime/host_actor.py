"""The host actor: a `Host` as a named Ray actor.

The shell takes what the host offers (appends, loads, checks, reads, leases, batches for other hosts), at most one of
each kind at a time, and tells it what came back. All of that starts in `_pump`, which runs after everything that may
have changed the host.

Appends go to a persistence actor, or to a `Writer` in this process (``--writers beside-hosts``): one port, bytes in and
bytes out. Beside the host a message at rest saves a call, and everything else stays as it is: the log's fence keeps
hosts apart, whoever writes.

A Ray actor that restarts runs its constructor and nothing else, and a constructor cannot wait; so whatever is called
first opens the database, reads the placement and leases message ids. The constructor sees to it that this is at once.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar
from uuid import uuid4

import msgspec
import structlog

from actors.commands import Envelope
from actors.host import Host
from actors.link import Batch
from actors.persistence import Committed, NotCommitted, OldEpoch, decode_answer
from actors.placement import Placement
from actors.runtime import names, placements
from actors.runtime.alarm import Alarm
from actors.runtime.calls import CALL_ERRORS, Actors, in_short
from actors.runtime.clock import now_ms
from actors.runtime.process import begin, settle_in
from actors.runtime.tasks import Tasks
from actors.runtime.writer import Writer
from actors.topics import Read
from actors.uplinks import decode_answer as decode_uplink_answer
from actors.uplinks import decode_items, encode_answer, encode_items
from fastsock.core.config import Settings
from fastsock.core.errors import FastSockError
from fastsock.core.limits import CATCH_UP_PAGE, POLL_HOLD_MS
from fastsock.db.conversations import Conversations
from fastsock.db.engine import Database
from fastsock.db.message_log import MessageLog
from fastsock.db.placement import PlacementStore

log = structlog.get_logger("fastsock.host")

T = TypeVar("T")

TICK_S = 0.1
"""The longest time between two looks at what is due."""
MIN_TICK_S = 0.005
REPORT_FRESH_MS = 10_000
"""A gateway that has not reported for so long is not shown any more."""

_encoder = msgspec.msgpack.Encoder()


class HostActor:
    """Runs one host. Its state may be lost at any time: gateways and the database teach it again."""

    def __init__(self, index: int, settings: dict[str, object]) -> None:
        self._name = names.host(index)
        self._settings = Settings.from_wire(settings)
        self._starting: asyncio.Task[None] | None = None
        self._ready = False
        self._beside: Writer | None = None
        """The writer of this host, where there are no persistence actors."""
        self._alarm = Alarm(self._pump)
        self._actors = Actors()
        self._tasks = Tasks()
        self._polls: dict[str, asyncio.Event] = {}
        self._reports: dict[str, tuple[int, dict[str, int]]] = {}
        begin()

    def __repr__(self) -> str:
        return f"host-{self._name.rpartition('-')[2]}"

    # --- starting ------------------------------------------------------------------------------------------------

    async def _started(self) -> None:
        if self._ready:
            return
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
        try:
            await asyncio.shield(self._starting)
        except FastSockError:
            self._starting = None  # the next call tries again; this one's caller repeats it
            raise

    async def _start(self) -> None:
        settle_in(self._settings, asyncio.get_running_loop())
        database = Database(self._settings.database_url_resolved, lookups=True)
        self._log = MessageLog(database)
        self._conversations = Conversations(database)
        self._database = database
        try:
            placement = await placements.load(database)
        except FastSockError:
            await database.close()
            raise
        incarnation = uuid4().hex[:8]
        self._writers = max(1, self._settings.writer_actors)
        if not self._settings.writer_actors:
            self._beside = Writer(MessageLog(Database(self._settings.database_url_resolved, pool_size=1, lookups=True)))
        limits = self._writers, self._settings.max_connections_per_user
        self._host = Host(self._name, incarnation, placement, *limits)
        log.info("host started", host=self._name, incarnation=incarnation, epoch=self._host.placement.epoch)
        await self._lease(self._host.next_lease(now_ms()) or 0)
        self._tasks.start(self._tick(), "tick")
        self._ready = True

    # --- what is called from outside -------------------------------------------------------------------------------

    async def ready(self) -> dict[str, object]:
        """Figures for ``fastsock top``; answers when the host can work."""
        await self._started()
        self._drop_old_reports()
        reports = {peer: figures for peer, (_, figures) in self._reports.items()}
        about: dict[str, object] = {
            "pid": os.getpid(),
            "failed_tasks": self._tasks.failures,
            "gateway_reports": reports,
        }
        if self._beside is not None:
            about["writer_beside"] = {"pid": os.getpid(), **self._beside.figures(f"{self._name} (beside)")}
        return {**self._host.stats(), **about}

    async def report(self, peer: str, figures: dict[str, int]) -> None:
        """Take a gateway's figures, for whoever asks this host."""
        self._drop_old_reports()
        self._reports[peer] = (now_ms(), figures)

    def _drop_old_reports(self) -> None:
        fresh = now_ms() - REPORT_FRESH_MS
        self._reports = {peer: report for peer, report in self._reports.items() if report[0] > fresh}

    async def describe(self, name: str) -> bytes | None:
        """One actor's state as JSON, or None if it is not in memory; looking activates nothing."""
        await self._started()
        return self._host.describe(name, now_ms())

    async def current_placement(self) -> bytes:
        await self._started()
        return self._host.placement.encode()

    # --- being replaced ----------------------------------------------------------------------------------------------

    async def settings(self) -> dict[str, object]:
        """What this host was started with; whoever can ask could run code here as well."""
        return self._settings.to_wire()

    async def place(self, body: bytes) -> bool:
        """Store a placement, and learn it; False if what is stored is not the one before it.

        Raises:
            FastSockError: ``storage_unavailable``; it may have been stored.

        """
        await self._started()
        epoch = Placement.decode(body).epoch
        stored = await PlacementStore(self._database).store(body, epoch, epoch - 1)
        await self._read_placement()
        return stored

    async def learn(self) -> int:
        """Read the stored placement; the epoch that this host knows then."""
        await self._started()
        await self._read_placement()
        return self._host.placement.epoch

    async def drain(self, for_s: float) -> bool:
        """Take no batch for so many seconds; whether everything that was taken has come to its end.

        If nobody replaces this process within that time, it takes batches again.
        """
        await self._started()
        self._host.drain(now_ms() + int(for_s * 1000))
        self._host.tick(now_ms())
        self._pump()
        return self._host.drained()

    # --- batches -----------------------------------------------------------------------------------------------------

    async def receive(self, sender: str, number: int, epoch: int, body: bytes) -> bytes:
        """Take a batch of envelopes; the answer is an encoded `uplinks.Answer`."""
        await self._started()
        answer = self._host.receive(sender, number, epoch, decode_items(body), now_ms())
        if epoch > self._host.placement.epoch:
            await self._read_placement()
        self._pump()
        return encode_answer(answer)

    async def poll(self, peer: str, session: str, acknowledged: int) -> bytes:
        """The next batch for this peer, as soon as there is one, or an empty one after `POLL_HOLD_MS`.

        A peer has one poll at a time: a second one ends the first, whose caller no longer listens.
        """
        await self._started()
        waiting = self._polls.pop(peer, None)
        if waiting is not None:
            waiting.set()
        current, batch = self._host.poll(peer, session, acknowledged, now_ms())
        if batch is None and current == session:
            event = self._polls[peer] = asyncio.Event()
            with suppress(TimeoutError):  # nothing has come: an empty answer, and the gateway polls again
                async with asyncio.timeout(POLL_HOLD_MS / 1000):
                    await event.wait()
            if self._polls.get(peer) is event:
                del self._polls[peer]
            current, batch = self._host.poll(peer, session, acknowledged, now_ms())
        return _encode_down(current, batch)

    # --- the pump ----------------------------------------------------------------------------------------------------

    def _pump(self) -> None:  # noqa: C901 - a list of all that a host may offer
        """Wake the polls that have something to answer, and start whatever the host offers."""
        host, now = self._host, now_ms()
        for peer in host.take_woken():
            event = self._polls.get(peer)
            if event is not None:
                event.set()
        for writer in range(self._writers):
            append = host.next_append(writer, now)
            if append is not None:
                self._tasks.start(self._append(writer, *append), "append")
        if (wanted := host.next_load(now)) is not None:
            self._tasks.start(self._load(wanted), "load")
        if (topics := host.next_check(now)) is not None:
            self._tasks.start(self._check(topics), "check")
        if (read := host.next_read(now)) is not None:
            self._tasks.start(self._read(read), "read")
        if (keys := host.next_recall(now)) is not None:
            self._tasks.start(self._recall(keys), "recall")
        if (count := host.next_lease(now)) is not None:
            self._tasks.start(self._lease(count), "lease")
        for other in host.uplinks.hosts:
            forward = host.next_forward(other, now)
            if forward is not None:
                self._tasks.start(self._forward(other, *forward), f"forward-{other}")
        if host.placement_suspect:
            host.placement_suspect = False
            self._tasks.start(self._read_placement(), "placement")
        self._alarm.set(host.send_at_ms(), now)

    async def _tick(self) -> None:
        while True:
            self._host.tick(now_ms())
            self._pump()
            at = self._host.next_deadline_ms()
            await asyncio.sleep(TICK_S if at is None else min(max((at - now_ms()) / 1000, MIN_TICK_S), TICK_S))

    async def _append(self, writer: int, number: int, body: bytes) -> None:
        name = names.writer(writer)
        try:
            answer = decode_answer(await (self._beside.append(body) if self._beside else self._call(name, body)))
        except CALL_ERRORS as error:
            log.warning("append failed", writer=name, batch=number, error=in_short(error))
            self._host.append_failed(writer, now_ms())
        else:
            if isinstance(answer, Committed):
                self._host.appended(writer, answer.outcomes, now_ms())
            elif isinstance(answer, OldEpoch):
                self._host.epoch_refused(writer, now_ms())
            else:
                assert isinstance(answer, NotCommitted)
                log.warning("append not committed", writer=name, batch=number, error=answer.failure.message)
                self._host.append_failed(writer, now_ms())
        self._pump()

    async def _call(self, writer: str, body: bytes) -> bytes:
        answer: bytes = await self._actors.call(writer, "append", body)
        return answer

    async def _ask(
        self, what: str, answer: Awaitable[T], told: Callable[[T], None], failed: Callable[[int], None]
    ) -> None:
        """Tell the host what the database answers, or that it is away: then it is asked again when that is due."""
        try:
            found = await answer
        except FastSockError as error:
            log.warning("the database does not answer", what=what, error=error.message)
            failed(now_ms())
        except Exception:
            failed(now_ms())  # a defect, which the owner of this task logs and counts; the host must not wait for ever
            raise
        else:
            told(found)
        finally:
            self._pump()

    async def _load(self, wanted: list[str]) -> None:
        host = self._host
        answer = self._conversations.load(wanted)
        await self._ask("load", answer, lambda states: host.loaded(states, now_ms()), host.load_failed)

    async def _check(self, topics: list[str]) -> None:
        host = self._host
        await self._ask(
            "heads", self._log.heads(topics), lambda heads: host.checked(heads, now_ms()), host.check_failed
        )

    async def _read(self, read: Read) -> None:
        page = self._log.after(read.topic, read.since, CATCH_UP_PAGE)
        await self._ask("catch-up", page, self._host.read, self._host.read_failed)

    async def _recall(self, keys: list[tuple[int, str]]) -> None:
        host = self._host
        answer = self._log.by_keys(keys)
        await self._ask("recall", answer, lambda found: host.recalled(found, now_ms()), host.recall_failed)

    async def _lease(self, count: int) -> None:
        ids = self._host.ids
        await self._ask("lease", self._log.lease_ids(count), ids.leased, ids.failed)

    async def _read_placement(self) -> None:
        host = self._host
        stored = placements.load(self._database)
        await self._ask("placement", stored, lambda placement: host.move(placement, now_ms()), lambda _now: None)

    async def _forward(self, other: str, batch: Batch[Envelope], epoch: int) -> None:
        uplinks = self._host.uplinks
        try:
            about = self._host.peer, batch.number, epoch, encode_items(batch.items)
            answer = decode_uplink_answer(await self._actors.call(other, "receive", *about))
        except CALL_ERRORS as error:
            log.warning("forward failed", to=other, error=in_short(error))
            uplinks.failed(other, batch.number, now_ms())
        else:
            self._host.forwarded(other, batch.number, answer, now_ms())
        self._pump()


def _encode_down(session: str, batch: Batch[bytes] | None) -> bytes:
    items = [] if batch is None else [msgspec.Raw(item) for item in batch.items]
    return _encoder.encode((session, 0 if batch is None else batch.number, items))
