"""The audit log: who did what to which class, and when; an entry is on the disk before the change begins."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from unalike.serve.store.database import Database
from unalike.serve.store.records import OUTCOMES, AuditEntry, Page, check_choice, check_page, new_id, utc_now
from unalike.serve.store.tables import audit


class Audit:
    """The audit log of a store. Entries are never changed after they are finished, and no purge removes them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(
        self, actor: str, action: str, resource: str, details: Mapping[str, Any] | None = None, *, request_id: str = "",
        connection: sa.Connection | None = None,
    ) -> str:  # fmt: skip
        """Write that a change begins; on the disk when this returns.

        Args:
            actor: who makes it.
            action: what it is, such as ``references.add``.
            resource: the gallery, key or other thing.
            details: plain data; no secrets.
            request_id: the request that asked.
            connection: a transaction that the entry becomes part of.

        Returns:
            The id of the entry, for ``finish``.
        """
        now = utc_now()
        row = {"id": new_id(now), "time": now, "actor": actor, "action": action, "resource": resource,
               "details": dict(details or {}), "request_id": request_id, "outcome": "begun", "error": ""}  # fmt: skip
        with self._database.writing(connection) as open_connection:
            open_connection.execute(audit.insert(), row)
        return str(row["id"])

    def finish(
        self, entry_id: str, outcome: str = "done", error: str = "", *, details: Mapping[str, Any] | None = None,
        connection: sa.Connection | None = None,
    ) -> bool:  # fmt: skip
        """Write how a change ended.

        Args:
            entry_id: as ``begin`` returned it.
            outcome: ``done`` or ``failed``.
            error: why it failed.
            details: plain data that was not known before, such as counts; joined to those of ``begin``.
            connection: a transaction that this becomes part of.

        Returns:
            False where there is no such entry, or it was finished before.
        """
        check_choice(outcome, OUTCOMES[1:], "outcome")
        is_open = sa.and_(audit.c.id == entry_id, audit.c.outcome == "begun")
        values: dict[str, Any] = {"outcome": outcome, "error": error, "finished": utc_now()}
        with self._database.writing(connection) as open_connection:
            if details:
                before = open_connection.execute(sa.select(audit.c.details).where(is_open)).scalar()
                values["details"] = {**(before or {}), **details}
            return open_connection.execute(audit.update().where(is_open).values(values)).rowcount == 1

    def find(
        self, *, actor: str | None = None, action: str | None = None, resource: str | None = None,
        outcome: str | None = None, since: datetime | None = None, until: datetime | None = None,
        after: str | None = None, limit: int = 100,
    ) -> Page[AuditEntry]:  # fmt: skip
        """List entries, the newest first; those of outcome ``begun`` are under way, or were interrupted.

        Raises:
            DataError: ``outcome``, ``after`` or ``limit`` is not valid.
        """
        check_page(after, limit)
        if outcome is not None:
            check_choice(outcome, OUTCOMES, "outcome")
        equal = {"actor": actor, "action": action, "resource": resource, "outcome": outcome}
        query = audit.select().where(*(audit.c[name] == value for name, value in equal.items() if value is not None))
        if since is not None:
            query = query.where(audit.c.time >= since)
        if until is not None:
            query = query.where(audit.c.time < until)
        if after is not None:
            query = query.where(audit.c.id < after)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(audit.c.id.desc()).limit(limit + 1)).mappings().all()
        entries = [AuditEntry(**row) for row in rows]
        return Page(entries[:limit], entries[limit - 1].id if len(entries) > limit else None)
