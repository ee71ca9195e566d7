"""What a server costs: processor time and memory of all its processes, by what they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import psutil

KINDS = (
    ("gateway", (":Gateway",)),
    ("api", (":Api",)),
    ("host", ("ray::host-", "ray::HostActor")),
    ("writer", ("ray::persistence-", "ray::PersistenceActor")),
    ("haproxy", ("haproxy",)),
    ("postgres", ("postgres:", "bin/postgres")),
    ("redis", ("redis-server", "valkey-server")),
    ("worker", ("multiprocessing.spawn",)),
    ("serve", ("ray::Serve", "ray::Proxy", "ray::HAProxy")),
    ("ray", ("raylet", "gcs_server", "dashboard", "runtime_env", "monitor.py", "ray::")),
)
"""What a process is, by what its command line has in it; the first that fits."""


def kind_of(command: str) -> str:
    """What a process is."""
    for kind, marks in KINDS:
        if any(mark in command for mark in marks):
            return kind
    return "other"


class Footprint:
    """The processes of a server. ``find`` lists them now: they may come and go."""

    def __init__(self, find: Callable[[], Iterable[psutil.Process]]) -> None:
        self._find = find

    def _each(self) -> Iterable[tuple[str, psutil.Process]]:
        for process in self._find():
            try:
                yield kind_of(" ".join(process.cmdline()) or process.name()), process
            except psutil.Error:
                continue

    def cpu_s(self) -> dict[str, float]:
        """Processor seconds that they have used so far."""
        used: dict[str, float] = {}
        for kind, process in self._each():
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            used[kind] = used.get(kind, 0.0) + times.user + times.system
        return used

    def memory_bytes(self) -> dict[str, int]:
        """Memory that is theirs: proportional set size, so that what is shared counts once."""
        used: dict[str, int] = {}
        for kind, process in self._each():
            try:
                about = process.memory_full_info()
            except psutil.Error:
                continue
            used[kind] = used.get(kind, 0) + about.pss
        return used


def since(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """What was used between two looks, the most first."""
    used = {kind: after[kind] - before.get(kind, 0.0) for kind in after}
    return dict(sorted(used.items(), key=lambda item: -item[1]))
