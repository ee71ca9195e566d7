"""Conversations, who belongs to them, and how far each member has read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from fastsock.core.errors import error_of
from fastsock.core.limits import MAX_MARKERS_SHOWN
from fastsock.db import log_writes
from fastsock.db.append_plan import Numbered
from fastsock.db.engine import Database
from fastsock.db.log_reads import HEADS
from fastsock.db.statement import Rows, Statement
from fastsock.db.users import ACTIVE
from fastsock.models import rooms
from fastsock.schemas import names
from fastsock.schemas.log import SERVER_KEY, ConversationState, Entry, Marker, Role, Standing, Subscription

MAX_NAMED = 10
"""Missing users that an error names."""

_NAMES = {"conversation": "text"}
_IDS = {"id": "bigint"}
_ROOM_MEMBERS = Statement(
    """
    SELECT members.conversation, members.user_id, members.role
    FROM {wanted} JOIN members ON members.conversation = wanted.conversation
    """,
    wanted=_NAMES,
)
_MEMBERS = Statement(
    """
    SELECT members.user_id, members.role, members.joined_seq
    FROM {wanted} JOIN members ON members.conversation = wanted.conversation
    ORDER BY members.joined_seq, members.user_id
    """,
    wanted=_NAMES,
)
_TITLES = Statement("SELECT rooms.id, rooms.name FROM {wanted} JOIN rooms ON rooms.id = wanted.id", wanted=_IDS)

_SINCE = """
    CASE WHEN markers.read_seq >= members.joined_seq THEN markers.read_seq ELSE members.joined_seq - 1 END
"""
_UNREAD = f"""
    (SELECT count(*) FROM log
     WHERE log.conversation = members.conversation AND log.seq > {_SINCE}
     AND log.kind = 'message' AND log.sender_id <> members.user_id AND log.deleted_at_ms IS NULL)
"""  # noqa: S608 - made of constants
_OF_USERS = Statement(
    f"""
    SELECT members.user_id, members.conversation,
        (SELECT max(seq) FROM log WHERE log.conversation = members.conversation), {_UNREAD}, members.joined_seq
    FROM {{wanted}} JOIN members ON members.user_id = wanted.id
    LEFT JOIN markers ON markers.user_id = members.user_id AND markers.conversation = members.conversation
    ORDER BY members.user_id, members.conversation
    """,  # noqa: S608
    wanted=_IDS,
)
_STANDINGS = Statement(
    f"""
    SELECT members.user_id, members.conversation, members.joined_seq,
        coalesce((SELECT max(seq) FROM log WHERE log.conversation = members.conversation), 0),
        markers.read_seq, markers.delivered_seq
    FROM {{wanted}} JOIN members ON members.user_id = wanted.id
    LEFT JOIN markers ON markers.user_id = members.user_id AND markers.conversation = members.conversation
    UNION ALL
    SELECT members.user_id, members.conversation, 0, markers.user_id, markers.read_seq, markers.delivered_seq
    FROM {{wanted}} JOIN members ON members.user_id = wanted.id
    JOIN markers ON markers.conversation = members.conversation AND markers.user_id IN (
        SELECT furthest.user_id FROM markers AS furthest JOIN members AS present
        ON present.conversation = furthest.conversation AND present.user_id = furthest.user_id
        WHERE furthest.conversation = members.conversation
        ORDER BY furthest.read_seq DESC LIMIT {MAX_MARKERS_SHOWN})
    """,  # noqa: S608 - a constant
    wanted=_IDS,
)
"""User, conversation, ``joined_seq``, head and the user's own marker; then, with 0 for ``joined_seq``, whose the
markers are that have got furthest. As two statements it cost PostgreSQL 14 us a user, not 8 (15 a read, no markers)."""
_MARK_READ = Statement(
    """
    INSERT INTO markers (user_id, conversation, read_seq)
    SELECT id, conversation, head FROM (
        SELECT wanted.id, wanted.conversation, (
            SELECT max(log.seq) FROM log WHERE log.conversation = wanted.conversation AND log.seq <= wanted.seq
        ) AS head FROM {wanted}
    ) AS reached WHERE head IS NOT NULL
    ON CONFLICT (user_id, conversation) DO UPDATE SET read_seq = excluded.read_seq
    WHERE markers.read_seq < excluded.read_seq
    """,
    wanted={"id": "bigint", "conversation": "text", "seq": "bigint"},
)
_ROOM = """
    SELECT rooms.id, rooms.name, rooms.owner_id, rooms.created_at_ms,
        (SELECT count(*) FROM members AS everybody WHERE everybody.conversation = wanted.conversation)
"""
_ROOMS_OF = Statement(
    f"""
    {_ROOM}
    FROM (SELECT members.conversation FROM members JOIN {{member}} ON member.id = members.user_id
          WHERE members.conversation LIKE 'room%') AS wanted
    JOIN rooms ON rooms.id = CASE WHEN wanted.conversation LIKE 'room%'
                                  THEN CAST(substr(wanted.conversation, 6) AS BIGINT) END
    ORDER BY rooms.id DESC
    """,  # noqa: S608 - the CASE keeps PostgreSQL from casting the name of a direct conversation before it is left out
    member=_IDS,
)
_ROOMS = Statement(
    f"{_ROOM} FROM {{wanted}} JOIN rooms ON rooms.id = wanted.id", wanted={"id": "bigint", "conversation": "text"}
)


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
    """The entry of the room's log by which they came."""


class Conversations:
    """Rooms and direct conversations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- for the actors ------------------------------------------------------------------------------------------

    async def load(self, wanted: Sequence[str]) -> dict[str, ConversationState | None]:
        """What activations start from, for any number of conversations in four queries; None: there is no such.

        Heads are read first. Who is written into the log after that may be among the members all the same, and the
        activation's first append is then fenced; the other way round it would miss a member for good.

        Raises:
            RetryableError: ``storage_unavailable``.

        """

        async def query(connection: AsyncConnection) -> dict[str, ConversationState | None]:
            return await _load(connection, {name: names.parse(name) for name in wanted})

        return await self._database.read(query)

    async def of_users(self, user_ids: Sequence[int]) -> dict[int, list[Subscription]]:
        """The conversations of each user, by name, in one query.

        Raises:
            RetryableError: ``storage_unavailable``.

        """
        found: dict[int, list[Subscription]] = {user: [] for user in user_ids}
        for user, *subscription in await self._all(_OF_USERS, wanted=[(user,) for user in found]):
            found[user].append(Subscription(*subscription))
        return found

    async def standings(self, user_ids: Sequence[int]) -> dict[int, Standing]:
        """How each of these users stands to their conversations, in one query.

        Raises:
            RetryableError: ``storage_unavailable``.

        """
        found = {user: Standing({}, {}, {}) for user in user_ids}
        rows = await self._all(_STANDINGS, wanted=[(user,) for user in found])
        for user, name, joined_seq, number, read_seq, delivered_seq in rows:
            standing, whose = found[user], number
            if joined_seq:
                standing.joined[name], standing.heads[name], whose = joined_seq, number, user
            if read_seq is not None:
                standing.markers.setdefault(name, {})[whose] = Marker(read_seq, delivered_seq)
        return found

    # --- rooms -----------------------------------------------------------------------------------------------------

    async def create_room(
        self, owner_id: int, name: str, member_ids: Sequence[int], entry_id: int, at_ms: int
    ) -> Entry:
        """Make a room of the owner and these users, with the first entry of its log, which is returned.

        Raises:
            PolicyError: ``user_not_found``, naming those who do not exist or are not active.
            RetryableError: ``storage_unavailable``.

        """
        everybody = list(dict.fromkeys((owner_id, *member_ids)))
        async with self._database.transaction() as connection:
            active = {user for (user,) in await ACTIVE.fetch(connection, wanted=[(user,) for user in everybody])}
            missing = sorted(set(everybody) - active)
            if missing:
                shown = ", ".join(map(str, missing[:MAX_NAMED]))
                more = f" and {len(missing) - MAX_NAMED:,} more" if len(missing) > MAX_NAMED else ""
                raise error_of("user_not_found", f"no such users, or not active: {shown}{more}")
            values = {"name": name, "owner_id": owner_id, "created_at_ms": at_ms}
            room_id: int = (await connection.execute(insert(rooms).values(values).returning(rooms.c.id))).scalar_one()
            roles: dict[str, object] = {str(user): "owner" if user == owner_id else "member" for user in everybody}
            entry = Entry(
                conversation=names.room(room_id),
                kind="created",
                sender_id=owner_id,
                key=f"{SERVER_KEY}room-{room_id}",
                at_ms=at_ms,
                id=entry_id,
                seq=1,
                content=name,
                detail={"members": roles},
            )
            await log_writes.store(connection, [Numbered((0, 0), entry, 1)], ())
        return entry

    async def rooms_of(self, user_id: int) -> list[RoomRow]:
        """The rooms that the user belongs to, the newest first."""
        return [RoomRow(*row) for row in await self._all(_ROOMS_OF, member=[(user_id,)])]

    async def room(self, room_id: int) -> RoomRow | None:
        """The room of this id; None if there is none."""
        found = await self._all(_ROOMS, wanted=[(room_id, names.room(room_id))])
        return RoomRow(*found[0]) if found else None

    async def members(self, room_id: int) -> list[MemberRow]:
        """The members of a room, in the order in which they came; none if there is no such room."""
        return [MemberRow(*row) for row in await self._all(_MEMBERS, wanted=[(names.room(room_id),)])]

    # --- read markers ------------------------------------------------------------------------------------------------

    async def unread(self, user_id: int) -> dict[str, int]:
        """How many messages of others the user has not read, for each conversation that has any.

        Messages count from the user's read marker on, or from their coming to the conversation where that is later;
        deleted ones do not count.
        """
        return {found.conversation: found.unread for found in (await self.of_users([user_id]))[user_id] if found.unread}

    async def mark_read(self, user_id: int, conversation: str, seq: int) -> bool:
        """Move the user's read marker forward to ``seq``, or to the log's head where that is less.

        Returns False where the marker is there already, or further. Raises: RetryableError: ``storage_unavailable``.
        """
        async with self._database.autocommit() as connection:
            return await _MARK_READ.count(connection, wanted=[(user_id, conversation, seq)]) == 1

    async def _all(self, statement: Statement, **rows: Rows) -> list[tuple[Any, ...]]:
        async def read(connection: AsyncConnection) -> list[tuple[Any, ...]]:
            return await statement.fetch(connection, **rows)

        return await self._database.read(read)


async def _load(connection: AsyncConnection, wanted: dict[str, names.Parts]) -> dict[str, ConversationState | None]:
    ends = await HEADS.fetch(connection, wanted=[(name,) for name in wanted])
    heads: dict[str, tuple[int, int]] = {name: (head, at_ms) for name, head, at_ms in ends}
    rooms_by_id = {parts.ids[0]: name for name, parts in wanted.items() if parts.kind == "room"}
    people = sorted({user for parts in wanted.values() if parts.kind == "dm" for user in parts.ids})
    states: dict[str, ConversationState | None] = dict.fromkeys(wanted)

    def add(name: str, title: str, belonging: dict[int, Role]) -> None:
        head, last_at_ms = heads.get(name, (0, 0))
        state = ConversationState(conversation=name, head=head, last_at_ms=last_at_ms, members=belonging, name=title)
        states[name] = state

    if rooms_by_id:
        belonging: dict[str, dict[int, Role]] = {name: {} for name in rooms_by_id.values()}
        for name, user, role in await _ROOM_MEMBERS.fetch(connection, wanted=[(name,) for name in belonging]):
            belonging[name][user] = role
        for room_id, title in await _TITLES.fetch(connection, wanted=[(room,) for room in rooms_by_id]):
            add(rooms_by_id[room_id], title, belonging[rooms_by_id[room_id]])
    if people:
        active = {user for (user,) in await ACTIVE.fetch(connection, wanted=[(user,) for user in people])}
        for name, parts in wanted.items():
            if parts.kind == "dm" and active.issuperset(parts.ids):
                add(name, "", dict.fromkeys(parts.ids, "member"))
    return states
