"""Accounts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, Select, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from fastsock.core.errors import error_of
from fastsock.db.engine import Database
from fastsock.models.tables import users


class UserRow(msgspec.Struct, frozen=True):
    """One account. ``email`` is in lower case."""

    id: int
    email: str
    full_name: str | None
    is_active: bool
    created_at_ms: int
    password_hash: str

    def __repr__(self) -> str:
        return f"UserRow(id={self.id})"


_COLUMNS = (
    users.c.id,
    users.c.email,
    users.c.full_name,
    users.c.is_active,
    users.c.created_at_ms,
    users.c.password_hash,
)


def _user(row: Row[Any]) -> UserRow:
    return UserRow(*row)


class Users:
    """All accounts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, email: str, password_hash: str, full_name: str | None) -> UserRow:
        """Make an account.

        Raises:
            FastSockError: ``email_taken``.

        """
        row = {"email": email.lower(), "password_hash": password_hash, "full_name": full_name}
        query = insert(users).values(created_at_ms=time.time_ns() // 1_000_000, **row).returning(*_COLUMNS)
        async with self._database.transaction() as connection:
            try:
                return _user((await connection.execute(query)).one())
            except IntegrityError:
                raise error_of("email_taken", f"the email {email} has an account already") from None

    async def by_email(self, email: str) -> UserRow | None:
        return await self._one(select(*_COLUMNS).where(users.c.email == email.lower()))

    async def by_id(self, user_id: int) -> UserRow | None:
        return await self._one(select(*_COLUMNS).where(users.c.id == user_id))

    async def _one(self, query: Select[Any]) -> UserRow | None:
        async with self._database.transaction() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else _user(row)

    async def existing(self, ids: Sequence[int]) -> set[int]:
        """Those of the ids that are active accounts."""
        async with self._database.transaction() as connection:
            found = await connection.scalars(select(users.c.id).where(users.c.id.in_(ids), users.c.is_active))
            return set(found)

    async def list(self, skip: int, limit: int, q: str | None) -> list[UserRow]:
        """Active accounts in the order of their ids; ``q`` is looked for in names and emails, whatever its case."""
        query = select(*_COLUMNS).where(users.c.is_active)
        if q:
            query = query.where(
                or_(
                    users.c.email.contains(q.lower(), autoescape=True),
                    func.lower(users.c.full_name).contains(q.lower(), autoescape=True),
                )
            )
        async with self._database.transaction() as connection:
            found = await connection.execute(query.order_by(users.c.id).offset(skip).limit(limit))
            return [_user(row) for row in found]

    async def set_full_name(self, user_id: int, full_name: str | None) -> UserRow | None:
        return await self._change(user_id, {"full_name": full_name})

    async def set_password_hash(self, user_id: int, password_hash: str) -> UserRow | None:
        return await self._change(user_id, {"password_hash": password_hash})

    async def _change(self, user_id: int, values: dict[str, Any]) -> UserRow | None:
        query = update(users).where(users.c.id == user_id).values(values).returning(*_COLUMNS)
        async with self._database.transaction() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else _user(row)
