"""``fastsock bench`` as a person runs it: a short one of each scenario, against servers that it starts itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server import Server

SMALL = ["--rooms", "2", "--members", "5", "--pairs", "5", "--sockets", "60", "--seconds", "1", "--rate", "40"]


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fastsock", "bench", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.timeout(400)
def test_every_delivery_is_counted(tmp_path: Path) -> None:
    done = bench(*SMALL, "--json", str(tmp_path / "all.json"), "--plot", str(tmp_path / "all.svg"))
    assert done.returncode == 0, done.stdout + done.stderr
    results = {result["scenario"]: result for result in json.loads((tmp_path / "all.json").read_text())}
    assert list(results) == ["fanout", "dm", "idle", "reconnect"]
    [step] = results["fanout"]["steps"]
    assert (step["counted"]["sent"], step["counted"]["acked"], step["counted"]["deliveries"]) == (40, 40, 200)
    assert step["cpu_us"]["gateway"] > 0
    rest, step = results["dm"]["steps"]
    assert (rest["rate_per_s"], step["rate_per_s"], step["counted"]["deliveries"]) == (50, 40, 80)
    assert results["idle"]["figures"]["kb_per_socket"] > 0
    back = results["reconnect"]["figures"]
    assert (back["each"]["count"], back["lost"], back["failed"]) == (40, 0, 0)
    assert (tmp_path / "all.svg").read_text().startswith("<svg")
    assert "fanout" in done.stdout


@pytest.mark.timeout(300)
def test_a_server_that_runs_is_measured_too(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        done = bench(*SMALL, "--url", server.url, "--scenario", "fanout", "--json", str(tmp_path / "one.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    [result] = json.loads((tmp_path / "one.json").read_text())
    assert result["steps"][0]["counted"]["deliveries"] == 200


def test_what_cannot_be_measured_is_said_in_a_line() -> None:
    done = bench("--scenario", "warp")
    assert done.returncode == 2
    assert "warp: not one of fanout, dm, idle, reconnect" in " ".join(done.stderr.split())
