"""One random history: a cluster, its people, its faults, and the verdict."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from fastsock.core.limits import RELOAD_MEMBERSHIPS_MS
from tests.simulation.actions import Action, Arrive, Stage
from tests.simulation.clients import Client, Violation, check_end, summary
from tests.simulation.gateways import SimGateway
from tests.simulation.hosts import HostSlot
from tests.simulation.plan import USERS, Plan, draw
from tests.simulation.trace import Line
from tests.simulation.world import World
from tests.simulation.writers import WriterSlot

HEAL_MS = RELOAD_MEMBERSHIPS_MS + 90_000
"""So long after the last fault what heals has to have healed: the longest that anything waits, and some timeouts."""
QUIET_MS = 21_000
"""A cluster in which nothing has happened for so long, longer than any call takes to time out, is at rest."""
HOST_QUEUES = "entries_waiting", "deliveries_waiting", "forwards_waiting", "recalls_waiting", "loading"
SMALL_PAGES: dict[str, Any] = {
    "RESUME_PAGE": 4,
    "RESUME_PAGE_BYTES": 2_000,
    "RESUME_AT_ONCE_BYTES": 600,
    "MAX_REPLAYS": 2,
}
"""Limits of resumes that histories of some thirty entries reach."""
LOOK_MS = 1_000
"""The virtual time between two looks whether it is."""


def run(seed: int) -> dict[str, int]:
    """Play the history of this seed and check it; returns how much of what happened.

    Raises:
        Violation: what does not hold.

    """
    return History(draw(seed)).play()


class History:
    """A plan, being played."""

    def __init__(self, plan: Plan, *, tracing: bool = False) -> None:
        self._plan = plan
        self._world = world = World(plan.seed, USERS, plan.hosts, tracing=tracing)
        for room, (owner, members) in enumerate(plan.rooms, 1):
            world.log.create_room(room, owner, members)
        world.writer = WriterSlot(world)
        world.hosts = {name: HostSlot(world, name) for name in world.placement.hosts}
        for index in range(plan.gateways):
            SimGateway(world, f"gateway-{index}")
        users = sorted({action.user for action in plan if isinstance(action, Arrive)})
        self._stage = Stage(world, {user: Client(world, user) for user in users})
        self._clients = list(self._stage.people.values())
        for action in plan:
            world.after(action.at_ms, self._do, action)

    def _do(self, action: Action) -> None:
        self._world.say(f"-- {action}")
        action.do(self._stage)

    @property
    def lines(self) -> list[Line]:
        """What has happened, if it was to be traced."""
        return self._world.trace or []

    @property
    def lasted_ms(self) -> int:
        """The virtual time that has passed."""
        return self._world.now_ms - self._world.start_ms

    def play(self) -> dict[str, int]:
        """Play it to its end, and check it.

        Raises:
            Violation: what does not hold, and at which step.

        """
        world = self._world
        try:
            with patch.multiple("actors.replays", **SMALL_PAGES):
                self._until_all_is_quiet()
            self._check()
        except Violation as violation:
            raise Violation(f"seed {world.seed}, step {world.steps}: {violation}") from violation
        except Exception as error:  # a defect of the machinery is a violation of everything
            text = f"seed {world.seed}, step {world.steps}: {type(error).__name__}: {error}"
            raise Violation(text) from error
        return {
            "steps": world.steps,
            "virtual ms": self.lasted_ms,
            **summary(world, self._clients),
            **world.counts,
        }

    def _until_all_is_quiet(self) -> None:
        """Let everything happen, then heal; a history that is at rest, as it should be, is over."""
        world, plan = self._world, self._plan
        calm_ms = world.start_ms + plan.calm_ms
        world.run(calm_ms)
        while world.now_ms < calm_ms + HEAL_MS:
            world.run(world.now_ms + LOOK_MS)
            if not plan.patient and world.now_ms > world.busy_ms + QUIET_MS and self._holds():
                return

    def _holds(self) -> bool:
        try:
            self._check()
        except AssertionError:
            return False
        return True

    def _check(self) -> None:
        check_end(self._world, self._clients)
        check_rest(self._world)


def check_rest(world: World) -> None:
    """Nothing is stuck: whatever was queued anywhere has left its queue."""
    waiting: dict[str, object] = {}
    for gateway in world.gateways:
        stats = gateway.gateway.stats()
        waiting |= {f"{what} of {gateway.name}": stats[what] for what in ("requests", "held_frames")}
        waiting[f"commands of {gateway.name}"] = len(gateway.uplinks)
    for slot in world.hosts.values():
        if slot.process is None:
            raise Violation(f"{slot.name}: not there")
        figures = slot.process.host.stats()
        waiting |= {f"{what} of {slot.name}": figures[what] for what in HOST_QUEUES}
    stuck = {what: number for what, number in waiting.items() if number}
    if stuck:
        raise Violation(f"still waiting: {stuck}")
