"""Users: oneself, and the others."""

from __future__ import annotations

from collections.abc import Sequence

from fastsock.core.errors import error_of
from fastsock.db.users import UserRow, Users

MAX_NAMED = 20
"""Ids of one error's text."""


class People:
    """Who is on this server."""

    def __init__(self, users: Users) -> None:
        self._users = users

    async def me(self, caller: int) -> UserRow:
        """The caller's own row.

        Raises:
            PolicyError: ``not_authenticated`` where the token outlived its user, ``account_inactive``.

        """
        return _active(caller, await self._users.by_id(caller))

    async def rename(self, caller: int, full_name: str | None) -> UserRow:
        """Change what the caller is called; None is no name. Raises: as `me`."""
        await self.me(caller)
        return _active(caller, await self._users.set_full_name(caller, full_name))

    async def list(self, skip: int, limit: int, q: str | None) -> list[UserRow]:
        """Active users by id; with ``q``, those whose name or address contains it."""
        return await self._users.list(skip, limit, q)

    async def require(self, user_ids: Sequence[int]) -> None:
        """Raises: PolicyError: ``user_not_found``, naming those who do not exist or are not active."""
        missing = sorted(set(user_ids) - await self._users.existing(user_ids))
        if missing:
            shown = ", ".join(map(str, missing[:MAX_NAMED]))
            more = f" and {len(missing) - MAX_NAMED:,} more" if len(missing) > MAX_NAMED else ""
            raise error_of("user_not_found", f"no such users, or not active: {shown}{more}")


def _active(user_id: int, user: UserRow | None) -> UserRow:
    if user is None:
        raise error_of("not_authenticated", f"user {user_id}, whom the token belongs to, does not exist")
    if not user.is_active:
        raise error_of("account_inactive", f"user {user_id} is inactive")
    return user
