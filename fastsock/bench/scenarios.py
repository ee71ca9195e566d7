"""What is played, and what is measured of it.

``fanout``     rooms, everybody connected, messages at a rising rate: the highest rate of deliveries with a p99 below
               `P99_LIMIT_MS`, and what a delivery costs the server.
``dm``         two people each: latency at rest, then the highest rate at which every message is acknowledged (which
               means: committed) with a p99 below the same limit.
``idle``       sockets that say nothing: memory of each, and how fast they connect.
``reconnect``  everybody is cut at once while others talk, and comes back and resumes.

Every delivery is expected: what is lost, doubled, out of order, or closed is a fault, and the benchmark fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from fastsock.bench.crowd import CrowdProcess
from fastsock.bench.footprint import Footprint, since
from fastsock.bench.tally import Counted
from fastsock.bench.targets import Target

P99_LIMIT_MS = 250.0
"""Of deliveries: beyond it a conversation no longer feels live."""
ACHIEVED = 0.97
"""A rate counts as reached if so much of it was sent, and delivered while it was sent or within `P99_LIMIT_MS`."""
GROWTH = 1.5
"""From one step to the next, until one fails; then `REFINEMENTS` halvings of the last interval."""
REFINEMENTS = 2
MAX_STEPS = 14
AT_REST_PER_S = 50.0
CONNECTS_AT_ONCE = 100
SENDS_PER_S = 15.0
"""Of one socket at most: the server lets one say 20 messages a second."""
MESSAGE_CHARS = 100

Shown = Callable[[str], None]
"""Who is told, in a line, what happens now."""


class StepResult(msgspec.Struct):
    """One rate."""

    rate_per_s: float
    """Messages asked for."""
    counted: Counted
    deliveries_per_s: float
    cpu_us: dict[str, float]
    """Server's processor time per delivery (``fanout``) or message (``dm``), by kind of process; empty: not known."""
    sustained: bool

    @property
    def total_cpu_us(self) -> float:
        return sum(self.cpu_us.values())


class Result(msgspec.Struct):
    """What a scenario came to."""

    scenario: str
    target: str
    about: dict[str, Any]
    steps: list[StepResult] = []
    figures: dict[str, Any] = {}

    def best(self) -> StepResult | None:
        """The step with the highest rate that was sustained."""
        sustained = [step for step in self.steps if step.sustained]
        return max(sustained, key=lambda step: step.rate_per_s, default=None)

    def faults(self) -> dict[str, int]:
        """What must be 0, over all steps."""
        total: dict[str, int] = {}
        for step in self.steps:
            for name, number in msgspec.structs.asdict(step.counted.faults).items():
                total[name] = total.get(name, 0) + number
        for name in ("lost", "failed"):
            if name in self.figures:
                total[name] = total.get(name, 0) + self.figures[name]
        return total


class Bench:
    """Scenarios against one target."""

    def __init__(self, target: Target, seconds: float, shown: Shown) -> None:
        self._target = target
        self._seconds = seconds
        self._shown = shown
        self._footprint = Footprint(target.processes)

    # --- rates -------------------------------------------------------------------------------------------------------

    def _step(
        self, crowd: CrowdProcess, plan: Sequence[tuple[int, str, int]], rate: float, copies: int, per: float
    ) -> StepResult:
        """Send at ``rate``; each message is delivered ``copies`` times, and the cost is divided by ``per`` of it."""
        self._shown(f"{rate:,.0f} messages/s, {rate * copies:,.0f} deliveries/s")
        before = self._footprint.cpu_s()
        start = time.monotonic()
        counted = crowd.send(plan, rate, self._seconds, MESSAGE_CHARS, copies)
        used = since(before, self._footprint.cpu_s())
        idle_s = max(0.0, time.monotonic() - start - counted.window_s)
        cost = max(counted.acked * per, 1)
        sent_per_s = counted.sent / counted.window_s
        # Deliveries in flight at the last send are within the limit as far as p99 says so.
        late_share = counted.late / max(counted.deliveries, 1)
        sustained = (
            not counted.refused
            and not counted.faults
            and counted.acked == counted.sent
            and sent_per_s >= ACHIEVED * rate
            and counted.delivery.p99_ms < P99_LIMIT_MS
            and late_share < 0.1
            and idle_s < 2.0
        )
        per_s = (counted.deliveries - counted.late) / counted.window_s
        cpu_us = {kind: 1e6 * spent / cost for kind, spent in used.items()}
        return StepResult(rate, counted, per_s, cpu_us, sustained)

    def _search(self, step: Callable[[float], StepResult], first: float, most: float) -> list[StepResult]:
        """Steps of a rising rate until one is not sustained, then between the last two."""
        steps: list[StepResult] = []
        rate, low, high = first, 0.0, None
        refinements = 0
        while len(steps) < MAX_STEPS:
            result = step(rate)
            steps.append(result)
            low, high = (rate, high) if result.sustained else (low, rate)
            if high is None:
                if rate >= most:
                    break
                rate = min(rate * GROWTH, most)
            elif refinements == REFINEMENTS or low == 0:
                break
            else:
                refinements += 1
                rate = (low + high) / 2
        return steps

    # --- scenarios ---------------------------------------------------------------------------------------------------

    def fanout(self, first_per_s: float, rates: Sequence[float] = ()) -> Result:
        """Rooms at a rising rate; ``rates`` (messages/s) instead of a search."""
        people, rooms = self._target.people(), self._target.rooms()
        members = len(rooms[0][1])
        plan = [
            (rooms[room][1][turn % len(rooms[room][1])], "room_id", self._room_id(room))
            for turn in range(max(len(one) for _, one in rooms))
            for room in range(len(rooms))
        ]
        with CrowdProcess(self._target.numbered) as crowd:
            self._connect(crowd, people)
            self._warm(crowd, plan, members)

            def step(rate: float) -> StepResult:
                return self._step(crowd, plan, rate, members, members)

            most = SENDS_PER_S * len(people)
            steps = [step(rate) for rate in rates] or self._search(step, first_per_s, most)
            crowd.call("leave")
        about = {"rooms": len(rooms), "members": members, "sockets": len(people)}
        return Result("fanout", self._target.name, about, steps)

    def _room_id(self, index: int) -> int:
        return self._target.rooms()[index][0]

    def dm(self, first_per_s: float, rates: Sequence[float] = (), at_rest_s: float | None = None) -> Result:
        """Pairs: at rest, then at a rising rate."""
        people = self._target.people()
        plan = [(one, "receiver_id", people[one ^ 1][0]) for one in range(len(people) - len(people) % 2)]
        with CrowdProcess(self._target.numbered) as crowd:
            self._connect(crowd, people)
            self._warm(crowd, plan, 2)
            seconds, self._seconds = self._seconds, at_rest_s or self._seconds
            rest = self._step(crowd, plan, AT_REST_PER_S, 2, 1)
            self._seconds = seconds

            def step(rate: float) -> StepResult:
                return self._step(crowd, plan, rate, 2, 1)

            most = SENDS_PER_S * len(plan)
            steps = [step(rate) for rate in rates] or self._search(step, first_per_s, most)
            crowd.call("leave")
        return Result("dm", self._target.name, {"pairs": len(plan) // 2}, [rest, *steps])

    def idle(self) -> Result:
        """Sockets that say nothing; without the server's processes only how fast they connect is known."""
        people = self._target.people()
        before = self._settled_memory()
        with CrowdProcess(self._target.numbered) as crowd:
            cpu = self._footprint.cpu_s()
            took_s = self._connect(crowd, people)
            cpu_us = {kind: 1e6 * used / len(people) for kind, used in since(cpu, self._footprint.cpu_s()).items()}
            self._shown("looking at the memory")
            after = self._settled_memory()
            crowd.call("leave")
        each = {kind: (after[kind] - before.get(kind, 0)) / len(people) / 1024 for kind in after}
        figures: dict[str, Any] = {"connects_per_s": len(people) / took_s}
        if before:
            figures |= {
                "kb_per_socket": sum(each.values()),
                "kb_by_kind": dict(sorted(each.items(), key=lambda item: -item[1])),
                "connect_cpu_us": cpu_us,
                "empty_mb": sum(before.values()) / 2**20,
            }
        return Result("idle", self._target.name, {"sockets": len(people)}, figures=figures)

    def _settled_memory(self) -> dict[str, int]:
        """Memory when it no longer grows."""
        memory = self._footprint.memory_bytes()
        for _ in range(10 if memory else 0):
            time.sleep(2)
            now = self._footprint.memory_bytes()
            grown, memory = sum(now.values()) - sum(memory.values()), now
            if abs(grown) < 2**20:
                break
        return memory

    def reconnect(self, talkers: int = 20) -> Result:
        """All but some talkers are cut at once, miss messages, and come back together."""
        people, rooms = self._target.people(), self._target.rooms()
        with CrowdProcess(self._target.numbered) as crowd:
            self._connect(crowd, people)
            inside: dict[int, int] = {}
            for room, members in rooms:
                for member in members:
                    inside.setdefault(member, room)
            plan = [(talker, "room_id", inside[talker]) for talker in range(talkers) if talker in inside]
            self._warm(crowd, plan, len(rooms[0][1]))
            self._shown(f"cutting {len(people) - talkers:,} sockets")
            crowd.call("cut", talkers)
            crowd.send(plan, 20.0, 2.0, MESSAGE_CHARS, 0)
            self._shown("all of them come back")
            cpu = self._footprint.cpu_s()
            tokens = [token for _, token in people[talkers:]]
            back = crowd.call("come_back", self._target.ws_url, tokens, talkers, len(tokens))
            used = since(cpu, self._footprint.cpu_s())
            lacking = crowd.call("lacking")
            crowd.call("leave")
        count = len(tokens)
        figures = {
            **back,
            "clients_per_s": count / back["took_s"],
            **({"cpu_us": {kind: 1e6 * spent / count for kind, spent in used.items()}} if used else {}),
            "lost": lacking,
            "failed": count - back["each"]["count"],
        }
        return Result("reconnect", self._target.name, {"sockets": count}, figures=figures)

    # --- people ------------------------------------------------------------------------------------------------------

    def _connect(self, crowd: CrowdProcess, people: Sequence[tuple[int, str]]) -> float:
        self._shown(f"connecting {len(people):,} sockets")
        took_s: float = crowd.call("connect", self._target.ws_url, list(people), CONNECTS_AT_ONCE)
        return took_s

    def _warm(self, crowd: CrowdProcess, plan: Sequence[tuple[int, str, int]], copies: int) -> None:
        """Have every conversation spoken in once, so that each is in memory."""
        self._shown("warming up")
        wanted = {whom: (sender, to, whom) for sender, to, whom in plan}
        rate = max(50.0, len(wanted) / 5)
        crowd.send(list(wanted.values()), rate, len(wanted) / rate, 40, copies)
