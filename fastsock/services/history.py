"""What was said: pages of a conversation, for those who belong to it.

A room's history is for its members, all of it, however late they came. The history of two people exists as soon as both
of them do: it is empty until one of them speaks.
"""

from __future__ import annotations

from typing import NamedTuple

from fastsock.core.errors import error_of
from fastsock.core.limits import DEFAULT_PAGE
from fastsock.db.message_log import MessageLog
from fastsock.schemas import frames, names
from fastsock.services.rooms import Rooms
from fastsock.services.users import People


class Page(NamedTuple):
    """Which messages: the newest ``limit`` after leaving out ``skip`` newer ones, within the bounds.

    ``before`` and ``after`` are sequence numbers that do not belong to the page; None is no bound.
    """

    skip: int = 0
    limit: int = DEFAULT_PAGE
    before: int | None = None
    after: int | None = None


class History:
    """Messages of a conversation, oldest first."""

    def __init__(self, log: MessageLog, rooms: Rooms, people: People) -> None:
        self._log = log
        self._rooms = rooms
        self._people = people

    async def of_room(self, caller: int, room_id: int, page: Page) -> list[frames.Message]:
        """Raises: PolicyError: ``room_not_found``, ``not_a_member``."""
        await self._rooms.require_member(caller, room_id)
        return await self._read(names.room(room_id), page)

    async def with_user(self, caller: int, user_id: int, page: Page) -> list[frames.Message]:
        """What the caller and this user said to each other. Raises: PolicyError: ``user_not_found``."""
        await self._people.require([user_id])
        return await self._read(names.dm(caller, user_id), page)

    async def _read(self, conversation: str, page: Page) -> list[frames.Message]:
        if page.before is not None and page.after is not None:
            raise error_of("invalid_data", f"before: {page.before} and after: {page.after} exclude each other")
        entries = await self._log.history(
            conversation, before=page.before, after=page.after, skip=page.skip, limit=page.limit
        )
        return [frames.message_of(entry) for entry in entries]
