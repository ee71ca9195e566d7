"""What ``fastsock serve`` does: check, start, wait, stop.

Whatever can be wrong is looked at before Ray starts: the data directory, whether another instance has it, the secret,
the port, the database. From then on there is one way out for every end, whether start-up fails, a signal comes or Ray
breaks: stop in order, as long as that gets on; then the watchdog ends what is left.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from fastsock.core import datadir, rayenv
from fastsock.core.config import Settings, environment_names, refused
from fastsock.core.errors import FastSockError
from fastsock.core.leftovers import INSTANCE_VARIABLE, Watchdog, clear

if TYPE_CHECKING:
    from ray.actor import ActorHandle

STOP_WITHIN_S = 11.0
"""So long everything may take to stop in order; the watchdog's sweep then takes a second, and 15 are promised."""
LOOK_S = 1.0
"""How often a running instance looks whether Ray still runs."""
DOWN_WITHIN_S = 30.0
DOWN_LOOK_S = 0.2
DIRECTORY_PREFIX = "fs-"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asks this process to end."""


@dataclass
class Instance:
    """One run of FastSock on this machine."""

    settings: Settings
    console: Console
    directory: Path
    """For sockets and Ray's files; its path is short, because a socket's may have 107 characters."""
    files: int
    """Files each process may have open."""
    watchdog: Watchdog
    run: dict[str, object]
    actors: dict[str, ActorHandle[Any]] = field(default_factory=dict)


def serve(settings: Settings) -> int:  # noqa: RET503 - `_leave` does not return
    """Run FastSock until a signal ends it. Returns the exit status if it cannot start, else ends the process."""
    console = Console(highlight=False)
    _catch_signals()
    try:
        datadir.prepare(settings.data_dir)
        lock = datadir.Lock.take(settings.data_dir)
        _heal(settings.data_dir, console)  # first: what is left may hold the port
        settings = _checked(datadir.resolve_secret(settings))
        instance = _instance(settings, console)
    except FastSockError as error:
        _complain(error)
        return 1
    except Interrupted:
        return 1
    status = 1
    try:
        started = time.monotonic()
        _start(instance)
        with _whole():
            console.print(_panel(instance, time.monotonic() - started))
        status = _wait()
    except (Interrupted, SystemExit):  # Ray's own handler of SIGTERM, while it starts, is the latter
        status = 0
    except FastSockError as error:
        _complain(error)
    except Exception as error:  # noqa: BLE001 - whatever Ray raises ends here, in one line, with a place to look
        _complain(RuntimeError(f"{_first_line(error)} (logs: {settings.data_dir / datadir.LOGS})"))
    _stop(instance)
    lock.release()
    _leave(status)


def _leave(status: int) -> NoReturn:
    """End this process without its exit handlers: Ray's would talk to processes that are gone."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)


def _checked(settings: Settings) -> Settings:
    """The settings, if the addresses are free and the database answers and has its tables."""
    if settings.ray_address is None:  # else it is the cluster that listens, and perhaps does so already
        rayenv.check_port(settings.host, settings.port, "--port or " + environment_names("port"))
    else:
        rayenv.check_ray(settings.ray_address)
    migrate(settings, None, down=False)
    return settings


def _heal(data_dir: Path, console: Console) -> None:
    """Clear what an instance has left that was killed together with its watchdog."""
    run = datadir.read_run(data_dir)
    if run is None:
        return
    killed = _clear_after(run, data_dir)
    if killed:
        console.print(f"Ended {killed} processes that an earlier run had left behind.")


def _clear_after(run: dict[str, Any], data_dir: Path) -> int:
    """Clear what the run left that wrote this ``run.json``; the number of processes ended."""
    instance, directory = str(run.get("instance", "")), Path(str(run.get("directory", "")))
    ours = directory.name.startswith(DIRECTORY_PREFIX) and instance.startswith(directory.name)
    killed = clear(instance, directory, data_dir / datadir.LOGS) if ours else 0  # else somebody has written into it
    datadir.forget_run(data_dir)
    return killed


def _instance(settings: Settings, console: Console) -> Instance:
    """Everything that has to be in place before Ray is imported."""
    base = "/tmp" if os.access("/tmp", os.W_OK) else None  # noqa: S108 - mkdtemp makes it ours; $TMPDIR may be long
    directory = Path(tempfile.mkdtemp(prefix=DIRECTORY_PREFIX, dir=base))
    name = f"{directory.name}-{secrets.token_hex(4)}"
    watchdog = Watchdog.start(name, directory, settings.data_dir / datadir.LOGS)
    files = rayenv.raise_file_limit()
    settings = settings.model_copy(update={"max_sockets_per_gateway": rayenv.sockets_per_gateway(settings, files)})
    token_file = datadir.ray_token(settings.data_dir)
    run: dict[str, object] = {
        "pid": os.getpid(),
        "instance": name,
        "directory": str(directory),
        "token_file": str(token_file) if settings.ray_address is None else None,
        "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    datadir.write_run(settings.data_dir, run)
    if settings.ray_address is None:
        os.environ.update(rayenv.variables(settings, directory, token_file, files))
        os.environ[INSTANCE_VARIABLE] = name
    else:
        rayenv.join()
    return Instance(settings, console, directory, files, watchdog, run)


def _start(instance: Instance) -> None:
    settings, console = instance.settings, instance.console
    with _step(console, "Preparing"):
        from actors.runtime import cluster  # noqa: PLC0415 - Ray reads its variables when it is imported
        from fastsock import main  # noqa: PLC0415

        parts = main.parts()
        main.place_hosts(settings)
    dashboard_port = _dashboard_port(settings)
    with _step(console, "Starting Ray"):
        address = cluster.start_ray(settings, instance.directory, dashboard_port)
        _catch_signals()  # Ray has set a handler of its own
    with _step(console, f"Starting {settings.writer_actors} persistence and {settings.hosts} host actors"):
        instance.actors = cluster.start_actors(settings, parts)
        cluster.start_serve(settings)
        cluster.wait_ready(instance.actors)
    with _step(console, f"Starting {settings.gateways} gateways and {settings.api_replicas} API replicas"):
        cluster.start_applications(settings, parts)
    with _step(console, "Waiting until they answer"):
        cluster.wait_healthy(settings.host, settings.port)
    shown_host = "127.0.0.1" if settings.host in {"0.0.0.0", "::"} else settings.host  # noqa: S104 - compared with
    instance.run |= {
        "url": f"http://{shown_host}:{settings.port}",
        "ray_address": address,
        "dashboard": f"http://{settings.dashboard_host}:{dashboard_port}" if settings.ray_address is None else None,
        "hosts": settings.hosts,
        "gateways": settings.gateways,
        "writers": settings.writer_actors,
    }
    datadir.write_run(settings.data_dir, instance.run)


def _wait() -> int:
    """Wait for a signal, which is raised, or for Ray to break: 1."""
    from actors.runtime import cluster  # noqa: PLC0415 - see `_start`

    while (what := cluster.broken()) is None:
        time.sleep(LOOK_S)
    _complain(RuntimeError(f"Ray's {what} has ended by itself; stopping"))
    return 1


def _stop(instance: Instance) -> None:
    """End everything this run has started. A second signal ends it at once."""
    began = time.monotonic()
    stopping = threading.Thread(target=_stop_in_order, args=(instance,), daemon=True)
    try:
        _say(instance.console, "Stopping ... (once more to force it)")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            # What Ray prints while it ends is about calls that ended with it.
            stopping.start()
            stopping.join(STOP_WITHIN_S)
    except (Interrupted, SystemExit):
        _say(instance.console, "Forced.")
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    instance.watchdog.finish()
    shutil.rmtree(instance.directory, ignore_errors=True)  # what this very process has written there since
    datadir.forget_run(instance.settings.data_dir)
    _say(instance.console, f"Stopped after {time.monotonic() - began:.1f} s.")


def _say(console: Console, text: str) -> None:
    """Print, if anybody can still read it: the terminal may be gone, and that is no reason not to stop."""
    with contextlib.suppress(OSError):
        console.print(text)


def _stop_in_order(instance: Instance) -> None:
    if "ray" not in sys.modules:
        return
    from actors.runtime import cluster  # noqa: PLC0415 - see `_start`

    with contextlib.suppress(Exception):  # what does not stop is ended by the watchdog
        cluster.stop(instance.settings, instance.actors)


def down(data_dir: Path, *, force: bool) -> str:
    """Stop the instance that runs on ``data_dir``; what was done, for people.

    Raises:
        ConfigError: it does not stop, or the directory cannot be looked into.

    """
    pid = datadir.holder(data_dir)
    if pid is None:
        run = datadir.read_run(data_dir)
        if run is None:
            return f"Nothing runs on {data_dir}."
        killed = _clear_after(run, data_dir)
        return f"Nothing runs on {data_dir}; cleared what a killed run had left ({killed} processes)."
    try:
        os.kill(pid, signal.SIGKILL if force else signal.SIGTERM)
    except ProcessLookupError:
        pass  # it has just ended by itself
    except PermissionError:
        raise refused(f"process {pid} belongs to somebody else") from None
    give_up_at = time.monotonic() + DOWN_WITHIN_S
    while datadir.holder(data_dir) == pid:
        if time.monotonic() > give_up_at:
            raise refused(f"process {pid} has not stopped within {DOWN_WITHIN_S:.0f} s: try --force")
        time.sleep(DOWN_LOOK_S)
    if force and (run := datadir.read_run(data_dir)) is not None:
        _clear_after(run, data_dir)
    return f"Stopped process {pid}."


def running(data_dir: Path) -> dict[str, Any]:
    """How to reach the instance that runs on ``data_dir``: what its ``run.json`` says.

    Raises:
        ConfigError: none runs there, or it is still starting.

    """
    pid = datadir.holder(data_dir)
    run = datadir.read_run(data_dir)
    if pid is None or run is None or run.get("pid") != pid:
        raise refused(f"no FastSock runs on {data_dir}: start one with `fastsock serve`")
    if "ray_address" not in run:
        raise refused(f"FastSock on {data_dir} is still starting")
    return run


def roll(address: str, *, hosts: bool, gateways: bool, writers: bool) -> None:
    """Replace parts of what runs on the Ray at this address, and say so line by line.

    Raises:
        RetryableError: ``actor_unavailable``, nothing answers there, or something does not come back.

    """
    from actors.runtime import inspection, rolling  # noqa: PLC0415 - see `_start`
    from fastsock import main  # noqa: PLC0415

    tell = partial(Console(highlight=False).print, soft_wrap=True)
    began = time.monotonic()
    inspection.connect(address)
    try:
        if writers:
            rolling.roll_writers(tell)
        if hosts:
            rolling.roll_hosts(tell)
        if gateways:
            rolling.roll_replicas(main.parts(), tell)
    finally:
        inspection.disconnect()
    tell(f"Done after {time.monotonic() - began:.1f} s.")


def migrate(settings: Settings, revision: str | None, *, down: bool) -> str:
    """Bring the database to a revision; what was done, for people.

    Raises:
        FastSockError: the database cannot be reached.
        ConfigError: ``down`` without a revision, or the data directory cannot be used.

    """
    import asyncio  # noqa: PLC0415 - only migrations need it here

    from fastsock.db import engine  # noqa: PLC0415 - the database's drivers load with it
    from fastsock.db import migrate as migrations  # noqa: PLC0415

    if down and revision is None:
        raise refused("--down needs --revision: say how far, or base for an empty database")
    if settings.database_url is None:
        datadir.prepare(settings.data_dir)
    url = settings.database_url_resolved
    asyncio.run(engine.check(url))
    before = migrations.current(url)
    if down:
        migrations.downgrade(url, str(revision))
    else:
        migrations.upgrade(url, revision or "head")
    after = migrations.current(url)
    if before == after:
        return f"{settings.database_shown} is at revision {after or 'base'}."
    return f"{settings.database_shown} went from revision {before or 'base'} to {after or 'base'}."


def _catch_signals() -> None:
    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(number)

    for number in SIGNALS:
        signal.signal(number, interrupt)


@contextlib.contextmanager
def _whole() -> Iterator[None]:
    """Let no signal in between: it is handled at the end."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextlib.contextmanager
def _step(console: Console, what: str) -> Iterator[None]:
    """Say what is going on, and how long it took."""
    began = time.monotonic()
    if console.is_terminal:
        with console.status(f"{what} ..."):
            yield
        console.print(f"[green]✓[/] {what} [dim]{time.monotonic() - began:.1f} s[/]")
    else:
        console.print(f"{what} ...")
        yield


def _panel(instance: Instance, took_s: float) -> Panel:
    settings, run = instance.settings, instance.run
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("Application", str(run["url"]))
    table.add_row("API docs", f"{run['url']}/docs")
    if settings.ray_address is None:
        table.add_row("Ray dashboard", f"{run['dashboard']}  (asks for the token in {run['token_file']})")
        table.add_row("Logs", str(instance.directory / "session_latest" / "logs"))
    else:
        table.add_row("Ray", f"the cluster at {run['ray_address']}; its dashboard shows the logs")
    table.add_row("Database", settings.database_shown)
    table.add_row("Data directory", str(settings.data_dir))
    table.add_row(
        "Capacity",
        f"{settings.gateways} x {settings.max_sockets_per_gateway:,} sockets ({instance.files:,} open files a process)",
    )
    return Panel(
        table,
        title=f"FastSock runs · {settings.environment}",
        subtitle=f"started in {took_s:.1f} s · Ctrl-C stops it",
        expand=False,
    )


def _dashboard_port(settings: Settings) -> int:
    """The configured port, or where that is taken, another: the dashboard is no reason not to start."""
    try:
        rayenv.check_port(settings.dashboard_host, settings.dashboard_port, environment_names("dashboard_port"))
        _claim(Path(tempfile.gettempdir()) / f"fastsock-dashboard-{settings.dashboard_port}.lock")
    except (FastSockError, OSError):
        return rayenv.free_port()
    return settings.dashboard_port


def _claim(file: Path) -> None:
    """Hold a lock until this process ends: another FastSock may be starting, and be about to take the same port.

    Raises:
        OSError: somebody else holds it.

    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _complain(error: Exception) -> None:
    with contextlib.suppress(OSError):
        print(f"fastsock: {error}", file=sys.stderr, flush=True)  # noqa: T201 - this is the program's voice
