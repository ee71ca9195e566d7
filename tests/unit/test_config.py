"""Settings, the data directory, and what is derived from them for Ray."""

from __future__ import annotations

import json
import os
import pickle
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fastsock.core import datadir, rayenv
from fastsock.core.config import ConfigError, Settings, normalised_url, without_password
from fastsock.core.leftovers import INSTANCE_VARIABLE, Watchdog, processes, sweep

SECRET = "s" * 32
WRITE_THIS = "write postgresql://user:password@host/name or sqlite:///path"
IN_MEMORY = "a database in memory cannot be shared by several processes; write sqlite:///path"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("FASTSOCK_", "TURN_", "RAY_")) or name in {"DATABASE_URL", "WEBRTC_ICE_SERVERS_JSON"}:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def refusal(**overrides: object) -> str:
    with pytest.raises(ConfigError) as caught:
        Settings.load(overrides)
    return str(caught.value)


# --- where values come from ------------------------------------------------------------------------------------------


def test_defaults_start_a_small_development_instance_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/xdg")
    settings = Settings.load()
    assert (settings.environment, settings.host, settings.port, settings.gateways) == (
        "development",
        "127.0.0.1",
        8000,
        1,
    )
    assert settings.data_dir == Path("/xdg/fastsock")
    assert settings.database_url_resolved == "sqlite+aiosqlite:////xdg/fastsock/fastsock.db"
    assert 1 <= settings.hosts <= 4


def test_a_relative_xdg_data_home_is_ignored_as_its_specification_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "data")
    monkeypatch.setenv("HOME", "/home/ada")
    assert Settings.load().data_dir == Path("/home/ada/.local/share/fastsock")


def test_the_command_line_goes_before_the_environment_and_that_before_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("FASTSOCK_PORT=1111\nFASTSOCK_GATEWAYS=3\nFASTSOCK_HOST=10.0.0.1\n")
    monkeypatch.setenv("FASTSOCK_PORT", "2222")
    monkeypatch.setenv("FASTSOCK_GATEWAYS", "4")
    settings = Settings.load({"port": 3333, "gateways": None})
    assert (settings.port, settings.gateways, settings.host) == (3333, 4, "10.0.0.1")


@pytest.mark.parametrize("name", ["FASTSOCK_DATABASE_URL", "DATABASE_URL"])
def test_the_database_url_has_two_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "postgres://ada:pw@db/chat")
    assert Settings.load().database_url_resolved == "postgresql+asyncpg://ada:pw@db/chat"


def test_the_environment_goes_before_the_file_whichever_name_each_uses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("FASTSOCK_DATABASE_URL=postgresql://file/db\n")
    monkeypatch.setenv("DATABASE_URL", "postgresql://environment/db")
    assert Settings.load().database_url == "postgresql+asyncpg://environment/db"


def test_writers_are_actors_or_beside_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTSOCK_WRITERS", "2")
    assert (Settings.load().writers, Settings.load().writer_actors) == (2, 2)
    monkeypatch.setenv("FASTSOCK_WRITERS", "beside-hosts")
    settings = Settings.from_wire(Settings.load().to_wire())
    assert (settings.writers, settings.writer_actors) == ("beside-hosts", 0)
    monkeypatch.setenv("FASTSOCK_WRITERS", "beside")
    refusal = "FASTSOCK_WRITERS is 'beside': neither a number of persistence actors nor 'beside-hosts'"
    with pytest.raises(ConfigError, match=refusal):
        Settings.load()


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTSOCK_PORT", "")
    assert Settings.load().port == 8000


def test_turn_and_ice_are_known_under_their_usual_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURN_SECRET", "coturn's")
    monkeypatch.setenv("TURN_URLS", "turn:a:3478, turns:b:5349")
    monkeypatch.setenv("WEBRTC_ICE_SERVERS_JSON", '[{"urls": ["stun:c:3478"]}]')
    settings = Settings.load()
    assert settings.turn_urls == ("turn:a:3478", "turns:b:5349")
    assert settings.ice_servers == ({"urls": ["stun:c:3478"]},)


# --- database URLs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgres://h/d", "postgresql+asyncpg://h/d"),
        ("postgresql://u:p@h:5433/d", "postgresql+asyncpg://u:p@h:5433/d"),
        ("postgresql+asyncpg://h/d", "postgresql+asyncpg://h/d"),
        ("postgres://h/d?sslmode=require", "postgresql+asyncpg://h/d?ssl=require"),
        ("postgres://h/d?a=b&sslmode=require", "postgresql+asyncpg://h/d?a=b&ssl=require"),
        ("sqlite:///chat.db", "sqlite+aiosqlite:///chat.db"),
        ("sqlite:////var/chat.db", "sqlite+aiosqlite:////var/chat.db"),
        ("sqlite+aiosqlite:////var/chat.db", "sqlite+aiosqlite:////var/chat.db"),
    ],
)
def test_urls_get_the_asyncio_driver(given: str, expected: str) -> None:
    assert normalised_url(given) == expected


@pytest.mark.parametrize(
    ("url", "text"),
    [
        (
            "mysql://u:pw@h/d",
            "--database-url is 'mysql://u:***@h/d': its scheme is 'mysql'; " + WRITE_THIS,
        ),
        (
            "chat.db",
            "--database-url is 'chat.db': its scheme is 'chat.db'; " + WRITE_THIS,
        ),
        (
            "sqlite://",
            "--database-url is 'sqlite://': " + IN_MEMORY,
        ),
        (
            "sqlite:///:memory:",
            "--database-url is 'sqlite:///:memory:': " + IN_MEMORY,
        ),
    ],
)
def test_other_databases_are_refused(url: str, text: str) -> None:
    assert refusal(database_url=url) == text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:pw@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:p@w/o:r@d@h:5432/d", "postgresql://u:***@h:5432/d"),
        ("postgresql://h/d", "postgresql://h/d"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
    ],
)
def test_a_shown_url_has_no_password(url: str, shown: str) -> None:
    assert without_password(url) == shown


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("FASTSOCK_PORT", "99999", "FASTSOCK_PORT is '99999': input should be less than or equal to 65535"),
        ("FASTSOCK_GATEWAYS", "0", "FASTSOCK_GATEWAYS is '0': input should be greater than or equal to 1"),
        (
            "FASTSOCK_ENVIRONMENT",
            "prod",
            "FASTSOCK_ENVIRONMENT is 'prod': input should be 'development' or 'production'",
        ),
        ("FASTSOCK_SECRET_KEY", "short", "FASTSOCK_SECRET_KEY is set: it has 5 of at least 32 characters"),
        ("TURN_URLS", "turn:a", "TURN_SECRET is missing: TURN_URLS and TURN_SECRET go together"),
        ("TURN_SECRET", "x", "TURN_URLS is missing: TURN_URLS and TURN_SECRET go together"),
        (
            "WEBRTC_ICE_SERVERS_JSON",
            '{"urls": "stun:a"}',
            "WEBRTC_ICE_SERVERS_JSON is set: it is not a JSON list, but dict",
        ),
        ("WEBRTC_ICE_SERVERS_JSON", "[1]", 'WEBRTC_ICE_SERVERS_JSON is set: entry 0 is not an object with "urls"'),
        (
            "WEBRTC_ICE_SERVERS_JSON",
            '[{"urls": "http://a"}]',
            "WEBRTC_ICE_SERVERS_JSON is set: entry 0: 'http://a' does not begin with stun:, stuns:, turn: or turns:",
        ),
        (
            "WEBRTC_ICE_SERVERS_JSON",
            '[{"urls": "stun:a"}, {"urls": "turn:b"}]',
            "WEBRTC_ICE_SERVERS_JSON is set: entry 1: 'turn:b' needs a username and a credential",
        ),
        (
            "WEBRTC_ICE_SERVERS_JSON",
            '[{"urls": "stun:a", "x": "y"}]',
            "WEBRTC_ICE_SERVERS_JSON is set: entry 0 has the unknown key 'x'; known are urls, username, credential",
        ),
    ],
)
def test_a_wrong_value_is_named_with_its_limit(
    variable: str, value: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    assert refusal() == text


def test_ice_servers_that_are_not_json_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBRTC_ICE_SERVERS_JSON", "stun:a")
    assert refusal().startswith("WEBRTC_ICE_SERVERS_JSON is set: it is not JSON: ")


def test_a_config_error_survives_pickling() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load({"port": 0})
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 - our own bytes


# --- between processes, and before people's eyes ---------------------------------------------------------------------


def test_the_wire_form_is_plain_and_comes_back_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.load(
        {
            "secret_key": SECRET,
            "turn_secret": "t",
            "turn_urls": "turn:a",
            "ice_servers": '[{"urls": "stun:a"}]',
            "database_url": "postgres://u:pw@h/d",
            "data_dir": "/data",
        }
    )
    wire = json.loads(json.dumps(settings.to_wire()))
    assert wire["secret_key"] == SECRET
    monkeypatch.setenv("FASTSOCK_PORT", "9")  # the other process's own environment counts for nothing
    monkeypatch.setenv("FASTSOCK_CORS_ORIGINS", "*")
    assert Settings.from_wire(wire) == settings


def test_no_secret_shows() -> None:
    settings = Settings.load(
        {
            "secret_key": SECRET,
            "turn_secret": "turn-secret",
            "turn_urls": "turn:a",
            "ice_servers": '[{"urls": "turn:a", "username": "u", "credential": "cred"}]',
            "database_url": "postgres://u:hunter2@h/d",
        }
    )
    for shown in (repr(settings), str(settings)):
        for secret in (SECRET, "turn-secret", "cred'", "hunter2"):
            assert secret not in shown


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings.load().port = 1


# --- the data directory ----------------------------------------------------------------------------------------------


def settings_in(path: Path, **overrides: object) -> Settings:
    return Settings.load({"data_dir": path, **overrides})


def test_a_secret_is_made_once_and_kept_from_others(tmp_path: Path) -> None:
    first = datadir.resolve_secret(settings_in(tmp_path))
    assert first.secret_key is not None
    assert len(first.secret_key.get_secret_value()) >= 48
    assert stat.S_IMODE((tmp_path / "secret.key").stat().st_mode) == 0o600
    assert datadir.resolve_secret(settings_in(tmp_path)) == first


def test_a_secret_that_is_set_is_used_and_nothing_is_written(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, secret_key=SECRET, environment="production")
    assert datadir.resolve_secret(settings) is settings
    assert list(tmp_path.iterdir()) == []


def test_production_does_not_start_without_a_secret(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        datadir.resolve_secret(settings_in(tmp_path, environment="production"))
    assert str(caught.value) == (
        "FASTSOCK_SECRET_KEY is not set: production needs at least 32 characters, the same on every start"
    )


def test_a_damaged_secret_is_refused_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "secret.key").write_text("short\n")
    with pytest.raises(ConfigError) as caught:
        datadir.resolve_secret(settings_in(tmp_path))
    assert str(caught.value) == f"the secret in {tmp_path}/secret.key has 5 of at least 32 characters"


def test_a_data_directory_is_made_for_its_owner_only(tmp_path: Path) -> None:
    datadir.prepare(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize(
    ("below", "text"),
    [
        ("", "the data directory {} is a file"),
        ("deeper", "the data directory {} cannot be made: a part of its path is a file"),
    ],
)
def test_a_data_directory_that_is_a_file_is_refused(below: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / below
    with pytest.raises(ConfigError) as caught:
        datadir.prepare(path)
    assert str(caught.value) == text.format(path)


def test_a_database_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fastsock.db").mkdir()
    with pytest.raises(ConfigError) as caught:
        datadir.prepare(tmp_path)
    assert str(caught.value) == f"the data directory {tmp_path} cannot be used: fastsock.db is not a file"


def test_a_data_directory_has_one_instance_at_a_time(tmp_path: Path) -> None:
    lock = datadir.Lock.take(tmp_path)
    assert datadir.holder(tmp_path) == os.getpid()
    with pytest.raises(ConfigError) as caught:
        datadir.Lock.take(tmp_path)
    assert str(caught.value) == (f"FastSock already runs on {tmp_path}: process {os.getpid()}, which is still starting")
    datadir.write_run(tmp_path, {"pid": os.getpid(), "url": "http://127.0.0.1:8000"})
    with pytest.raises(ConfigError) as caught:
        datadir.Lock.take(tmp_path)
    assert str(caught.value) == (f"FastSock already runs on {tmp_path}: process {os.getpid()} at http://127.0.0.1:8000")
    lock.release()
    assert datadir.holder(tmp_path) is None
    datadir.Lock.take(tmp_path).release()


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from fastsock.core import datadir; datadir.Lock.take(Path({str(tmp_path)!r}))"
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}; print(1, flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert datadir.holder(tmp_path) == process.pid
        process.kill()
        process.wait()
    datadir.Lock.take(tmp_path).release()


def test_nobody_holds_a_directory_in_which_nothing_ever_ran(tmp_path: Path) -> None:
    assert datadir.holder(tmp_path) is None
    assert datadir.read_run(tmp_path) is None


def test_a_run_file_that_is_damaged_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"pid": ')
    assert datadir.read_run(tmp_path) is None
    (tmp_path / "run.json").write_text("[]")
    assert datadir.read_run(tmp_path) is None


# --- ports, limits, Ray's variables ----------------------------------------------------------------------------------


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            rayenv.check_port("127.0.0.1", port, "FASTSOCK_PORT")
    assert str(caught.value) == (
        f"FASTSOCK_PORT is {port}: 127.0.0.1:{port} cannot be listened on: address already in use"
    )
    rayenv.check_port("127.0.0.1", port, "FASTSOCK_PORT")


def test_a_ray_address_at_which_nothing_listens_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        rayenv.check_ray(address)
    rayenv.check_ray("auto")
    with pytest.raises(ConfigError) as caught:
        rayenv.check_ray(address)
    assert str(caught.value) == (
        f"--ray-address or FASTSOCK_RAY_ADDRESS is '{address}': no Ray there: connection refused"
    )


def test_haproxy_is_configured_for_what_the_limit_of_open_files_allows() -> None:
    assert rayenv.haproxy_connections(20_000) == 7_840
    assert rayenv.haproxy_connections(20_000) * rayenv.FILES_PER_CONNECTION < 20_000
    assert rayenv.haproxy_connections(2**40) == rayenv.haproxy_connections(1_048_576)


def test_a_gateway_is_not_promised_more_sockets_than_files() -> None:
    settings = Settings.load({"max_sockets_per_gateway": 5_000})
    assert rayenv.sockets_per_gateway(settings, 1_024) == 624
    assert rayenv.sockets_per_gateway(settings, 100_000) == 5_000


def test_what_the_operator_has_set_for_ray_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_SERVE_HAPROXY_MAXCONN", "77")
    settings = Settings.load({"ingress": "haproxy"})
    variables = rayenv.variables(settings, tmp_path, tmp_path / "token", 20_000)
    assert variables["RAY_SERVE_HAPROXY_MAXCONN"] == "77"
    assert variables["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert variables["RAY_AUTH_MODE"] == "token"


def test_the_python_proxy_needs_no_haproxy(tmp_path: Path) -> None:
    variables = rayenv.variables(Settings.load({"ingress": "python"}), tmp_path, tmp_path / "token", 20_000)
    assert variables["RAY_SERVE_ENABLE_HA_PROXY"] == "0"
    assert not any(name.startswith("RAY_SERVE_HAPROXY") for name in variables)


@pytest.mark.skipif(sys.platform != "linux", reason="Ray brings HAProxy along on Linux only")
def test_haproxys_pages_of_figures_are_moved_to_loopback(tmp_path: Path) -> None:
    variables = rayenv.variables(Settings.load({"ingress": "haproxy"}), tmp_path, tmp_path / "token", 20_000)
    metrics, stats = variables["RAY_SERVE_HAPROXY_METRICS_PORT"], variables["RAY_SERVE_HAPROXY_STATS_PORT"]
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(
        f"global\n  maxconn 100\ndefaults\n  mode http\n  timeout client 5s\n"
        f"frontend prometheus\n    bind :{metrics}\nfrontend http_frontend\n    bind *:8000\n"
        f"listen stats\n  bind *:{stats}\n"
    )
    program = variables["RAY_SERVE_HAPROXY_BINARY_PATH"]
    subprocess.run([program, "-c", "-f", str(configuration)], check=True, capture_output=True)
    binds = [line.strip() for line in configuration.read_text().splitlines() if "bind" in line]
    assert binds == [f"bind 127.0.0.1:{metrics}", "bind *:8000", f"bind 127.0.0.1:{stats}"]


@pytest.mark.skipif(sys.platform != "linux", reason="Ray brings HAProxy along on Linux only")
def test_the_kernels_buffers_of_haproxys_sockets_are_bounded(tmp_path: Path) -> None:
    variables = rayenv.variables(Settings.load({"ingress": "haproxy"}), tmp_path, tmp_path / "token", 20_000)
    assert variables["RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S"] == "120"
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(
        "global\n    maxconn 100\ndefaults\n    mode http\n    timeout client 5s\nlisten all\n    bind *:8000\n"
    )
    for _ in range(2):  # Ray lets it be checked, and then starts it
        program = variables["RAY_SERVE_HAPROXY_BINARY_PATH"]
        subprocess.run([program, "-c", "-f", str(configuration)], check=True, capture_output=True)
        assert configuration.read_text().splitlines()[:4] == [
            "global",
            "    tune.rcvbuf.server 131072",
            "    tune.sndbuf.client 262144",
            "    maxconn 100",
        ]


# --- leftovers -------------------------------------------------------------------------------------------------------

SLEEPER = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "


def start_family(instance: str) -> subprocess.Popen[bytes]:
    """A process with a child, both of this instance."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPER + "print(1, flush=True); time.sleep(600)"],
        stdout=subprocess.PIPE,
        env={**os.environ, INSTANCE_VARIABLE: instance},
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_a_sweep_ends_an_instance_and_nothing_else() -> None:
    ours, others = start_family("test-ours"), start_family("test-others")
    try:
        assert sweep("test-ours") == 2
        assert processes("test-ours") == []
        assert len(processes("test-others")) == 2
        ours.wait(5)
    finally:
        sweep("test-others")
        ours.wait()
        others.wait()


def test_the_watchdog_clears_up_and_keeps_the_logs(tmp_path: Path) -> None:
    temporary, logs = tmp_path / "temporary", tmp_path / "logs"
    (temporary / "session_latest" / "logs").mkdir(parents=True)
    (temporary / "session_latest" / "logs" / "raylet.out").write_text("news")
    logs.mkdir()
    (logs / "old.out").touch()
    family = start_family("test-watched")
    Watchdog.start("test-watched", temporary, logs).finish()
    assert family.wait(5) == -9
    assert processes("test-watched") == []
    assert not temporary.exists()
    assert [(file.name, file.read_text()) for file in logs.iterdir()] == [("raylet.out", "news")]
