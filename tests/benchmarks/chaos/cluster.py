"""What runs, and how it is killed: a Ray cluster of several nodes on this machine, PostgreSQL, FastSock on both.

A node is a raylet with everything it has started. All of them carry the node's mark in their environment, so "the
machine is gone" is SIGKILL to whoever has the mark: nothing says goodbye. (The kernel still resets their TCP
connections, which a machine that loses its power does not.) The head node has Ray's GCS, Serve's controller and the
ingress; it is never killed, because Ray needs Redis to survive that, and here is none.

There is one HAProxy, the head's, which sends to replicas on all nodes. Several on one machine do work, with ports and
directories of their own, but a client knows one address: it would need a load balancer in front of them.

Every process also carries the instance's mark, as those of ``fastsock serve`` do. The watchdog ends whoever has it when
this process ends, however it ends; ``ray stop`` would end every Ray of the machine.

Everything here blocks, and all of it must be called from one thread: Ray's processes end with the thread that has
started them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from fastsock.core import datadir, rayenv
from fastsock.core.config import Settings
from fastsock.core.leftovers import INSTANCE_VARIABLE, Watchdog, processes
from tests.postgres import PostgresServer
from tests.server import free_port

NODE_VARIABLE = "FASTSOCK_CHAOS_NODE"
HEAD = "head"
OBJECT_STORE_BYTES = 100 * 1024 * 1024
NODE_CPUS = 4
"""What Ray believes; FastSock's processes ask for none."""
OURS = ("FASTSOCK_", "RAY_", "DATABASE_URL", "TURN_", "WEBRTC_")
"""Variables of whoever runs this must not reach what it starts."""
SERVE_NAMESPACE = "serve"
REPLICAS = "SERVE_REPLICA::"


class Shape(NamedTuple):
    """How many of what."""

    nodes: int = 3
    """Beside the head."""
    hosts: int = 3
    gateways: int = 2
    api_replicas: int = 2


class Part(NamedTuple):
    """A process of FastSock that runs as a Ray actor."""

    kind: str
    """``host``, ``persistence``, ``gateway`` or ``api``."""
    name: str
    pid: int
    node: str
    """The mark of its node."""


@dataclass
class Cluster:
    """FastSock on several nodes. `start` it, break it, `stop` it; whatever happens, `stop` it."""

    shape: Shape
    logs: Path
    """Where the logs of Ray and FastSock are when all has stopped."""
    directory: Path = field(
        default_factory=lambda: Path(tempfile.mkdtemp(prefix="fsx-", dir="/tmp"))
    )  # a socket's path must be short
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.instance = f"{self.directory.name}-{secrets.token_hex(4)}"
        self._postgres = PostgresServer(own=True, durable=True)
        self._watchdog: Watchdog | None = None
        self._ray: Any = None
        self._nodes: dict[str, Any] = {}
        self._actors: dict[str, Any] = {}
        self._number = 0
        self.database_url = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # --- starting and stopping -----------------------------------------------------------------------------------

    def start(self) -> Iterator[str]:
        """Start everything; what it is at, for people."""
        self._watchdog = Watchdog.start(self.instance, self.directory, self.logs)
        yield "PostgreSQL"
        self._postgres.__enter__()
        self.database_url = self._postgres.create_database()
        settings = self._prepare()
        import ray  # noqa: PLC0415 - it reads its variables when it is imported
        from ray.cluster_utils import Cluster as Nodes  # noqa: PLC0415

        from actors.runtime import cluster, names  # noqa: PLC0415
        from fastsock import launch, main  # noqa: PLC0415

        launch.migrate(settings, None, down=False)
        main.place_hosts(settings)
        yield f"Ray, a head and {self.shape.nodes} nodes"
        self._ray = Nodes(shutdown_at_exit=False)
        self._add(HEAD, include_dashboard=False, num_cpus=0)
        for _ in range(self.shape.nodes):
            self.add_node()
        ray.init(address=self._ray.address, namespace=names.NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
        yield f"{self.shape.hosts} hosts and persistence"
        parts = main.parts()
        self._actors = cluster.start_actors(settings, parts)
        cluster.start_serve(settings)
        cluster.wait_ready(self._actors)
        yield f"{self.shape.gateways} gateways and {self.shape.api_replicas} API"
        cluster.start_applications(settings, parts)
        cluster.wait_healthy(settings.host, settings.port)

    def _prepare(self) -> Settings:
        """Set Ray's variables for this process and what it starts; FastSock's settings."""
        for name in [name for name in os.environ if name.startswith(OURS)]:
            del os.environ[name]
        data_dir = self.directory / "d"
        data_dir.mkdir()
        settings = Settings.load(
            {
                "data_dir": data_dir,
                "port": self.port,
                "database_url": self.database_url,
                "secret_key": secrets.token_urlsafe(48),
                "hosts": self.shape.hosts,
                "gateways": self.shape.gateways,
                "api_replicas": self.shape.api_replicas,
            },
            env_file=None,
        )
        files = rayenv.raise_file_limit()
        os.environ |= rayenv.variables(settings, self.directory, datadir.ray_token(data_dir), files)
        os.environ[INSTANCE_VARIABLE] = self.instance
        os.environ["RAY_TMPDIR"] = str(
            self.directory
        )  # else the cluster's address is written where others look for theirs
        (self.directory / "ray").mkdir()
        return settings

    def _add(self, mark: str, **arguments: object) -> None:
        self._nodes[mark] = self._ray.add_node(
            env_vars={NODE_VARIABLE: mark},
            node_ip_address="127.0.0.1",
            temp_dir=str(self.directory),
            object_store_memory=OBJECT_STORE_BYTES,
            dashboard_agent_listen_port=free_port(),
            **arguments,
        )

    def add_node(self) -> str:
        """Another machine; its mark."""
        self._number += 1
        mark = f"node-{self._number}"
        self._add(mark, num_cpus=NODE_CPUS)
        return mark

    def stop(self) -> list[str]:
        """Stop everything that runs; what was left of it after that, which should be nothing."""
        if self._ray is not None:
            import ray  # noqa: PLC0415 - see `start`

            with contextlib.suppress(Exception):  # what does not stop is ended by the watchdog
                ray.shutdown()
            with contextlib.suppress(Exception):
                self._ray.shutdown()
        if self._watchdog is not None:
            self._watchdog.finish()
        self._postgres.__exit__(None, None, None)
        return [" ".join(process.cmdline()) for process in processes(self.instance)]

    # --- looking -------------------------------------------------------------------------------------------------

    @property
    def nodes(self) -> list[str]:
        """The marks of the nodes that are there, without the head."""
        return [mark for mark in self._nodes if mark != HEAD]

    def parts(self) -> list[Part]:
        """FastSock's processes that are alive, in a fixed order."""
        from ray._private.state import actors  # noqa: PLC0415 - see `start`

        marks = {node.node_id: mark for mark, node in self._nodes.items()}
        found = []
        for actor in actors(actor_state_name="ALIVE").values():
            kind = _kind_of(actor["Name"])
            mark = marks.get(actor["Address"]["NodeID"])
            if kind is not None and mark is not None and psutil.pid_exists(actor["Pid"]):
                found.append(Part(kind, actor["Name"], actor["Pid"], mark))
        return sorted(found)

    def proxies(self) -> list[int]:
        """The processes of HAProxy."""
        return [process.pid for process in processes(self.instance) if process.name() == "haproxy"]

    # --- breaking ------------------------------------------------------------------------------------------------

    def kill_process(self, pid: int) -> None:
        """SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def kill_actor(self, name: str) -> None:
        """As Ray kills an actor, to be restarted."""
        import ray  # noqa: PLC0415 - see `start`

        ray.kill(self._actors[name], no_restart=False)

    def kill_node(self, mark: str) -> int:
        """A machine is gone; the number of processes that were on it."""
        node = self._nodes.pop(mark)
        there = [process for process in processes(self.instance) if _mark_of(process) == mark]
        for process in there:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._ray.remove_node(node, allow_graceful=False)
        return len(there)

    def kill_postgres(self) -> None:
        """SIGKILL to the server and all its sessions."""
        self._postgres.kill()

    def stop_postgres(self) -> None:
        """As an administrator in a hurry does."""
        self._postgres.stop()

    def start_postgres(self) -> None:
        """Until it accepts connections, the log of what was committed applied."""
        self._postgres.start()


def _kind_of(actor_name: str) -> str | None:
    """What an actor of this name is, None: nothing of ours."""
    for prefix, kind in (
        ("fastsock-host-", "host"),
        ("fastsock-persistence-", "persistence"),
        (f"{REPLICAS}gateway#", "gateway"),
        (f"{REPLICAS}api#", "api"),
    ):
        if actor_name.startswith(prefix):
            return kind
    return None


def _mark_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(NODE_VARIABLE)
    except psutil.Error:
        return None  # it has ended
