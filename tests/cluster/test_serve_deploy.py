"""On a Ray cluster: the commands of ``ray_cluster.yaml`` and ``serve deploy deploy/serve.yaml``, on this machine alone.

Other Rays run here too, and ``ray stop`` ends every Ray of a machine. So this cluster has ports and directories of its
own, its processes carry a mark (as those of ``fastsock serve`` do), and it is stopped by that mark.
"""

from __future__ import annotations

import contextlib
import copy
import os
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml  # type: ignore[import-untyped]
from ray.autoscaler._private.constants import RAY_PROCESSES
from ray.autoscaler._private.util import prepare_config, validate_config

from fastsock.core import datadir, rayenv
from fastsock.core.config import Settings
from fastsock.core.leftovers import INSTANCE_VARIABLE, processes, sweep
from tests.e2e.basics import two_people_talk
from tests.e2e.wire import Town
from tests.server import free_port

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
COMMAND_WITHIN_S = 120
RUNNING_WITHIN_S = 180.0
STOPPED_WITHIN_S = 60.0
LOOK_S = 0.2
STATES = {"NOT_STARTED", "DEPLOYING", "RUNNING"}
"""What an application goes through where nothing fails."""


def described(name: str) -> dict[str, Any]:
    """A YAML file of this repository."""
    content: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return content


def eventually(condition: Callable[[], bool], within_s: float, what: Callable[[], str]) -> None:
    give_up_at = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up_at, f"not within {within_s:g} s: {what()}"
        time.sleep(LOOK_S)


class Cluster:
    """One node, started as ``ray_cluster.yaml`` starts the head."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="fsc-", dir="/tmp"))  # a socket's path must be short
        self.data_dir = self.directory / "d"
        self.data_dir.mkdir()
        self.instance = f"{self.directory.name}-{secrets.token_hex(4)}"
        self.port, self.dashboard_port = free_port(), free_port()
        self._token_file = datadir.ray_token(self.data_dir)
        settings = Settings.load({"data_dir": self.data_dir, "port": self.port}, env_file=None)
        ours = ("FASTSOCK_", "RAY_", "DATABASE_URL", "TURN_", "WEBRTC_")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self.environment |= rayenv.variables(settings, self.directory, self._token_file, rayenv.raise_file_limit())
        self.environment |= {INSTANCE_VARIABLE: self.instance, "PYTHONPATH": str(ROOT)}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/api/v1/ws/chat"

    @property
    def dashboard(self) -> str:
        return f"http://127.0.0.1:{self.dashboard_port}"

    def run(self, *command: str) -> str:
        """Run a command in the cluster's environment; what it prints."""
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_WITHIN_S,
            check=False,
        )
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}"
        return done.stdout

    def start(self) -> None:
        """Run the head's last command, with the paths, the ports and the autoscaler of this machine."""
        node_environment = self.directory / "fastsock.env"
        node_environment.write_text(
            "FASTSOCK_ENVIRONMENT=production\n"
            f"FASTSOCK_SECRET_KEY={secrets.token_urlsafe(48)}\n"
            f"FASTSOCK_DATABASE_URL=sqlite:///{self.data_dir / 'fastsock.db'}\n"
            "FASTSOCK_HOSTS=1\nFASTSOCK_GATEWAYS=1\n"
        )
        command: str = described("ray_cluster.yaml")["head_start_ray_commands"][-1]
        for there, here in (
            ("/etc/fastsock.env", str(node_environment)),
            ("/opt/fastsock-venv/bin/fastsock ", f"{sys.executable} -m fastsock "),
            ("/opt/fastsock-venv/bin/ray ", f"{BIN / 'ray'} "),
            (" --port=6379 ", f" --port={free_port()} "),
            (" --autoscaling-config=~/ray_bootstrap_config.yaml", ""),
        ):
            assert command.count(there) == 1, f"{there!r} is in {command!r}"
            command = command.replace(there, here)
        own = {
            "temp-dir": self.directory,
            "node-ip-address": "127.0.0.1",
            "num-cpus": 2,
            "object-store-memory": 100_000_000,
            "dashboard-port": self.dashboard_port,
            "ray-client-server-port": free_port(),
            "dashboard-agent-listen-port": free_port(),
            "min-worker-port": 0,
            "max-worker-port": 0,
        }
        self.run("bash", "-c", " ".join([command, *(f"--{name}={value}" for name, value in own.items())]))

    def applications(self) -> dict[str, str]:
        """The state of each application of Serve."""
        token = self._token_file.read_text().strip()
        answer = httpx.get(
            f"{self.dashboard}/api/serve/applications/", headers={"Authorization": f"Bearer {token}"}, timeout=30
        )
        assert answer.status_code == 200, answer.text
        applications: dict[str, dict[str, Any]] = answer.json()["applications"]
        for name, about in applications.items():
            assert about["status"] in STATES, f"{name}: {about['status']}: {about['message']}\n{self.logs()}"
        return {name: str(about["status"]) for name, about in applications.items()}

    def logs(self) -> str:
        """The ends of Serve's logs."""
        files = sorted((self.directory / "session_latest" / "logs" / "serve").glob("*.log"))
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-2_000:]}" for file in files)

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> list[str]:
        """End it as ``ray stop`` does, kind by kind, but this one alone; what did not end when it was asked to."""
        stubborn = []
        for kinds in (RAY_PROCESSES[:1], RAY_PROCESSES[1:-1], RAY_PROCESSES[-1:]):
            found = [process for process in processes(self.instance) if _is_one_of(kinds, process)]
            for process in found:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.terminate()
            _, alive = psutil.wait_procs(found, timeout=STOPPED_WITHIN_S)
            stubborn += [process.name() for process in alive]
        return stubborn


def _is_one_of(kinds: Sequence[Sequence[Any]], process: psutil.Process) -> bool:
    try:
        name, arguments = process.name(), subprocess.list2cmdline(process.cmdline())
    except psutil.NoSuchProcess:
        return False
    return any(keyword in (name if by_name else arguments) for keyword, by_name in kinds)


@pytest.fixture(scope="module")
def deployed() -> Iterator[Cluster]:
    """A cluster on which both applications run."""
    cluster = Cluster()
    try:
        cluster.start()
        config = described("deploy/serve.yaml")
        config["http_options"] |= {"host": "127.0.0.1", "port": cluster.port}
        file = cluster.directory / "serve.yaml"
        file.write_text(yaml.safe_dump(config))
        said = cluster.run(str(BIN / "serve"), "deploy", str(file), "--address", cluster.dashboard)
        assert "Sent deploy request successfully." in said
        eventually(
            lambda: cluster.applications() == {"gateway": "RUNNING", "api": "RUNNING"},
            RUNNING_WITHIN_S,
            lambda: f"{cluster.applications()}\n{cluster.logs()}",
        )
        eventually(cluster.listens, RUNNING_WITHIN_S, cluster.logs)
        yield cluster
    finally:
        sweep(cluster.instance)
        shutil.rmtree(cluster.directory, ignore_errors=True)


async def test_serve_deploy_makes_a_chat_server_of_a_cluster(deployed: Cluster) -> None:
    async with httpx.AsyncClient(timeout=60) as http:
        town = Town(deployed, http)
        try:
            await two_people_talk(town)
        finally:
            await town.close()


def test_nothing_is_left_when_the_cluster_has_stopped(deployed: Cluster) -> None:
    titles = [" ".join(process.cmdline()) for process in processes(deployed.instance)]
    for part in ("haproxy", "ray::HostActor", "ray::PersistenceActor", "ray::ServeReplica:gateway", "raylet"):
        assert any(part in title for title in titles), part
    assert deployed.stop() == []
    eventually(lambda: not processes(deployed.instance), STOPPED_WITHIN_S, lambda: str(processes(deployed.instance)))
    assert not deployed.listens()


def test_a_cluster_without_a_secret_is_refused() -> None:
    ours = ("FASTSOCK_", "RAY_", "DATABASE_URL")
    done = subprocess.run(
        [sys.executable, "-c", "from fastsock import main; main.gateway({})"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith(ours)},
        capture_output=True,
        text=True,
        timeout=COMMAND_WITHIN_S,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "fastsock.core.config.ConfigError: FASTSOCK_SECRET_KEY is not set: a cluster needs one of 32 characters or more"
    )


# --- the files alone ---------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")  # in Ray's own models
def test_serve_yaml_is_what_serve_expects() -> None:
    from ray.serve.schema import ServeDeploySchema  # noqa: PLC0415 - for its warnings, to be met above

    config = ServeDeploySchema.model_validate(described("deploy/serve.yaml"))
    assert {application.name: application.route_prefix for application in config.applications} == {
        "gateway": "/api/v1/ws",
        "api": "/",
    }
    assert config.http_options.request_timeout_s is None  # it would count for sockets from their connect on
    assert config.http_options.port == 8000


def test_ray_cluster_yaml_is_what_rays_launcher_expects() -> None:
    prepared = prepare_config(copy.deepcopy(described("ray_cluster.yaml")))
    validate_config(prepared)
    nodes = prepared["available_node_types"][prepared["head_node_type"]]
    assert (nodes["min_workers"], nodes["max_workers"], prepared["max_workers"]) == (2, 2, 2)
    for start in (prepared["head_start_ray_commands"][-1], prepared["worker_start_ray_commands"][-1]):
        exported = dict(re.findall(r"\b(RAY_\w+)=(\S+)", start.partition(" && /opt")[0]))
        assert exported["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
        assert exported["RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD"] == "0"
        assert exported["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"] == str(rayenv.HARD_STOP_AFTER_S)
        assert exported["RAY_SERVE_PORT_QUARANTINE_S"] == str(rayenv.PORT_QUARANTINE_S)
        arithmetic = re.search(r"RAY_SERVE_HAPROXY_MAXCONN=(\$\(\(.*?\)\))(?= &&)", start)
        assert arithmetic is not None
        counted = subprocess.run(
            ["bash", "-c", f"ulimit -n $(ulimit -Hn); echo $(ulimit -n) {arithmetic[1]}"],
            capture_output=True,
            text=True,
            check=True,
        )
        files, connections = map(int, counted.stdout.split())
        assert connections == (files - rayenv.RESERVED_FILES) * 2 // 5
