"""Starting and stopping: Ray, the actors, the Serve applications.

The order is the architecture's, from the inside out: writers and hosts, then the gateways and the API in front of them;
stopping goes the other way, so that no socket is open when what is behind it goes. Everything that takes long is begun
together: on two cores a process takes about a second to start, one after the other they took a minute.

Ray and Serve read `RAY_*` variables when they are imported; so whoever starts a local Ray imports this module after
those are set (`fastsock.core.rayenv`).
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import ray
from ray import serve
from ray.actor import ActorHandle
from ray.serve.config import HTTPOptions, ProxyLocation
from ray.serve.schema import LoggingConfig

from actors.runtime import names
from fastsock.core.config import Settings
from fastsock.core.errors import RetryableError

OBJECT_STORE_BYTES = 128 * 1024 * 1024
"""Batches travel inside calls; only what is above 100 KB goes through the object store."""
READY_WITHIN_S = 120.0
HEALTHY_WITHIN_S = 120.0
LOOK_AGAIN_S = 0.05
GATEWAY_PREFIX = "/api/v1/ws"
API_PREFIX = "/"
HEALTH_PATHS = ("/healthz", f"{GATEWAY_PREFIX}/healthz")


class Ready(Protocol):
    """A host's or writer's class: built with its index and the settings, it has ``async ready() -> dict``."""

    def __init__(self, index: int, settings: dict[str, object]) -> None: ...

    async def ready(self) -> dict[str, object]: ...


class Parts(NamedTuple):
    """What the system is made of; handed in, so that this module imports none of it."""

    host_actor: type[Ready]
    persistence_actor: type[Ready]
    gateway_app: Callable[[dict[str, object]], serve.Application]
    api_app: Callable[[dict[str, object]], serve.Application]


Progress = Callable[[str], None]


def start_ray(settings: Settings, instance_dir: Path, dashboard_port: int) -> str:
    """Start Ray in and for this process, or join the cluster at ``settings.ray_address``; Ray's address.

    Call it from the main thread: Ray's processes die with the thread that started them.
    """
    if settings.ray_address is not None:
        ray.init(
            address=settings.ray_address, namespace=names.NAMESPACE, log_to_driver=False, logging_level=logging.ERROR
        )
    else:
        ray.init(
            address="local",
            namespace=names.NAMESPACE,
            include_dashboard=True,
            dashboard_host=settings.dashboard_host,
            dashboard_port=dashboard_port,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=True,
            logging_level=logging.ERROR,
            _temp_dir=str(instance_dir),
            _node_ip_address="127.0.0.1",
        )
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    return str(ray.get_runtime_context().gcs_address)


def start_actors(settings: Settings, parts: Parts) -> dict[str, ActorHandle[Any]]:
    """Begin to start the writers and hosts that are not there yet; their handles by name. Does not wait."""
    wire = settings.to_wire()
    # Any: Ray's stubs take the actor class that `ray.remote` makes for an instance of the class
    wanted: list[tuple[str, Any, int]] = [
        *((names.writer(index), parts.persistence_actor, index) for index in range(settings.writer_actors)),
        *((names.host(index), parts.host_actor, index) for index in range(settings.hosts)),
    ]
    return {
        name: ray.remote(cls)
        .options(
            name=name,
            namespace=names.NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            scheduling_strategy="SPREAD",  # by itself Ray has put three hosts on one of four nodes
            max_restarts=-1,
            enable_task_events=False,
        )
        .remote(index, wire)
        for name, cls, index in wanted
    }


def wait_ready(actors: dict[str, ActorHandle[Any]], timeout_s: float = READY_WITHIN_S) -> None:
    """Wait until every actor says that it can work.

    Raises:
        RetryableError: ``actor_unavailable``, one does not within the time; the text says which.
        FastSockError: what an actor's ``ready`` raised.

    """
    calls: dict[ray.ObjectRef[Any], str] = {handle.ready.remote(): name for name, handle in actors.items()}
    pending = list(calls)
    give_up_at = time.monotonic() + timeout_s
    while pending:
        done, pending = ray.wait(pending, timeout=max(0.0, give_up_at - time.monotonic()))
        if not done:
            late = ", ".join(calls[call] for call in pending)
            raise RetryableError("actor_unavailable", f"not ready within {timeout_s:.0f} s: {late}")
        for call in done:
            try:
                ray.get(call)
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, Exception) else error from None


def start_serve(settings: Settings) -> None:
    """Start Serve's controller and ingress, unless they run: then they stay as they are."""
    serve.start(
        proxy_location=ProxyLocation.HeadOnly if settings.ray_address is None else ProxyLocation.EveryNode,
        http_options=HTTPOptions(host=settings.host, port=settings.port, request_timeout_s=None),
        logging_config=LoggingConfig(
            encoding="JSON" if settings.log_format == "json" else "TEXT",
            log_level=settings.log_level,
            enable_access_log=False,
        ),
    )


def start_applications(settings: Settings, parts: Parts) -> None:
    """Deploy both applications, or update them, and wait until their replicas run.

    Raises:
        RuntimeError: an application did not start; Ray's text says why.

    """
    serve.run_many(list(_targets(settings, parts).values()))


def start_application(application: str, settings: Settings, parts: Parts) -> None:
    """Deploy one of them, or replace its replicas, and wait until the new ones run.

    Raises:
        RuntimeError: it did not start; Ray's text says why.

    """
    serve.run_many([_targets(settings, parts)[application]])


def _targets(settings: Settings, parts: Parts) -> dict[str, serve.RunTarget]:
    wire = settings.to_wire()
    gateway, api = names.GATEWAY_APPLICATION, names.API_APPLICATION
    return {
        gateway: serve.RunTarget(parts.gateway_app(wire), name=gateway, route_prefix=GATEWAY_PREFIX),
        api: serve.RunTarget(parts.api_app(wire), name=api, route_prefix=API_PREFIX),
    }


def wait_healthy(host: str, port: int, timeout_s: float = HEALTHY_WITHIN_S) -> None:
    """Wait until both applications answer through the ingress.

    Raises:
        RetryableError: ``actor_unavailable``, one does not within the time; the text says which and what it said last.

    """
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared with, not bound to
    give_up_at = time.monotonic() + timeout_s
    for path in HEALTH_PATHS:
        while (answer := _get(local, port, path)) != "200":
            if time.monotonic() > give_up_at:
                text = f"http://{local}:{port}{path} is not healthy within {timeout_s:.0f} s: {answer}"
                raise RetryableError("actor_unavailable", text)
            time.sleep(LOOK_AGAIN_S)


def _get(host: str, port: int, path: str) -> str:
    """The status of a GET, or why there is none."""
    connection = http.client.HTTPConnection(host, port, timeout=5.0)
    try:
        connection.request("GET", path)
        return str(connection.getresponse().status)
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()


def stop(settings: Settings, actors: dict[str, ActorHandle[Any]]) -> None:
    """Stop the applications, then the actors, then Ray if it was started here. Safe after a start that failed."""
    if not ray.is_initialized():
        return
    if settings.ray_address is None:
        # The gateways first, while HAProxy still runs: their sockets get a close code (1012, come back), not a cut.
        with contextlib.suppress(Exception):  # there may be none yet
            serve.delete(names.GATEWAY_APPLICATION)
        serve.shutdown()  # type: ignore[no-untyped-call]
    else:
        for application in (names.GATEWAY_APPLICATION, names.API_APPLICATION):
            with contextlib.suppress(Exception):
                serve.delete(application)
    for handle in actors.values():
        ray.kill(handle, no_restart=True)
    ray.shutdown()


def broken() -> str | None:
    """What of the local Ray has ended by itself; None while all is well."""
    node: Any = ray._private.worker._global_node  # noqa: SLF001 - Ray tells nobody else that its processes have died
    dead = () if node is None else node.dead_processes()
    return next((str(kind) for kind, _ in dead if kind in {"gcs_server", "raylet"}), None)
