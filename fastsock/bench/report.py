"""What a benchmark shows: tables, JSON, and a plot of latency over rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from fastsock.bench.scenarios import P99_LIMIT_MS, Result, StepResult

SHOWN_KINDS = 6
WIDTH, HEIGHT, MARGIN = 760, 360, 60
STYLE = "font:12px sans-serif;background:white"
COLOURS = ("#2563eb", "#dc2626", "#16a34a", "#9333ea", "#ea580c", "#0891b2")


def show(console: Console, results: Sequence[Result]) -> None:
    """Print a table for each."""
    for result in results:
        about = ", ".join(f"{name} {value:g}" for name, value in result.about.items())
        title = f"{result.scenario} · {result.target} · {about}"
        console.print(_steps(title, result) if result.steps else _figures(title, result))
        faults = {name: number for name, number in result.faults().items() if number}
        if faults:
            console.print(f"[red]faults: {faults}[/]")
        best = result.best()
        if best is not None and result.steps:
            unit = "delivery" if result.scenario == "fanout" else "message"
            kinds = ", ".join(f"{kind} {used:.1f}" for kind, used in list(best.cpu_us.items())[:SHOWN_KINDS])
            console.print(f"  server CPU per {unit} at the best rate: {best.total_cpu_us:.1f} us ({kinds})")


def _steps(title: str, result: Result) -> Table:
    table = Table(title=title, title_justify="left")
    for name in ("messages/s", "deliveries/s", "p50 ms", "p99 ms", "max ms", "ack p50", "ack p99"):
        table.add_column(name, justify="right")
    for name in ("CPU us", "crowd us", "refused", ""):
        table.add_column(name, justify="right")
    for step in result.steps:
        counted = step.counted
        crowd_us = 1e6 * counted.crowd_cpu_s / max(counted.deliveries, 1)
        table.add_row(
            f"{step.rate_per_s:,.0f}",
            f"{step.deliveries_per_s:,.0f}",
            f"{counted.delivery.p50_ms:.1f}",
            f"{counted.delivery.p99_ms:.1f}",
            f"{counted.delivery.max_ms:.0f}",
            f"{counted.ack.p50_ms:.1f}",
            f"{counted.ack.p99_ms:.1f}",
            f"{step.total_cpu_us:.1f}",
            f"{crowd_us:.1f}",
            f"{sum(counted.refused.values()):,}",
            "[green]sustained[/]" if step.sustained else "[yellow]not sustained[/]",
        )
    return table


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


def write_json(path: Path, results: Sequence[Result]) -> None:
    """Everything, for other programs."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(list(results)), indent=1))


def write_plot(path: Path, results: Sequence[Result]) -> None:
    """Latency (p99) over deliveries a second, one line for each scenario and target, as SVG."""
    lines = [(f"{one.scenario} · {one.target}", sorted(one.steps, key=lambda step: step.rate_per_s)) for one in results]
    lines = [(name, steps) for name, steps in lines if steps]
    most = max((step.deliveries_per_s for _, steps in lines for step in steps), default=1.0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT + 20 * len(lines)}" style="{STYLE}">',
        f'<text x="{MARGIN}" y="20">p99 of a delivery, ms (dashed: the limit), over deliveries a second</text>',
    ]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = _x(share * most, most), _y(share * 2 * P99_LIMIT_MS)
        parts += [
            f'<text x="{x}" y="{HEIGHT - MARGIN + 18}" text-anchor="middle">{share * most:,.0f}</text>',
            f'<text x="{MARGIN - 8}" y="{y + 4}" text-anchor="end">{share * 2 * P99_LIMIT_MS:.0f}</text>',
            f'<line x1="{MARGIN}" x2="{WIDTH - 20}" y1="{y}" y2="{y}" stroke="#e5e7eb"/>',
        ]
    limit = _y(P99_LIMIT_MS)
    parts.append(
        f'<line x1="{MARGIN}" x2="{WIDTH - 20}" y1="{limit}" y2="{limit}" stroke="#888" stroke-dasharray="4"/>'
    )
    for index, (name, steps) in enumerate(lines):
        colour = COLOURS[index % len(COLOURS)]
        points = [(_x(step.deliveries_per_s, most), _y(step.counted.delivery.p99_ms)) for step in steps]
        path_of = " ".join(f"{x},{y}" for x, y in points)
        parts.append(f'<polyline points="{path_of}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x}" cy="{y}" r="4" fill="{colour if step.sustained else "white"}" stroke="{colour}"/>'
            for (x, y), step in zip(points, steps, strict=True)
        ]
        y = HEIGHT + 20 * index
        parts.append(f'<text x="{MARGIN}" y="{y}" fill="{colour}">{name} (filled: sustained)</text>')
    path.write_text("\n".join([*parts, "</svg>", ""]))


def _x(value: float, most: float) -> float:
    return round(MARGIN + (WIDTH - MARGIN - 20) * value / most, 1)


def _y(ms: float) -> float:
    return round(HEIGHT - MARGIN - (HEIGHT - MARGIN - 40) * min(ms / (2 * P99_LIMIT_MS), 1.0), 1)


def failed(results: Sequence[Result]) -> bool:
    """Whether anything that must be 0 is not."""
    return any(any(result.faults().values()) for result in results)


def best_line(step: StepResult | None) -> str:
    """One rate in a line."""
    if step is None:
        return "no rate was sustained"
    return f"{step.deliveries_per_s:,.0f} deliveries/s at {step.total_cpu_us:.1f} us"
