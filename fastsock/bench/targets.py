"""The server that is measured: one of our own, started for it, or one that runs already.

For our own, people and rooms are put into its database before it starts, and their tokens are signed with its secret:
5,000 sign-ups would spend minutes on password hashes. At a server that runs people sign up over HTTP, as anybody does.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol, Self

import httpx
import psutil

from fastsock.core import datadir
from fastsock.core.leftovers import INSTANCE_VARIABLE, processes
from fastsock.core.security import create_access_token

PASSWORD = "a long enough password"  # noqa: S105 - of accounts that a benchmark makes
TOKEN_TTL_S = 24 * 3600
START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 60.0
SIGN_UPS_AT_ONCE = 8
SHOWN_LOG_CHARS = 1_000
AT_MS = 1_700_000_000_000
PATH = "/api/v1/ws/chat"


class TargetError(Exception):
    """There is no server to measure."""


class Target(Protocol):
    """A server, with people and rooms."""

    name: str
    numbered: bool
    """Whether ``seq`` counts the messages of a conversation, without holes: only then can order be judged."""

    @property
    def ws_url(self) -> str:
        """Where sockets connect."""
        ...

    def people(self) -> list[tuple[int, str]]:
        """Everybody: user id and token."""
        ...

    def rooms(self) -> list[tuple[int, list[int]]]:
        """Each room's id and its members, as indexes of `people`."""
        ...

    def processes(self) -> Iterable[psutil.Process]:
        """What the server is made of; nothing where that is not known, and so neither is what it costs."""
        ...


def plan_rooms(count: int, members: int, people: int) -> list[list[int]]:
    """Who is in which room: neighbours, so that everybody is in as few rooms as possible."""
    return [[(room * members + index) % people for index in range(members)] for room in range(count)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Running:
    """A server that runs already, at ``url`` (``http://host:port``). ``done`` is called for each account made."""

    numbered = True

    def __init__(self, url: str, people: int, rooms: Sequence[Sequence[int]], done: Callable[[], None]) -> None:
        self.name = url
        self._url = url.rstrip("/")
        self._people: list[tuple[int, str]] = []
        self._rooms: list[tuple[int, list[int]]] = []
        asyncio.run(self._prepare(people, rooms, done))

    async def _prepare(self, people: int, rooms: Sequence[Sequence[int]], done: Callable[[], None]) -> None:
        gate, mark = asyncio.Semaphore(SIGN_UPS_AT_ONCE), secrets.token_hex(4)
        async with httpx.AsyncClient(base_url=f"{self._url}/api/v1", timeout=60) as http:

            async def sign_up(number: int) -> tuple[int, str]:
                email = f"bench-{mark}-{number}@example.org"
                async with gate:
                    made = await http.post("/auth/signup", json={"email": email, "password": PASSWORD})
                    form = {"username": email, "password": PASSWORD}
                    token = await http.post("/auth/login/access-token", data=form)
                done()
                for answer in (made, token):
                    if answer.is_error:
                        raise TargetError(f"{answer.request.url} answered {answer.status_code}: {answer.text[:200]}")
                return made.json()["id"], token.json()["access_token"]

            self._people = list(await asyncio.gather(*map(sign_up, range(people))))
            for number, members in enumerate(rooms):
                owner = {"Authorization": f"Bearer {self._people[members[0]][1]}"}
                body = {"name": f"bench {mark} {number}", "member_ids": [self._people[one][0] for one in members]}
                made = await http.post("/chat/rooms", json=body, headers=owner)
                if made.is_error:
                    raise TargetError(f"{made.request.url} answered {made.status_code}: {made.text[:200]}")
                self._rooms.append((made.json()["id"], list(members)))

    @property
    def ws_url(self) -> str:
        return self._url.replace("http", "ws", 1) + PATH

    def people(self) -> list[tuple[int, str]]:
        return self._people

    def rooms(self) -> list[tuple[int, list[int]]]:
        return self._rooms

    def processes(self) -> Iterable[psutil.Process]:
        return ()


class Started:
    """A server of our own below ``directory``; as a context manager, started on entering and stopped on leaving.

    ``database_url``: None for SQLite in the directory; else an empty database. ``options`` go to ``fastsock serve``.
    ``database_processes`` lists those of the database's server.
    """

    name = "fastsock"
    numbered = True

    def __init__(
        self,
        directory: Path,
        people: int,
        rooms: Sequence[Sequence[int]],
        database_url: str | None = None,
        options: Sequence[str] = (),
        database_processes: Callable[[], Iterable[psutil.Process]] = tuple,
    ) -> None:
        self._directory = directory
        self._secret = secrets.token_urlsafe(48)
        self._database_url = database_url or f"sqlite:///{directory / 'bench.sqlite3'}"
        self._options = list(options)
        self._database_processes = database_processes
        self._rooms = [(index + 1, list(members)) for index, members in enumerate(rooms)]
        now_s = time.time()
        self._people = [
            (user_id, create_access_token(user_id, self._secret, TOKEN_TTL_S, now_s))
            for user_id in range(1, people + 1)
        ]
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        from fastsock.core.config import Settings  # noqa: PLC0415 - what needs the server's own parts
        from fastsock.db import migrate  # noqa: PLC0415

        self._directory.mkdir(parents=True, exist_ok=True)
        settings = Settings.load({"database_url": self._database_url, "data_dir": self._directory}, env_file=None)
        migrate.upgrade(settings.database_url_resolved)
        asyncio.run(self._fill(settings.database_url_resolved))
        self._start()
        return self

    async def _fill(self, url: str) -> None:
        """Put people and rooms into the database, as if they had signed up and been invited."""
        from fastsock.db.engine import Database  # noqa: PLC0415
        from fastsock.db.filling import fill  # noqa: PLC0415

        database = Database(url)
        try:
            users = [user_id for user_id, _ in self._people]
            rooms = {room: [users[one] for one in members] for room, members in self._rooms}
            await fill(database, users, rooms, AT_MS)
        finally:
            await database.close()

    def _start(self) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("FASTSOCK_", "RAY_"))}
        environment["FASTSOCK_SECRET_KEY"] = self._secret
        where = ["--port", str(self._port), "--data-dir", str(self._directory), "--database-url", self._database_url]
        ports = ["--dashboard-port", str(free_port())]
        command = [sys.executable, "-m", "fastsock", "serve", *where, *ports, *self._options]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._ready():
            if self._process.poll() is not None:
                raise TargetError(f"fastsock serve ended with {self._process.returncode}: {self._said()}")
            if time.monotonic() > deadline:
                self.__exit__()
                raise TargetError(f"fastsock serve is not ready after {START_TIMEOUT_S:g} s: {self._said()}")
            time.sleep(0.2)

    def _said(self) -> str:
        """The end of its log, which may go with the directory."""
        return self.log.read_text(errors="replace")[-SHOWN_LOG_CHARS:].strip()

    def _ready(self) -> bool:
        try:
            fine = httpx.get(f"http://127.0.0.1:{self._port}/readyz", timeout=5).is_success
        except httpx.HTTPError:
            return False
        return fine and "ray_address" in (datadir.read_run(self._directory) or {})

    @property
    def log(self) -> Path:
        return self._directory / "server.log"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self._port}{PATH}"

    def people(self) -> list[tuple[int, str]]:
        return self._people

    def rooms(self) -> list[tuple[int, list[int]]]:
        return self._rooms

    def processes(self) -> Iterable[psutil.Process]:
        assert self._process is not None, "started on entering"
        mine = psutil.Process(self._process.pid)
        children = mine.children(recursive=True)
        found = {process.pid: process for process in (mine, *children)}
        for process in children:
            try:
                instance = process.environ().get(INSTANCE_VARIABLE)
            except psutil.Error:
                continue
            if instance is not None:
                found |= {process.pid: process for process in processes(instance)}
                break
        found |= {process.pid: process for process in self._database_processes()}
        return found.values()

    def __exit__(self, *_exc: object) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(STOP_TIMEOUT_S)
