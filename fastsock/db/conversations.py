"""Conversations and who belongs to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, ScalarSelect, String, and_, cast, func, insert, literal, select
from sqlalchemy.dialects import postgresql, sqlite

from fastsock.core.errors import error_of
from fastsock.db.engine import Database
from fastsock.db.rows import values_of
from fastsock.models.tables import log, markers, members, rooms, users
from fastsock.schemas import names
from fastsock.schemas.log import ConversationState, Entry, Role, Subscription

CHUNK = 2_000
"""Names or ids of one query."""


class RoomRow(msgspec.Struct, frozen=True):
    """One room."""

    id: int
    name: str
    owner_id: int
    created_at_ms: int
    member_count: int


class MemberRow(msgspec.Struct, frozen=True):
    """One member of a room."""

    user_id: int
    role: Role
    joined_seq: int
    email: str
    full_name: str | None


def _head(conversation: ColumnElement[str], column: ColumnElement[int]) -> ScalarSelect[int]:
    """A column of the conversation's last entry: one step down the primary key."""
    last = log.alias()
    query = select(last.c[column.key]).where(last.c.conversation == conversation)
    return query.order_by(last.c.seq.desc()).limit(1).scalar_subquery()


def _unread(user_id: ColumnElement[int]) -> ScalarSelect[int]:
    """Messages of others after the read marker, or after joining where there is none: a range of the primary key."""
    since = func.coalesce(markers.c.read_seq, members.c.joined_seq - 1)
    return (
        select(func.count())
        .select_from(log)
        .where(
            log.c.conversation == members.c.conversation,
            log.c.seq > since,
            log.c.kind == "message",
            log.c.sender_id != user_id,
            log.c.deleted_at_ms.is_(None),
        )
        .correlate(members, markers)
        .scalar_subquery()
    )


class Conversations:
    """Rooms and direct conversations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- for the actors ------------------------------------------------------------------------------------------

    async def load(self, wanted: Sequence[str]) -> dict[str, ConversationState | None]:
        """What activations start from, for any number of conversations in four queries; None: there is no such."""
        by_kind: dict[str, list[str]] = {"room": [], "dm": []}
        for name in wanted:
            by_kind[names.parse(name).kind].append(name)
        states: dict[str, ConversationState | None] = dict.fromkeys(wanted)
        async with self._database.transaction() as connection:
            room_ids = {names.parse(name).ids[0]: name for name in by_kind["room"]}
            if room_ids:
                for room_id, title in await connection.execute(
                    select(rooms.c.id, rooms.c.name).where(rooms.c.id.in_(room_ids))
                ):
                    states[room_ids[room_id]] = _state(room_ids[room_id], title)
            people = {user for name in by_kind["dm"] for user in names.parse(name).ids}
            if people:
                active = set(
                    await connection.scalars(select(users.c.id).where(users.c.id.in_(people), users.c.is_active))
                )
                for name in by_kind["dm"]:
                    ids = names.parse(name).ids
                    if active.issuperset(ids):
                        states[name] = _state(name, "")
                        states[name].members = dict.fromkeys(ids, "member")  # type: ignore[union-attr]
            found = {name: state for name, state in states.items() if state is not None}
            heads = select(log.c.conversation, func.max(log.c.seq), func.max(log.c.at_ms))
            heads = heads.where(log.c.conversation.in_(found)).group_by(log.c.conversation)
            for name, head, last_at_ms in await connection.execute(heads):
                found[name].head, found[name].last_at_ms = head, last_at_ms
            belonging = select(members.c.conversation, members.c.user_id, members.c.role)
            for name, user, role in await connection.execute(
                belonging.where(members.c.conversation.in_([name for name in found if name.startswith("room:")]))
            ):
                found[name].members[user] = role
        return states

    async def of_users(self, user_ids: Sequence[int]) -> dict[int, list[Subscription]]:
        """The conversations of each user, in one query."""
        query = (
            select(
                members.c.user_id,
                members.c.conversation,
                func.coalesce(_head(members.c.conversation, log.c.seq), 0),
                _unread(members.c.user_id),
                members.c.joined_seq,
            )
            .select_from(_with_markers())
            .where(members.c.user_id.in_(user_ids))
        )
        found: dict[int, list[Subscription]] = {user_id: [] for user_id in user_ids}
        async with self._database.transaction() as connection:
            for user_id, *subscription in await connection.execute(query):
                found[user_id].append(Subscription(*subscription))
        return found

    # --- rooms -----------------------------------------------------------------------------------------------------

    async def create_room(
        self, owner_id: int, name: str, member_ids: Sequence[int], entry_id: int, at_ms: int
    ) -> Entry:
        """Make a room of the owner and these members, with the first entry of its log, which is returned.

        Raises:
            FastSockError: ``user_not_found``, naming those who do not exist or are not active.

        """
        everybody = list(dict.fromkeys([owner_id, *member_ids]))
        async with self._database.transaction() as connection:
            there = set(
                await connection.scalars(select(users.c.id).where(users.c.id.in_(everybody), users.c.is_active))
            )
            missing = [str(user) for user in everybody if user not in there]
            if missing:
                raise error_of("user_not_found", f"no such users, or not active: {', '.join(missing[:20])}")
            values = {"name": name, "owner_id": owner_id, "created_at_ms": at_ms}
            room_id = (await connection.execute(insert(rooms).values(values).returning(rooms.c.id))).scalar_one()
            roles: dict[str, Role] = {str(user): "owner" if user == owner_id else "member" for user in everybody}
            entry = Entry(
                conversation=names.room(room_id),
                kind="created",
                sender_id=owner_id,
                key=f"s:room-{room_id}",
                at_ms=at_ms,
                id=entry_id,
                seq=1,
                content=name,
                detail={"members": roles},
            )
            await connection.execute(insert(log), values_of(entry, 1))
            await connection.execute(
                insert(members),
                [
                    {"conversation": entry.conversation, "user_id": user, "role": roles[str(user)], "joined_seq": 1}
                    for user in everybody
                ],
            )
        return entry

    async def rooms_of(self, user_id: int) -> list[RoomRow]:
        """The rooms of which the user is a member, the newest first."""
        mine = members.alias()
        belongs = and_(mine.c.conversation == _name(), mine.c.user_id == user_id)
        return await self._rooms(select(*_room_columns()).select_from(rooms.join(mine, belongs)))

    async def room(self, room_id: int) -> RoomRow | None:
        found = await self._rooms(select(*_room_columns()).where(rooms.c.id == room_id))
        return found[0] if found else None

    async def _rooms(self, query: Any) -> list[RoomRow]:
        async with self._database.transaction() as connection:
            return [RoomRow(*row) for row in await connection.execute(query.order_by(rooms.c.id.desc()))]

    async def members(self, room_id: int) -> list[MemberRow]:
        """The members of a room in the order in which they joined."""
        query = (
            select(members.c.user_id, members.c.role, members.c.joined_seq, users.c.email, users.c.full_name)
            .join(users, users.c.id == members.c.user_id)
            .where(members.c.conversation == names.room(room_id))
            .order_by(members.c.joined_seq, members.c.user_id)
        )
        async with self._database.transaction() as connection:
            return [MemberRow(*row) for row in await connection.execute(query)]

    # --- read markers ------------------------------------------------------------------------------------------------

    async def unread(self, user_id: int) -> dict[str, int]:
        """Per conversation with any: how many messages of others the user has not read."""
        query = (
            select(members.c.conversation, _unread(members.c.user_id))
            .select_from(_with_markers())
            .where(members.c.user_id == user_id)
        )
        async with self._database.transaction() as connection:
            return {name: count for name, count in await connection.execute(query) if count}

    async def mark_read(self, user_id: int, conversation: str, seq: int) -> bool:
        """Move the user's read marker forward to ``seq``; False if it is there already, or further."""
        dialect = postgresql if self._database.dialect == "postgresql" else sqlite
        upsert = dialect.insert(markers).values(user_id=user_id, conversation=conversation, read_seq=seq)
        upsert = upsert.on_conflict_do_update(
            index_elements=["user_id", "conversation"],
            set_={"read_seq": upsert.excluded.read_seq},
            where=markers.c.read_seq < upsert.excluded.read_seq,
        )
        async with self._database.transaction() as connection:
            return (await connection.execute(upsert)).rowcount == 1


def _state(name: str, title: str) -> ConversationState:
    return ConversationState(conversation=name, head=0, last_at_ms=0, members={}, name=title)


def _name() -> ColumnElement[str]:
    return literal("room:") + cast(rooms.c.id, String)


def _with_markers() -> Any:
    same = and_(markers.c.user_id == members.c.user_id, markers.c.conversation == members.c.conversation)
    return members.outerjoin(markers, same)


def _room_columns() -> tuple[ColumnElement[Any], ...]:
    count = select(func.count()).where(members.c.conversation == _name()).correlate(rooms).scalar_subquery()
    return rooms.c.id, rooms.c.name, rooms.c.owner_id, rooms.c.created_at_ms, count
