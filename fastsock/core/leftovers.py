"""No process outlives its instance, however the instance ends.

Ray starts processes that start processes, and HAProxy is nobody's child once the actor that started it is gone. So
every instance has an id, all of its processes inherit it in their environment, and whoever has it can be found. A
watchdog, started before Ray, holds the reading end of a pipe whose writing end only the instance has: when that closes
(the instance has ended, was killed, or asks for it), the watchdog kills whatever still carries the id, and removes the
temporary directory.

The instance itself does not carry the id: what a process sets in its own environment shows only in its children. The
watchdog is this file, run as a program, so it must not import FastSock.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import psutil

INSTANCE_VARIABLE = "FASTSOCK_INSTANCE"
QUIET_S = 0.3
"""So long nothing may be left before a sweep is believed: a process may be about to start another."""
SWEEP_TIMEOUT_S = 10.0


def processes(instance: str) -> list[psutil.Process]:
    """The processes of an instance, without this one and without zombies."""
    found = []
    for process in psutil.process_iter():
        try:
            carries = process.pid != os.getpid() and process.environ().get(INSTANCE_VARIABLE) == instance
            if carries and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue  # it has ended, or it is somebody else's and so not ours
    return found


def sweep(instance: str, timeout_s: float = SWEEP_TIMEOUT_S) -> int:
    """Kill what is left of an instance; the number of processes killed.

    Returns when nothing has been left for `QUIET_S`, or after ``timeout_s``.
    """
    killed: set[int] = set()
    give_up_at = time.monotonic() + timeout_s
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < QUIET_S and time.monotonic() < give_up_at:
        left = processes(instance)
        if left:
            quiet_since = time.monotonic()
        for process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
            killed.add(process.pid)
        psutil.wait_procs(left, timeout=1.0)
        time.sleep(0.05)
    return len(killed)


class Watchdog:
    """Sweeps when this process ends, or when it is told to."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @classmethod
    def start(cls, instance: str, temporary: Path, logs: Path) -> Self:
        """Start it in a session of its own, so that no Ctrl-C reaches it.

        When all has ended, Ray's logs go from ``temporary`` to ``logs``, in place of those of the run before, and
        ``temporary`` is removed.
        """
        environment = {key: value for key, value in os.environ.items() if key != INSTANCE_VARIABLE}
        return cls(
            subprocess.Popen(  # noqa: S603 - this very file
                [sys.executable, __file__, instance, str(temporary), str(logs)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
                env=environment,
            )
        )

    def finish(self) -> None:
        """Sweep now, and wait until it is done."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(SWEEP_TIMEOUT_S + 5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def clear(instance: str, temporary: Path, logs: Path) -> int:
    """Sweep, keep the logs, remove the temporary directory; the number of processes killed."""
    killed = sweep(instance)
    written = temporary / "session_latest" / "logs"
    if written.is_dir():
        shutil.rmtree(logs, ignore_errors=True)
        with contextlib.suppress(OSError, shutil.Error):  # logs are worth an attempt, not a failure
            shutil.copytree(written, logs, ignore_dangling_symlinks=True)
    shutil.rmtree(temporary, ignore_errors=True)
    return killed


def main(instance: str, temporary: str, logs: str) -> None:
    sys.stdin.buffer.read()
    clear(instance, Path(temporary), Path(logs))


if __name__ == "__main__":
    main(*sys.argv[1:])
