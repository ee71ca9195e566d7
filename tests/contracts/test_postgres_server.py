"""The launcher of PostgreSQL itself: it leaves nothing behind, whatever happens to whoever started it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import psutil
import pytest

from tests.postgres import ENVIRONMENT_VARIABLE, PostgresServer

_CHILD = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and so would we
from tests.postgres import PostgresServer
with PostgresServer(own=True) as server:
    print(server._directory, server.port, server._process.pid, flush=True)
    time.sleep(60)
"""


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, "not within 15 s"
        time.sleep(0.05)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_it_ends_with_the_process_that_started_it(postgres: PostgresServer, how: signal.Signals) -> None:
    assert postgres
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert child.stdout is not None
    directory, port, pid = child.stdout.readline().split()
    assert listens(int(port))
    child.send_signal(how)
    child.wait(20)
    child.stdout.close()
    until(lambda: not Path(directory).exists())
    assert not listens(int(port))
    assert not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE


async def test_it_wants_its_password_and_does_not_run_as_root(postgres: PostgresServer) -> None:
    if not postgres.own:
        pytest.skip(f"{ENVIRONMENT_VARIABLE} names a server that is not ours")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(
            host="127.0.0.1", port=postgres.port, user="fastsock", password="guess", database="postgres"
        )
    assert postgres._process is not None
    assert psutil.Process(postgres._process.pid).uids().real != 0
    assert oct(postgres._directory.stat().st_mode & 0o777) == "0o700"


async def test_a_named_server_is_used_and_left_as_it_was(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, postgres.url("postgres"))
    with PostgresServer() as named:
        assert not named.own
        url = named.create_database()
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        assert await connection.fetchval("SELECT 1") == 1
        for refused in (named.stop, named.kill, named.start):
            with pytest.raises(RuntimeError, match="is not ours to start or stop"):
                refused()
    with pytest.raises((asyncpg.PostgresError, OSError, asyncpg.InterfaceError)):
        await connection.fetchval("SELECT 1")
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(url.replace("+asyncpg", ""))
