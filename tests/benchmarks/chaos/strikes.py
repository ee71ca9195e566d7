"""Carrying the plan out: each strike finds its victim among what is there, breaks it, and notes what that touched."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import TypeVar

from actors.placement import Placement
from tests.benchmarks.chaos.cluster import Cluster, Part
from tests.benchmarks.chaos.people import People
from tests.benchmarks.chaos.plan import Strike
from tests.benchmarks.chaos.verdict import Kill

T = TypeVar("T")

VICTIM_WITHIN_S = 30.0
"""A strike waits so long for a victim, where all of the kind are dead already."""
LOOK_AGAIN_S = 0.2


class Strikes:
    """``executor`` has one thread, the cluster's."""

    def __init__(self, cluster: Cluster, people: People, placement: Placement, executor: Executor) -> None:
        self.kills: list[Kill] = []
        self.problems: list[str] = []
        self._cluster = cluster
        self._people = people
        self._placement = placement
        self._executor = executor

    async def carry_out(self, strikes: Sequence[Strike], began: float) -> None:
        """All of them, each at its time; a strike that takes long delays those after it."""
        for strike in strikes:
            await asyncio.sleep(max(0.0, began + strike.at_s - _now()))
            try:
                await self._strike(strike)
            except Exception as error:  # noqa: BLE001 - the run goes on, and ends with a failure
                self.problems.append(f"the strike at {strike.at_s:.1f} s ({strike.kind}) failed: {error!r}")

    async def _strike(self, strike: Strike) -> None:
        match strike.kind:
            case "host" | "gateway" | "persistence" | "api":
                await self._kill_part(strike)
            case "node":
                await self._kill_node(strike)
            case "postgres-kill":
                kill = self._note("postgres-kill", "PostgreSQL", None)
                await self._do(self._cluster.kill_postgres)
                await self._return(kill, 0.0, self._cluster.start_postgres)
            case "postgres-stop":
                kill = self._note("postgres-stop", "PostgreSQL", None)
                await self._do(self._cluster.stop_postgres)
                await self._return(kill, strike.away_s, self._cluster.start_postgres)
            case _:
                pids = await self._do(self._cluster.proxies)
                self._note("ingress", f"HAProxy {pids}", frozenset(), sockets=True)
                for pid in pids:
                    self._cluster.kill_process(pid)

    async def _kill_part(self, strike: Strike) -> None:
        victims = await self._victims(lambda: [part for part in self._cluster.parts() if part.kind == strike.kind])
        victim = victims[int(strike.draw * len(victims))]
        by_ray = strike.by_ray and victim.kind in {"host", "persistence"}
        name = f"{victim.name} on {victim.node}, by {'Ray' if by_ray else 'SIGKILL'}"
        self._note(
            strike.kind, name, self._served_by([victim]), sockets=strike.kind == "gateway", http=strike.kind == "api"
        )
        if by_ray:
            await self._do(lambda: self._cluster.kill_actor(victim.name))
        else:
            self._cluster.kill_process(victim.pid)

    async def _kill_node(self, strike: Strike) -> None:
        nodes = await self._victims(lambda: sorted(self._cluster.nodes))
        there = await self._do(self._cluster.parts)
        used = [mark for mark in nodes if any(part.node == mark for part in there)] or nodes
        mark = used[int(strike.draw * len(used))]
        parts = [part for part in there if part.node == mark]
        kinds = {part.kind for part in parts}
        what = ", ".join(part.name.rpartition("#")[2] if "#" in part.name else part.name for part in parts)
        kill = self._note(
            "node",
            f"{mark} with {what or 'nothing'}",
            self._served_by(parts),
            sockets="gateway" in kinds,
            http="api" in kinds,
        )
        await self._do(lambda: self._cluster.kill_node(mark))
        await self._return(kill, strike.away_s, self._cluster.add_node)

    async def _victims(self, find: Callable[[], list[T]]) -> list[T]:
        give_up_at = _now() + VICTIM_WITHIN_S
        while not (found := await self._do(find)):
            if _now() > give_up_at:
                raise TimeoutError(f"there was nothing to kill for {VICTIM_WITHIN_S:.0f} s")
            await asyncio.sleep(LOOK_AGAIN_S)
        return found

    async def _return(self, kill: Kill, away_s: float, bring_back: Callable[[], object]) -> None:
        await asyncio.sleep(away_s)
        await self._do(bring_back)
        kill.away_s = _now() - kill.at

    def _served_by(self, parts: Sequence[Part]) -> frozenset[str] | None:
        """The conversations that cannot be served without these; None: none can."""
        if any(part.kind == "persistence" for part in parts):
            return None
        hosts = {part.name for part in parts if part.kind == "host"}
        return frozenset(name for name in self._people.conversations if self._placement.owner(name) in hosts)

    def _note(
        self, kind: str, victim: str, conversations: frozenset[str] | None, *, sockets: bool = False, http: bool = False
    ) -> Kill:
        kill = Kill(_now(), kind, victim, conversations, sockets, http)
        self.kills.append(kill)
        return kill

    async def _do(self, act: Callable[[], T]) -> T:
        """Something that blocks, in the cluster's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, act)


def _now() -> float:
    """The clock of asyncio's loop, and of `Sent`."""
    return time.monotonic()
