"""Settings that are changed while the service runs: they are kept, and hold for all its processes from then on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from unalike.serve.store.audit import Audit
from unalike.serve.store.database import Database
from unalike.serve.store.records import utc_now
from unalike.serve.store.tables import service_settings

CHANGE = "settings.change"


class ServiceSettings:
    """The changed settings of a store; one that is not there has the value of its start option."""

    def __init__(self, database: Database, audit: Audit) -> None:
        self._database, self._audit = database, audit

    def read(self, connection: sa.Connection | None = None) -> dict[str, Any]:
        """Name -> value of what was changed; in a transaction that is open, with what it changed."""
        query = sa.select(service_settings.c.key, service_settings.c.value)
        with self._database.reading(connection) as open_connection:
            return {row.key: row.value for row in open_connection.execute(query)}

    def change(
        self,
        values: Mapping[str, Any],
        *,
        actor: str = "",
        request_id: str = "",
        connection: sa.Connection | None = None,
    ) -> None:
        """Change settings, all or none; the audit log has an entry with the values before and after.

        Args:
            values: name -> value, plain data; None: the start option holds again.
            actor: who changes them.
            request_id: the request that asked.
            connection: a transaction that this becomes part of.
        """
        now = utc_now()
        with self._database.writing(connection) as open_connection:
            is_one = service_settings.c.key.in_(list(values))
            rows = open_connection.execute(
                sa.select(service_settings.c.key, service_settings.c.value).where(is_one).with_for_update()
            )
            before = {row.key: row.value for row in rows}
            details = {name: {"before": before.get(name), "after": value} for name, value in values.items()}
            entry = self._audit.begin(
                actor, CHANGE, "settings", details, request_id=request_id, connection=open_connection
            )
            open_connection.execute(service_settings.delete().where(is_one))
            new_rows = [
                {"key": name, "value": value, "changed": now, "actor": actor}
                for name, value in values.items() if value is not None
            ]  # fmt: skip
            if new_rows:
                open_connection.execute(service_settings.insert(), new_rows)
            self._audit.finish(entry, connection=open_connection)
