"""Time, chance, the weather and the database of the simulated cluster.

Everything that happens is an event with a virtual time; the earliest comes next, those of one time in the order in
which they were asked for. Whatever is random is drawn from streams that belong to one seed and one place (an edge
between two processes, a process and its database, a person): so the same seed is the same history, and leaving out one
action of a plan changes what depends on it and little else, which is what makes a failing history shrinkable.

Nobody looks in vain: a process is woken when its machinery says that something is due (`Process.wake_by`), and all
calls share one queue for their timeouts (`Timeouts`). What only keeps time (empty polls, waking) is marked ``idle``, so
that a history knows when all is quiet.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, fields
from heapq import heappop, heappush
from typing import TYPE_CHECKING, TypeVar
from zlib import crc32

from actors.placement import Placement
from fastsock.core.limits import POLL_HOLD_MS
from tests.simulation.calls import TIMED_OUT, Call, Event, Process, Slot, Timeouts
from tests.simulation.memory_log import MemoryLog
from tests.simulation.trace import Line

if TYPE_CHECKING:  # the processes know the world; it only keeps them
    from tests.simulation.gateways import SimGateway
    from tests.simulation.hosts import HostSlot
    from tests.simulation.writers import WriterSlot

CALL_TIMEOUT_MS = 10_000
"""As `actors.runtime.calls`: a call without an answer for so long has failed."""
LATEST_MS = 5_000
"""A call that comes too late or twice is late by up to so much."""
LATENCY_MS = 1, 5
"""The least and the most that a call, an answer or a read takes in fair weather."""
SLOWER = 100
"""What is slow takes up to so many times as long."""

P = TypeVar("P", bound=Process)
T = TypeVar("T")


@dataclass
class Weather:
    """How bad it is now: probabilities per call, commit or read. A `Spell` of the plan sets one for a while."""

    lost_call: float = 0.0
    """The call never arrives, and times out."""
    late_call: float = 0.0
    """The call arrives when its caller has given it up, behind later ones."""
    repeated_call: float = 0.0
    """The call arrives twice, the second time up to `LATEST_MS` later."""
    lost_answer: float = 0.0
    """The call is carried out, and its answer is lost."""
    slow: float = 0.0
    """A call, an answer or a read takes up to `SLOWER` times as long."""
    failed_commit: float = 0.0
    """The transaction fails and stores nothing."""
    blind_commit: float = 0.0
    """The transaction commits, and the writer is told that it failed."""
    failed_read: float = 0.0
    """A read of the database fails."""
    missed_notice: float = 0.0
    """A gateway learns late, or never by itself, that a socket has ended."""


FAULTS = tuple(field.name for field in fields(Weather))


class World:
    """Time, chance, the database, and a register of the processes."""

    def __init__(self, seed: int, users: int, hosts: int, *, tracing: bool = False) -> None:
        self.seed = seed
        self.now_ms = 1_000_000
        self.start_ms = self.now_ms
        self.busy_ms = self.now_ms
        """When something happened last that was not only the keeping of time."""
        self.steps = 0
        self.counts: dict[str, int] = {}
        self.trace: list[Line] | None = [] if tracing else None
        self.weather = Weather()
        self._spells: dict[str, list[float]] = {fault: [] for fault in FAULTS}
        self.stalled_until_ms = 0
        """Until then the database neither commits nor answers."""
        self.log = MemoryLog(range(1, users + 1))
        self.placement = Placement(epoch=1, hosts=tuple(f"host-{index}" for index in range(hosts)))
        self.call_timeouts = Timeouts(self, CALL_TIMEOUT_MS)
        self.poll_timeouts = Timeouts(self, CALL_TIMEOUT_MS + POLL_HOLD_MS)
        self.poll_holds = Timeouts(self, POLL_HOLD_MS)
        self.writer: WriterSlot
        self.hosts: dict[str, HostSlot] = {}
        self.gateways: list[SimGateway] = []
        """Those that are alive."""
        self._events: list[tuple[int, int, bool, Event, tuple[object, ...]]] = []
        self._order = 0
        self._in_steps: list[tuple[int, Event]] = []
        self._incarnations = 0
        self._streams: dict[str, random.Random] = {}

    # --- chance --------------------------------------------------------------------------------------------------

    def stream(self, name: str) -> random.Random:
        """The random numbers that belong to this name, in this seed."""
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = random.Random((self.seed << 32) + crc32(name.encode()))
        return stream

    def draw(self, where: str) -> tuple[float, float, float, float]:
        """Four random numbers from 0 to 1, in steps of 2^-16, from one draw."""
        stream = self._streams.get(where) or self.stream(where)
        bits = stream.getrandbits(64)
        return (
            (bits & 0xFFFF) / 65536,
            (bits >> 16 & 0xFFFF) / 65536,
            (bits >> 32 & 0xFFFF) / 65536,
            (bits >> 48) / 65536,
        )

    def pace(self, drawn: float) -> int:
        """How long something takes, milliseconds, by a number from 0 to 1."""
        low, high = LATENCY_MS
        slow = self.weather.slow
        if drawn < slow:
            return int(high * SLOWER * drawn / slow)
        return low + int((high + 1 - low) * drawn)

    def latency(self, where: str) -> int:
        return self.pace(self.stream(where).random())

    def spell(self, fault: str, rate: float, for_ms: int) -> None:
        """Let it go wrong at this rate for so long; of several spells of one fault the worst counts."""
        rates = self._spells[fault]

        def end() -> None:
            rates.remove(rate)
            setattr(self.weather, fault, max(rates, default=0.0))

        rates.append(rate)
        setattr(self.weather, fault, max(rates))
        self.after(for_ms, end)

    def pin(self, name: str, host: str) -> None:
        """Move a name to another host; who is to learn of it, and when, is the caller's business."""
        pins = {**self.placement.pins, name: host}
        self.placement = Placement(epoch=self.placement.epoch + 1, hosts=self.placement.hosts, pins=pins)
        self.count("moves")
        self.say(f"{name} moves to {host}, epoch {self.placement.epoch}")

    # --- what is told afterwards ---------------------------------------------------------------------------------

    def count(self, what: str, number: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + number

    def say(self, text: str, *about: str) -> None:
        """Note what happens, and which conversation and whom it is about; nobody: it is about everybody."""
        if self.trace is not None:
            self.trace.append(Line(self.now_ms - self.start_ms, text, about))

    def incarnation(self) -> str:
        self._incarnations += 1
        return str(self._incarnations)

    # --- time ----------------------------------------------------------------------------------------------------

    def after(self, delay_ms: int, event: Event, *args: object, idle: bool = False) -> None:
        """Let this happen; ``idle`` if it would also happen in a world at rest."""
        self._order += 1
        heappush(self._events, (self.now_ms + delay_ms, self._order, idle, event, args))

    def in_steps(self, steps: int, event: Event) -> None:
        """Let this happen between two events: when so many more have happened."""
        self._in_steps.append((self.steps + steps, event))
        self._in_steps.sort(key=lambda due: due[0])

    def run(self, until_ms: int) -> bool:
        """Let happen what happens until then, or until nothing but the keeping of time has for so long.

        True if something is left to happen, as is usual: somebody always polls.
        """
        events, in_steps = self._events, self._in_steps
        while events and events[0][0] <= until_ms:
            at_ms, _, idle, event, args = heappop(events)
            self.now_ms = at_ms
            if not idle:
                self.busy_ms = at_ms
            self.steps += 1
            event(*args)
            while in_steps and in_steps[0][0] <= self.steps:
                in_steps.pop(0)[1]()
        self.now_ms = max(self.now_ms, until_ms)
        return bool(events)

    # --- calls between processes ---------------------------------------------------------------------------------

    def call(
        self,
        caller: Process,
        edge: str,
        slot: Slot[P],
        work: Callable[[P, Call], None],
        done: Callable[[object], None],
        *,
        poll: bool = False,
    ) -> None:
        """Call whatever process is in the slot when the call arrives: ``work`` runs there, and answers the call.

        ``done`` runs at the caller with the answer, or with a `Timeout`.
        """
        call = Call(caller, slot, done)
        weather = self.weather
        fate, pace, call.answer_fate, call.answer_pace = self.draw(edge)
        timeouts = self.poll_timeouts if poll else self.call_timeouts
        timeouts.add(call)
        delay_ms = self.pace(pace)
        if fate < weather.lost_call:
            self.count("lost calls")
            return
        fate -= weather.lost_call
        if fate < weather.late_call:
            self.count("late calls")
            delay_ms = timeouts.after_ms + int(pace * LATEST_MS)
        elif fate < weather.late_call + weather.repeated_call:
            self.count("repeated calls")
            self.after(delay_ms + int(call.answer_pace * LATEST_MS), self._arrive, call, slot, work, idle=poll)
        self.after(delay_ms, self._arrive, call, slot, work, idle=poll)

    def _arrive(self, call: Call, slot: Slot[P], work: Callable[[P, Call], None]) -> None:
        process = slot.reached_by(call.caller)
        if process is None:
            self.after(self.pace(call.answer_pace), call.finish, TIMED_OUT)  # a dead process is noticed soon
            return
        call.process = process
        process.open[call] = None
        process.run(work, process, call)

    # --- the database --------------------------------------------------------------------------------------------

    def ask(
        self, process: Process, what: str, query: Callable[[], T], told: Callable[[T], None], failed: Callable[[], None]
    ) -> None:
        """Read the database; what it answers is true when it reads, and may be old when it is told."""
        fate, pace, way_back, _ = self.draw(process.name)
        if fate < self.weather.failed_read:
            self.count("failed reads")
            self.say(f"{process.peer}: {what} fails")
            process.later(self.pace(pace), failed)
            return

        def read() -> None:
            if self.now_ms < self.stalled_until_ms:
                self.after(self.stalled_until_ms - self.now_ms + self.pace(pace), read)
                return
            found = query()
            if way_back < 0.5:
                process.run(told, found)
            else:
                process.later(self.pace(way_back), told, found)

        self.after(self.pace(pace), read)

    def stall(self, for_ms: int) -> None:
        """Let the database hang: what is asked of it meanwhile happens when it is over."""
        self.count("stalls")
        self.say(f"the database stalls for {for_ms} ms")
        self.stalled_until_ms = max(self.stalled_until_ms, self.now_ms + for_ms)
