"""``python -m tests.benchmarks.speed``: FastSock beside the usual server. Exit status 1 on a lost delivery.

Both run on this machine, one after the other, on the same PostgreSQL (fsync on), with the clients on the same cores; so
it is the ratios that mean something. A whole run of three rounds takes about an hour; at its end, growth shows what a
message costs FastSock as rooms and hosts become more.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from fastsock.bench import report
from fastsock.bench.run import bars
from fastsock.bench.scenarios import Result
from tests.benchmarks.speed import growth
from tests.benchmarks.speed.compare import DM_AT_THEIRS, Row, rows
from tests.benchmarks.speed.rounds import OURS, THEIRS, Rounds, plays
from tests.postgres import PostgresServer

ARTIFACTS = Path(__file__).parents[3] / "artifacts" / "speed"
LINE_CHARS = 120


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.speed", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="medians are of so many (default 3)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each rate (default 6)")
    parser.add_argument("--sockets", type=int, default=5_000, help="of idle and reconnect (default 5,000)")
    scenarios = [*plays(5_000), growth.NAME]
    parser.add_argument("--only", action="append", choices=scenarios, help="may be repeated (default all)")
    parser.add_argument(
        "--growth-rate", type=float, default=growth.RATE_PER_S, help="of growth: messages/s in all (default 500)"
    )
    parser.add_argument("--ours", action="store_true", help="leave the baseline out")
    parser.add_argument("--serve-option", action="append", default=[], help="for fastsock serve; may be repeated")
    options = parser.parse_args()
    if not 0 < options.growth_rate <= growth.most_per_s():
        parser.error(f"--growth-rate {options.growth_rate:g}: above 0 and at most {growth.most_per_s():g}")
    return options


def main() -> int:
    options = arguments()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else LINE_CHARS)
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    beside = "beside-hosts" in " ".join(options.serve_option)
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(PostgresServer(own=True, durable=True))
        progress = stack.enter_context(bars(console))
        line = progress.add_task("", total=None)

        def shown(text: str) -> None:
            progress.update(line, description=text)

        rounds = Rounds(postgres, options.seconds, options.serve_option, shown)
        chosen = [play for name, play in plays(options.sockets).items() if not options.only or name in options.only]
        for number in range(1, options.rounds + 1 if chosen else 1):
            for play in chosen:
                for who in (OURS,) if options.ours else (THEIRS, OURS):
                    rounds.play(who, play)
                    last = [found[-1] for name, found in rounds.results[who].items() if name.startswith(play.name)]
                    report.show(progress.console, last)
            progress.console.print(f"round {number} of {options.rounds} is over")
        grown: list[growth.Point] = []
        if not options.only or growth.NAME in options.only:
            grown = growth.measure(rounds, options.growth_rate, options.seconds, shown)
    found = [result for by_name in rounds.results.values() for results in by_name.values() for result in results]
    compared = rows(rounds.results[OURS], rounds.results[THEIRS], beside)
    written = [ARTIFACTS / "speed.json"]
    about = {
        "results": found,
        "rows": [row._asdict() | {"ratio": row.ratio} for row in compared],
        growth.NAME: grown,
    }
    written[0].write_bytes(msgspec.json.format(msgspec.json.encode(about), indent=1))
    if found:
        console.print(_table(compared, options.rounds))
        written.append(ARTIFACTS / "speed.svg")
        report.write_plot(written[-1], _last(rounds.results))
    if grown:
        console.print(growth.table(grown))
        written.append(ARTIFACTS / "growth.svg")
        growth.write_plot(written[-1], grown)
    console.print("written: " + ", ".join(map(str, written)))
    ours = [result for results in rounds.results[OURS].values() for result in results]
    return 1 if report.failed([*ours, *(one.result for one in grown)]) else 0


def _last(results: dict[str, dict[str, list[Result]]]) -> list[Result]:
    """Of each scenario the last round; ``dm`` once more at the other's rate is a point of a line that is there."""
    every = ((name, found) for by_name in results.values() for name, found in by_name.items())
    return [found[-1] for name, found in every if name != DM_AT_THEIRS]


def _table(compared: list[Row], rounds: int) -> Table:
    table = Table(title=f"medians of {rounds}", title_justify="left")
    table.add_column("")
    for name in (OURS, THEIRS, "ratio", "wanted", ""):
        table.add_column(name, justify="right")
    for row in compared:
        verdict = "" if row.fine is None else "[green]yes[/]" if row.fine else "[red]no[/]"
        ours, theirs = (f"{value:,.1f} {row.unit}" for value in (row.ours, row.theirs))
        table.add_row(row.name, ours, theirs, f"{row.ratio:.2f}", row.wanted, verdict)
    return table


if __name__ == "__main__":
    sys.exit(main())
