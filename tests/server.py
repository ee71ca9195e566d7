"""A real FastSock for tests: ``fastsock serve`` as a process of its own, with ports and a directory of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Self

START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 30


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """``fastsock serve``; as a context manager, started on entering and stopped on leaving.

    ``directory`` holds the data directory and the log (``server.log``); ``options`` are command-line options,
    ``environment`` is added to the process's environment.
    """

    def __init__(self, directory: Path, *options: str, environment: dict[str, str] | None = None) -> None:
        self.directory = directory
        self.data_dir = directory / "data"
        self.port = free_port()
        self.log = directory / "server.log"
        self._options = options
        self._environment = environment or {}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/api/v1/ws/chat"

    @property
    def run_file(self) -> dict[str, object]:
        """What the running server has written down about itself."""
        content: dict[str, object] = json.loads((self.data_dir / "run.json").read_text())
        return content

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the process, without waiting for it to be ready."""
        self.directory.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "fastsock",
            "serve",
            "--port",
            str(self.port),
            "--data-dir",
            str(self.data_dir),
        ]
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("FASTSOCK_", "RAY_"))}
        environment.pop("DATABASE_URL", None)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**environment, "FASTSOCK_DASHBOARD_PORT": str(free_port()), **self._environment},
                start_new_session=True,
            )
        return self.process

    def start(self) -> Self:
        """Start, and wait until HTTP answers through the ingress and the server has written down where it runs."""
        process = self.spawn()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (self.answers("/readyz") and "ray_address" in self.run_file):
            if process.poll() is not None:
                raise RuntimeError(f"fastsock serve ended with {process.returncode}:\n{self.tail()}")
            if time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"fastsock serve is not ready after {START_TIMEOUT_S} s:\n{self.tail()}")
            time.sleep(0.2)  # a poll for readiness, bounded above
        return self

    def answers(self, path: str) -> bool:
        """Whether a GET of this path answers 200 now."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as response:  # noqa: S310 - loopback
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> int | None:
        """Stop as an operator does, with SIGTERM; returns the exit code."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(STOP_TIMEOUT_S)
                raise RuntimeError(f"fastsock serve did not stop in {STOP_TIMEOUT_S} s:\n{self.tail()}") from None
        return self.process.returncode

    def tail(self, lines: int = 60) -> str:
        """The end of the log."""
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()
