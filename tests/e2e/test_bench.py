"""``fastsock bench`` as a person runs it: all scenarios at a server that runs, one at a server that it starts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server import Server

SMALL = ["--rooms", "2", "--members", "5", "--pairs", "5", "--sockets", "50", "--seconds", "1", "--rate", "40"]


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fastsock", "bench", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)


def test_every_delivery_of_a_server_that_runs_is_counted(server: Server, tmp_path: Path) -> None:
    done = bench(*SMALL, "--url", server.url, "--json", str(tmp_path / "all.json"), "--plot", str(tmp_path / "all.svg"))
    assert done.returncode == 0, done.stdout + done.stderr
    results = {result["scenario"]: result for result in json.loads((tmp_path / "all.json").read_text())}
    assert list(results) == ["fanout", "dm", "idle", "reconnect"]
    [step] = results["fanout"]["steps"]
    assert (step["counted"]["sent"], step["counted"]["acked"], step["counted"]["deliveries"]) == (40, 40, 200)
    rest, step = results["dm"]["steps"]
    assert (rest["rate_per_s"], step["rate_per_s"], step["counted"]["deliveries"]) == (50, 40, 80)
    back = results["reconnect"]["figures"]
    assert (back["each"]["count"], back["lost"], back["failed"]) == (30, 0, 0)
    assert (tmp_path / "all.svg").read_text().startswith("<svg")
    assert "fanout" in done.stdout
    # What it does not know it does not claim.
    assert list(results["idle"]["figures"]) == ["connects_per_s"]
    assert "cpu_us" not in back
    assert (step["cpu_us"], results["fanout"]["steps"][0]["cpu_us"]) == ({}, {})
    assert "are known only of a server that the benchmark has started itself" in " ".join(done.stdout.split())


@pytest.mark.timeout(200)
def test_a_server_that_it_starts_is_measured_too(tmp_path: Path) -> None:
    done = bench(*SMALL, "--scenario", "fanout", "--json", str(tmp_path / "one.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    [result] = json.loads((tmp_path / "one.json").read_text())
    [step] = result["steps"]
    assert step["counted"]["deliveries"] == 200
    assert step["cpu_us"]["gateway"] > 0
    assert "server CPU per delivery at the best rate" in done.stdout


def test_what_cannot_be_measured_is_said_in_a_line() -> None:
    done = bench("--scenario", "warp")
    assert done.returncode == 2
    assert "warp: not one of fanout, dm, idle, reconnect" in " ".join(done.stderr.split())
