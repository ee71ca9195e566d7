"""The composition root: which parts the running system is made of.

`gateway_app` and `api_app` are what Serve deploys: `fastsock.launch` by way of `parts`, ``deploy/serve.yaml`` by way of
`gateway` and `api`. Each replica gets the settings as plain values and builds its application itself: encoders,
connections and locks cannot be sent, and need not be.
"""

from __future__ import annotations

import asyncio

from ray import serve

from actors.placement import Placement
from actors.runtime import names
from actors.runtime.cluster import Parts
from fastsock.core import rayenv
from fastsock.core.config import MIN_SECRET_CHARS, Settings, refused
from fastsock.core.errors import RetryableError
from fastsock.core.limits import REQUEST_TIMEOUT_MS

MAX_ONGOING_SOCKETS = 1_000_000
"""Serve leaves a socket above this unanswered; the gateway's own limit, which answers, must come first."""
MAX_ONGOING_REQUESTS = 1_000
"""Of one API replica; above it Serve answers 503."""
HEALTH_PERIOD_S = 5.0
HEALTH_TIMEOUT_S = 30.0
"""A replica that has not answered for so long is replaced. Generous: replacing one cuts its sockets."""
SURGE_PERCENT = 100
"""Of the replicas, so many more run while they are replaced: all new ones are there before the first old one sends its
sockets away, so none of them comes back to one that goes as well."""
PLACE_ATTEMPTS = 3
GOODBYE_S = REQUEST_TIMEOUT_MS / 1000


class Gateway:
    """A replica that holds sockets."""

    def __init__(self, settings: dict[str, object]) -> None:
        self._settings = settings

    def __repr__(self) -> str:
        return "gateway"

    def __serve_build_asgi_app__(self) -> object:
        from actors.runtime import gateway_replica, replicas  # noqa: PLC0415 - only replicas need it

        return replicas.Replica(gateway_replica.gateway, Settings.from_wire(self._settings))


class Api:
    """A replica that answers HTTP."""

    def __init__(self, settings: dict[str, object]) -> None:
        self._settings = settings

    def __repr__(self) -> str:
        return "api"

    def __serve_build_asgi_app__(self) -> object:
        from actors.runtime import replicas  # noqa: PLC0415 - only replicas need it

        return replicas.Replica(replicas.api, Settings.from_wire(self._settings))


def gateway_app(settings: dict[str, object]) -> serve.Application:
    """The Serve application at ``/api/v1/ws``."""
    deployment = serve.deployment(
        name="Gateway",
        num_replicas=Settings.from_wire(settings).gateways,
        max_ongoing_requests=MAX_ONGOING_SOCKETS,
        max_surge_percent=SURGE_PERCENT,
        health_check_period_s=HEALTH_PERIOD_S,
        health_check_timeout_s=HEALTH_TIMEOUT_S,
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=2.0,  # sockets don't end by themselves: closed with 1012, clients come back
        ray_actor_options={"num_cpus": 0},
    )(serve.ingress()(Gateway))
    return deployment.bind(settings)


def api_app(settings: dict[str, object]) -> serve.Application:
    """The Serve application at ``/``."""
    deployment = serve.deployment(
        name="Api",
        num_replicas=Settings.from_wire(settings).api_replicas,
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        max_surge_percent=SURGE_PERCENT,
        health_check_period_s=HEALTH_PERIOD_S,
        health_check_timeout_s=HEALTH_TIMEOUT_S,
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=GOODBYE_S,
        ray_actor_options={"num_cpus": 0},
    )(serve.ingress()(Api))
    return deployment.bind(settings)


def gateway(args: dict[str, object]) -> serve.Application:
    """What ``serve deploy`` builds for `gateway_app`; ``args`` are settings by name, and go before the environment."""
    return gateway_app(_on_cluster(args).to_wire())


def api(args: dict[str, object]) -> serve.Application:
    """What ``serve deploy`` builds for `api_app`; ``args`` as for `gateway`."""
    return api_app(_on_cluster(args).to_wire())


def _on_cluster(args: dict[str, object]) -> Settings:
    """The settings of a cluster, whose database, persistence and hosts are ready when this returns.

    Serve builds each application in a task of its own, both at once, on any node: so everything here may be done twice.
    Actors that run already keep the settings they were started with.

    Raises:
        ConfigError: a setting is wrong, or there is no secret, which both applications must know.
        FastSockError: the database is away, or the actors do not start.

    """
    from actors.runtime import cluster  # noqa: PLC0415 - only who starts actors needs it
    from fastsock.db import engine, migrate  # noqa: PLC0415 - the database's drivers load with it

    settings = Settings.load(args, env_file=None)
    if settings.secret_key is None:
        raise refused(f"FASTSOCK_SECRET_KEY is not set: a cluster needs one of {MIN_SECRET_CHARS} characters or more")
    files = rayenv.raise_file_limit()
    settings = settings.model_copy(update={"max_sockets_per_gateway": rayenv.sockets_per_gateway(settings, files)})
    asyncio.run(engine.check(settings.database_url_resolved))
    migrate.upgrade(settings.database_url_resolved)
    place_hosts(settings)
    cluster.wait_ready(cluster.start_actors(settings, parts()))
    return settings


def parts() -> Parts:
    """What ``fastsock serve`` starts."""
    from actors.runtime.host_actor import HostActor  # noqa: PLC0415 - only who starts actors needs them
    from actors.runtime.persistence_actor import PersistenceActor  # noqa: PLC0415

    return Parts(HostActor, PersistenceActor, gateway_app, api_app)


def place_hosts(settings: Settings) -> Placement:
    """Store the placement over the configured hosts, if another one is stored; the placement that holds now.

    Raises:
        RetryableError: ``storage_unavailable``; ``actor_unavailable``, others keep storing other ones.

    """
    return asyncio.run(_place_hosts(settings))


async def _place_hosts(settings: Settings) -> Placement:
    from fastsock.db.engine import Database  # noqa: PLC0415 - the database's drivers load with it
    from fastsock.db.placement import PlacementStore  # noqa: PLC0415

    hosts = tuple(sorted(names.host(index) for index in range(settings.hosts)))
    database = Database(settings.database_url_resolved, pool_size=1)
    try:
        store = PlacementStore(database)
        for _ in range(PLACE_ATTEMPTS):
            stored = await store.load()
            current = None if stored is None else Placement.decode(stored)
            wanted = Placement(epoch=1, hosts=hosts) if current is None else current.with_hosts(hosts)
            expected = 0 if current is None else current.epoch
            if wanted == current or await store.store(wanted.encode(), wanted.epoch, expected):
                return wanted
        raise RetryableError("actor_unavailable", f"the placement was changed {PLACE_ATTEMPTS} times by others")
    finally:
        await database.close()
