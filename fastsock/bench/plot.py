"""The parts of a plot, as SVG that any browser shows: scales with round marks, named axes, lines, texts. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

FONT = "font:12px sans-serif;background:white"
COLOURS = (
    *("#2563eb", "#ea580c", "#16a34a", "#9333ea", "#0891b2", "#db2777"),
    *("#65a30d", "#b45309", "#64748b", "#1e3a8a", "#7f1d1d", "#134e4a"),
)
GRID, INK = "#e5e7eb", "#374151"
MOST_MARKS = 12
"""Of one axis: more of them touch each other."""
ROUND = (1.0, 2.0, 5.0)


class Scale(NamedTuple):
    """From a value to a pixel: linear, or the same way for each factor (``log``)."""

    low: float
    high: float
    start: float
    """The pixel of ``low``."""
    end: float
    log: bool

    def at(self, value: float) -> float:
        """The pixel of a value, which lies between ``low`` and ``high``."""
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def marks(self) -> list[float]:
        """Round values to be written at the axis."""
        if not self.log:
            step = self.high / 5
            return [index * step for index in range(6)]
        found = [value for value in _rounds(self.low, self.high) if value <= self.high]
        return found if len(found) <= MOST_MARKS else [value for value in found if _is_decade(value)]


def _rounds(low: float, high: float) -> list[float]:
    """1, 2 and 5 times each power of 10: the last one not above ``low`` and all up to the first not below ``high``."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [factor * 10.0**power for power in powers for factor in ROUND]
    first = max(index for index, value in enumerate(every) if value <= low)
    last = min(index for index, value in enumerate(every) if value >= high)
    return every[first : last + 1]


def _is_decade(value: float) -> bool:
    return math.isclose(math.log10(value) % 1, 0, abs_tol=1e-9)


def log_scale(values: Iterable[float], start: float, end: float) -> Scale:
    """A scale with room for these values, which are above 0."""
    found = list(values)
    marks = _rounds(min(found), max(found))
    low, high = marks[0], marks[-1]
    return Scale(low, high if high > low else 10 * low, start, end, log=True)


def from_zero(values: Iterable[float], start: float, end: float) -> Scale:
    """A linear scale from 0 with room for these values."""
    most = max(values, default=0.0)
    if most <= 0:
        return Scale(0.0, 1.0, start, end, log=False)
    power = 10.0 ** math.floor(math.log10(most))
    high = next(value for value in (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5, 10.0) if value * power >= most) * power
    return Scale(0.0, high, start, end, log=False)


def text(x: float, y: float, content: str, anchor: str = "start", style: str = "") -> str:
    """A line of text: ``anchor`` says which part of it (start, middle, end) is at ``x``."""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{INK}" style="{style}">{escape(content)}</text>'


def x_axis(scale: Scale, top: float, bottom: float, name: str) -> list[str]:
    """Marks below a plot, lines upwards from them, and what they count."""
    parts = []
    for value in scale.marks():
        x = scale.at(value)
        parts.append(f'<line x1="{x}" x2="{x}" y1="{top}" y2="{bottom}" stroke="{GRID}"/>')
        parts.append(text(x, bottom + 18, f"{value:,.10g}", "middle"))
    return [*parts, text((scale.start + scale.end) / 2, bottom + 40, name, "middle")]


def y_axis(scale: Scale, left: float, right: float, name: str) -> list[str]:
    """Marks at the left of a plot, lines across it, and above them what they count."""
    parts = []
    for value in scale.marks():
        y = scale.at(value)
        parts.append(f'<line x1="{left}" x2="{right}" y1="{y}" y2="{y}" stroke="{GRID}"/>')
        parts.append(text(left - 8, y + 4, f"{value:,.10g}", "end"))
    return [*parts, text(left - 44, min(scale.start, scale.end) - 14, name)]


def document(width: float, height: float, parts: Sequence[str]) -> str:
    """A whole file."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" style="{FONT}">'
    return "\n".join([head, f'<rect width="{width:g}" height="{height:g}" fill="white"/>', *parts, "</svg>", ""])
