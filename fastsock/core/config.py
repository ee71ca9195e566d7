"""Settings: read once, checked once, and handed to every process as they were then.

A value comes from the first of: the command line, the environment, ``.env`` in the working directory, the default. The
name in the environment and in ``.env`` is ``FASTSOCK_`` and the field's name in capitals; ``DATABASE_URL``,
``WEBRTC_ICE_SERVERS_JSON``, ``TURN_SECRET`` and ``TURN_URLS`` are also known under the names that other tools give
them. What is wrong is refused at start, in one line that names the variable, the value and the limit.

Actors and replicas do not read their environment: they get `Settings.to_wire` of the process that started them, so
that a cluster has one configuration. The wire form holds secrets; nothing else shows them.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Literal, Self, cast

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from fastsock.core.errors import FastSockError
from fastsock.core.limits import MAX_CONNECTIONS_PER_USER

PREFIX = "FASTSOCK_"
MIN_SECRET_CHARS = 32
"""HS256 wants a key of at least 256 bits (RFC 7518, section 3.2)."""
DATABASE_FILE = "fastsock.db"
MAX_DEFAULT_HOSTS = 4
CORES_PER_HOST = 4
"""A host that is busy keeps 0.2 to 0.6 of a core, persistence and Ray half as much again, gateways the rest."""

_SCHEMES = {
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
}
_PASSWORD = re.compile(r"(://[^:/@]*:).*@")
_ICE_KEYS = frozenset({"urls", "username", "credential", "credentialType"})
_ICE_SCHEMES = ("stun:", "stuns:", "turn:", "turns:")

_ALIASES = {
    "database_url": ("FASTSOCK_DATABASE_URL", "DATABASE_URL"),
    "ice_servers": ("FASTSOCK_ICE_SERVERS", "WEBRTC_ICE_SERVERS_JSON"),
    "turn_secret": ("FASTSOCK_TURN_SECRET", "TURN_SECRET"),
    "turn_urls": ("FASTSOCK_TURN_URLS", "TURN_URLS"),
}
_HIDDEN = frozenset({"secret_key", "turn_secret", "ice_servers"})

Port = Annotated[int, Field(ge=1, le=65_535)]


class ConfigError(FastSockError):
    """A setting cannot be used. One line, for the person who set it."""


def refused(message: str) -> ConfigError:
    return ConfigError("internal", message)


def default_data_dir() -> Path:
    """``$XDG_DATA_HOME/fastsock``, which is ``~/.local/share/fastsock`` where that is not set."""
    base = os.environ.get("XDG_DATA_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "share") / "fastsock"


def default_hosts() -> int:
    """One host per `CORES_PER_HOST` cores this process may use: 1 to `MAX_DEFAULT_HOSTS`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MAX_DEFAULT_HOSTS, cores // CORES_PER_HOST))


def default_ingress() -> Literal["haproxy", "python"]:
    """HAProxy where Ray brings it along: its wheel is for Linux."""
    return "haproxy" if sys.platform == "linux" else "python"


def normalised_url(url: str) -> str:
    """The URL with the asyncio driver's scheme: SQLAlchemy's default drivers block.

    Raises:
        ValueError: neither PostgreSQL nor SQLite, or a SQLite database without a file.

    """
    scheme, colon, rest = url.strip().partition("://")
    if not colon or scheme not in _SCHEMES:
        known = "postgresql://user:password@host/name or sqlite:///path"
        raise ValueError(f"its scheme is {scheme.partition(':')[0]!r}; write {known}")
    if scheme.startswith("sqlite"):
        path = rest.partition("?")[0].removeprefix("/")
        if path in {"", ":memory:"}:
            raise ValueError("a database in memory cannot be shared by several processes; write sqlite:///path")
    # libpq's name for it, which hosting providers put into their URLs; asyncpg takes the same words as ``ssl``.
    return f"{_SCHEMES[scheme]}://{rest}".replace("?sslmode=", "?ssl=").replace("&sslmode=", "&ssl=")


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    return _PASSWORD.sub(r"\1***@", url, count=1)


BESIDE_HOSTS: Literal["beside-hosts"] = "beside-hosts"
Writers = Annotated[int, Field(ge=1, le=64)] | Literal["beside-hosts"]


class Settings(BaseSettings):
    """Everything that can be set. Frozen; build it with `load`, or in another process with `from_wire`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="ignore", frozen=True, populate_by_name=True, hide_input_in_errors=True
    )

    environment: Literal["development", "production"] = "development"
    """``production`` demands `secret_key`; ``development`` makes one and keeps it in `data_dir`."""
    host: str = "127.0.0.1"
    """The address to listen on. 0.0.0.0 listens on all; replicas' own ports (30000-31000) then do too."""
    port: Port = 8000
    gateways: int = Field(default=1, ge=1, le=64)
    """Gateway replicas: processes that hold sockets."""
    api_replicas: int = Field(default=1, ge=1, le=64)
    hosts: int = Field(default_factory=default_hosts, ge=1, le=256)
    """Host actors: processes in which rooms and users live. May change from one start to the next."""
    writers: Writers = 1
    """Persistence actors, more than 1 of which pay with PostgreSQL only; or none, and a writer inside of each host."""
    database_url: str | None = Field(default=None, repr=False)
    """None: a SQLite file in `data_dir`. See `database_url_resolved`."""
    data_dir: Path = Field(default_factory=default_data_dir)
    secret_key: SecretStr | None = None
    """What access tokens are signed with. At least 32 characters, the same on every start."""
    access_token_ttl_s: int = Field(default=24 * 3600, ge=60, le=366 * 24 * 3600)
    max_sockets_per_gateway: int = Field(default=10_000, ge=10, le=1_000_000)
    """Above it a new socket is closed with 1013. Each needs a file descriptor and some 20 KB."""
    max_connections_per_user: int = Field(default=MAX_CONNECTIONS_PER_USER, ge=1, le=1_000)
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    dashboard_host: str = "127.0.0.1"
    """Ray's dashboard can run code: it stays on loopback."""
    dashboard_port: Port = 8265
    ray_address: str | None = None
    """None: start Ray here, and stop it with FastSock. ``auto`` or ``host:port``: join a cluster that runs."""
    ingress: Literal["haproxy", "python"] = Field(default_factory=default_ingress)
    ice_servers: Annotated[tuple[dict[str, str | list[str]], ...], NoDecode] = Field(default=(), repr=False)
    """What browsers get for `RTCPeerConnection`. Empty: nobody outside is asked, and calls stay within one network."""
    turn_secret: SecretStr | None = None
    """coturn's ``static-auth-secret``."""
    turn_urls: Annotated[tuple[str, ...], NoDecode] = ()
    """The TURN servers that know `turn_secret`: ``turn:host:3478,turns:host:5349``."""
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins of web pages elsewhere that may call the API: ``https://chat.example.org``, or ``*``."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load` and `from_wire` hand in: a process reads its environment once, and on purpose."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @classmethod
    def load(cls, overrides: dict[str, object] | None = None, *, env_file: Path | str | None = ".env") -> Settings:
        """The settings of this process. ``overrides`` come from the command line, by field name; None is "not given".

        Raises:
            ConfigError: a value is out of its limits, or ``.env`` cannot be read.

        """
        given = {name: value for name, value in (overrides or {}).items() if value is not None}
        values: dict[str, object] = {}
        origins: dict[str, str] = {}
        for source in _sources(env_file):
            for name in cls.model_fields:
                for variable in _variables(name):
                    if name not in values and source.get(variable.lower()):
                        values[name], origins[name] = source[variable.lower()], variable
        for name, value in given.items():
            values[name], origins[name] = value, "--" + name.replace("_", "-")
        try:
            return cls(**values)  # type: ignore[arg-type]
        except ValidationError as error:
            raise _explain(error, values, origins) from None

    @classmethod
    def from_wire(cls, wire: dict[str, object]) -> Settings:
        """The settings that another process has sent. Reads neither the environment nor ``.env``."""
        return cls(**wire)  # type: ignore[arg-type]

    def to_wire(self) -> dict[str, object]:
        """Plain values, secrets in clear: for Ray's own channels, never for a log."""
        plain = self.model_dump(mode="json")
        for name in ("secret_key", "turn_secret"):
            secret = getattr(self, name)
            plain[name] = None if secret is None else secret.get_secret_value()
        return plain

    @property
    def writer_actors(self) -> int:
        """How many persistence actors there are; 0 where each host has a writer of its own."""
        return self.writers if isinstance(self.writers, int) else 0

    @property
    def database_url_resolved(self) -> str:
        """The URL for SQLAlchemy's asyncio engine."""
        return self.database_url or f"sqlite+aiosqlite:///{self.data_dir / DATABASE_FILE}"

    @property
    def database_shown(self) -> str:
        """The database for people: no password."""
        return without_password(self.database_url_resolved)

    @field_validator("database_url")
    @classmethod
    def _database_url(cls, url: str | None) -> str | None:
        return None if url is None else normalised_url(url)

    @field_validator("data_dir")
    @classmethod
    def _data_dir(cls, path: Path) -> Path:
        return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - resolve() would follow links

    @field_validator("secret_key")
    @classmethod
    def _secret_key(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(secret.get_secret_value()) < MIN_SECRET_CHARS:
            raise ValueError(f"it has {len(secret.get_secret_value())} of at least {MIN_SECRET_CHARS} characters")
        return secret

    @field_validator("writers", mode="before")
    @classmethod
    def _writers(cls, value: object) -> object:
        if value == BESIDE_HOSTS or isinstance(value, int) or str(value).isdecimal():
            return value
        raise ValueError(f"neither a number of persistence actors nor {BESIDE_HOSTS!r}")

    @field_validator("log_level", mode="before")
    @classmethod
    def _log_level(cls, level: object) -> object:
        return level.upper() if isinstance(level, str) else level

    @field_validator("turn_urls", "cors_origins", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            return _json_list(value)
        return [part.strip() for part in value.split(",") if part.strip()]

    @field_validator("ice_servers", mode="before")
    @classmethod
    def _ice_servers(cls, value: object) -> object:
        servers = _json_list(value) if isinstance(value, str) else value
        if isinstance(servers, list | tuple):
            for index, server in enumerate(servers):
                _check_ice_server(index, server)
        return servers

    @model_validator(mode="after")
    def _turn_is_whole(self) -> Self:
        for url in self.turn_urls:
            if not url.startswith(("turn:", "turns:")):
                raise ValueError(f"TURN_URLS: {url!r} does not begin with turn: or turns:")
        if bool(self.turn_urls) != (self.turn_secret is not None):
            missing = "TURN_SECRET" if self.turn_urls else "TURN_URLS"
            raise ValueError(f"{missing} is missing: TURN_URLS and TURN_SECRET go together")
        return self


def _variables(name: str) -> tuple[str, ...]:
    return _ALIASES.get(name, (PREFIX + name.upper(),))


def environment_names(name: str) -> str:
    """The variables behind a field, for help texts."""
    return " or ".join(_variables(name))


def _sources(env_file: Path | str | None) -> list[dict[str, str | None]]:
    """What is set, by lower-case name: the environment first, then the file."""
    environment = dict(EnvSettingsSource(Settings, case_sensitive=False).env_vars)
    if env_file is None or not Path(env_file).is_file():
        return [environment]
    try:
        return [environment, dict(DotEnvSettingsSource(Settings, env_file=env_file, case_sensitive=False).env_vars)]
    except (OSError, UnicodeDecodeError) as error:
        raise refused(f"{env_file} cannot be read: {error}") from error


def _explain(error: ValidationError, values: dict[str, object], origins: dict[str, str]) -> ConfigError:
    """The first thing that is wrong, in one line."""
    first = error.errors(include_url=False, include_context=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:] if message[1:2].islower() else message
    if not first["loc"]:
        return refused(message)
    name = str(first["loc"][0])
    value = "set" if name in _HIDDEN else repr(_shown(name, values.get(name)))
    return refused(f"{origins.get(name, name)} is {value}: {message}")


def _shown(name: str, value: object) -> object:
    if name == "database_url":
        return without_password(str(value))
    return str(value) if isinstance(value, Path) else value


def _json_list(text: str) -> list[object]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from error
    if not isinstance(value, list):
        raise ValueError(f"it is not a JSON list, but {type(value).__name__}")  # noqa: TRY004 - pydantic wants ValueError
    return cast("list[object]", value)


def _check_ice_server(index: int, server: object) -> None:
    """One RTCIceServer (W3C WebRTC 1.0, section 4.2.4).

    Raises:
        ValueError: a browser would refuse it.

    """
    if not isinstance(server, dict) or not server.get("urls"):
        raise ValueError(f'entry {index} is not an object with "urls"')
    unknown = sorted(str(key) for key in set(server) - _ICE_KEYS)
    if unknown:
        raise ValueError(f"entry {index} has the unknown key {unknown[0]!r}; known are urls, username, credential")
    urls = server["urls"]
    for url in urls if isinstance(urls, list) else [urls]:
        if not isinstance(url, str) or not url.startswith(_ICE_SCHEMES):
            raise ValueError(f"entry {index}: {url!r} does not begin with stun:, stuns:, turn: or turns:")
        if url.startswith("turn") and not (server.get("username") and server.get("credential")):
            raise ValueError(f"entry {index}: {url!r} needs a username and a credential")
