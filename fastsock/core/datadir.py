"""The data directory: what one instance keeps, and the proof that it is the only one.

fastsock.db     the SQLite database, where no other is named
secret.key      the generated secret (development), readable by its owner only
lock            held with ``flock`` while an instance runs; the kernel lets go of it however the process ends, so
                a lock is never stale
run.json        how to reach the instance that runs, or what the last one left if it was killed
logs/           what Ray and the actors wrote in the last run
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from pathlib import Path
from typing import Any, Self, cast

from pydantic import SecretStr

from fastsock.core.config import MIN_SECRET_CHARS, Settings, refused

SECRET_FILE = "secret.key"  # noqa: S105 - where it lies, not what it is
TOKEN_FILE = "ray.token"  # noqa: S105
LOCK_FILE = "lock"
RUN_FILE = "run.json"
LOGS = "logs"
PROBE_S = 0.1
"""Longer than `holder` holds the lock."""


def prepare(path: Path) -> None:
    """Make the directory, for this user only, if it is not there, and make sure that it can be written.

    Raises:
        ConfigError: it is a file, or may not be read or written.

    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = path / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
        list(path.iterdir())
    except FileExistsError:
        raise refused(f"the data directory {path} is a file") from None
    except NotADirectoryError:
        raise refused(f"the data directory {path} cannot be made: a part of its path is a file") from None
    except OSError as error:
        raise refused(f"the data directory {path} cannot be used: {_reason(error)}") from error
    for name in (LOCK_FILE, RUN_FILE, SECRET_FILE, "fastsock.db"):
        file = path / name
        if file.exists() and not (file.is_file() and os.access(file, os.R_OK | os.W_OK)):
            what = "may not be read and written" if file.is_file() else "is not a file"
            raise refused(f"the data directory {path} cannot be used: {name} {what}")


class Lock:
    """The exclusive right to a data directory, until `release` or the end of the process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path) -> Self:
        """Take it, or fail within a moment.

        Raises:
            ConfigError: another process has it; the text says which, and where it listens.

        """
        descriptor = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _flock(descriptor)
        except BlockingIOError:
            pid = _pid_in(descriptor)
            os.close(descriptor)
            run = read_run(path) or {}
            where = f" at {run['url']}" if run.get("pid") == pid and "url" in run else ", which is still starting"
            raise refused(f"FastSock already runs on {path}: process {pid or 'unknown'}{where}") from None
        except OSError as error:
            os.close(descriptor)
            raise refused(f"the data directory {path} cannot be locked: {_reason(error)}") from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return cls(descriptor)

    def release(self) -> None:
        os.close(self._descriptor)


def holder(path: Path) -> int | None:
    """The process that holds the directory's lock; None if nobody does, or no instance ever ran there.

    Raises:
        ConfigError: the directory cannot be looked into.

    """
    try:
        descriptor = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refused(f"the data directory {path} cannot be used: {_reason(error)}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid_in(descriptor)
    finally:
        os.close(descriptor)
    return None


def _flock(descriptor: int) -> None:
    """Lock, with a second look: `holder` holds the lock for a moment when it asks whether somebody does."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(PROBE_S)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _pid_in(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
    return int(text) if text.isascii() and text.isdigit() else None


def write_run(path: Path, run: dict[str, object]) -> None:
    """Replace ``run.json`` in one step: a reader sees the old one or the new one."""
    temporary = path / f".{RUN_FILE}.{os.getpid()}"
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(run, file, indent=2)
        file.write("\n")
    temporary.replace(path / RUN_FILE)


def read_run(path: Path) -> dict[str, Any] | None:
    """What the last `write_run` wrote; None if there is nothing, or nothing that can be understood."""
    try:
        run = json.loads((path / RUN_FILE).read_text())
    except (OSError, ValueError):
        return None
    return cast("dict[str, Any]", run) if isinstance(run, dict) else None


def forget_run(path: Path) -> None:
    (path / RUN_FILE).unlink(missing_ok=True)


def resolve_secret(settings: Settings) -> Settings:
    """The settings with their secret: the one that was set, else (development) the data directory's own.

    Raises:
        ConfigError: production without a secret, or a secret file that cannot be used.

    """
    if settings.secret_key is not None:
        return settings
    if settings.environment == "production":
        raise refused(
            f"FASTSOCK_SECRET_KEY is not set: production needs at least {MIN_SECRET_CHARS} characters,"
            " the same on every start"
        )
    file = settings.data_dir / SECRET_FILE
    try:
        secret = _read_or_make(file)
    except OSError as error:
        raise refused(f"the secret in {file} cannot be used: {_reason(error)}") from error
    if len(secret) < MIN_SECRET_CHARS:
        raise refused(f"the secret in {file} has {len(secret)} of at least {MIN_SECRET_CHARS} characters")
    return settings.model_copy(update={"secret_key": SecretStr(secret)})


def ray_token(path: Path) -> Path:
    """The file with the token of this directory's Ray. The same from run to run, for browsers to remember.

    Raises:
        ConfigError: the file cannot be used.

    """
    file = path / TOKEN_FILE
    try:
        _read_or_make(file)
    except OSError as error:
        raise refused(f"Ray's token in {file} cannot be used: {_reason(error)}") from error
    return file


def _read_or_make(file: Path) -> str:
    """The secret in the file. Made whole before it gets its name, so that no crash leaves half of one."""
    if not file.exists():
        temporary = file.with_name(f".{file.name}.{os.getpid()}")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            out.write(secrets.token_urlsafe(48) + "\n")
        temporary.replace(file)
    return file.read_text().strip()


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
