"""``fastsock bench``, as the command line calls it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from fastsock.bench.report import failed, show, write_json, write_plot
from fastsock.bench.scenarios import Bench, Result
from fastsock.bench.targets import Running, Started, Target, plan_rooms

SCENARIOS = ("fanout", "dm", "idle", "reconnect")
FIRST_FANOUT_PER_S = 20_000.0
"""Deliveries a second of the first step."""
FIRST_DM_PER_S = 400.0


class Plan(NamedTuple):
    """What to play."""

    scenarios: Sequence[str] = SCENARIOS
    rooms: int = 10
    members: int = 50
    sockets: int = 1_000
    """Of ``idle`` and ``reconnect``."""
    pairs: int = 500
    """Of ``dm``."""
    seconds: float = 8.0
    """Of each rate."""
    rates: Sequence[float] = ()
    """Messages a second, instead of a search."""

    def people(self, scenario: str) -> int:
        return {"fanout": self.rooms * self.members, "dm": 2 * self.pairs}.get(scenario, self.sockets)

    def layout(self, scenario: str) -> list[list[int]]:
        """The rooms of a scenario."""
        if scenario == "fanout":
            return plan_rooms(self.rooms, self.members, self.people(scenario))
        if scenario == "reconnect":
            return plan_rooms(max(1, self.sockets // self.members), self.members, self.sockets)
        return []


def play(target: Target, scenario: str, plan: Plan, progress: Progress) -> Result:
    """One scenario against one server."""
    line = progress.add_task(f"{scenario} · {target.name}", total=None)

    def shown(text: str) -> None:
        progress.update(line, description=f"{scenario} · {target.name} · {text}")

    bench = Bench(target, plan.seconds, shown)
    try:
        if scenario == "fanout":
            return bench.fanout(FIRST_FANOUT_PER_S / plan.members, plan.rates)
        if scenario == "dm":
            return bench.dm(FIRST_DM_PER_S, plan.rates)
        return bench.idle() if scenario == "idle" else bench.reconnect()
    finally:
        progress.remove_task(line)


def bars(console: Console) -> Progress:
    return Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console)


def run(
    plan: Plan,
    url: str | None,
    database_url: str | None,
    options: Sequence[str],
    json_file: Path | None,
    plot_file: Path | None,
) -> int:
    """Play, show, write; the exit status: 1 if a delivery was lost, doubled or out of order.

    ``url``: a server that runs; None: one is started for each scenario, on SQLite or on an empty ``database_url``.

    Raises:
        TargetError: there is no server to measure.
        CrowdError: the clients could not do what they should.

    """
    console = Console()
    results: list[Result] = []
    with bars(console) as progress:
        for scenario in plan.scenarios:
            with ExitStack() as stack:
                people, rooms = plan.people(scenario), plan.layout(scenario)
                line = progress.add_task(f"{scenario} · {people:,} people", total=people if url else None)
                target: Target
                if url is not None:
                    target = Running(url, people, rooms, lambda line=line: progress.advance(line))  # type: ignore[misc]
                else:
                    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastsock-bench-")))
                    target = stack.enter_context(Started(directory, people, rooms, database_url, options))
                progress.remove_task(line)
                results.append(play(target, scenario, plan, progress))
    show(console, results)
    if url is not None:
        console.print("Processor time and memory are known only of a server that the benchmark has started itself.")
    if json_file is not None:
        write_json(json_file, results)
    if plot_file is not None:
        write_plot(plot_file, results)
    return 1 if failed(results) else 0
