"""Migrations, on both databases."""

from __future__ import annotations

import asyncio
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect
from sqlalchemy.engine import Connection

from fastsock.db import migrate
from fastsock.db.engine import Database
from fastsock.db.message_log import MessageLog
from fastsock.models import metadata
from tests.contracts.conftest import BACKENDS
from tests.contracts.entries import add_users, group, message
from tests.postgres import PostgresServer

HEAD = "0002"


@pytest.fixture(params=BACKENDS)
def empty_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a database without tables."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('empty')}/100%.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.create_database()


async def tables(url: str) -> set[str]:
    database = Database(url, pool_size=1)
    async with database.autocommit() as connection:
        found = await connection.run_sync(lambda sync: set(inspect(sync).get_table_names()))
    await database.close()
    return found


async def test_up_down_and_up(empty_url: str) -> None:
    assert migrate.current(empty_url) is None
    for _ in range(2):
        migrate.upgrade(empty_url)
        assert migrate.current(empty_url) == HEAD
        assert await tables(empty_url) == {*metadata.tables, "alembic_version"}
        database = Database(empty_url, pool_size=1)
        await add_users(database, 1)
        await MessageLog(database).append([group(0, message("dm:1:1", 1, "note"))])
        await database.close()
        migrate.upgrade(empty_url)  # nothing to do, and nothing is lost
        migrate.downgrade(empty_url, "base")
        assert migrate.current(empty_url) is None
        assert await tables(empty_url) == {"alembic_version"}


async def test_migrations_make_what_the_models_say(url: str) -> None:
    def compare(connection: Connection) -> list[object]:
        options = {"compare_type": True, "compare_server_default": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))

    def checks(connection: Connection) -> dict[str, set[str | None]]:
        found = inspect(connection)
        return {table: {check["name"] for check in found.get_check_constraints(table)} for table in metadata.tables}

    database = Database(url, pool_size=1)
    async with database.autocommit() as connection:
        drift = await connection.run_sync(compare)
        present = await connection.run_sync(checks)
    await database.close()
    assert drift == []
    assert present == {  # which autogenerate does not look at
        "users": {"ck_users_email_lower_case", "ck_users_id_range"},
        "rooms": {"ck_rooms_id_range"},
        "members": {"ck_members_role_known", "ck_members_joined_seq_positive"},
        "log": {
            "ck_log_id_range",
            "ck_log_sender_id_range",
            "ck_log_seq_positive",
            "ck_log_kind_known",
            "ck_log_deleted_is_empty",
        },
        "markers": {"ck_markers_not_negative"},
        "id_blocks": {"ck_id_blocks_next_range"},
        "placement": {"ck_placement_single_row", "ck_placement_epoch_positive"},
    }


async def test_several_processes_migrate_at_once(empty_url: str) -> None:
    script = "import sys; from fastsock.db import migrate; sys.stdin.read(); migrate.upgrade(sys.argv[1])"
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, empty_url, stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        for _ in range(2)
    ]
    for process in processes:  # they wait for the end of their input, so they start together
        assert process.stdin is not None
        process.stdin.close()
    ended = await asyncio.gather(*(process.communicate() for process in processes))
    assert [process.returncode for process in processes] == [0, 0], [error.decode()[-2000:] for _, error in ended]
    assert migrate.current(empty_url) == HEAD


def test_one_line_of_revisions() -> None:
    script = ScriptDirectory.from_config(migrate._config(None))
    assert script.get_heads() == [HEAD]
