"""Version 0006: answers to what was asked in a review, and settings that were changed while the service runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TIME, NAME = sa.DateTime(timezone=True), sa.String(500)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "reviews",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("time", TIME, nullable=False),
        sa.Column("resource", NAME, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("label", NAME),
        sa.Column("actor", NAME, nullable=False),
        sa.Column("undo", sa.Text, nullable=False),
    )
    op.create_index("reviews_by_resource", "reviews", ["resource", "time"])
    op.create_table(
        "review_items",
        sa.Column("resource", NAME, primary_key=True),
        sa.Column("item", sa.String(120), primary_key=True),
        sa.Column("review_id", sa.String(36), sa.ForeignKey("reviews.id", ondelete="CASCADE"), nullable=False),
    )
    op.create_index("review_items_by_review", "review_items", ["review_id"])
    op.create_table(
        "service_settings",
        sa.Column("key", NAME, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("changed", TIME, nullable=False),
        sa.Column("actor", NAME, nullable=False),
    )


def downgrade() -> None:
    """Remove the tables: what was dismissed is asked again, and the start options hold again."""
    for table in ("service_settings", "review_items", "reviews"):
        op.drop_table(table)
