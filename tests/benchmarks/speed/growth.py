"""What a message costs the server when the same rate is spread over more rooms, and over more hosts.

A server whose work spreads pays the same for a message at 10 and at 1,000 rooms; what hosts add is what they pay for
talking to gateways and writer in smaller batches, and for being there. FastSock only, once, a new server for each size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from rich.table import Table

from fastsock.bench import plot
from fastsock.bench.scenarios import SENDS_PER_S, Bench, Result
from fastsock.bench.targets import plan_rooms
from tests.benchmarks.speed.rounds import OURS, Rounds

NAME = "growth"
RATE_PER_S = 500.0
"""Messages a second, in all rooms together."""
MEMBERS = 5
"""Of each room."""
MOST_SOCKETS = 2_000
"""From 400 rooms on people are in several rooms; at 1,000 rooms in 2 or 3."""
OVER_ROOMS = ((10, 1), (100, 1), (1_000, 1))
"""Rooms and hosts."""
OVER_HOSTS = ((100, 1), (100, 2), (100, 4))
SIZES = tuple(dict.fromkeys(OVER_ROOMS + OVER_HOSTS))

PLOT_KINDS = 7
"""Kinds of process with a colour of their own; the rest is one more."""
REST = "rest"
WIDTH, TOP, BOTTOM = 860, 80, 370
PANELS = ((64, 420), (470, 826))
BAR, LABEL_PX = 64, 15
"""A bar's width, and the height from which on a part of it has room for its number."""


class Point(msgspec.Struct, frozen=True):
    """A server of one size."""

    rooms: int
    hosts: int
    sockets: int
    rate_per_s: float
    cpu_us: dict[str, float]
    """Server's processor time a message, by kind of process: all that was used while messages were sent."""
    p50_ms: float
    """Of a delivery."""
    p99_ms: float
    sustained: bool
    result: Result

    @property
    def total_us(self) -> float:
        return sum(self.cpu_us.values())


def people(rooms: int) -> int:
    """Who is needed for so many rooms."""
    return min(rooms * MEMBERS, MOST_SOCKETS)


def most_per_s() -> float:
    """The highest rate that the people of the smallest size may send."""
    return SENDS_PER_S * min(people(rooms) for rooms, _ in SIZES)


def point(rooms: int, hosts: int, result: Result) -> Point:
    """What a ``fanout`` of one rate says: its cost is that of a delivery, and a message is delivered to each member."""
    [step] = result.steps
    cpu_us = {kind: used * result.about["members"] for kind, used in step.cpu_us.items()}
    latency = step.counted.delivery
    return Point(
        rooms,
        hosts,
        result.about["sockets"],
        step.rate_per_s,
        cpu_us,
        latency.p50_ms,
        latency.p99_ms,
        step.sustained,
        result,
    )


def measure(rounds: Rounds, rate_per_s: float, seconds: float, shown: Callable[[str], None]) -> list[Point]:
    """All sizes, one after the other."""
    points = []
    for rooms, hosts in SIZES:
        about = f"{NAME} · {rooms:,} rooms, {hosts} hosts"
        shown(f"{about} · starting")
        layout = plan_rooms(rooms, MEMBERS, people(rooms))
        with rounds.server(OURS, people(rooms), layout, "--hosts", str(hosts)) as target:
            bench = Bench(target, seconds, lambda text, about=about: shown(f"{about} · {text}"))  # type: ignore[misc]
            points.append(point(rooms, hosts, bench.fanout(rate_per_s, [rate_per_s])))
    return points


def kinds(points: Sequence[Point]) -> list[str]:
    """Kinds of process, the costliest first."""
    total: dict[str, float] = {}
    for one in points:
        for kind, used in one.cpu_us.items():
            total[kind] = total.get(kind, 0.0) + used
    return sorted(total, key=lambda kind: -total[kind])


def stack(one: Point, shown: Sequence[str]) -> dict[str, float]:
    """A point's cost by the kinds that are shown, then the rest; below 0, where a process has ended, counts as 0."""
    parts = {kind: max(0.0, one.cpu_us.get(kind, 0.0)) for kind in shown}
    rest = sum(max(0.0, used) for kind, used in one.cpu_us.items() if kind not in parts)
    return parts | {REST: rest}


def table(points: Sequence[Point]) -> Table:
    """A column for each size."""
    rate = points[0].rate_per_s
    found = Table(title=f"growth: server CPU us a message, at {rate:,.0f} messages/s in all", title_justify="left")
    found.add_column("kind of process")
    for one in points:
        found.add_column(f"{_rooms(one)}\n{_hosts(one)}", justify="right", overflow="fold")
    for kind in kinds(points):
        found.add_row(kind, *(f"{one.cpu_us.get(kind, 0.0):,.1f}" for one in points))
    found.add_section()
    found.add_row("all", *(f"{one.total_us:,.1f}" for one in points))
    found.add_section()
    found.add_row("p50 ms", *(f"{one.p50_ms:.1f}" for one in points))
    found.add_row("p99 ms", *(f"{one.p99_ms:.1f}" for one in points))
    found.add_row("sockets", *(f"{one.sockets:,}" for one in points))
    found.add_row("sustained", *("[green]yes[/]" if one.sustained else "[red]no[/]" for one in points))
    return found


def _rooms(one: Point) -> str:
    return f"{one.rooms:,} rooms"


def _hosts(one: Point) -> str:
    return "1 host" if one.hosts == 1 else f"{one.hosts} hosts"


# --- the plot --------------------------------------------------------------------------------------------------------


def write_plot(path: Path, points: Sequence[Point]) -> None:
    """Two panels of bars, over rooms and over hosts, as SVG; a bar is stacked by kind of process."""
    by_size = {(one.rooms, one.hosts): one for one in points}
    shown = kinds(points)[:PLOT_KINDS]
    colours = dict(zip([*shown, REST], plot.COLOURS, strict=False))
    y = plot.from_zero([sum(stack(one, shown).values()) for one in points], BOTTOM, TOP)
    rate = f"{points[0].rate_per_s:,.0f} messages/s in all, rooms of {MEMBERS}"
    parts = [plot.text(20, 26, f"What a message costs FastSock: {rate}", style="font-size:15px")]
    panels: list[tuple[str, Sequence[tuple[int, int]], Callable[[Point], str]]] = [
        ("CPU us a message, over active rooms (1 host)", OVER_ROOMS, _rooms),
        ("CPU us a message, over hosts (100 rooms)", OVER_HOSTS, _hosts),
    ]
    for (left, right), (name, sizes, label) in zip(PANELS, panels, strict=True):
        parts += plot.y_axis(y, left, right, name)
        for index, size in enumerate(sizes):
            middle = left + (right - left) * (index + 0.5) / len(sizes)
            parts += _bar(y, middle, by_size[size], label(by_size[size]), colours)
    for index, (kind, colour) in enumerate(colours.items()):
        x, row = PANELS[0][0] + 100 * index, BOTTOM + 90
        parts.append(f'<rect x="{x}" y="{row - 10}" width="12" height="12" fill="{colour}"/>')
        parts.append(plot.text(x + 18, row, kind))
    note = "All that the server's processes used while messages were sent, with what they use when nothing happens."
    parts.append(plot.text(PANELS[0][0], BOTTOM + 116, note))
    path.write_text(plot.document(WIDTH, BOTTOM + 136, parts))


def _bar(y: plot.Scale, middle: float, one: Point, label: str, colours: dict[str, str]) -> list[str]:
    """One size: its parts, the sum above, what it is and how fast below."""
    parts, below = [], 0.0
    for kind, used in stack(one, [kind for kind in colours if kind != REST]).items():
        low, high = y.at(below), y.at(below + used)
        below += used
        x, tall = round(middle - BAR / 2, 1), round(low - high, 1)
        parts.append(f'<rect x="{x}" y="{high}" width="{BAR}" height="{tall}" fill="{colours[kind]}"/>')
        if tall >= LABEL_PX:
            parts.append(plot.text(middle, round((low + high) / 2 + 4, 1), f"{used:,.0f}", "middle", "fill:white"))
    parts.append(plot.text(middle, y.at(below) - 6, f"{below:,.0f}", "middle", "font-weight:bold"))
    said = [label, f"p50 {one.p50_ms:.1f} ms", f"p99 {one.p99_ms:.1f} ms"]
    if not one.sustained:
        said.append("not sustained")
    parts += [plot.text(middle, BOTTOM + 18 + 16 * line, text, "middle") for line, text in enumerate(said)]
    return parts
