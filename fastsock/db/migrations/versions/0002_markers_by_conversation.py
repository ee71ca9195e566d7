"""Markers are also read by conversation: a resume shows who has read furthest."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_markers_conversation", "markers", ["conversation", "read_seq"])


def downgrade() -> None:
    op.drop_index("ix_markers_conversation", "markers")
