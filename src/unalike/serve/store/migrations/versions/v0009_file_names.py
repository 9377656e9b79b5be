"""File names: what the client called the image of a decision."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0009", "0008"
branch_labels = depends_on = None


def upgrade() -> None:
    """Add the column; decisions of before have no name."""
    op.add_column("decisions", sa.Column("file", sa.String(500)))


def downgrade() -> None:
    """Remove the column, with the names."""
    op.drop_column("decisions", "file")
