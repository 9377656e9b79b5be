"""Version 0001: decisions, feedback, keys, idempotency and audit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

NAME, TIME = sa.String(500), sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "decisions",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("time", TIME, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("resource", NAME, nullable=False),
        sa.Column("decision", NAME, nullable=False),
        sa.Column("label", NAME),
        sa.Column("nearest", NAME),
        sa.Column("score", sa.Double),
        sa.Column("threshold", sa.Double),
        sa.Column("margin", sa.Double),
        sa.Column("calibrated", sa.Boolean),
        sa.Column("stale", sa.Boolean),
        sa.Column("model", NAME, nullable=False),
        sa.Column("image", sa.String(64)),
        sa.Column("request_id", NAME, nullable=False),
        sa.Column("actor", NAME, nullable=False),
        sa.Column("result", sa.Text, nullable=False),
        sa.Column("verdict", sa.String(16)),
        sa.Column("right_label", NAME),
    )
    op.create_index("decisions_by_time", "decisions", ["time"])
    op.create_index("decisions_by_label", "decisions", ["label", "id"])
    op.create_index("decisions_by_image", "decisions", ["image"])
    op.create_table(
        "feedback",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("decision_id", sa.String(36), sa.ForeignKey("decisions.id", ondelete="CASCADE"), nullable=False),
        sa.Column("time", TIME, nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("label", sa.Text),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("actor", NAME, nullable=False),
    )
    op.create_index("feedback_by_decision", "feedback", ["decision_id"])
    _create_service_tables()


def _create_service_tables() -> None:
    op.create_table(
        "keys",
        sa.Column("id", sa.String(8), primary_key=True),
        sa.Column("name", NAME, nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("gallery", NAME),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.Column("last_used", TIME),
        sa.Column("revoked", TIME),
    )
    is_valid = sa.text("revoked IS NULL")
    op.create_index("keys_by_name", "keys", ["name"], unique=True, sqlite_where=is_valid, postgresql_where=is_valid)
    op.create_table(
        "idempotency",
        sa.Column("key", NAME, primary_key=True),
        sa.Column("actor", NAME, primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("token", sa.String(32), nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.Column("lease_end", TIME, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("body", sa.Text),
    )
    op.create_index("idempotency_by_created", "idempotency", ["created"])
    op.create_table(
        "audit",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("time", TIME, nullable=False),
        sa.Column("actor", NAME, nullable=False),
        sa.Column("action", NAME, nullable=False),
        sa.Column("resource", NAME, nullable=False),
        sa.Column("details", sa.Text, nullable=False),
        sa.Column("request_id", NAME, nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("finished", TIME),
    )
    op.create_index("audit_by_resource", "audit", ["resource", "id"])


def downgrade() -> None:
    """Remove the tables, with what they hold."""
    for table in ("audit", "idempotency", "keys", "feedback", "decisions"):
        op.drop_table(table)
