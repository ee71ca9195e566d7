"""Rooms: making one, and who belongs to it.

A room is made in the database, complete with its first log entry; from then on only its actor changes it, so adding and
removing members are questions to ``room:ID`` and not statements here.
"""

from __future__ import annotations

from collections.abc import Sequence

from actors.commands import AddMembers, Attend, RemoveMember
from fastsock.core.errors import FastSockError, error_of
from fastsock.core.limits import MAX_ROOM_MEMBERS
from fastsock.db.conversations import Conversations, MemberRow, RoomRow
from fastsock.schemas import names
from fastsock.services.clock import Clock
from fastsock.services.ports import Actors
from fastsock.services.users import People


class Rooms:
    """The rooms of whoever asks."""

    def __init__(self, conversations: Conversations, people: People, actors: Actors, now_ms: Clock) -> None:
        self._conversations = conversations
        self._people = people
        self._actors = actors
        self._now_ms = now_ms

    async def create(self, owner_id: int, name: str, member_ids: Sequence[int]) -> RoomRow:
        """Make a room of the owner and these users, and have every member's gateways show ``room.created``.

        Raises:
            PolicyError: ``too_many_members``; ``user_not_found``, naming those who don't exist.

        """
        members = list(dict.fromkeys((owner_id, *member_ids)))
        if len(members) > MAX_ROOM_MEMBERS:
            asked = f"{len(members):,} members were asked for"
            raise error_of("too_many_members", f"a room has at most {MAX_ROOM_MEMBERS:,} members, and {asked}")
        entry_id = await self._actors.lease_id()
        entry = await self._conversations.create_room(owner_id, name, members, entry_id, self._now_ms())
        for member in members:
            self._actors.tell(names.user(member), Attend(entry.conversation, since=0))
        return await self._existing(names.parse(entry.conversation).ids[0])

    async def of(self, user_id: int) -> list[RoomRow]:
        return await self._conversations.rooms_of(user_id)

    async def get(self, caller: int, room_id: int) -> RoomRow:
        """Raises: PolicyError: ``room_not_found``, ``not_a_member``."""
        await self.require_member(caller, room_id)
        return await self._existing(room_id)

    async def members(self, caller: int, room_id: int) -> list[MemberRow]:
        """Raises: PolicyError: ``room_not_found``, ``not_a_member``."""
        await self.require_member(caller, room_id)
        return await self._conversations.members(room_id)

    async def add(self, caller: int, room_id: int, user_ids: Sequence[int], key: str) -> bytes:
        """Add users as plain members; the data of ``room.member_joined``, JSON.

        Raises:
            PolicyError: ``user_not_found``, naming those who don't exist, and what the room refuses.

        """
        wanted = list(dict.fromkeys(user_ids))
        await self._people.require(wanted)
        return await self._actors.ask(names.room(room_id), AddMembers(caller, key, wanted))

    async def remove(self, caller: int, room_id: int, user_id: int, key: str) -> bytes:
        """Remove a member, or leave; the data of ``room.member_left``, JSON."""
        return await self._actors.ask(names.room(room_id), RemoveMember(caller, key, user_id))

    async def require_member(self, caller: int, room_id: int) -> None:
        """Raises: PolicyError: ``room_not_found``, ``not_a_member``."""
        name = names.room(room_id)
        state = (await self._conversations.load([name]))[name]
        if state is None:
            raise _not_found(room_id)
        if caller not in state.members:
            raise error_of("not_a_member", f"user {caller} is not a member of {name}")

    async def _existing(self, room_id: int) -> RoomRow:
        room = await self._conversations.room(room_id)
        if room is None:
            raise _not_found(room_id)
        return room


def _not_found(room_id: int) -> FastSockError:
    return error_of("room_not_found", f"room {room_id} does not exist")
