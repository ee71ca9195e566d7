"""Accounts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Select, Update, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from fastsock.core.errors import error_of
from fastsock.db.engine import Database
from fastsock.db.refusals import overtaken, own_words
from fastsock.db.statement import Statement
from fastsock.models import users

ACTIVE = Statement(
    "SELECT users.id FROM {wanted} JOIN users ON users.id = wanted.id WHERE users.is_active", wanted={"id": "bigint"}
)
"""Those of the wanted ids that are active accounts."""

List = list  # `Users.list` hides the builtin in its class
_COLUMNS = (
    users.c.id,
    users.c.email,
    users.c.full_name,
    users.c.is_active,
    users.c.created_at_ms,
    users.c.password_hash,
)


class UserRow(msgspec.Struct, frozen=True):
    """One account. ``email`` is in lower case."""

    id: int
    email: str
    full_name: str | None
    is_active: bool
    created_at_ms: int
    password_hash: str

    def __repr__(self) -> str:
        """Without the hash: rows end up in logs."""
        return f"UserRow(id={self.id})"


class Users:
    """All accounts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, email: str, password_hash: str, full_name: str | None) -> UserRow:
        """Make an account; None is no name.

        Raises:
            PolicyError: ``email_taken``, however the address is written.
            RetryableError: ``storage_unavailable``.

        """
        row = {"email": email.lower(), "password_hash": password_hash, "full_name": full_name}
        query = insert(users).values(created_at_ms=time.time_ns() // 1_000_000, **row).returning(*_COLUMNS)
        async with self._database.transaction() as connection:
            try:
                return UserRow(*(await connection.execute(query)).one())
            except IntegrityError as error:
                if not (overtaken(error) and "email" in own_words(error)):
                    raise
                raise error_of("email_taken", f"the e-mail address {email.lower()} is already registered") from None

    async def by_email(self, email: str) -> UserRow | None:
        """The account with this address, however it is written; None if there is none."""
        found = await self._rows(select(*_COLUMNS).where(users.c.email == email.lower()))
        return found[0] if found else None

    async def by_id(self, user_id: int) -> UserRow | None:
        found = await self._rows(select(*_COLUMNS).where(users.c.id == user_id))
        return found[0] if found else None

    async def existing(self, ids: Sequence[int]) -> set[int]:
        """Those of the ids that are active accounts."""

        async def read(connection: AsyncConnection) -> set[int]:
            return {user for (user,) in await ACTIVE.fetch(connection, wanted=[(id_,) for id_ in set(ids)])}

        return await self._database.read(read)

    async def list(self, skip: int, limit: int, q: str | None = None) -> list[UserRow]:
        """Active accounts by id; with ``q`` those whose name or address contains it, in whatever case."""
        query = select(*_COLUMNS).where(users.c.is_active)
        if q:
            part = q.lower()
            lower = func.lower if self._database.dialect == "postgresql" else func.unicode_lower
            name, email = lower(users.c.full_name), users.c.email
            query = query.where(or_(email.contains(part, autoescape=True), name.contains(part, autoescape=True)))
        return await self._rows(query.order_by(users.c.id).offset(skip).limit(limit))

    async def set_full_name(self, user_id: int, full_name: str | None) -> UserRow | None:
        """The account with its new name, None for no name; None if there is no such account."""
        return await self._changed(update(users).where(users.c.id == user_id).values(full_name=full_name))

    async def set_password_hash(self, user_id: int, password_hash: str) -> UserRow | None:
        """The account with its new hash; None if there is no such account."""
        return await self._changed(update(users).where(users.c.id == user_id).values(password_hash=password_hash))

    async def _changed(self, query: Update) -> UserRow | None:
        async with self._database.transaction() as connection:
            row = (await connection.execute(query.returning(*_COLUMNS))).first()
        return None if row is None else UserRow(*row)

    async def _rows(self, query: Select[Any]) -> List[UserRow]:
        async def read(connection: AsyncConnection) -> List[UserRow]:
            return [UserRow(*row) for row in await connection.execute(query)]

        return await self._database.read(read)
