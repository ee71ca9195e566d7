"""Many histories, in several processes, and what came of them: totals, rate and violations, as a table or as JSON.

What happens in a history depends on its seed alone, and totals are sums: so neither depends on the number of processes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context

from rich.table import Table

from tests.simulation.clients import Violation
from tests.simulation.history import run

CHUNK = 20
"""Seeds handed to a process at once: about a second of work."""
ORDER = (
    *("steps", "virtual ms", "entries", "acks", "frames shown", "sockets", "resumes", "overflows", "missed notices"),
    *("killed hosts", "killed gateways", "killed writers", "deaths together"),
    *("frozen hosts", "frozen gateways", "frozen writers", "zombie hosts", "zombie writers", "split views", "moves"),
    *("fenced appends", "refused epochs", "failed commits", "blind commits", "stalls", "failed reads"),
    *("lost calls", "lost answers", "late calls", "repeated calls"),
)
"""The lines of the table; what else was counted follows."""


@dataclass
class Totals:
    """What became of a number of histories."""

    histories: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    violations: dict[int, str] = field(default_factory=dict)
    """By seed, in order."""
    seconds: float = 0.0

    def add(self, other: Totals) -> None:
        self.histories += other.histories
        for what, number in other.counts.items():
            self.counts[what] = self.counts.get(what, 0) + number
        self.violations = dict(sorted((self.violations | other.violations).items()))

    def lines(self) -> list[tuple[str, int]]:
        """What was counted, in the order of the table."""
        rest = sorted(set(self.counts) - set(ORDER))
        return [
            (what, self.counts.get(what, 0)) for what in (*ORDER, *rest) if what in self.counts or what in ORDER[:6]
        ]

    def as_json(self) -> dict[str, object]:
        violations = [{"seed": seed, "text": text} for seed, text in self.violations.items()]
        about = {"histories": self.histories, "seconds": round(self.seconds, 1), "per_second": round(self.rate, 1)}
        return {**about, **dict(self.lines()), "violations": violations}

    @property
    def rate(self) -> float:
        """Histories a second."""
        return self.histories / self.seconds if self.seconds else 0.0


def play(first: int, count: int) -> Totals:
    """The histories of these seeds, in this process."""
    totals = Totals(count)
    for seed in range(first, first + count):
        try:
            happened = run(seed)
        except Violation as violation:
            totals.violations[seed] = str(violation)
        else:
            for what, number in happened.items():
                totals.counts[what] = totals.counts.get(what, 0) + number
    return totals


def play_all(first: int, count: int, processes: int) -> Iterator[Totals]:
    """The totals of everything so far, again and again until all is done."""
    totals, end = Totals(), first + count
    start = time.monotonic()
    with ProcessPoolExecutor(processes, mp_context=get_context("fork")) as pool:
        chunks = [pool.submit(play, at, min(CHUNK, end - at)) for at in range(first, end, CHUNK)]
        for done in as_completed(chunks):
            totals.add(done.result())
            totals.seconds = time.monotonic() - start
            yield totals


def table(totals: Totals) -> Table:
    """What happened, for people."""
    shown = Table("what", "number")
    shown.columns[1].justify = "right"
    shown.add_row("histories", f"{totals.histories:,}")
    for what, number in totals.lines():
        if what == "virtual ms":
            shown.add_row("virtual time", f"{number / 3_600_000:,.1f} h")
        else:
            shown.add_row(what, f"{number:,}")
    shown.add_row("violations", f"{len(totals.violations):,}")
    shown.add_row("histories a second", f"{totals.rate:,.1f}")
    return shown
