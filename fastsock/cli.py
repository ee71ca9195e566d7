"""The command line: ``fastsock serve``, ``down``, ``migrate``, ``roll``, ``top``, ``inspect``, ``bench``.

Nothing heavy is imported before a command needs it, Ray least of all: ``fastsock --help`` is there at once. An error
that a person can mend is one line on standard error and exit status 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from fastsock.core.config import Settings

app = typer.Typer(
    name="fastsock",
    help="Real-time chat and call signalling on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Environment = Annotated[
    str | None,
    typer.Option(
        "--environment",
        metavar="development|production",
        help="production demands FASTSOCK_SECRET_KEY. [dim]\\[FASTSOCK_ENVIRONMENT; default: development][/]",
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Where the database, the secret and the logs are kept."
        " [dim]\\[FASTSOCK_DATA_DIR; default: ~/.local/share/fastsock][/]",
        show_default=False,
    ),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        help="postgresql://user:password@host/name or sqlite:///path."
        " [dim]\\[FASTSOCK_DATABASE_URL or DATABASE_URL; default: SQLite in the data directory][/]",
        show_default=False,
    ),
]


def main() -> None:
    """The entry point of the ``fastsock`` program."""
    app()


@app.command(
    epilog="Each option is also a variable, in the environment or in a file .env in the working directory; the option"
    " comes first, then the environment, then .env. More variables: FASTSOCK_SECRET_KEY, FASTSOCK_ACCESS_TOKEN_TTL_S,"
    " FASTSOCK_API_REPLICAS, FASTSOCK_MAX_SOCKETS_PER_GATEWAY, FASTSOCK_MAX_CONNECTIONS_PER_USER,"
    " FASTSOCK_DASHBOARD_HOST, FASTSOCK_CORS_ORIGINS, WEBRTC_ICE_SERVERS_JSON, TURN_URLS, TURN_SECRET."
)
def serve(
    *,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. [dim]\\[FASTSOCK_HOST; default: 127.0.0.1][/]")
    ] = None,
    port: Annotated[int | None, typer.Option(help="[dim]\\[FASTSOCK_PORT; default: 8000][/]")] = None,
    gateways: Annotated[
        int | None, typer.Option(help="Processes that hold sockets. [dim]\\[FASTSOCK_GATEWAYS; default: 1][/]")
    ] = None,
    hosts: Annotated[
        int | None,
        typer.Option(
            help="Processes in which rooms and users live. [dim]\\[FASTSOCK_HOSTS; default: one per 4 cores, 1 to 4][/]"
        ),
    ] = None,
    writers: Annotated[
        str | None,
        typer.Option(
            metavar="N|beside-hosts",
            help="Processes that write to the database, or none: each host writes for itself."
            " [dim]\\[FASTSOCK_WRITERS; default: 1][/]",
        ),
    ] = None,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    environment: Environment = None,
    ingress: Annotated[
        str | None,
        typer.Option(
            metavar="haproxy|python",
            help="What listens on the port: Serve's HAProxy, or its slower proxy in Python."
            " [dim]\\[FASTSOCK_INGRESS; default: haproxy on Linux][/]",
        ),
    ] = None,
    dashboard_port: Annotated[
        int | None, typer.Option(help="Of Ray's dashboard. [dim]\\[FASTSOCK_DASHBOARD_PORT; default: 8265][/]")
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="Join the Ray cluster there (auto: on this machine) instead of starting Ray."
            " [dim]\\[FASTSOCK_RAY_ADDRESS][/]"
        ),
    ] = None,
    log_format: Annotated[
        str | None,
        typer.Option(metavar="console|json", help="[dim]\\[FASTSOCK_LOG_FORMAT; default: console][/]"),
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option(metavar="DEBUG|INFO|WARNING|ERROR", help="[dim]\\[FASTSOCK_LOG_LEVEL; default: INFO][/]"),
    ] = None,
) -> None:
    """Start FastSock on this machine, and stop it with Ctrl-C."""
    overrides = {name: value for name, value in locals().items() if value is not None}
    settings = _settings(overrides)
    from fastsock.launch import serve as launch  # noqa: PLC0415 - see the module's docstring

    raise typer.Exit(launch(settings))


@app.command()
def down(data_dir: DataDir = None, *, force: Annotated[bool, typer.Option(help="Kill it.")] = False) -> None:
    """Stop the FastSock that runs on a data directory, and clear what a killed one has left."""
    settings = _settings({"data_dir": data_dir})
    from fastsock.core.errors import FastSockError  # noqa: PLC0415 - see the module's docstring
    from fastsock.launch import down as bring_down  # noqa: PLC0415

    try:
        typer.echo(bring_down(settings.data_dir, force=force))
    except FastSockError as error:
        _fail(error)


@app.command()
def migrate(
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    revision: Annotated[str | None, typer.Option(help="Where to stop; up: the newest, if not given.")] = None,
    *,
    down: Annotated[bool, typer.Option(help="Go back to --revision (base: an empty database).")] = False,
) -> None:
    """Bring the database's tables to this version, or back to an older one."""
    settings = _settings({"database_url": database_url, "data_dir": data_dir})
    from fastsock.core.errors import FastSockError  # noqa: PLC0415 - see the module's docstring
    from fastsock.launch import migrate as run_migrations  # noqa: PLC0415

    try:
        typer.echo(run_migrations(settings, revision, down=down))
    except FastSockError as error:
        _fail(error)


@app.command()
def roll(
    data_dir: DataDir = None,
    *,
    hosts: Annotated[bool, typer.Option("--hosts", help="The processes in which rooms and users live.")] = False,
    gateways: Annotated[
        bool, typer.Option("--gateways", help="The gateways, and the replicas that answer HTTP.")
    ] = False,
    writers: Annotated[bool, typer.Option("--writers", help="The processes that write to the database.")] = False,
    ray_address: Annotated[
        str | None,
        typer.Option(help="A Ray cluster (auto: on this machine) that `serve deploy` has deployed to."),
    ] = None,
) -> None:
    """Replace all processes, or those named, by new ones, while people talk.

    They load the code that is installed now, and keep the settings of the start. Nobody sees an error: hosts hand their
    rooms and users over, sockets of gateways are told to come back, and do so to new ones. A new version whose tables
    differ needs `fastsock migrate` first.

    With --ray-address it replaces hosts and writers. The gateways of such a cluster are replaced by `serve deploy`
    of a configuration that has changed, be it by a word in its `runtime_env`: `env_vars: {ROLLED: "today"}`.
    """
    chosen = {"hosts": hosts, "gateways": gateways, "writers": writers}
    if ray_address is None:
        address = str(_running(data_dir)["ray_address"])
    else:
        address = _cluster(ray_address)
        if gateways:
            _fail(ValueError("the gateways of a cluster are replaced by `serve deploy`: see fastsock roll --help"))
    if not any(chosen.values()):
        chosen = {"hosts": True, "gateways": ray_address is None, "writers": True}
    from fastsock.core.errors import FastSockError  # noqa: PLC0415 - see the module's docstring
    from fastsock.launch import roll as replace  # noqa: PLC0415

    try:
        replace(address, **chosen)
    except FastSockError as error:
        _fail(error)


@app.command()
def top(
    data_dir: DataDir = None,
    *,
    interval: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1)] = 1.0,
    once: Annotated[bool, typer.Option(help="Print one table and end.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print every figure as JSON and end.")] = False,
) -> None:
    """Show hosts, gateways, rooms, users, sockets and queues, live."""
    run = _running(data_dir)
    from fastsock.core.errors import FastSockError  # noqa: PLC0415 - see the module's docstring
    from fastsock.top import top as show  # noqa: PLC0415

    try:
        show(run, interval, once=once, as_json=json)
    except FastSockError as error:
        _fail(error)


@app.command()
def inspect(name: Annotated[str, typer.Argument(help="room:42, dm:3:7 or user:7")], data_dir: DataDir = None) -> None:
    """Show the state of one actor."""
    run = _running(data_dir)
    from fastsock.core.errors import FastSockError  # noqa: PLC0415 - see the module's docstring
    from fastsock.top import inspect as show  # noqa: PLC0415

    try:
        show(run, name)
    except FastSockError as error:
        _fail(error)


@app.command()
def bench(
    *,
    scenario: Annotated[
        list[str] | None, typer.Option(metavar="fanout|dm|idle|reconnect", help="May be repeated. [default: all]")
    ] = None,
    url: Annotated[str | None, typer.Option(help="A server that runs. [default: one is started for it]")] = None,
    rooms: Annotated[int, typer.Option(help="Of fanout.", min=1)] = 10,
    members: Annotated[int, typer.Option(help="Of each room.", min=2)] = 50,
    pairs: Annotated[int, typer.Option(help="Of dm.", min=1)] = 500,
    sockets: Annotated[int, typer.Option(help="Of idle and reconnect.", min=50)] = 1_000,
    seconds: Annotated[float, typer.Option(help="Of each rate.", min=1)] = 8.0,
    rate: Annotated[
        list[float] | None, typer.Option(help="Messages/s; may be repeated. [default: rising until p99 is 250 ms]")
    ] = None,
    database_url: DatabaseUrl = None,
    serve_option: Annotated[
        list[str] | None, typer.Option(help="Passed on to the server that is started, like --serve-option=--gateways=2")
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write everything there.")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Write a plot there (SVG).")] = None,
) -> None:
    """Measure a server and count every delivery that it owes; exit status 1 if one is lost, doubled or out of order."""
    try:
        from fastsock.bench import run  # noqa: PLC0415 - see the module's docstring
        from fastsock.bench.crowd import CrowdError  # noqa: PLC0415
        from fastsock.bench.targets import TargetError  # noqa: PLC0415
    except ImportError as error:
        if error.name != "picows":
            raise
        typer.echo("fastsock: bench needs picows: pip install 'fastsock[bench]'", err=True)
        raise typer.Exit(1) from None
    unknown = set(scenario or ()) - set(run.SCENARIOS)
    if unknown:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: not one of {', '.join(run.SCENARIOS)}")
    plan = run.Plan(scenario or run.SCENARIOS, rooms, members, sockets, pairs, seconds, rate or ())
    try:
        raise typer.Exit(run.run(plan, url, database_url, serve_option or (), json, plot))
    except (CrowdError, TargetError) as error:
        _fail(error)


def _settings(overrides: dict[str, object]) -> Settings:
    from fastsock.core.config import ConfigError, Settings  # noqa: PLC0415 - see the module's docstring

    try:
        return Settings.load(overrides)
    except ConfigError as error:
        _fail(error)


def _running(data_dir: Path | None) -> dict[str, Any]:
    """What ``run.json`` says of the instance that runs."""
    settings = _settings({"data_dir": data_dir})
    from fastsock.core import rayenv  # noqa: PLC0415 - see the module's docstring
    from fastsock.core.errors import FastSockError  # noqa: PLC0415
    from fastsock.launch import running  # noqa: PLC0415

    try:
        run = running(settings.data_dir)
    except FastSockError as error:
        _fail(error)
    rayenv.observe(run)
    return run


def _cluster(address: str) -> str:
    """The address of a Ray cluster, if something listens there."""
    from fastsock.core import rayenv  # noqa: PLC0415 - see the module's docstring
    from fastsock.core.config import ConfigError  # noqa: PLC0415

    try:
        rayenv.check_ray(address)
    except ConfigError as error:
        _fail(error)
    rayenv.join()
    return address


def _fail(error: Exception) -> NoReturn:
    typer.echo(f"fastsock: {error}", err=True)
    raise typer.Exit(1)
