"""What a run has shown, for people and for programs: a table, a picture (SVG), a JSON file."""

from __future__ import annotations

import html
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Any, NamedTuple

from rich.table import Table

from tests.benchmarks.chaos.verdict import Outage, Sent, Verdict, alone, quantile

SHOWN_VIOLATIONS = 50
WIDTH, HEIGHT = 1200, 460
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 50, 40
COLORS = {
    "host": "#d62728",
    "gateway": "#1f77b4",
    "persistence": "#9467bd",
    "api": "#8c564b",
    "node": "#000000",
    "postgres-kill": "#2ca02c",
    "postgres-stop": "#17becf",
    "ingress": "#ff7f0e",
}
FLOOR_MS = 1.0
COLUMNS = {
    "first_median_s": "first: median",
    "first_longest_s": "longest",
    "all_median_s": "all: median",
    "all_longest_s": "longest",
    "overlapping_longest_s": "of all",
}
"""Of the second table. Medians and longest are of kills that were alone; ``of all`` is the longest of all kills."""


class Run(NamedTuple):
    """All that is told about a run. Times are seconds after ``began``, which is of the clock of ``sent``."""

    seed: int
    duration_s: float
    began: float
    settled_s: float | None
    """From the end of the load until everything was answered and every device had everything; None: it was not."""
    verdict: Verdict
    outages: list[Outage]
    sent: list[Sent]
    devices: int
    reconnects: int
    retried: int
    problems: list[str]
    """What else went wrong: strikes that failed, processes that were left."""

    @property
    def latencies_ms(self) -> list[float]:
        """From `Client.send` to the ack, however often it was sent in between."""
        return [(one.acked_at - one.sent_at) * 1000 for one in self.sent if one.acked_at is not None and not one.edit]

    @property
    def failed(self) -> bool:
        return bool(self.verdict.violations or self.problems) or self.settled_s is None


def sums(run: Run) -> Table:
    """The counts."""
    verdict, latencies = run.verdict, run.latencies_ms
    kinds = Counter(outage.kill.kind for outage in run.outages)
    table = Table("what", "number", title=f"{run.duration_s / 60:.1f} minutes of chaos, seed {run.seed}")
    rows: list[tuple[str, str]] = [
        ("kills", f"{len(run.outages)}: " + ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))),
        ("messages sent", f"{verdict.sent:,}"),
        ("acked", f"{verdict.acked:,}"),
        ("refused (sender was removed)", f"{verdict.refused:,}"),
        ("stored", f"{verdict.stored:,}"),
        ("edits", f"{verdict.edits:,}"),
        ("delivered to devices", f"{verdict.delivered:,}"),
        ("devices, reconnections", f"{run.devices}, {run.reconnects:,}"),
        ("HTTP requests tried again", f"{run.retried:,}"),
        ("lost", f"{verdict.lost}"),
        ("duplicated", f"{verdict.duplicated}"),
        ("out of order", f"{verdict.out_of_order}"),
        ("violations", f"{len(verdict.violations)}"),
        (
            "ack latency p50 / p99 / max",
            f"{quantile(latencies, 0.5):.0f} / {quantile(latencies, 0.99):,.0f} / {max(latencies, default=0):,.0f} ms",
        ),
        ("all answered and shown", "never" if run.settled_s is None else f"{run.settled_s:.1f} s after the load"),
    ]
    for row in rows:
        table.add_row(*row)
    return table


def outages(run: Run) -> Table:
    """Per kind of kill, how long people were without service."""
    title = "seconds until the first whom it touched was served again, and until all were"
    table = Table("kind", *COLUMNS.values(), "alone / kills", title=title, title_justify="left")
    for column in table.columns:
        column.no_wrap = True
    for kind, row in by_kind(run.outages).items():
        numbers = ("-" if row[name] is None else f"{row[name]:.2f}" for name in COLUMNS)
        table.add_row(kind, *numbers, f"{row['alone']} / {row['kills']}")
    return table


def by_kind(outages: Sequence[Outage]) -> dict[str, dict[str, Any]]:
    """The figures of each kind; None where there is none, because no kill of the kind was alone or touched anybody."""
    kinds: dict[str, list[Outage]] = defaultdict(list)
    for outage in outages:
        kinds[outage.kill.kind].append(outage)
    undisturbed = {id(outage) for outage in alone(outages)}
    figures = {}
    for kind, found in sorted(kinds.items()):
        counted = [outage for outage in found if id(outage) in undisturbed and outage.first_s is not None]
        first = [outage.first_s for outage in counted if outage.first_s is not None]
        all_ = [outage.all_s for outage in counted if outage.all_s is not None]
        figures[kind] = {
            "kills": len(found),
            "alone": len(counted),
            "first_median_s": median(first) if first else None,
            "first_longest_s": max(first, default=None),
            "all_median_s": median(all_) if all_ else None,
            "all_longest_s": max(all_, default=None),
            "overlapping_longest_s": max((outage.all_s for outage in found if outage.all_s is not None), default=None),
            "kept_away_median_s": median(outage.kill.away_s for outage in found),
        }
    return figures


def as_json(run: Run) -> dict[str, Any]:
    """Everything but the single messages."""
    latencies = run.latencies_ms
    return {
        "seed": run.seed,
        "duration_s": run.duration_s,
        "settled_s": run.settled_s,
        **asdict(run.verdict),
        "devices": run.devices,
        "reconnects": run.reconnects,
        "http_retries": run.retried,
        "problems": run.problems,
        "ack_ms": {
            "p50": quantile(latencies, 0.5),
            "p99": quantile(latencies, 0.99),
            "max": max(latencies, default=0.0),
        },
        "outages": by_kind(run.outages),
        "kills": [
            {
                "at_s": outage.kill.at - run.began,
                "kind": outage.kill.kind,
                "victim": outage.kill.victim,
                "away_s": outage.kill.away_s,
                "first_s": outage.first_s,
                "all_s": outage.all_s,
            }
            for outage in run.outages
        ],
    }


# --- the picture ---------------------------------------------------------------------------------------------------


def picture(run: Run) -> str:
    """Each acknowledged message as a dot: when it was sent, how long its ack took (logarithmic); kills as lines."""
    points = [
        (one.sent_at - run.began, max(FLOOR_MS, (one.acked_at - one.sent_at) * 1000))
        for one in run.sent
        if one.acked_at is not None and not one.edit
    ]
    top_ms = 10 ** math.ceil(math.log10(max((ms for _, ms in points), default=10.0) + 1))
    end_s = max([run.duration_s, *(at for at, _ in points)])

    def x(at_s: float) -> float:
        return LEFT + at_s / end_s * (WIDTH - LEFT - RIGHT)

    def y(ms: float) -> float:
        share = math.log10(ms / FLOOR_MS) / math.log10(top_ms / FLOOR_MS)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" style="font:12px sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="18" font-size="14">From sending to the ack, each message a dot; seed {run.seed}</text>',
    ]
    ms = FLOOR_MS
    while ms <= top_ms:
        label = f"{ms:g} ms" if ms < 1000 else f"{ms / 1000:g} s"
        parts.append(f'<path d="M{LEFT} {y(ms):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(ms) + 4:.1f}" text-anchor="end">{label}</text>')
        ms *= 10
    step_s = next(step for step in (10, 30, 60, 120, 300, 600, 3600) if end_s / step <= 20 or step == 3600)
    for at_s in range(0, int(end_s) + 1, step_s):
        label = f"{at_s // 60}:{at_s % 60:02}"
        parts.append(f'<text x="{x(at_s):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{label}</text>')
    for outage in run.outages:
        kill = outage.kill
        at = x(kill.at - run.began)
        title = html.escape(f"{kill.kind}: {kill.victim}, all served after {outage.all_s or 0:.2f} s")
        line = f'<path d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="{COLORS[kill.kind]}" stroke-width="1.5">'
        parts.append(f"{line}<title>{title}</title></path>")
    dots = "".join(f"M{x(at):.1f} {y(ms):.1f}h0" for at, ms in points)
    parts.append(f'<path d="{dots}" stroke="#333" stroke-opacity=".45" stroke-width="2" stroke-linecap="round"/>')
    across = LEFT
    for kind in sorted({outage.kill.kind for outage in run.outages}):
        parts.append(f'<path d="M{across} 36h16" stroke="{COLORS[kind]}" stroke-width="3"/>')
        parts.append(f'<text x="{across + 20}" y="40">{kind}</text>')
        across += 40 + 7 * len(kind)
    return "\n".join([*parts, "</svg>", ""])
