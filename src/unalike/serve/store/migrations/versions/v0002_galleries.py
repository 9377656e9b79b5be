"""Version 0002: names and addresses of the galleries that services of the store serve."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "galleries",
        sa.Column("key", sa.String(500), primary_key=True),
        sa.Column("name", sa.String(500), nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("registered", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    """Remove the table."""
    op.drop_table("galleries")
