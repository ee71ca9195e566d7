"""What a benchmark shows: tables, JSON, and a plot of latency over rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from fastsock.bench import plot
from fastsock.bench.scenarios import P99_LIMIT_MS, Result, StepResult

SHOWN_KINDS = 6
WIDTH, LEFT, RIGHT, TOP, BOTTOM = 760, 64, 720, 70, 380
LEGEND_TOP, LEGEND_ROW = 446, 20
UNLIMITED = 10_000
"""Columns of a console that no table fills."""


def show(console: Console, results: Sequence[Result]) -> None:
    """Print a table for each."""
    for result in results:
        title = title_of(result)
        console.print(_steps(console, title, result) if result.steps else _figures(title, result))
        faults = {name: number for name, number in result.faults().items() if number}
        if faults:
            console.print(f"[red]faults: {faults}[/]")
        best = result.best()
        if best is not None and best.cpu_us:
            unit = "delivery" if result.scenario == "fanout" else "message"
            kinds = ", ".join(f"{kind} {used:.1f}" for kind, used in list(best.cpu_us.items())[:SHOWN_KINDS])
            console.print(f"  server CPU per {unit} at the best rate: {best.total_cpu_us:.1f} us ({kinds})")


def title_of(result: Result) -> str:
    """What was played, against which server, and how large."""
    about = ", ".join(f"{name} {value:,}" for name, value in result.about.items())
    return " · ".join(filter(None, (result.scenario, result.target, about)))


# --- tables ----------------------------------------------------------------------------------------------------------


class _Column(NamedTuple):
    """One figure of each step."""

    name: str
    shown: Callable[[StepResult], str]
    spare: int = 0
    """Where the console is too narrow for all, the columns with the highest numbers are left out; 0: never."""


COLUMNS = (
    _Column("messages\n/s", lambda step: f"{step.rate_per_s:,.0f}"),
    _Column("deliveries\n/s", lambda step: f"{step.deliveries_per_s:,.0f}"),
    _Column("p50\nms", lambda step: f"{step.counted.delivery.p50_ms:.1f}"),
    _Column("p99\nms", lambda step: f"{step.counted.delivery.p99_ms:.1f}"),
    _Column("max\nms", lambda step: f"{step.counted.delivery.max_ms:.0f}", spare=3),
    _Column("ack p50\nms", lambda step: f"{step.counted.ack.p50_ms:.1f}", spare=4),
    _Column("ack p99\nms", lambda step: f"{step.counted.ack.p99_ms:.1f}", spare=2),
    _Column("CPU\nus", lambda step: f"{step.total_cpu_us:.1f}" if step.cpu_us else "?"),
    _Column("crowd\nus", lambda step: f"{_crowd_us(step):.1f}", spare=5),
    _Column("refused", lambda step: f"{sum(step.counted.refused.values()):,}", spare=1),
    _Column("sus-\ntained", lambda step: "[green]yes[/]" if step.sustained else "[yellow]no[/]"),
)


def _crowd_us(step: StepResult) -> float:
    """What a delivery costs the clients' process."""
    return 1e6 * step.counted.crowd_cpu_s / max(step.counted.deliveries, 1)


def _steps(console: Console, title: str, result: Result) -> Table:
    """A row for each rate, with as many columns as there is room for."""
    columns: Sequence[_Column] = COLUMNS
    while True:
        table = Table(title=title, title_justify="left")
        for column in columns:
            table.add_column(column.name, justify="right", overflow="fold")
        for step in result.steps:
            table.add_row(*(column.shown(step) for column in columns))
        most = max(column.spare for column in columns)
        wide = Measurement.get(console, console.options.update_width(UNLIMITED), table).maximum
        if wide <= console.width or most == 0:
            return table
        columns = [column for column in columns if column.spare < most]


def _figures(title: str, result: Result) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in result.figures.items():
        if isinstance(value, dict):
            shown = ", ".join(f"{key} {_number(part)}" for key, part in value.items())
        else:
            shown = _number(value)
        table.add_row(name, shown)
    return table


def _number(value: object) -> str:
    return f"{value:,.1f}" if isinstance(value, float) else str(value)


# --- files -----------------------------------------------------------------------------------------------------------


def write_json(path: Path, results: Sequence[Result]) -> None:
    """Everything, for other programs."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(list(results)), indent=1))


def write_plot(path: Path, results: Sequence[Result]) -> None:
    """Latency (p99) over deliveries a second, one line for each result, as SVG.

    Both axes are logarithmic: pairs get hundreds of deliveries a second and rooms a hundred thousand, a latency is 2 ms
    at rest and seconds beyond what a server can do. A step with no delivery has no latency, and is left out.
    """
    lines = [(title_of(one), sorted(one.steps, key=lambda step: step.rate_per_s)) for one in results]
    lines = [(name, [step for step in steps if step.deliveries_per_s > 0]) for name, steps in lines]
    lines = [(name, steps) for name, steps in lines if steps]
    every = [step for _, steps in lines for step in steps]
    x = plot.log_scale([step.deliveries_per_s for step in every] or [1.0], LEFT, RIGHT)
    y = plot.log_scale([P99_LIMIT_MS, *(step.counted.delivery.p99_ms for step in every)], BOTTOM, TOP)
    limit = y.at(P99_LIMIT_MS)
    parts = [
        plot.text(LEFT - 44, 24, "How long a delivery takes, as the rate rises", style="font-size:15px"),
        *plot.x_axis(x, TOP, BOTTOM, "deliveries a second (logarithmic)"),
        *plot.y_axis(y, LEFT, RIGHT, "p99 of a delivery, ms (logarithmic)"),
        f'<line x1="{LEFT}" x2="{RIGHT}" y1="{limit}" y2="{limit}" stroke="{plot.INK}" stroke-dasharray="4"/>',
        plot.text(LEFT + 6, limit - 5, f"limit: {P99_LIMIT_MS:g} ms"),
    ]
    for index, (name, steps) in enumerate(lines):
        colour = plot.COLOURS[index % len(plot.COLOURS)]
        points = [(x.at(step.deliveries_per_s), y.at(step.counted.delivery.p99_ms)) for step in steps]
        path_of = " ".join(f"{across},{up}" for across, up in points)
        parts.append(f'<polyline points="{path_of}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{across}" cy="{up}" r="4" fill="{colour if step.sustained else "white"}" stroke="{colour}"/>'
            for (across, up), step in zip(points, steps, strict=True)
        ]
        row = LEGEND_TOP + LEGEND_ROW * index
        parts.append(f'<rect x="{LEFT}" y="{row - 5}" width="22" height="3" fill="{colour}"/>')
        parts.append(plot.text(LEFT + 30, row, name))
    row = LEGEND_TOP + LEGEND_ROW * len(lines)
    parts.append(plot.text(LEFT, row, "filled points: the rate was sustained; hollow: it was not"))
    path.write_text(plot.document(WIDTH, row + LEGEND_ROW, parts))


def failed(results: Sequence[Result]) -> bool:
    """Whether anything that must be 0 is not."""
    return any(any(result.faults().values()) for result in results)
