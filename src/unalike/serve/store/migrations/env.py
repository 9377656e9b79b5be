"""What alembic runs: migrations in one transaction on the connection that ``migration`` passes."""

from __future__ import annotations

from alembic import context

from unalike.serve.store.migration import VERSION_TABLE
from unalike.serve.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True,
    version_table=VERSION_TABLE, render_as_batch=True,
)  # fmt: skip
context.run_migrations()
