"""``python -m tests.benchmarks.chaos``: the program. Exits with 0 if nothing is violated, with 1 if anything is.

The head node of Ray is never killed: it holds the GCS, which Ray brings back only where it has Redis.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import shutil
import signal
import sys
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from tests.benchmarks.chaos import database, report
from tests.benchmarks.chaos.cluster import Cluster, Shape
from tests.benchmarks.chaos.people import People, Size
from tests.benchmarks.chaos.plan import EVERY_S, KINDS, plan
from tests.benchmarks.chaos.report import Run
from tests.benchmarks.chaos.strikes import Strikes
from tests.benchmarks.chaos.verdict import judge, outage

ARTIFACTS = Path(__file__).parents[3] / "artifacts" / "chaos"
SETTLE_WITHIN_S = 120.0
"""Longer than any timeout: a node's death (16 s until Ray sees it), a request (20 s), a client's backoff (20 s)."""
CALM_S = 3.0
"""Load after the last strike."""
LINE_EVERY_S = 10.0
LINE_CHARS = 110
"""Both where there is no terminal."""
LOOK_S = 0.25


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long there is load (default 10)")
    parser.add_argument("--seed", type=int, default=1, help="what is broken when, and who talks (default 1)")
    parser.add_argument("--every", type=float, default=EVERY_S, help="seconds between kills, on average (default 7)")
    parser.add_argument("--only", action="append", choices=list(KINDS), help="kill only this kind; may be repeated")
    parser.add_argument("--rate", type=float, default=30.0, help="messages per second, of all together (default 30)")
    parser.add_argument("--people", type=int, default=20, help="at least 8 (default 20)")
    parser.add_argument("--nodes", type=int, default=3, help="Ray nodes beside the head (default 3)")
    parser.add_argument("--hosts", type=int, default=3, help="host actors (default 3)")
    parser.add_argument("--gateways", type=int, default=2, help="gateway replicas (default 2)")
    parser.add_argument("--api", type=int, default=2, help="API replicas (default 2)")
    parser.add_argument("--json", type=Path, help="write the figures into this file as well")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    console = Console(highlight=False, file=sys.stdout, width=None if sys.stdout.isatty() else LINE_CHARS)
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
        # Ray tells of every process that dies, at length, and cannot be told not to.
        return _break_and_judge(options, console)


def _break_and_judge(options: argparse.Namespace, console: Console) -> int:
    cluster = Cluster(Shape(options.nodes, options.hosts, options.gateways, options.api), ARTIFACTS / "logs")
    run = None
    # Ray's processes end with the thread that has started them, so there is one that lives to the end.
    with ThreadPoolExecutor(1, "cluster") as executor:
        try:
            run = asyncio.run(_interruptible(options, console, cluster, executor))
        except asyncio.CancelledError:
            console.print("interrupted; stopping ...")
        finally:
            left = executor.submit(cluster.stop).result()
            shutil.rmtree(cluster.directory, ignore_errors=True)
    for process in left:
        console.print(f"still running: {process}")
    if run is None:
        return 130
    run.problems.extend(f"left running: {process}" for process in left)
    _tell(run, options.json, console)
    return 1 if run.failed else 0


async def _interruptible(options: argparse.Namespace, console: Console, cluster: Cluster, executor: Executor) -> Run:
    """`_run`, which Ctrl-C and SIGTERM end in order, wherever it is."""
    task = asyncio.create_task(_run(options, console, cluster, executor))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await task


async def _run(options: argparse.Namespace, console: Console, cluster: Cluster, executor: Executor) -> Run:
    await _start(cluster, executor, console)
    url = cluster.database_url
    size = Size(people=options.people, messages_per_s=options.rate)
    people = People(cluster.url, options.seed, size)
    strikes = Strikes(cluster, people, await database.placement(url), executor)
    duration_s = options.minutes * 60
    planned = plan(options.seed, duration_s - CALM_S, options.every, options.only or list(KINDS))
    try:
        await people.gather()
        began = time.monotonic()
        watching = asyncio.create_task(_watch(console, people, strikes, len(planned), began, duration_s))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(people.talk(began + duration_s))
                group.create_task(strikes.carry_out(planned, began))
            ended = time.monotonic()
            settled = await people.settle(lambda: database.heads(url), SETTLE_WITHIN_S)
            settled_s = time.monotonic() - ended if settled else None
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
    finally:
        await people.leave()
    if people.failure is not None:
        strikes.problems.append(f"the load has failed: {people.failure!r}")
    return Run(
        seed=options.seed,
        duration_s=ended - began,
        began=began,
        settled_s=settled_s,
        verdict=judge(await database.log(url), people.sent, people.devices),
        outages=[outage(kill, people.sent, people.devices, people.requests) for kill in strikes.kills],
        sent=people.sent,
        devices=len(people.devices),
        reconnects=sum(len(device.downs) for device in people.devices),
        retried=people.retried,
        problems=strikes.problems,
    )


async def _start(cluster: Cluster, executor: Executor, console: Console) -> None:
    steps = cluster.start()
    loop, began = asyncio.get_running_loop(), time.monotonic()
    while (step := await loop.run_in_executor(executor, next, steps, None)) is not None:
        console.print(f"{time.monotonic() - began:5.1f} s  starting {step}")
    console.print(f"{time.monotonic() - began:5.1f} s  people come in")


# --- telling -------------------------------------------------------------------------------------------------------


async def _watch(
    console: Console, people: People, strikes: Strikes, planned: int, began: float, duration_s: float
) -> None:
    """Show how it goes, until cancelled: a bar and a line, or where there is no terminal, a line now and then."""

    def line() -> str:
        last = strikes.kills[-1] if strikes.kills else None
        text = f"{len(people.sent):,} sent, {people.outstanding:,} on their way, {len(strikes.kills)}/{planned} kills"
        return text if last is None else f"{text}; last: {last.kind} {last.victim}"

    def shown() -> Table:
        done_s = min(time.monotonic() - began, duration_s)
        table = Table.grid(padding=(0, 1))
        clock = f"{done_s // 60:.0f}:{done_s % 60:02.0f}"
        table.add_row(clock, ProgressBar(duration_s, done_s, width=30), line())
        return table

    if not console.is_terminal:
        while True:
            await asyncio.sleep(LINE_EVERY_S)
            console.print(f"{time.monotonic() - began:5.0f} s  {line()}", soft_wrap=True)
    with Live(shown(), console=console, auto_refresh=False, transient=True) as live:
        while True:
            await asyncio.sleep(LOOK_S)
            live.update(shown(), refresh=True)


def _tell(run: Run, file: Path | None, console: Console) -> None:
    console.print(report.sums(run))
    console.print(report.outages(run))
    for text in (*run.problems, *run.verdict.violations[: report.SHOWN_VIOLATIONS]):
        console.print(text, markup=False, soft_wrap=True)
    if len(run.verdict.violations) > report.SHOWN_VIOLATIONS:
        console.print(f"... and {len(run.verdict.violations) - report.SHOWN_VIOLATIONS} more")
    picture = ARTIFACTS / f"chaos-{run.seed}.svg"
    picture.write_text(report.picture(run))
    figures = json.dumps(report.as_json(run), indent=1) + "\n"
    for place in (ARTIFACTS / f"chaos-{run.seed}.json", *([] if file is None else [file])):
        place.write_text(figures)
    console.print(f"{'VIOLATED' if run.failed else 'nothing violated'}; the picture is {picture}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
