"""What a database says about rows that it does not store: somebody else was faster, or the row is not to its taste."""

from __future__ import annotations

import sqlite3

import asyncpg
from sqlalchemy.exc import StatementError

from fastsock.db.engine import causes, unavailable

REFUSALS = (StatementError, ValueError, OverflowError)
"""What SQLAlchemy and the drivers raise about statements and values; `concerns_a_row` says which are about those."""

_OVERTAKEN_STATES = frozenset({"23505", "40001", "40P01"})
"""SQLSTATE: unique_violation, serialization_failure, deadlock_detected."""
_OVERTAKEN_CODES = frozenset({sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY})


def overtaken(error: BaseException) -> bool:
    """Whether another transaction has stored such a row, or has changed the same one at the same time."""
    return any(
        getattr(cause, "sqlstate", None) in _OVERTAKEN_STATES
        or getattr(cause, "sqlite_errorcode", None) in _OVERTAKEN_CODES
        for cause in causes(error)
    )


def concerns_a_row(error: BaseException) -> bool:
    """Whether the error is about what was to be stored, as opposed to the database being away."""
    return overtaken(error) or not unavailable(error)


def own_words(error: BaseException) -> str:
    """What the database said, without the values and the statement that others add."""
    for cause in causes(error):
        if isinstance(cause, asyncpg.PostgresError | asyncpg.InterfaceError | sqlite3.Error):
            return str(cause).splitlines()[0]
    return type(error).__name__
