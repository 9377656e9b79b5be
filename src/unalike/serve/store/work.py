"""Work of many seconds: asked for by a request, done by one of the service's processes, and read back while it goes on.

A process holds work for ``LEASE_S`` and renews that while it lives. Work whose process ended is begun again by another, or by the
next start, at most ``MAX_ATTEMPTS`` times.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from unalike.serve.store.database import Database
from unalike.serve.store.records import (
    CANCELED,
    DONE,
    FAILED,
    RUNNING,
    WAITING,
    Page,
    WorkRecord,
    check_choice,
    check_page,
    new_id,
    utc_now,
)
from unalike.serve.store.tables import work

LEASE_S = 15.0
MAX_ATTEMPTS = 3
_COLUMNS = [work.c[f.name] for f in fields(WorkRecord)]


class Work:
    """The work of a store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self, kind: str, resource: str, options: Mapping[str, Any], *, actor: str = "", request_id: str = "",
        connection: sa.Connection | None = None,
    ) -> WorkRecord:  # fmt: skip
        """Ask for work.

        Args:
            kind, resource, options: what is to be done.
            actor, request_id: who asks.
            connection: a transaction that this becomes part of.
        """
        now = utc_now()
        row: dict[str, Any] = {
            "id": new_id(now), "kind": kind, "resource": resource, "options": dict(options), "actor": actor,
            "request_id": request_id, "created": now, "state": WAITING, "attempts": 0, "token": "", "lease_end": None,
            "step": "", "count": 0, "total": 0, "finished": None, "result": {}, "error": "",
        }  # fmt: skip
        with self._database.writing(connection) as open_connection:
            open_connection.execute(work.insert(), row)
        return WorkRecord(**{f.name: row[f.name] for f in fields(WorkRecord)})

    def get(self, work_id: str) -> WorkRecord | None:
        """The work of an id; None where there is none."""
        with self._database.reading() as connection:
            row = connection.execute(sa.select(*_COLUMNS).where(work.c.id == work_id)).mappings().first()
        return None if row is None else WorkRecord(**row)

    def find(
        self, kind: str | None = None, after: str | None = None, limit: int = 100, *, resource: str | None = None
    ) -> Page[WorkRecord]:
        """List work, the newest first. Raises DataError for a cursor or a limit that is not valid."""
        check_page(after, limit)
        query = sa.select(*_COLUMNS)
        if kind is not None:
            query = query.where(work.c.kind == kind)
        if resource is not None:
            query = query.where(work.c.resource == resource)
        if after is not None:
            query = query.where(work.c.id < after)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(work.c.id.desc()).limit(limit + 1)).mappings().all()
        records = [WorkRecord(**row) for row in rows]
        return Page(records[:limit], records[limit - 1].id if len(records) > limit else None)

    def is_open(self, kind: str, resource: str, *, connection: sa.Connection | None = None) -> bool:
        """Whether work of a kind on a resource waits or runs."""
        query = sa.select(work.c.id).where(
            work.c.kind == kind, work.c.resource == resource, work.c.state.in_((WAITING, RUNNING))
        )
        with self._database.writing(connection) as open_connection:
            return open_connection.execute(query.limit(1)).first() is not None

    def claim(self, kind: str, *, now: datetime | None = None) -> WorkRecord | None:
        """Take the oldest work that waits, or that a process left behind; None where there is none.

        What was begun ``MAX_ATTEMPTS`` times fails.
        """
        now = now or utc_now()
        is_left = sa.and_(work.c.state == RUNNING, work.c.lease_end < now)
        query = (
            sa.select(*_COLUMNS)
            .where(work.c.kind == kind, sa.or_(work.c.state == WAITING, is_left))
            .order_by(work.c.id)
        )
        with self._database.reading() as connection:
            if connection.execute(query.limit(1)).first() is None:  # mostly: no lock is taken
                return None
        with self._database.writing() as connection:
            for row in connection.execute(query.limit(10).with_for_update(skip_locked=True)).mappings().all():
                own = work.update().where(work.c.id == row["id"])
                if row["attempts"] >= MAX_ATTEMPTS:
                    error = f"the processes that did it ended {row['attempts']} times"
                    connection.execute(own.values(state=FAILED, error=error, finished=now))
                    continue
                values = {"state": RUNNING, "attempts": row["attempts"] + 1, "token": secrets.token_hex(16)}
                connection.execute(own.values(lease_end=now + timedelta(seconds=LEASE_S), **values))
                return WorkRecord(**{**row, **values})
        return None

    def report(self, record: WorkRecord, step: str, count: int, total: int, *, now: datetime | None = None) -> bool:
        """Write down how far it is, and hold it further; False where it is no longer this process's to do."""
        lease_end = (now or utc_now()) + timedelta(seconds=LEASE_S)
        values = {"step": step, "count": count, "total": total, "lease_end": lease_end}
        with self._database.writing(sync=False) as connection:
            return connection.execute(work.update().where(_is_own(record)).values(values)).rowcount == 1

    def finish(
        self, record: WorkRecord, state: str = DONE, *, result: Mapping[str, Any] | None = None, error: str = "",
        connection: sa.Connection | None = None,
    ) -> bool:  # fmt: skip
        """Write down how it ended; False where it is no longer this process's to do."""
        check_choice(state, (DONE, FAILED), "state")
        values = {"state": state, "result": dict(result or {}), "error": error, "finished": utc_now()}
        with self._database.writing(connection) as open_connection:
            return open_connection.execute(work.update().where(_is_own(record)).values(values)).rowcount == 1

    def release(self, record: WorkRecord) -> None:
        """Give work back that this process cannot finish, since it ends: it waits again, and this attempt does not count."""
        values = {
            "state": WAITING,
            "attempts": max(0, record.attempts - 1),
            "lease_end": None,
            "step": "",
            "count": 0,
            "total": 0,
        }
        with self._database.writing() as connection:
            connection.execute(work.update().where(_is_own(record)).values(values))

    def cancel(self, work_id: str, *, connection: sa.Connection | None = None) -> bool:
        """Cancel work that waits or runs; False where it is over, or there is none. Its process ends it when it reports next."""
        is_open = sa.and_(work.c.id == work_id, work.c.state.in_((WAITING, RUNNING)))
        with self._database.writing(connection) as open_connection:
            change = work.update().where(is_open).values(state=CANCELED, finished=utc_now())
            return open_connection.execute(change).rowcount == 1


def _is_own(record: WorkRecord) -> sa.ColumnElement[bool]:
    return sa.and_(work.c.id == record.id, work.c.token == record.token, work.c.state == RUNNING)
