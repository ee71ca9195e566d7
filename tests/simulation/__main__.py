"""``python -m tests.simulation --seeds 1000``: random histories of a whole cluster, as many as one likes.

Exits with 1 if any history violates a guarantee; each failing seed prints how to run it again.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from os import cpu_count

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tests.simulation.clients import Violation
from tests.simulation.history import run

CHUNK = 20
"""Seeds handed to a process at once: some 2 s of work."""


def play(first: int, count: int) -> tuple[dict[str, int], list[str]]:
    """The totals of these histories, and what the failing ones said."""
    totals: dict[str, int] = {}
    failures = []
    for seed in range(first, first + count):
        try:
            happened = run(seed)
        except Violation as violation:
            failures.append(str(violation))
        else:
            for what, number in happened.items():
                totals[what] = totals.get(what, 0) + number
    return totals, failures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many histories (default 200)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--processes", type=int, default=cpu_count() or 1, help="how many at once")
    options = parser.parse_args()
    console = Console()
    totals: dict[str, int] = {}
    failures: list[str] = []
    end = options.first + options.seeds
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as progress, ProcessPoolExecutor(options.processes) as pool:
        bar = progress.add_task("histories", total=options.seeds)
        chunks = {
            pool.submit(play, first, min(CHUNK, end - first)): min(CHUNK, end - first)
            for first in range(options.first, end, CHUNK)
        }
        for done in as_completed(chunks):
            happened, failed = done.result()
            failures += failed
            for what, number in happened.items():
                totals[what] = totals.get(what, 0) + number
            progress.advance(bar, chunks[done])
    for failure in failures[:5]:
        console.print(failure, markup=False, highlight=False)
    table = Table("histories", *totals, "violations")
    table.add_row(*(f"{number:,}" for number in (options.seeds, *totals.values(), len(failures))))
    console.print(table)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
