"""Version 0005: models of galleries, tasks of learning, comparisons of models, promotions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
ID, NAME = sa.String(36), sa.String(500)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "models",
        sa.Column("id", ID, primary_key=True),
        sa.Column("time", TIME, nullable=False),
        sa.Column("gallery", NAME, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("file", sa.Text, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("network", NAME, nullable=False),
        sa.Column("task", ID),
        sa.Column("facts", sa.Text, nullable=False),
    )
    op.create_index("models_by_gallery", "models", ["gallery", "id"])
    op.create_table(
        "tasks",
        sa.Column("id", ID, primary_key=True),
        sa.Column("time", TIME, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("gallery", NAME, nullable=False),
        sa.Column("actor", NAME, nullable=False),
        sa.Column("request_id", NAME, nullable=False),
        sa.Column("options", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("started", TIME),
        sa.Column("finished", TIME),
        sa.Column("beat", TIME),
        sa.Column("owner", sa.Text),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("result", sa.Text, nullable=False),
    )
    op.create_index("tasks_by_kind", "tasks", ["kind", "id"])
    op.create_table(
        "comparisons",
        sa.Column("id", ID, primary_key=True),
        sa.Column("time", TIME, nullable=False),
        sa.Column("model", ID, sa.ForeignKey("models.id", ondelete="CASCADE"), nullable=False),
        sa.Column("former", NAME, nullable=False),
        sa.Column("result", sa.Text, nullable=False),
    )
    op.create_index("comparisons_by_model", "comparisons", ["model", "id"])
    op.create_table(
        "promotions",
        sa.Column("id", ID, primary_key=True),
        sa.Column("time", TIME, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("gallery", NAME, nullable=False),
        sa.Column("model", ID),
        sa.Column("file", sa.Text, nullable=False),
        sa.Column("former", sa.Text, nullable=False),
        sa.Column("actor", NAME, nullable=False),
        sa.Column("details", sa.Text, nullable=False),
    )
    op.create_index("promotions_by_gallery", "promotions", ["gallery", "id"])


def downgrade() -> None:
    """Remove the tables; galleries and the files of models stay."""
    for table in ("promotions", "comparisons", "tasks", "models"):
        op.drop_table(table)
