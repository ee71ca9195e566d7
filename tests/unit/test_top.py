"""The tables of ``fastsock top``."""

from __future__ import annotations

from rich.console import Console

from fastsock.top import Survey, render

HOST = {
    "host": "fastsock-host-0",
    "rooms": 3,
    "dms": 12,
    "users": 40,
    "topics": 15,
    "entries": 1_000,
    "frames": 5_000,
    "entries_waiting": 2,
    "deliveries_waiting": 7,
    "forwards_waiting": 0,
}
GATEWAY = {
    "gateway": "gateway-29df87e23abc",
    "sockets": 1_234,
    "users": 40,
    "topics": 15,
    "asked": 10,
    "frames_out": 100,
    "requests": 1,
    "uplink_waiting": 0,
    "outbox_bytes": 0,
}
WRITER = {"writer": "fastsock-persistence-0", "commits": 5, "entries": 50, "entries_waiting": 0, "failed_commits": 0}


def lines(before: Survey, now: Survey, seconds: float) -> list[str]:
    console = Console(width=100, record=True, file=None, force_terminal=False)
    with console.capture() as capture:
        console.print(render(before, now, seconds))
    return [" ".join(line.split()) for line in capture.get().splitlines() if line.strip()]


def test_sizes_are_shown_as_they_are_and_counts_as_rates() -> None:
    before: Survey = {"hosts": [HOST], "gateways": [GATEWAY], "writers": [WRITER]}
    now: Survey = {
        "hosts": [{**HOST, "entries": 2_000, "frames": 25_000}],
        "gateways": [{**GATEWAY, "asked": 30}],
        "writers": [{**WRITER, "commits": 9}],
    }
    shown = lines(before, now, 2.0)
    assert "host rooms dms users topics msg/s out/s to log down across" in shown
    assert "host-0 3 12 40 15 500 10,000 2 7 0" in shown
    assert "gateway-29df87 1,234 40 15 10 0 1 0 0" in shown
    assert "persistence-0 2 0 0 0" in shown


def test_a_new_process_has_no_rate_yet_and_a_silent_one_is_named() -> None:
    before: Survey = {"hosts": [], "gateways": [], "writers": []}
    now: Survey = {
        "hosts": [HOST, {"host": "fastsock-host-1", "error": "ActorDiedError"}],
        "gateways": [],
        "writers": [WRITER],
    }
    shown = lines(before, now, 1.0)
    assert "host-0 3 12 40 15 0 0 2 7 0" in shown
    assert "host-1 ActorDiedError" in shown
