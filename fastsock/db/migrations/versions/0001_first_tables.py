"""The first tables: users, rooms, members, the log, markers, leased ids, placement."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MAX_ID = 2**53 - 1

bytewise = sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql")
row_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", row_id, nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("full_name", sa.Text(), nullable=True),
        sa.Column("is_active", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("email", name="uq_users_email"),
        sa.CheckConstraint("email = lower(email)", name=op.f("ck_users_email_lower_case")),
        sa.CheckConstraint(f"id BETWEEN 1 AND {MAX_ID}", name=op.f("ck_users_id_range")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "rooms",
        sa.Column("id", row_id, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_rooms"),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_rooms_owner_id"),
        sa.CheckConstraint(f"id BETWEEN 1 AND {MAX_ID}", name=op.f("ck_rooms_id_range")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "members",
        sa.Column("conversation", bytewise, nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("joined_seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("conversation", "user_id", name="pk_members"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_members_user_id"),
        sa.CheckConstraint("role IN ('owner', 'admin', 'member')", name=op.f("ck_members_role_known")),
        sa.CheckConstraint("joined_seq >= 1", name=op.f("ck_members_joined_seq_positive")),
    )
    op.create_index("ix_members_user_id", "members", ["user_id"])
    op.create_table(
        "log",
        sa.Column("id", row_id, autoincrement=False, nullable=False),
        sa.Column("conversation", bytewise, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("sender_id", sa.BigInteger(), nullable=False),
        sa.Column("key", bytewise, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("message_type", sa.Text(), nullable=False),
        sa.Column("reply_to", sa.BigInteger(), nullable=True),
        sa.Column("target_id", sa.BigInteger(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("edited_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("deleted_at_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_log"),
        sa.UniqueConstraint("sender_id", "key", name="uq_log_sender_id_key"),
        sa.CheckConstraint(f"id BETWEEN 1 AND {MAX_ID}", name=op.f("ck_log_id_range")),
        sa.CheckConstraint(f"sender_id BETWEEN 1 AND {MAX_ID}", name=op.f("ck_log_sender_id_range")),
        sa.CheckConstraint("seq >= 1", name=op.f("ck_log_seq_positive")),
        sa.CheckConstraint(
            "kind IN ('message', 'edit', 'delete', 'created', 'joined', 'left')", name=op.f("ck_log_kind_known")
        ),
        sa.CheckConstraint("deleted_at_ms IS NULL OR content = ''", name=op.f("ck_log_deleted_is_empty")),
    )
    op.create_index(
        "uq_log_conversation_seq",
        "log",
        ["conversation", "seq"],
        unique=True,
        postgresql_include=["kind", "sender_id", "deleted_at_ms"],
    )
    op.create_table(
        "markers",
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("conversation", bytewise, nullable=False),
        sa.Column("read_seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("delivered_seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("user_id", "conversation", name="pk_markers"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_markers_user_id"),
        sa.CheckConstraint("read_seq >= 0 AND delivered_seq >= 0", name=op.f("ck_markers_not_negative")),
    )
    op.create_table(
        "id_blocks",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("next", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_id_blocks"),
        sa.CheckConstraint(f"next BETWEEN 1 AND {MAX_ID + 1}", name=op.f("ck_id_blocks_next_range")),
    )
    op.create_table(
        "placement",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_placement"),
        sa.CheckConstraint("id = 1", name=op.f("ck_placement_single_row")),
        sa.CheckConstraint("epoch >= 1", name=op.f("ck_placement_epoch_positive")),
    )


def downgrade() -> None:
    for table in ("placement", "id_blocks", "markers", "log", "members", "rooms", "users"):
        op.drop_table(table)
