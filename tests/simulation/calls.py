"""The processes of the simulated cluster, the names under which they are called, and the calls between them.

Each life of a process is an object of its own. It may freeze and go on, and it may live on after another one has got
its name: then some of those who called it before still reach it, and it does not know.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:  # the world knows how calls travel; here it is only held
    from tests.simulation.world import World

LOYAL = 0.6
"""So many of those who called a process that was replaced go on calling it while it lives."""
MIN_TICK_MS = 10
"""A deadline that has passed wakes its process at most so often."""

P = TypeVar("P", bound="Process")
Event = Callable[..., None]


class Timeout(Exception):  # noqa: N818 - it is what happens to a call
    """A call has no answer."""


TIMED_OUT = Timeout()


class Expiring(Protocol):
    """What ends by itself after a fixed time, unless it is over before."""

    over: bool

    def expire(self) -> None: ...


class Timeouts:
    """What expires after one fixed time unless it is over before: a queue, and one event for its head."""

    def __init__(self, world: World, after_ms: int) -> None:
        self.after_ms = after_ms
        self._world = world
        self._queue: deque[tuple[int, Expiring]] = deque()

    def add(self, item: Expiring) -> None:
        self._queue.append((self._world.now_ms + self.after_ms, item))
        if len(self._queue) == 1:
            self._world.after(self.after_ms, self._expire, idle=True)

    def _expire(self) -> None:
        queue, now_ms = self._queue, self._world.now_ms
        due = []
        while queue and (queue[0][1].over or queue[0][0] <= now_ms):
            due.append(queue.popleft()[1])
        if queue:
            self._world.after(queue[0][0] - now_ms, self._expire, idle=True)
        for item in due:
            if not item.over:
                item.expire()


class Call:
    """One call: answered, failed or timed out, once, and then ``done`` runs where it was called."""

    __slots__ = ("answer_fate", "answer_pace", "caller", "done", "over", "process", "slot")

    def __init__(self, caller: Process, slot: Slot[Any], done: Callable[[object], None]) -> None:
        self.caller = caller
        self.slot = slot
        self.done = done
        self.over = False
        self.process: Process | None = None
        self.answer_fate = self.answer_pace = 0.0

    def answer(self, result: object, *, idle: bool = False) -> None:
        """Send this back to the caller."""
        process, world = self.process, self.caller.world
        assert process is not None, "a call is answered where it has arrived"
        process.open.pop(self, None)
        if self.answer_fate < world.weather.lost_answer:
            world.count("lost answers")
            return
        world.after(world.pace(self.answer_pace), self.finish, result, idle=idle)

    def finish(self, result: object) -> None:
        if not self.over:
            self.over = True
            if result is TIMED_OUT:
                self.slot.failed(self.caller)
            self.caller.run(self.done, result)

    def expire(self) -> None:
        self.finish(TIMED_OUT)


class Process:
    """One life of a process: it may freeze, and ends once. Whatever happens to it goes through `run`."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.peer = f"{name}/{world.incarnation()}"
        self.alive = True
        self.frozen = False
        self.open: dict[Call, None] = {}
        """Calls that wait for its answer."""
        self.callers: dict[Process, None] = {}
        """Who has ever called it."""
        self._backlog: deque[tuple[Event, tuple[object, ...]]] = deque()
        self._wake_ms: int | None = None

    def run(self, event: Event, *args: object) -> None:
        """Let something happen to it: now, when it thaws, or, if it is dead, never."""
        if self.frozen:
            self._backlog.append((event, args))
        elif self.alive:
            event(*args)

    def later(self, delay_ms: int, event: Event, *args: object) -> None:
        self.world.after(delay_ms, self.run, event, *args)

    def freeze(self, for_ms: int) -> None:
        """Stop it in its tracks; what comes meanwhile it finds, in order, when it goes on."""
        if not self.frozen:
            self.world.say(f"{self.peer} freezes for {for_ms} ms")
            self.frozen = True
            self.world.after(for_ms, self._thaw)

    def _thaw(self) -> None:
        if self.alive and self._backlog:
            event, args = self._backlog.popleft()
            event(*args)
            self.world.after(0, self._thaw)
        else:
            self.world.say(f"{self.peer} goes on")
            self.frozen = False

    def end(self) -> None:
        """End it between two events; who waits for its answers notices soon."""
        if self.alive:
            self.alive = False
            self.world.say(f"{self.peer} dies")
            for call in self.open:
                self.world.after(self.world.pace(call.answer_pace), call.finish, TIMED_OUT)

    def wake_by(self, at_ms: int | None) -> None:
        """Call `tick` at this time, if not before."""
        if at_ms is None:
            return
        at_ms = max(at_ms, self.world.now_ms + MIN_TICK_MS)
        if self._wake_ms is None or at_ms < self._wake_ms:
            self._wake_ms = at_ms
            self.world.after(at_ms - self.world.now_ms, self.run, self._wake, at_ms, idle=True)

    def _wake(self, at_ms: int) -> None:
        if at_ms == self._wake_ms:
            self._wake_ms = None
            self.tick()

    def tick(self) -> None:
        raise NotImplementedError


class Slot(Generic[P]):
    """A name under which a process can be called; which process that is changes when it is replaced.

    As on Ray, a caller looks the name up once, and again after a call has failed. So while a process lives on that was
    replaced, some of those that called it before still reach it: two owners of everything it owned.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.process: P | None = None
        self._zombie: P | None = None
        self._loyal: dict[Process, bool] = {}

    def supersede(self, zombie_ms: int) -> None:
        """Take the name from the process that has it; it lives on for a while, and some still call it."""
        zombie, self.process = self.process, None
        if zombie is not None:
            self.world.count(f"zombie {zombie.name.partition('-')[0]}s")
            self.world.say(f"{zombie.peer} is given up, but lives for another {zombie_ms} ms")
            self.world.after(zombie_ms, zombie.end)
            self._zombie = zombie
            self._loyal = {caller: self.world.stream(caller.name).random() < LOYAL for caller in zombie.callers}

    def reached_by(self, caller: Process) -> P | None:
        """Whom a call of this caller reaches."""
        zombie = self._zombie
        if zombie is not None and zombie.alive and self._loyal.get(caller, False):
            return zombie
        process = self.process
        if process is not None:
            process.callers[caller] = None
        return process

    def failed(self, caller: Process) -> None:
        """A call of this caller has failed: it looks the name up again."""
        self._loyal.pop(caller, None)
