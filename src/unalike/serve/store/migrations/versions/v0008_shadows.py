"""Shadows: candidates that answer a share of the traffic too, and what they say."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0008", "0007"
branch_labels = depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "shadows",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("gallery", sa.String(500), nullable=False),
        sa.Column("model", sa.String(36), sa.ForeignKey("models.id", ondelete="CASCADE"), nullable=False),
        sa.Column("share", sa.Double, nullable=False),
        sa.Column("former", sa.String(500), nullable=False),
        sa.Column("actor", sa.String(500), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("reference_count", sa.Integer),
        sa.Column("left_out", sa.Integer, nullable=False),
        sa.Column("dropped", sa.Integer, nullable=False),
        sa.Column("ended", sa.DateTime(timezone=True)),
    )
    op.create_index("shadows_by_gallery", "shadows", ["gallery", "id"])
    is_running = sa.text("ended IS NULL")
    op.create_index(
        "shadows_that_run", "shadows", ["gallery"], unique=True, sqlite_where=is_running, postgresql_where=is_running
    )
    op.create_table(
        "shadow_answers",
        sa.Column("shadow_id", sa.String(36), sa.ForeignKey("shadows.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("decision_id", sa.String(36), sa.ForeignKey("decisions.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("label", sa.String(500)),
        sa.Column("nearest", sa.String(500), nullable=False),
        sa.Column("score", sa.Double),
        sa.Column("threshold", sa.Double),
        sa.Column("agrees", sa.Boolean, nullable=False),
    )
    op.create_index("shadow_answers_by_decision", "shadow_answers", ["decision_id"])


def downgrade() -> None:
    """Remove the tables."""
    op.drop_table("shadow_answers")
    op.drop_table("shadows")
