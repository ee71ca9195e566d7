"""A host actor: what `actors.runtime.host_actor` is on Ray, and the name under which it is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from actors import persistence, uplinks
from actors.host import Host
from actors.link import Batch
from actors.placement import Placement
from fastsock.core.limits import CATCH_UP_PAGE, PEER_GONE_MS
from tests.simulation.calls import Call, Process, Slot, Timeout
from tests.simulation.world import World

T = TypeVar("T")

PARTING_TICK_MS = 100
"""As ``TICK_S`` of the shell on Ray: a host that hands names over looks so often whether it is done."""
START_AGAIN_MS = 500


class Polled(NamedTuple):
    """What a poll is answered with."""

    session: str
    batch: Batch[bytes] | None


class HostSlot(Slot["SimHost"]):
    """A host's name. The process that has it may be dead, starting, or a younger one than somebody thinks."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world)
        self.name = name
        self.blind_until_ms = 0
        """Until then no process of this name can read the placement."""
        self._starter = Process(world, f"{name} starting")
        self._starting = False
        self._appear(world.placement, world.log.lease_ids(10_000))

    def start(self) -> None:
        """Read the placement, lease ids, and be there; while the database is away, try again."""
        if self._starting:
            return
        self._starting = True
        world = self.world

        def read() -> tuple[Placement, range]:
            return world.placement, world.log.lease_ids(10_000)

        def again() -> None:
            self._starting = False
            world.after(START_AGAIN_MS, self.start)

        world.ask(self._starter, "starting", read, lambda found: self._appear(*found), again)

    def _appear(self, placement: Placement, ids: range) -> None:
        self._starting = False
        self.process = SimHost(self.world, self, placement, ids)

    def kill(self, back_after_ms: int) -> None:
        """End it; it comes back with nothing in memory."""
        if self.process is not None:
            self.world.count("killed hosts")
            self.process.end()
            self.process = None
            self.world.after(back_after_ms, self.start)

    def replace(self, zombie_ms: int) -> None:
        """Take its name from it and start another; it lives on for a while, and does not know."""
        if self.process is not None:
            self.supersede(zombie_ms)
            self.start()


class Hold:
    """A poll that waits for something to come."""

    __slots__ = ("acknowledged", "call", "host", "over", "peer", "session")

    def __init__(self, host: SimHost, peer: str, session: str, acknowledged: int, call: Call) -> None:
        self.host = host
        self.peer = peer
        self.session = session
        self.acknowledged = acknowledged
        self.call = call
        self.over = False

    def expire(self) -> None:
        self.host.run(self.host.end_poll, self)


class SimHost(Process):
    """One life of a host."""

    def __init__(self, world: World, slot: HostSlot, placement: Placement, ids: range) -> None:
        super().__init__(world, slot.name)
        self._slot = slot
        self.host = Host(slot.name, self.peer.partition("/")[2], placement)
        assert self.host.peer == self.peer, "a host signs as its process is named"
        self.host.next_lease(world.now_ms)
        self.host.ids.leased(ids)
        self._holds: dict[str, Hold] = {}
        self._peers: dict[str, None] = {}
        """Who has ever polled: their first poll is what may make them gone one day."""
        self._learning = False
        world.say(f"{self.peer} starts")

    # --- what is called from outside -------------------------------------------------------------------------------

    def receive(self, sender: str, number: int, epoch: int, body: bytes, call: Call) -> None:
        said = self.host.receive(sender, number, epoch, uplinks.decode_items(body), self.world.now_ms)
        call.answer(uplinks.encode_answer(said))
        if isinstance(said, uplinks.Behind):
            self.learn()
        self.pump()

    def poll(self, peer: str, session: str, acknowledged: int, call: Call) -> None:
        waiting = self._holds.get(peer)
        if waiting is not None:
            self.end_poll(waiting)
        current, batch = self.host.poll(peer, session, acknowledged, self.world.now_ms)
        if batch is not None or current != session:
            call.answer(Polled(current, batch))
        else:
            hold = self._holds[peer] = Hold(self, peer, session, acknowledged, call)
            self.world.poll_holds.add(hold)
        if peer not in self._peers:
            self._peers[peer] = None
            self.wake_by(self.world.now_ms + PEER_GONE_MS)

    def end_poll(self, hold: Hold) -> None:
        """Answer a poll that waits, with what there is."""
        if hold.over:
            return
        hold.over = True
        del self._holds[hold.peer]
        polled = Polled(*self.host.poll(hold.peer, hold.session, hold.acknowledged, self.world.now_ms))
        hold.call.answer(polled, idle=polled.batch is None)

    # --- what it does ------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        self.host.tick(self.world.now_ms)
        self.pump()

    def learn(self, delay_ms: int = 0) -> None:
        """Read the placement, now or after a while; of what is asked for while it is being read nothing comes."""
        self.later(delay_ms, self._learn)

    def _learn(self) -> None:
        if self._learning:
            return
        self._learning = True
        blind_ms = max(self._slot.blind_until_ms - self.world.now_ms, 0)
        self.later(blind_ms, self._read_placement)

    def _read_placement(self) -> None:
        world = self.world

        def failed() -> None:
            self._learning = False

        world.ask(self, "reading the placement", lambda: world.placement, self._learned, failed)

    def _learned(self, placement: Placement) -> None:
        self._learning = False
        self.host.move(placement, self.world.now_ms)
        self.world.say(f"{self.peer} knows epoch {self.host.placement.epoch}")
        self.pump()

    def pump(self) -> None:
        """Take what the host offers, and see to it that it is told what comes of it."""
        host, world = self.host, self.world
        now_ms = world.now_ms
        for peer in host.take_woken():
            hold = self._holds.get(peer)
            if hold is not None:
                self.end_poll(hold)
        append = host.next_append(0, now_ms)
        if append is not None:
            self._append(append[1])
        self._read_log(host, now_ms)
        for other in host.uplinks.hosts:
            self._forward(other)
        if host.placement_suspect:
            host.placement_suspect = False
            self._learn()
        self.wake_by(host.next_deadline_ms())
        if host._parting:
            self.wake_by(now_ms + PARTING_TICK_MS)

    def _read_log(self, host: Host, now_ms: int) -> None:
        log = self.world.log
        wanted = host.next_load(now_ms)
        if wanted is not None:
            self._ask(
                "load", lambda: log.load(wanted), lambda found: host.loaded(found, self.world.now_ms), host.load_failed
            )
        topics = host.next_check(now_ms)
        if topics is not None:
            self._ask(
                "check",
                lambda: log.heads(topics),
                lambda heads: host.checked(heads, self.world.now_ms),
                host.check_failed,
            )
        read = host.next_read(now_ms)
        if read is not None:
            page = read.topic, read.since, CATCH_UP_PAGE
            self._ask("catch-up", lambda: log.after(*page), host.read, host.read_failed)
        keys = host.next_recall(now_ms)
        if keys is not None:
            self._ask(
                "recall",
                lambda: log.by_keys(keys),
                lambda found: host.recalled(found, self.world.now_ms),
                host.recall_failed,
            )
        count = host.next_lease(now_ms)
        if count is not None:
            self._ask("lease", lambda: log.lease_ids(count), host.ids.leased, host.ids.failed)

    def _ask(self, what: str, query: Callable[[], T], told: Callable[[T], None], failed: Callable[[int], None]) -> None:
        def answered(found: T) -> None:
            told(found)
            self.pump()

        def refused() -> None:
            failed(self.world.now_ms)
            self.pump()

        self.world.ask(self, what, query, answered, refused)

    def _append(self, body: bytes) -> None:
        world = self.world
        world.call(
            self, f"{self.name} appends", world.writer, lambda writer, call: writer.append(body, call), self._appended
        )

    def _appended(self, result: object) -> None:
        host, now_ms = self.host, self.world.now_ms
        if isinstance(result, Timeout):
            host.append_failed(0, now_ms)
        else:
            assert isinstance(result, bytes), "a writer answers in bytes"
            answer = persistence.decode_answer(result)
            if isinstance(answer, persistence.Committed):
                fenced = host.counts["fenced"]
                host.appended(0, answer.outcomes, now_ms)
                self._note_fences(host.counts["fenced"] - fenced)
            elif isinstance(answer, persistence.OldEpoch):
                self.world.count("refused epochs")
                host.epoch_refused(0, now_ms)
            else:
                host.append_failed(0, now_ms)
        self.pump()

    def _note_fences(self, number: int) -> None:
        if number:
            self.world.count("fenced appends", number)
            self.world.say(f"{self.peer} is fenced")

    def _forward(self, other: str) -> None:
        world = self.world
        taken = self.host.next_forward(other, world.now_ms)
        if taken is None:
            return
        batch, epoch = taken
        body, peer = uplinks.encode_items(batch.items), self.peer

        def done(result: object) -> None:
            if isinstance(result, Timeout):
                self.host.uplinks.failed(other, batch.number, world.now_ms)
            else:
                assert isinstance(result, bytes), "a host answers in bytes"
                self.host.forwarded(other, batch.number, uplinks.decode_answer(result), world.now_ms)
            self.pump()

        world.call(
            self,
            f"{self.name} to {other}",
            world.hosts[other],
            lambda host, call: host.receive(peer, batch.number, epoch, body, call),
            done,
        )
