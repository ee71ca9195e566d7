"""The database is away: said in time and in words, nothing half done, and everything well when it is back."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from sqlalchemy import text

from fastsock.core.errors import RetryableError
from fastsock.db import engine, migrate
from fastsock.db.engine import Database, check, unavailable
from fastsock.db.message_log import MessageLog
from fastsock.db.users import Users
from fastsock.schemas.log import Stored
from tests.contracts.entries import add_users, change, group, message
from tests.contracts.proxy import proxy_to
from tests.fixtures_database import DatabaseUrl
from tests.postgres import NoPostgresError, PostgresServer


@pytest.fixture(scope="module")
def mortal() -> Iterator[PostgresServer]:
    """A server of ours, to be stopped and killed."""
    try:
        server = PostgresServer(own=True)
        server.__enter__()
    except NoPostgresError as error:
        pytest.skip(str(error))
    yield server
    server.__exit__()


@pytest.fixture
def mortal_url(mortal: PostgresServer) -> Iterator[str]:
    url = mortal.create_database()
    migrate.upgrade(url)
    yield url
    mortal.start()
    mortal.drop_database(url)


async def reason(url: str) -> str:
    with pytest.raises(RetryableError) as caught:
        await check(url)
    assert caught.value.code == "storage_unavailable"
    assert caught.value.retry_after_ms is not None
    return caught.value.message


def place(url: str) -> str:
    return f"the database at 127.0.0.1:{urlsplit(url).port}"


# --- at the start ------------------------------------------------------------------------------------------------


async def test_a_database_that_is_there_passes(url: str) -> None:
    await check(url)


async def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"postgresql+asyncpg://ann:secret@127.0.0.1:{free.getsockname()[1]}/chat"
        assert await reason(url) == f"{place(url)} refuses connections: is it running?"


async def test_wrong_password_wrong_user_wrong_name(database_url: DatabaseUrl) -> None:
    url = database_url("postgresql")
    parts = urlsplit(url)
    wrong = url.replace(str(parts.password), "wrong")
    expected = (
        f'{place(url)} refuses user {parts.username!r}: password authentication failed for user "{parts.username}"'
    )
    assert await reason(wrong) == expected
    missing = url.replace(parts.path, "/nothing_of_the_kind")
    assert await reason(missing) == f"{place(url)} has no database 'nothing_of_the_kind'"


async def test_somebody_listens_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "CONNECT_TIMEOUT_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"postgresql+asyncpg://ann:secret@127.0.0.1:{silent.getsockname()[1]}/chat"
        assert await reason(url) == f"{place(url)} did not answer in time"


async def test_an_unknown_host() -> None:
    assert "the database at nowhere.invalid:5432 is not available: " in await reason("postgresql://a@nowhere.invalid/c")


async def test_sqlite_files_that_are_none(tmp_path: Path) -> None:
    missing = tmp_path / "no such folder" / "fastsock.db"
    text_ = f"the database file {missing} cannot be used: unable to open database file"
    assert await reason(f"sqlite+aiosqlite:///{missing}") == text_
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG" * 1000)
    text_ = f"the database file {picture} cannot be used: file is not a database"
    assert await reason(f"sqlite+aiosqlite:///{picture}") == text_


# --- while it runs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_server_goes_and_comes_back(mortal: PostgresServer, mortal_url: str, end: str) -> None:
    database = Database(mortal_url)
    log = MessageLog(database)
    await add_users(database, 2)
    assert await log.append([group(0, message("dm:1:2", 1, "before"))]) == [[Stored(1)]]
    waiting = [group(1, message("dm:1:2", 1, "meanwhile"))]
    (mortal.stop if end == "stop" else mortal.kill)()
    for attempt in (log.append(waiting), log.heads(["dm:1:2"]), Users(database).by_id(1), log.lease_ids(1)):
        async with asyncio.timeout(5):
            with pytest.raises(RetryableError) as caught:
                await attempt
        assert caught.value.code == "storage_unavailable"
    mortal.start()
    assert await log.heads(["dm:1:2"]) == {"dm:1:2": 1}
    assert await log.append(waiting) == [[Stored(2)]]
    await database.close()


async def test_reads_survive_a_restart_unnoticed(mortal: PostgresServer, mortal_url: str) -> None:
    database = Database(mortal_url)
    await asyncio.gather(*(database.ping() for _ in range(5)))
    mortal.stop()
    mortal.start()
    await asyncio.gather(*(database.ping() for _ in range(20)))
    await database.close()


async def test_a_server_that_hangs_is_waited_for_only_so_long(
    mortal: PostgresServer, mortal_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "TRANSACTION_TIMEOUT_S", 0.3)
    database = Database(mortal_url)
    log = MessageLog(database)
    await add_users(database, 2)
    await log.heads(["dm:1:2"])
    assert mortal._process is not None
    server = psutil.Process(mortal._process.pid)
    frozen = [server, *server.children(recursive=True)]
    for process in frozen:
        os.kill(process.pid, signal.SIGSTOP)
    entries = [group(0, message("dm:1:2", 1, "hello"))]
    try:
        async with asyncio.timeout(5):
            with pytest.raises(RetryableError) as caught:
                await log.append(entries)
        assert caught.value.message == f"{place(mortal_url)} did not answer in time"
    finally:
        for process in frozen:
            os.kill(process.pid, signal.SIGCONT)
    monkeypatch.undo()
    assert await log.append(entries) == [[Stored(1)]]
    await database.close()


@pytest.mark.parametrize(("conversation", "marker"), [("room:1", b"the last"), ("dm:1:2", b"COMMIT;")])
async def test_a_lost_answer_is_made_good_by_trying_again(
    mortal: PostgresServer, mortal_url: str, conversation: str, marker: bytes
) -> None:
    """The answer to the one statement that stores a room's messages; and to the commit of a first direct message."""
    direct = Database(mortal_url)
    await add_users(direct, 2)
    async with proxy_to(mortal.port) as proxy:
        database = Database(mortal_url.replace(f":{mortal.port}/", f":{proxy.port}/"), pool_size=1)
        log = MessageLog(database)
        await log.append([group(0, message("room:2", 1, "so that the statement is prepared"))])
        groups = [group(0, message(conversation, 1, "one"), message(conversation, 2, "the last"))]
        proxy.lose_answer_to(marker)
        async with asyncio.timeout(5):
            with pytest.raises(RetryableError) as caught:
                await log.append(groups)
        assert caught.value.code == "storage_unavailable"
        assert proxy.lost == 1
        assert await MessageLog(direct).heads([conversation]) == {conversation: 2}, "it was stored, and nobody knows"
        assert await log.append(groups) == [[Stored(1), Stored(2)]]
        await database.close()
    assert [entry.content for entry in await MessageLog(direct).after(conversation, 0, 9)] == ["one", "the last"]
    await direct.close()


async def test_a_locked_sqlite_file_is_waited_for_only_so_long(
    database_url: DatabaseUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "STATEMENT_TIMEOUT_S", 0.2)
    database = Database(database_url("sqlite"))
    await add_users(database, 2)
    log = MessageLog(database)
    holder = sqlite3.connect(str(database.url.database), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    for groups in ([group(0, message("room:1", 1, "a"))], [group(0, message("dm:1:2", 1, "b"))]):
        with pytest.raises(RetryableError) as caught:
            await log.append(groups)
        text_ = f"the database file {database.url.database} cannot be used: database is locked"
        assert (caught.value.code, caught.value.message) == ("storage_unavailable", text_)
    assert await log.heads(["room:1"]) == {"room:1": 0}, "readers do not wait for a writer"
    holder.execute("ROLLBACK")
    holder.close()
    assert await log.append(groups) == [[Stored(1)]]
    await database.close()


async def test_a_pool_without_a_free_connection(database_url: DatabaseUrl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "CONNECT_TIMEOUT_S", 0.2)
    url = database_url("postgresql")
    database = Database(url, pool_size=1)
    async with database.autocommit():
        with pytest.raises(RetryableError) as caught:
            await database.ping()
    assert caught.value.message == f"{place(url)} is busy: no connection was free within 0.2 s"
    await database.close()


async def test_what_is_refused_is_not_away(db: Database) -> None:
    with pytest.raises(Exception, match="no_such_table") as caught:
        await db.read(lambda connection: connection.execute(text("SELECT * FROM no_such_table")))
    assert not unavailable(caught.value)
    assert not unavailable(ValueError("a value"))
    assert unavailable(ConnectionResetError())
    assert unavailable(TimeoutError())


async def test_an_error_does_not_tell_what_people_wrote(db: Database) -> None:
    said = message("room:1", 1, "my secret")
    await MessageLog(db).append([group(0, said)])
    broken = change("edit", said, 1, "another secret")
    broken.kind = "shout"  # type: ignore[assignment]
    [[refused]] = await MessageLog(db).append([group(1, broken)])
    assert "secret" not in str(refused)
