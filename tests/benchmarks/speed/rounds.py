"""Playing the scenarios against both servers in turns, each server new for each scenario, on one PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from fastsock.bench.scenarios import Bench, Result
from fastsock.bench.targets import Started, Target, plan_rooms
from tests.benchmarks.speed.baseline import Baseline
from tests.benchmarks.speed.compare import DM_AT_THEIRS
from tests.postgres import PostgresServer

OURS, THEIRS = "fastsock", "redis baseline"
PAIRS = 500
ROOM = 50
START_AGAIN = 0.6
"""Of the best rate of the round before: where a search begins."""
FIRST = {OURS: {"fanout": 60_000.0, "dm": 2_000.0}, THEIRS: {"fanout": 15_000.0, "dm": 600.0}}
"""Where the first round begins: deliveries and messages a second."""

Shown = Callable[[str], None]


class Play(NamedTuple):
    """One scenario in one shape."""

    name: str
    kind: str
    people: int
    rooms: list[list[int]]

    @property
    def copies(self) -> int:
        return len(self.rooms[0]) if self.kind == "fanout" else 1


def plays(sockets: int) -> dict[str, Play]:
    """All that can be played; ``sockets`` of idle and reconnect."""
    found = [
        Play("fanout 10x50", "fanout", 500, plan_rooms(10, 50, 500)),
        Play("fanout 1x500", "fanout", 500, plan_rooms(1, 500, 500)),
        Play("dm", "dm", 2 * PAIRS, []),
        Play("idle", "idle", sockets, []),
        Play("reconnect", "reconnect", sockets, plan_rooms(sockets // ROOM, ROOM, sockets)),
    ]
    return {play.name: play for play in found}


class Rounds:
    """Both servers' results so far."""

    def __init__(self, postgres: PostgresServer, seconds: float, options: Sequence[str], shown: Shown) -> None:
        self._postgres = postgres
        self._seconds = seconds
        self._options = options
        self._shown = shown
        self.results: dict[str, dict[str, list[Result]]] = {OURS: {}, THEIRS: {}}

    @contextmanager
    def server(self, who: str, people: int, rooms: Sequence[Sequence[int]], *options: str) -> Iterator[Target]:
        """A server of this kind, on an empty database."""
        url = self._postgres.create_database()
        with TemporaryDirectory(prefix="fastsock-speed-") as folder:
            about = Path(folder), people, rooms, url
            try:
                if who == THEIRS:
                    with Baseline(*about, self._postgres.processes) as baseline:
                        yield baseline
                else:
                    every = (*self._options, *options)
                    with Started(*about, every, self._postgres.processes) as started:
                        yield started
            finally:
                self._postgres.drop_database(url)

    def play(self, who: str, play: Play) -> None:
        """One scenario against one of them."""
        self._shown(f"{who} · {play.name} · starting")
        with self.server(who, play.people, play.rooms) as target:
            bench = Bench(target, self._seconds, lambda text: self._shown(f"{who} · {play.name} · {text}"))
            if play.kind == "fanout":
                result = bench.fanout(self._first(who, play))
            elif play.kind == "dm":
                result = bench.dm(self._first(who, play))
                self._keep(who, "dm", result)
                rate = self._their_rate()
                if rate is not None:
                    self._keep(who, DM_AT_THEIRS, bench.dm(rate, [rate]))
                return
            else:
                result = bench.idle() if play.kind == "idle" else bench.reconnect()
        self._keep(who, play.name, result)

    def _keep(self, who: str, name: str, result: Result) -> None:
        self.results[who].setdefault(name, []).append(result)

    def _first(self, who: str, play: Play) -> float:
        """Messages a second with which to begin."""
        before = self.results[who].get(play.name)
        best = before[-1].best() if before else None
        return FIRST[who][play.kind] / play.copies if best is None else START_AGAIN * best.rate_per_s

    def _their_rate(self) -> float | None:
        """Where the baseline's last ``dm`` was saturated: the lowest rate that it did not sustain."""
        theirs = self.results[THEIRS].get("dm")
        if not theirs:
            return None
        beyond = [step.rate_per_s for step in theirs[-1].steps[1:] if not step.sustained]
        return min(beyond, default=theirs[-1].steps[-1].rate_per_s)
