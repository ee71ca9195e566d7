"""What somebody has not read yet, under the names by which they know it."""

from __future__ import annotations

from typing import NamedTuple

from fastsock.db.conversations import Conversations
from fastsock.schemas import names


class UnreadCounts(NamedTuple):
    """Messages not read yet; whoever and whatever has none is left out. Keys are ids, as strings."""

    users: dict[str, int]
    rooms: dict[str, int]


class UnreadMessages:
    """Counts of unread messages."""

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations

    async def of(self, user_id: int) -> UnreadCounts:
        counts = UnreadCounts({}, {})
        for conversation, count in (await self._conversations.unread(user_id)).items():
            if not count:
                continue
            kind, _, known_as = names.public(conversation, user_id).partition(":")
            (counts.rooms if kind == "room" else counts.users)[known_as] = count
        return counts
