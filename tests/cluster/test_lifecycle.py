"""Starting and stopping the real thing: ``fastsock serve`` as a user runs it, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from fastsock.core import datadir
from fastsock.core.leftovers import processes

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
STARTED_WITHIN_S = 180.0
STOPPED_WITHIN_S = 15.0
REFUSED_WITHIN_S = 30.0
"""A refusal takes 1 s, plus up to 5 for a database that does not answer; the rest is for a busy machine."""


def environment() -> dict[str, str]:
    """A user's who has set nothing."""
    ours = ("FASTSOCK_", "RAY_", "TURN_", "WEBRTC_", "DATABASE_URL")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | {"COLUMNS": "120"}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "fastsock", *arguments]


def refusal(*arguments: str, **variables: str) -> str:
    """What a command that must fail says: one line, and nothing like a traceback."""
    answer = subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env=environment() | variables,
        capture_output=True,
        text=True,
        timeout=REFUSED_WITHIN_S,
        check=False,
    )
    assert answer.returncode == 1, answer.stdout + answer.stderr
    assert answer.stdout == ""
    assert answer.stderr.count("\n") == 1
    return answer.stderr.strip()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - loopback
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


class Server:
    """A ``fastsock serve``; what it prints is in ``log``."""

    def __init__(self, data_dir: Path, *options: str) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.log = data_dir.with_suffix(".log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command(
                    *("serve", "--data-dir", str(data_dir), "--port", str(self.port)),
                    *("--dashboard-port", str(free_port()), "--hosts", "1", *options),
                ),
                cwd=ROOT,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.instance = ""
        self.directory = Path("/nowhere")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, what: str) -> None:
        """Until ``run.json`` has this key."""
        give_up_at = time.monotonic() + STARTED_WITHIN_S
        while what not in (run := datadir.read_run(self.data_dir) or {}):
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < give_up_at, self.said()
            time.sleep(0.1)
        self.instance, self.directory = run["instance"], Path(run["directory"])

    def end(self, number: int) -> float:
        """Send a signal; the seconds until the process has ended."""
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(60)
        return time.monotonic() - began

    def nothing_is_left(self) -> bool:
        return not processes(self.instance) and not self.directory.exists()


Serve = Callable[..., Server]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Makes servers in ``tmp_path``, and ends those that a failing test leaves."""
    made: list[Server] = []

    def start(*options: str) -> Server:
        made.append(Server(tmp_path / "data", *options))
        return made[-1]

    yield start
    for server in made:
        with contextlib.suppress(psutil.NoSuchProcess):
            server.process.kill()
        server.process.wait(60)


def eventually(condition: Callable[[], bool], within_s: float) -> None:
    give_up_at = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.1)


def test_a_life(serve: Serve, tmp_path: Path) -> None:
    """Start, answer, refuse a second one, stop on SIGTERM, start again with the data still there."""
    server = serve()
    server.wait_for("url")
    assert get(f"{server.url}/healthz")[0] == 200
    assert get(f"{server.url}/api/v1/ws/healthz")[0] == 200
    assert get(f"{server.url}/docs")[0] == 200
    eventually(lambda: "FastSock runs" in server.said(), 5)
    assert f"{server.url}/docs" in server.said()
    assert len(processes(server.instance)) >= 8

    data_dir = str(tmp_path / "data")
    assert refusal("serve", "--data-dir", data_dir, "--port", str(free_port())) == (
        f"fastsock: FastSock already runs on {data_dir}: process {server.process.pid} at {server.url}"
    )
    assert refusal("serve", "--data-dir", str(tmp_path / "other"), "--port", str(server.port)) == (
        f"fastsock: --port or FASTSOCK_PORT is {server.port}: 127.0.0.1:{server.port} cannot be listened on:"
        " address already in use"
    )

    sign_up = urllib.request.Request(  # noqa: S310 - loopback
        f"{server.url}/api/v1/auth/signup",
        json.dumps({"email": "ada@example.org", "password": "correct horse", "full_name": "Ada"}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(sign_up, timeout=10) as answer:  # noqa: S310 - loopback
        assert answer.status in {200, 201}

    secret = (tmp_path / "data" / "secret.key").read_text()
    assert server.end(signal.SIGTERM) < STOPPED_WITHIN_S
    assert server.process.returncode == 0, server.said()
    assert "Traceback" not in server.said()
    assert server.nothing_is_left()
    assert datadir.read_run(tmp_path / "data") is None
    assert (tmp_path / "data" / "logs" / "gcs_server.out").exists()

    again = serve()
    again.wait_for("url")
    assert (tmp_path / "data" / "secret.key").read_text() == secret
    with pytest.raises(urllib.error.HTTPError) as taken:
        urllib.request.urlopen(  # noqa: S310 - loopback
            urllib.request.Request(f"{again.url}/api/v1/auth/signup", sign_up.data, dict(sign_up.header_items())),  # noqa: S310
            timeout=10,
        )
    assert json.loads(taken.value.read())["code"] == "email_taken"
    assert again.end(signal.SIGINT) < STOPPED_WITHIN_S
    assert again.process.returncode == 0
    assert again.nothing_is_left()


def test_a_killed_instance_takes_everything_with_it(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    server.wait_for("url")
    server.end(signal.SIGKILL)
    eventually(server.nothing_is_left, STOPPED_WITHIN_S)
    done = subprocess.run(
        command("down", "--data-dir", str(tmp_path / "data")),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == (f"Nothing runs on {tmp_path / 'data'}; cleared what a killed run had left (0 processes).\n")


def test_a_start_can_be_given_up(serve: Serve) -> None:
    server = serve()
    server.wait_for("instance")
    eventually(lambda: len(processes(server.instance)) >= 2, 60)  # Ray is on its way
    assert server.end(signal.SIGINT) < STOPPED_WITHIN_S
    assert "Traceback" not in server.said()
    assert server.nothing_is_left()


def test_an_instance_whose_ray_dies_says_so_and_ends(serve: Serve) -> None:
    server = serve()
    server.wait_for("url")
    for process in processes(server.instance):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name() == "raylet":
                process.kill()
    assert server.process.wait(60) == 1
    assert "fastsock: Ray's raylet has ended by itself; stopping\n" in server.said()
    assert server.nothing_is_left()


def test_down_stops_what_runs(serve: Serve, tmp_path: Path) -> None:
    server = serve("--ingress", "python")
    server.wait_for("url")
    assert get(f"{server.url}/healthz")[0] == 200
    assert get(f"{server.url}/api/v1/ws/healthz")[0] == 200
    done = subprocess.run(
        command("down", "--data-dir", str(tmp_path / "data")),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == f"Stopped process {server.process.pid}.\n"
    assert server.process.wait(5) == 0
    assert server.nothing_is_left()


def test_nothing_to_bring_down(tmp_path: Path) -> None:
    done = subprocess.run(
        command("down", "--data-dir", str(tmp_path)),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"Nothing runs on {tmp_path}.\n"
    assert refusal("top", "--once", "--data-dir", str(tmp_path)) == (
        f"fastsock: no FastSock runs on {tmp_path}: start one with `fastsock serve`"
    )


def test_a_data_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refusal("serve", "--data-dir", str(tmp_path / "file")) == (
        f"fastsock: the data directory {tmp_path}/file is a file"
    )


def test_a_wrong_setting(tmp_path: Path) -> None:
    assert refusal("serve", "--data-dir", str(tmp_path), FASTSOCK_GATEWAYS="many") == (
        "fastsock: FASTSOCK_GATEWAYS is 'many': input should be a valid integer, unable to parse string as an integer"
    )


def test_production_without_a_secret(tmp_path: Path) -> None:
    assert refusal("serve", "--data-dir", str(tmp_path), "--environment", "production") == (
        "fastsock: FASTSOCK_SECRET_KEY is not set: production needs at least 32 characters, the same on every start"
    )


def test_a_postgresql_that_is_down(tmp_path: Path) -> None:
    url = f"postgresql://ada:hunter2@127.0.0.1:{free_port()}/chat"
    text = refusal("serve", "--data-dir", str(tmp_path), "--port", str(free_port()), FASTSOCK_DATABASE_URL=url)
    assert "hunter2" not in text
    assert text.startswith("fastsock: the database at 127.0.0.1:")
    assert refusal("migrate", "--data-dir", str(tmp_path), DATABASE_URL=url) == text


def test_migrations_go_up_and_down(tmp_path: Path) -> None:
    def migrate(*arguments: str) -> str:
        return subprocess.run(
            command("migrate", "--data-dir", str(tmp_path), *arguments),
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout

    shown = f"sqlite+aiosqlite:///{tmp_path}/fastsock.db"
    went, _, newest = migrate().rpartition(" to ")
    assert went == f"{shown} went from revision base"
    assert migrate() == f"{shown} is at revision {newest}"
    assert migrate("--down", "--revision", "base").endswith("to base.\n")
    assert refusal("migrate", "--data-dir", str(tmp_path), "--down") == (
        "fastsock: --down needs --revision: say how far, or base for an empty database"
    )


def test_help_names_every_variable_and_needs_no_ray() -> None:
    code = "import sys; from fastsock.cli import app; app(['serve', '--help'], standalone_mode=False)"
    shown = subprocess.run(
        [sys.executable, "-c", f"{code}; assert 'ray' not in sys.modules"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = ("HOST", "PORT", "GATEWAYS", "HOSTS", "WRITERS", "DATABASE_URL", "DATA_DIR", "ENVIRONMENT", "LOG_FORMAT")
    assert [name for name in names if f"FASTSOCK_{name}" not in shown] == []
