"""Version 0004: work of many seconds, with its progress; and what is set for inspectors or kept under a name."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
NAME = sa.String(500)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "settings",
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("name", NAME, primary_key=True),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("actor", NAME, nullable=False),
        sa.Column("updated", TIME, nullable=False),
    )
    op.create_table(
        "work",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("resource", NAME, nullable=False),
        sa.Column("options", sa.Text, nullable=False),
        sa.Column("actor", NAME, nullable=False),
        sa.Column("request_id", NAME, nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("token", sa.String(32), nullable=False),
        sa.Column("lease_end", TIME),
        sa.Column("step", sa.Text, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("total", sa.Integer, nullable=False),
        sa.Column("finished", TIME),
        sa.Column("result", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
    )
    op.create_index("work_by_state", "work", ["state", "kind"])


def downgrade() -> None:
    """Remove the tables: inspectors have the thresholds of their fits again."""
    op.drop_table("work")
    op.drop_table("settings")
