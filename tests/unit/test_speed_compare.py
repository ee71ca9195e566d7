"""What the results of two servers come to, and what growth shows of its own, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fastsock.bench.scenarios import Result, StepResult
from fastsock.bench.tally import Counted, Faults, Summary
from tests.benchmarks.speed import growth
from tests.benchmarks.speed.compare import DM_AT_THEIRS, Row, Wish, middle, rows, wishes


def step(
    rate: float, deliveries: float = 0, p50: float = 5, p99: float = 20, sustained: bool = True, **cpu_us: float
) -> StepResult:
    latency = Summary(100, p50, p99, 30.0)
    counted = Counted(10, 10, {}, 100, 0, latency, latency, Faults(), 1.0, 0.1)
    return StepResult(rate, counted, deliveries or rate, cpu_us, sustained)


def result(scenario: str, *steps: StepResult, **figures: Any) -> Result:
    return Result(scenario, "x", {}, list(steps), figures)


def named(found: list[Row], name: str) -> Row:
    [row] = [row for row in found if row.name == name]
    return row


# --- compare ---------------------------------------------------------------------------------------------------------


def test_the_middle_of_rounds_is_their_median() -> None:
    assert [middle([3, 1, 20]), middle([1, 2]), middle([])] == [3, 1.5, 0]


@pytest.mark.parametrize(
    ("ours", "theirs", "limit", "at_least", "alone", "wanted", "fine"),
    [
        (500, 100, 5, True, False, ">= 5x", True),
        (499, 100, 5, True, False, ">= 5x", False),
        (20, 100, 0.2, False, False, "<= 0.2x", True),
        (21, 100, 0.2, False, False, "<= 0.2x", False),
        (20, 1, 20, False, True, "<= 20 KB", True),
        (21, 1, 20, False, True, "<= 20 KB", False),
        (0, 7, 0, False, True, "<= 0 KB", True),
        (7, 100, None, False, False, "", None),
        (1, 0, 5, True, False, ">= 5x", True),
        (1, 0, 0.5, False, False, "<= 0.5x", False),
    ],
)
def test_a_figure_is_judged_by_its_limit(
    ours: float, theirs: float, limit: float | None, at_least: bool, alone: bool, wanted: str, fine: bool | None
) -> None:
    wish = Wish("idle", "memory", "KB", lambda one: float(one.figures["kb"]), limit, at_least, alone)
    row = wish.row([result("idle", kb=ours)], [result("idle", kb=theirs)])
    assert row == Row("idle: memory", "KB", ours, theirs, wanted, fine)
    assert row.ratio == (ours / theirs if theirs else float("inf"))


def test_each_side_is_the_median_of_its_own_rounds() -> None:
    wish = Wish("idle", "memory", "KB", lambda one: float(one.figures["kb"]), 0.5)
    row = wish.row([result("idle", kb=kb) for kb in (10, 90, 12)], [result("idle", kb=kb) for kb in (20, 30)])
    assert (row.ours, row.theirs, row.fine) == (12, 25, True)


FANOUT = "fanout 10x50"


def test_a_fanout_is_judged_at_its_best_rate() -> None:
    ours = result(
        "fanout",
        step(1_000, 50_000, gateway=2, host=1),
        step(2_000, 100_000, 7, 40, gateway=1, host=1),
        step(3_000, 110_000, 300, 900, sustained=False, gateway=9),
    )
    theirs = result("fanout", step(400, 20_000, 10, 50, worker=12), step(600, 25_000, sustained=False))
    found = rows({FANOUT: [ours]}, {FANOUT: [theirs]}, beside_hosts=False)
    assert found == [
        Row(f"{FANOUT}: deliveries", "/s", 100_000, 20_000, ">= 5x", True),
        Row(f"{FANOUT}: CPU a delivery", "us", 2, 12, "<= 0.2x", True),
        Row(f"{FANOUT}: p50", "ms", 7, 10, "", None),
        Row(f"{FANOUT}: p99", "ms", 40, 50, "", None),
    ]


def test_a_server_that_sustains_nothing_has_delivered_nothing() -> None:
    nothing = result("fanout", step(1_000, 50_000, sustained=False))
    some = result("fanout", step(400, 20_000, worker=12))
    ours = named(rows({FANOUT: [nothing]}, {FANOUT: [some]}, beside_hosts=False), f"{FANOUT}: deliveries")
    assert (ours.ours, ours.theirs, ours.fine) == (0, 20_000, False)


def test_pairs_are_judged_at_rest_and_at_their_best() -> None:
    ours = result("dm", step(50, p50=4, p99=9, gateway=900), step(2_000, gateway=90), step(4_000, sustained=False))
    theirs = result("dm", step(50, p50=3, p99=8, worker=2_000), step(300, worker=800), step(500, sustained=False))
    found = rows({"dm": [ours]}, {"dm": [theirs]}, beside_hosts=True)
    assert named(found, "dm: messages") == Row("dm: messages", "/s", 2_000, 300, ">= 5x", True)
    assert named(found, "dm: CPU a message") == Row("dm: CPU a message", "us", 90, 800, "", None)
    assert named(found, "dm: p50 at rest") == Row("dm: p50 at rest", "ms", 4, 3, "<= 2x", True)
    assert named(found, "dm: CPU a message at rest").ours == 900


def test_at_rest_is_no_rate_that_counts_as_sustained() -> None:
    ours = result("dm", step(50), step(300, sustained=False))
    assert named(rows({"dm": [ours]}, {}, beside_hosts=False), "dm: messages").ours == 0


@pytest.mark.parametrize(("beside_hosts", "limit"), [(True, 2), (False, 3)])
def test_what_latency_at_rest_may_be_depends_on_where_the_writer_lives(beside_hosts: bool, limit: float) -> None:
    [wish] = [wish for wish in wishes(beside_hosts) if (wish.scenario, wish.name) == ("dm", "p50 at rest")]
    assert wish.limit == limit


def test_at_the_rate_of_the_other_it_is_the_last_step_that_counts() -> None:
    ours = result("dm", step(50, p50=1), step(300, p50=5, p99=30))
    theirs = result("dm", step(50, p50=1), step(300, p50=100, p99=240))
    found = rows({DM_AT_THEIRS: [ours]}, {DM_AT_THEIRS: [theirs]}, beside_hosts=False)
    assert [(row.ours, row.theirs, row.fine) for row in found] == [(5, 100, True), (30, 240, True)]


def test_faults_of_ours_are_judged_alone() -> None:
    back = {"took_s": 2.0, "lost": 0, "failed": 0}
    fine, lossy = result("reconnect", **back), result("reconnect", **back | {"lost": 3, "failed": 1})
    for ours, count in ((fine, 0), (lossy, 4)):
        row = named(rows({"reconnect": [ours]}, {"reconnect": [lossy]}, beside_hosts=False), "reconnect: lost, failed")
        assert (row.ours, row.wanted.strip(), row.fine) == (count, "<= 0", count == 0)


def test_what_was_not_played_has_no_row() -> None:
    theirs = {FANOUT: [result("fanout", step(400, 20_000))]}
    assert rows({}, theirs, beside_hosts=False) == []
    assert rows({FANOUT: []}, theirs, beside_hosts=False) == []


def test_what_only_we_have_played_is_compared_with_nothing() -> None:
    ours = {"idle": [result("idle", kb_per_socket=12.0, connects_per_s=900.0)]}
    memory, connects = rows(ours, {}, beside_hosts=False)
    assert (memory.ours, memory.theirs, memory.ratio, memory.fine) == (12, 0, float("inf"), True)
    assert (connects.ours, connects.fine) == (900, None)


# --- growth ----------------------------------------------------------------------------------------------------------


def grown(rooms: int, hosts: int, sustained: bool = True, **cpu_us: float) -> growth.Point:
    about = {"rooms": rooms, "members": growth.MEMBERS, "sockets": growth.people(rooms)}
    return growth.point(
        rooms, hosts, Result("fanout", "fastsock", about, [step(500, 2_500, 3.1, 9.8, sustained, **cpu_us)])
    )


def every() -> list[growth.Point]:
    return [grown(rooms, hosts, gateway=20, host=10.0 * hosts, postgres=30) for rooms, hosts in growth.SIZES]


def test_sizes_are_played_once() -> None:
    assert growth.SIZES == ((10, 1), (100, 1), (1_000, 1), (100, 2), (100, 4))
    assert [growth.people(rooms) for rooms, _ in growth.SIZES[:3]] == [50, 500, 2_000]
    assert growth.most_per_s() == 750


def test_a_message_costs_what_its_deliveries_cost() -> None:
    found = grown(100, 2, gateway=20, host=4)
    assert found.cpu_us == {"gateway": 100, "host": 20}
    assert (found.total_us, found.sockets, found.rate_per_s, found.p50_ms, found.p99_ms) == (120, 500, 500, 3.1, 9.8)


def test_a_bar_is_what_is_shown_and_the_rest() -> None:
    found = grown(10, 1, gateway=20, host=4, api=1, ray=2, postgres=-3)
    assert growth.stack(found, ["gateway", "writer"]) == {"gateway": 100, "writer": 0, growth.REST: 35}
    assert growth.kinds([found, grown(10, 1, writer=30)]) == ["writer", "gateway", "host", "ray", "api", "postgres"]


def test_the_table_fits_a_console_of_80_columns() -> None:
    console = Console(width=80, record=True)
    console.print(growth.table([*every()[:-1], grown(100, 4, sustained=False, gateway=12_345)]))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    cells = [line.strip("│ ").replace("│", " ").split() for line in lines]
    assert ["gateway", "100.0", "100.0", "100.0", "100.0", "61,725.0"] in cells
    assert ["all", "300.0", "300.0", "300.0", "350.0", "61,725.0"] in cells
    assert ["sockets", "50", "500", "2,000", "500", "500"] in cells
    assert ["sustained", "yes", "yes", "yes", "yes", "no"] in cells


def test_the_plot_shows_both_rows_of_sizes(tmp_path: Path) -> None:
    file = tmp_path / "growth.svg"
    growth.write_plot(file, every())
    plot = file.read_text()
    for text in ("10 rooms", "100 rooms", "1,000 rooms", "1 host", "2 hosts", "4 hosts"):
        assert plot.count(f">{text}</text>") == 1, text
    for panel in ("CPU us a message, over active rooms (1 host)", "CPU us a message, over hosts (100 rooms)"):
        assert f">{panel}</text>" in plot
    assert plot.count(">300</text>") == 4 + 2  # the sum of each bar of one host, and a mark at each axis
    assert plot.count(">450</text>") == 1
    assert "not sustained" not in plot
    growth.write_plot(file, [*every()[:-1], grown(100, 4, sustained=False, gateway=20)])
    assert file.read_text().count(">not sustained</text>") == 1
