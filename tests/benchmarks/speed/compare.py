"""What two servers' results come to: medians over the rounds, their ratios, and what the ratios have to be. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from fastsock.bench.scenarios import Result, StepResult

DM_AT_THEIRS = "dm at their rate"
"""``dm`` at the rate that saturates the baseline."""

Results = Mapping[str, Sequence[Result]]
"""By what was played ("fanout 10x50"), a result for each round."""


class Row(NamedTuple):
    """One figure of both."""

    name: str
    unit: str
    ours: float
    theirs: float
    wanted: str
    """In words: ">= 5x"."""
    fine: bool | None
    """None where nothing was asked for."""

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs if self.theirs else float("inf")


class Wish(NamedTuple):
    """A figure that is compared; ``limit`` is of ours to theirs, or of ours alone if ``alone``."""

    scenario: str
    name: str
    unit: str
    figure: Callable[[Result], float]
    limit: float | None = None
    at_least: bool = False
    alone: bool = False

    def row(self, ours: Sequence[Result], theirs: Sequence[Result]) -> Row:
        mine, other = middle(map(self.figure, ours)), middle(map(self.figure, theirs))
        name = f"{self.scenario}: {self.name}"
        if self.limit is None:
            return Row(name, self.unit, mine, other, "", None)
        judged = mine if self.alone else mine / other if other else float("inf")
        fine = judged >= self.limit if self.at_least else judged <= self.limit
        sign = ">=" if self.at_least else "<="
        wanted = f"{sign} {self.limit:g} {self.unit}" if self.alone else f"{sign} {self.limit:g}x"
        return Row(name, self.unit, mine, other, wanted, fine)


def middle(figures: Iterable[float]) -> float:
    """The median; 0 of nothing."""
    found = list(figures)
    return float(median(found)) if found else 0.0


def _best(figure: Callable[[StepResult], float]) -> Callable[[Result], float]:
    def of(result: Result) -> float:
        step = result.best()
        return 0.0 if step is None else figure(step)

    return of


def _at_rest(figure: Callable[[StepResult], float]) -> Callable[[Result], float]:
    return lambda result: figure(result.steps[0])


def _sustained(result: Result) -> float:
    """``dm``: the highest rate, the step at rest aside."""
    return max((step.rate_per_s for step in result.steps[1:] if step.sustained), default=0.0)


def _figure(name: str) -> Callable[[Result], float]:
    return lambda result: float(result.figures[name])


def _faults(result: Result) -> float:
    return float(sum(result.faults().values()))


def wishes(beside_hosts: bool) -> list[Wish]:
    """What is asked for. ``beside_hosts``: where our writer lives, which decides what latency at rest may be."""
    fans = [f"fanout {shape}" for shape in ("10x50", "1x500")]
    return [
        *(
            wish
            for fan in fans
            for wish in (
                Wish(fan, "deliveries", "/s", _best(lambda step: step.deliveries_per_s), 5, at_least=True),
                Wish(fan, "CPU a delivery", "us", _best(lambda step: step.total_cpu_us), 0.2),
                Wish(fan, "p50", "ms", _best(lambda step: step.counted.delivery.p50_ms)),
                Wish(fan, "p99", "ms", _best(lambda step: step.counted.delivery.p99_ms)),
            )
        ),
        Wish("dm", "messages", "/s", _sustained, 5, at_least=True),
        Wish("dm", "CPU a message", "us", _best(lambda step: step.total_cpu_us)),
        Wish(
            "dm",
            "p50 at rest",
            "ms",
            _at_rest(lambda step: step.counted.delivery.p50_ms),
            2 if beside_hosts else 3,
        ),
        Wish("dm", "p99 at rest", "ms", _at_rest(lambda step: step.counted.delivery.p99_ms), 3),
        Wish("dm", "ack p50 at rest", "ms", _at_rest(lambda step: step.counted.ack.p50_ms)),
        Wish("dm", "CPU a message at rest", "us", _at_rest(lambda step: step.total_cpu_us)),
        Wish(DM_AT_THEIRS, "p50", "ms", lambda result: result.steps[-1].counted.delivery.p50_ms, 0.25),
        Wish(DM_AT_THEIRS, "p99", "ms", lambda result: result.steps[-1].counted.delivery.p99_ms, 0.25),
        Wish("idle", "memory a socket", "KB", _figure("kb_per_socket"), 20, alone=True),
        Wish("idle", "connects", "/s", _figure("connects_per_s")),
        Wish("reconnect", "all are back", "s", _figure("took_s"), 0.5),
        Wish("reconnect", "lost, failed", "", _faults, 0, alone=True),
    ]


def rows(ours: Results, theirs: Results, beside_hosts: bool) -> list[Row]:
    """A row for each figure of what was played."""
    return [
        wish.row(ours[wish.scenario], theirs.get(wish.scenario, ()))
        for wish in wishes(beside_hosts)
        if ours.get(wish.scenario)
    ]
