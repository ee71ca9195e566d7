"""The way to the database: connections, transactions, and telling "it is away" from "it refuses this".

Two databases, one manner. A read is one or a few statements without a transaction around them; a write is one
transaction, which on SQLite takes the write lock at its beginning (``BEGIN IMMEDIATE``), because a lock taken later may
be refused at once instead of being waited for. All waiting is bounded, in the client and in the server, so that a
database that hangs looks like one that is down: `FastSockError` ``storage_unavailable``, which may be tried again.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal, TypeVar

import asyncpg
from sqlalchemy import URL, event, make_url, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from fastsock.core.errors import FastSockError, RetryableError, error_of
from fastsock.core.limits import RETRY_AFTER_MS

T = TypeVar("T")
Dialect = Literal["postgresql", "sqlite"]

CONNECT_TIMEOUT_S = 5.0
"""For a connection to be made, and for one of the pool to be free."""
STATEMENT_TIMEOUT_S = 8.0
"""For one statement, kept by the server; on SQLite for the write lock to be free."""
TRANSACTION_TIMEOUT_S = 10.0
"""For a whole read or write, kept here: the server may be unreachable, or stopped."""
IDLE_TRANSACTION_S = 10.0
"""So long PostgreSQL keeps the locks of a client that says nothing in the middle of a transaction."""

_DRIVERS = {"postgresql": "postgresql+asyncpg", "sqlite": "sqlite+aiosqlite"}
_AUTOCOMMIT = "fastsock_autocommit"

_AWAY_STATES = ("08", "53", "57", "58", "28", "3D")
"""Classes of SQLSTATE (PostgreSQL, appendix A): connection, resources, shut down or cancelled, system, login."""
_AWAY_CODES = frozenset({"40001", "40P01", "55P03", "25006", "25P03", "25P04"})
"""Lost against another transaction, a lock not available, a standby, idle or running for too long."""
_AWAY_SQLITE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOTADB,
    }
)


_LOOKUPS = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
"""Planning the memberships of one user anew for each call took PostgreSQL 170 us of 260. A plan that is made once must
not depend on how small the tables were at that moment, so it goes along the indexes, row by row. Left to itself
PostgreSQL kept the plan of an append that it had made over an empty log: each append read the whole of it, 12 ms at
120,000 entries."""


class Database:
    """Connections to one database. Opens none until it is used; `close` closes those that are open.

    ``lookups`` is for whoever reads nothing but rows that an index leads to: PostgreSQL then plans each statement once
    for a connection.
    """

    def __init__(self, url: str, pool_size: int = 5, *, lookups: bool = False) -> None:
        self.url = _asynchronous(url)
        self.dialect: Dialect = "sqlite" if self.url.get_backend_name() == "sqlite" else "postgresql"
        arguments: dict[str, Any] = {"timeout": CONNECT_TIMEOUT_S, "command_timeout": STATEMENT_TIMEOUT_S}
        if self.dialect == "sqlite":  # Python's own way of beginning transactions is switched off
            arguments = {"timeout": STATEMENT_TIMEOUT_S, "isolation_level": None}
        self.engine: AsyncEngine = create_async_engine(
            self.url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=CONNECT_TIMEOUT_S,
            connect_args=arguments,
            hide_parameters=True,  # an error's text must not show what people wrote
        )
        if self.dialect == "postgresql":
            event.listen(self.engine.sync_engine, "connect", _preparing_postgresql(_LOOKUPS if lookups else {}))
            self._single = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        else:
            event.listen(self.engine.sync_engine, "connect", prepare_sqlite)
            event.listen(self.engine.sync_engine, "begin", begin_immediate)
            self._single = self.engine.execution_options(**{_AUTOCOMMIT: True})

    async def close(self) -> None:
        await self.engine.dispose()

    async def read(self, query: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """What ``query`` makes of a connection on which each statement sees the newest state.

        Runs it a second time where the first met a connection that had died in the pool.

        Raises:
            RetryableError: ``storage_unavailable``.

        """
        try:
            async with self.autocommit() as connection:
                return await query(connection)
        except RetryableError as error:
            if not (isinstance(error.__cause__, DBAPIError) and error.__cause__.connection_invalidated):
                raise
        async with self.autocommit() as connection:
            return await query(connection)

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[AsyncConnection]:
        """A connection on which each statement is a transaction of its own.

        Raises:
            RetryableError: ``storage_unavailable``; where the answer to a statement was lost it may have happened.

        """
        with self._bounded_errors():
            async with self._single.connect() as connection, self._deadline(connection, TRANSACTION_TIMEOUT_S):
                yield connection

    @asynccontextmanager
    async def transaction(
        self, isolation: str | None = None, *, bounded: bool = True
    ) -> AsyncIterator[AsyncConnection]:
        """One transaction; committed at the end, rolled back by an exception.

        ``isolation`` is a level of PostgreSQL other than READ COMMITTED; SQLite's is always serialisable. One that is
        not ``bounded`` may last as long as it likes.

        Raises:
            RetryableError: ``storage_unavailable``; where the answer to the commit was lost it may have happened.

        """
        with self._bounded_errors():
            async with self.engine.connect() as connection:
                if isolation is not None and self.dialect == "postgresql":
                    await connection.execution_options(isolation_level=isolation)
                async with self._deadline(connection, TRANSACTION_TIMEOUT_S if bounded else None), connection.begin():
                    yield connection

    async def ping(self) -> None:
        """Raises: RetryableError: ``storage_unavailable``."""

        async def query(connection: AsyncConnection) -> None:
            await connection.execute(text("SELECT 1"))

        await self.read(query)

    @asynccontextmanager
    async def _deadline(self, connection: AsyncConnection, timeout_s: float | None) -> AsyncIterator[None]:
        """Cut the connection when the time is up, so that whatever waits for the server fails.

        To cancel the waiting would not do: the rollback that follows would wait for the same server again. SQLite has
        nothing to cut; it waits for locks only, and for each only so long.
        """
        if timeout_s is None or self.dialect == "sqlite":
            yield
            return
        driver: Any = (await connection.get_raw_connection()).driver_connection
        cut: list[float] = []

        def time_is_up() -> None:
            cut.append(timeout_s)
            driver.terminate()

        timer = asyncio.get_running_loop().call_later(timeout_s, time_is_up)
        try:
            yield
        except Exception as error:
            if cut:
                raise TimeoutError(f"no answer within {timeout_s:g} s") from error
            raise
        finally:
            timer.cancel()

    @contextmanager
    def _bounded_errors(self) -> Iterator[None]:
        try:
            yield
        except FastSockError:
            raise
        except Exception as error:
            if not unavailable(error):
                raise
            raise error_of("storage_unavailable", _reason(error, self.url), RETRY_AFTER_MS) from error


async def check(url: str) -> None:
    """Make sure that the database can be reached and written, within `CONNECT_TIMEOUT_S`.

    A SQLite file that does not exist yet is made.

    Raises:
        RetryableError: ``storage_unavailable``, with the reason in words: down, wrong password, no such database, no
            such folder, not a database.

    """
    database = Database(url, pool_size=1)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S), database.transaction() as connection:
            await connection.execute(text("SELECT 1"))
    except TimeoutError as error:
        raise error_of("storage_unavailable", _reason(error, database.url), RETRY_AFTER_MS) from error
    finally:
        await database.close()


def unavailable(error: BaseException) -> bool:
    """Whether this exception is the database being away, or too busy, as opposed to refusing what it was given."""
    return any(_away(cause) for cause in causes(error))


def causes(error: BaseException) -> Iterator[BaseException]:
    """The exception, and what it was made of: SQLAlchemy wraps its adapter's errors, which wrap the driver's."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        cause = waiting.pop()
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        waiting += [cause.__cause__, getattr(cause, "orig", None)]


def _away(error: BaseException) -> bool:
    if isinstance(error, FastSockError):
        return error.code == "storage_unavailable"
    if isinstance(error, DBAPIError):
        return bool(error.connection_invalidated)
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state.startswith(_AWAY_STATES) or state in _AWAY_CODES
    if isinstance(error, asyncpg.InterfaceError):
        return not isinstance(error, ValueError)  # asyncpg's DataError is one: an argument that cannot be encoded
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in _AWAY_SQLITE
    return isinstance(error, OSError | TimeoutError | PoolTimeoutError)


def _reason(error: BaseException, url: URL) -> str:
    """Why the database is away, in words for whoever runs it."""
    place = f"the database at {url.host or 'localhost'}:{url.port or 5432}"
    if url.get_backend_name() == "sqlite":
        text_ = next((str(cause) for cause in causes(error) if isinstance(cause, sqlite3.Error)), "no answer in time")
        return f"the database file {url.database} cannot be used: {text_}"
    words = next((words for cause in causes(error) if (words := _words(cause, url))), None)
    if words is None:
        words = f"is not available: {error.__cause__ or error}"
    return f"{place} {words}"


def _words(cause: BaseException, url: URL) -> str | None:
    """What this exception says about a PostgreSQL server; None if it says nothing."""
    words: dict[type[BaseException] | tuple[type[BaseException], ...], str] = {
        asyncpg.InvalidAuthorizationSpecificationError: f"refuses user {url.username!r}: {cause}",
        asyncpg.InvalidCatalogNameError: f"has no database {url.database!r}",
        ConnectionRefusedError: "refuses connections: is it running?",
        PoolTimeoutError: f"is busy: no connection was free within {CONNECT_TIMEOUT_S:g} s",
        TimeoutError: "did not answer in time",
        (asyncpg.PostgresError, OSError): f"is not available: {cause}",
    }
    return next((text_ for kinds, text_ in words.items() if isinstance(cause, kinds)), None)


def _asynchronous(url: str) -> URL:
    """The URL with the driver that does not block; SQLAlchemy's default ones do."""
    parsed = make_url(url)
    return parsed.set(drivername=_DRIVERS[parsed.get_backend_name()])


def _preparing_postgresql(further: Mapping[str, str]) -> Callable[[Any, object], None]:
    settings = {
        "statement_timeout": round(STATEMENT_TIMEOUT_S * 1000),
        "idle_in_transaction_session_timeout": round(IDLE_TRANSACTION_S * 1000),
        "jit": "off",  # compiling costs more than any of these statements
        **further,
    }
    # Sent as one statement: a pooler between us and the server would refuse them among the connection's parameters.
    script = ";".join(f"SET {name} = {value}" for name, value in settings.items())

    def prepare(connection: Any, _record: object) -> None:
        connection.run_async(lambda driver: driver.execute(script))

    return prepare


def prepare_sqlite(connection: Any, _record: object) -> None:
    """Pragmas of a new SQLite connection: readers beside the writer, commits that survive a killed process."""
    cursor = connection.cursor()
    # FULL: a commit is on the disk before it is acknowledged, as PostgreSQL does it; group commit shares the price.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
    connection.create_function("unicode_lower", 1, _lower, deterministic=True)


def _lower(value: object) -> object:
    """SQLite's own ``lower`` knows ASCII only."""
    return value.lower() if isinstance(value, str) else value


def begin_immediate(connection: Connection) -> None:
    if not connection.get_execution_options().get(_AUTOCOMMIT):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
