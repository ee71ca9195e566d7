"""PostgreSQL's plans of what a writer and a host do must not be those of the empty tables that they began with."""

from __future__ import annotations

from sqlalchemy import text

from fastsock.db.conversations import Conversations
from fastsock.db.engine import Database
from fastsock.db.message_log import MessageLog
from tests.contracts.entries import add_users, group, message
from tests.fixtures_database import DatabaseUrl

ROOMS = [f"room:{number}" for number in range(1, 21)]
BATCHES = 40
"""PostgreSQL makes the plan that it keeps at the fifth or sixth time."""


async def test_the_log_is_never_read_as_a_whole(database_url: DatabaseUrl) -> None:
    database = Database(database_url("postgresql"), pool_size=1, lookups=True)
    try:
        await add_users(database, 9)
        log, conversations = MessageLog(database), Conversations(database)
        for batch in range(BATCHES):
            await log.append([group(batch, message(room, 1, f"{room} {batch}")) for room in ROOMS])
            await log.heads(ROOMS)
            await log.after(ROOMS[0], batch, 10)
            await log.by_keys([(1, f"c:{ROOMS[0]} {batch}")])
            await conversations.load(ROOMS)
        async with database.autocommit() as connection:
            await connection.execute(text("SELECT pg_stat_force_next_flush()"))  # this connection's own figures
        async with database.autocommit() as connection:
            query = text("SELECT n_tup_ins, seq_tup_read FROM pg_stat_user_tables WHERE relname = 'log'")
            stored, read = (await connection.execute(query)).one()
        assert (stored, read) == (BATCHES * len(ROOMS), 0)
    finally:
        await database.close()
