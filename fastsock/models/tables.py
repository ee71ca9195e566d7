"""The tables, as SQLAlchemy Core sees them; ``fastsock/db/migrations`` makes them, and a test finds no drift.

Times are integers, milliseconds since 1970 UTC. Names (``room:42``, ``dm:3:7``) and keys compare byte by byte, so they
are in collation "C" on PostgreSQL, whatever the database's own is.

``log`` is read along ``(conversation, seq)``: history, catch-up, heads and unread counts. On PostgreSQL that index
carries what an unread count asks for, so that counting reads the index alone; changing a message's text touches none
of its columns and stays a heap-only update. On SQLite the table itself is kept by ``id``: ids are leased in blocks and
grow with time, so inserts go to the table's end, and entries of one time lie together.

What has been appended is never removed, and no entry depends on a row elsewhere: ``sender_id`` names a user without a
foreign key, which would cost a lock on that user's row for each message.
"""

from __future__ import annotations

from sqlalchemy import (
    TEXT,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    true,
)

from fastsock.schemas.names import MAX_ID

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

_bytewise = Text().with_variant(TEXT(collation="C"), "postgresql")
_row_id = BigInteger().with_variant(Integer(), "sqlite")  # SQLite numbers rows by itself only where the type is INTEGER


def _id_range(column: str) -> CheckConstraint:
    return CheckConstraint(f"{column} BETWEEN 1 AND {MAX_ID}", name=f"{column}_range")


users = Table(
    "users",
    metadata,
    Column("id", _row_id, primary_key=True),
    Column("email", Text, nullable=False),
    Column("password_hash", Text, nullable=False),
    Column("full_name", Text),
    Column("is_active", Boolean, nullable=False, server_default=true()),
    Column("created_at_ms", BigInteger, nullable=False),
    UniqueConstraint("email"),
    CheckConstraint("email = lower(email)", name="email_lower_case"),
    _id_range("id"),
    sqlite_autoincrement=True,  # tokens name users, so an id is never given again
)
"""Accounts. Addresses are kept in lower case, which makes them unique however they are typed."""

rooms = Table(
    "rooms",
    metadata,
    Column("id", _row_id, primary_key=True),
    Column("name", Text, nullable=False),
    Column("owner_id", BigInteger, ForeignKey("users.id"), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    _id_range("id"),
    sqlite_autoincrement=True,
)
"""Rooms; who belongs to them is in `members`, what happened in them in `log`."""

members = Table(
    "members",
    metadata,
    Column("conversation", _bytewise, nullable=False),
    Column("user_id", BigInteger, ForeignKey("users.id"), nullable=False),
    Column("role", Text, nullable=False),
    Column("joined_seq", BigInteger, nullable=False),
    PrimaryKeyConstraint("conversation", "user_id"),
    Index("ix_members_user_id", "user_id"),
    CheckConstraint("role IN ('owner', 'admin', 'member')", name="role_known"),
    CheckConstraint("joined_seq >= 1", name="joined_seq_positive"),
)
"""Who belongs to which room or direct conversation, since which entry of its log."""

log = Table(
    "log",
    metadata,
    Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=False),
    Column("conversation", _bytewise, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("sender_id", BigInteger, nullable=False),
    Column("key", _bytewise, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("content", Text, nullable=False),
    Column("message_type", Text, nullable=False),
    Column("reply_to", BigInteger),
    Column("target_id", BigInteger),
    Column("detail", Text),
    Column("edited_at_ms", BigInteger),
    Column("deleted_at_ms", BigInteger),
    Index(
        "uq_log_conversation_seq",
        "conversation",
        "seq",
        unique=True,
        postgresql_include=["kind", "sender_id", "deleted_at_ms"],
    ),
    UniqueConstraint("sender_id", "key"),
    _id_range("id"),
    _id_range("sender_id"),
    CheckConstraint("seq >= 1", name="seq_positive"),
    CheckConstraint("kind IN ('message', 'edit', 'delete', 'created', 'joined', 'left')", name="kind_known"),
    CheckConstraint("deleted_at_ms IS NULL OR content = ''", name="deleted_is_empty"),
)
"""Everything that happened in every conversation; see `fastsock.schemas.log`."""

markers = Table(
    "markers",
    metadata,
    Column("user_id", BigInteger, ForeignKey("users.id"), nullable=False),
    Column("conversation", _bytewise, nullable=False),
    Column("read_seq", BigInteger, nullable=False, server_default="0"),
    Column("delivered_seq", BigInteger, nullable=False, server_default="0"),
    PrimaryKeyConstraint("user_id", "conversation"),
    Index("ix_markers_conversation", "conversation", "read_seq"),
    CheckConstraint("read_seq >= 0 AND delivered_seq >= 0", name="not_negative"),
)
"""How far each user has read, and has been sent, each conversation; both only grow."""

id_blocks = Table(
    "id_blocks",
    metadata,
    Column("name", Text, primary_key=True),
    Column("next", BigInteger, nullable=False),
    CheckConstraint(f"next BETWEEN 1 AND {MAX_ID + 1}", name="next_range"),
)
"""The first id of the next block to be leased, by what the ids are for."""

placement = Table(
    "placement",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("value", LargeBinary, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="single_row"),
    CheckConstraint("epoch >= 1", name="epoch_positive"),
)
"""The placement table of actors on hosts, encoded, with its epoch; one row or none."""
