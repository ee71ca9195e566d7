"""``python -m tests.simulation --seeds 1000``: random histories of a whole cluster, as many as one likes.

Exits with 1 if any history violates a guarantee; each failing seed prints how to run it again, and the first few are
made as small as they get. ``--planted`` shows how many histories it takes to see each kind of bug.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tests.simulation.plan import draw
from tests.simulation.plants import PLANTS, SEARCH, found
from tests.simulation.report import Totals, play_all, table
from tests.simulation.shrink import explain, retrace, violation_of

EXPLAINED = 3
"""Violations of one run that are made small, which takes up to a minute each; of the others the text is shown."""


def say(console: Console, text: str) -> None:
    """Print the text as it is: its commands are to be copied."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many histories (default 200)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="how many at once")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what happened to this file")
    parser.add_argument("--only", metavar="3,7,12", help="play one seed with these of its actions only, and show all")
    parser.add_argument("--planted", action="store_true", help="plant bugs, and count the seeds until each is seen")
    return parser.parse_args(given)


def many(options: argparse.Namespace, console: Console) -> int:
    """Play them all, and show what came of it."""
    totals = Totals()
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("histories", total=options.seeds)
        for totals in play_all(options.first, options.seeds, options.processes):
            violations = f", {len(totals.violations)} violations" if totals.violations else ""
            progress.update(bar, completed=totals.histories, description=f"histories{violations}")
    for place, (seed, violation) in enumerate(totals.violations.items()):
        again = f"{violation}\nrun it again: python -m tests.simulation --first {seed} --seeds 1"
        say(console, explain(seed, violation) if place < EXPLAINED else again)
    console.print(table(totals))
    if options.json is not None:
        options.json.write_text(json.dumps(totals.as_json(), indent=2) + "\n")
    return 1 if totals.violations else 0


def one(options: argparse.Namespace, console: Console) -> int:
    """Play part of one history, and show everything that concerns what it violates."""
    plan = draw(options.first).only(tuple(int(index) for index in options.only.split(",")))
    violation = violation_of(plan)
    say(console, retrace(plan, violation or ""))
    say(console, violation or "nothing is violated")
    return 1 if violation else 0


def planted(console: Console) -> int:
    """Plant each bug, and show how many histories it takes to see it."""
    shown = Table("planted bug", "seeds needed", "what is seen")
    missed = 0
    for plant in PLANTS:
        try:
            seeds, violation = found(plant)
        except AssertionError as error:
            missed += 1
            shown.add_row(plant.name, f"more than {SEARCH}", str(error))
        else:
            shown.add_row(plant.name, str(seeds), violation.splitlines()[0])
    console.print(shown)
    return 1 if missed else 0


def main(given: Sequence[str] | None = None) -> int:
    """Run it as the command line says, or as ``given``; the exit code."""
    options, console = arguments(given), Console()
    if options.planted:
        return planted(console)
    return one(options, console) if options.only else many(options, console)


if __name__ == "__main__":
    sys.exit(main())
