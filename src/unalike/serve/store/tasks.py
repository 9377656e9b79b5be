"""Tasks of many seconds: asked for by a request, done by one of the service's processes, and read back while they go on.

A process holds a task for ``LEASE_S`` and renews that while it lives. A task whose process ended is begun again by another, or by
the next start, at most ``max_attempts`` times.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
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
    TaskRecord,
    check_choice,
    check_page,
    new_id,
    utc_now,
)
from unalike.serve.store.tables import tasks

LEASE_S = 15.0
MAX_ATTEMPTS = 3
STOPPED = "the service was stopped while it ran"
_COLUMNS = [tasks.c[f.name] for f in fields(TaskRecord)]
_IS_OPEN = tasks.c.state.in_((WAITING, RUNNING))


class Tasks:
    """The tasks of a store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self, kind: str, resource: str, options: Mapping[str, Any], *, actor: str = "", request_id: str = "",
        max_attempts: int = MAX_ATTEMPTS, connection: sa.Connection | None = None,
    ) -> TaskRecord:  # fmt: skip
        """Ask for a task.

        Args:
            kind, resource, options: what is to be done.
            actor, request_id: who asks.
            max_attempts: how often it may be begun; 1 for what may not be done twice.
            connection: a transaction that this becomes part of.
        """
        now = utc_now()
        record = TaskRecord(
            kind, resource, dict(options), actor, request_id, max_attempts=max_attempts, created=now, id=new_id(now)
        )  # fmt: skip
        with self._database.writing(connection) as open_connection:
            open_connection.execute(tasks.insert(), {f.name: getattr(record, f.name) for f in fields(record)})
        return record

    def get(self, task_id: str, *, connection: sa.Connection | None = None) -> TaskRecord | None:
        """The task of an id; None where there is none."""
        query = sa.select(*_COLUMNS).where(tasks.c.id == task_id)
        if connection is not None:
            row = connection.execute(query).mappings().first()
        else:
            with self._database.reading() as open_connection:
                row = open_connection.execute(query).mappings().first()
        return None if row is None else TaskRecord(**row)

    def find(
        self, kinds: Collection[str] | None = None, after: str | None = None, limit: int = 100, *, resource: str | None = None
    ) -> Page[TaskRecord]:  # fmt: skip
        """List tasks, the newest first; of some kinds, or of one resource. Raises DataError for a cursor or a limit that is not valid."""
        check_page(after, limit)
        query = sa.select(*_COLUMNS).where(*_choose(kinds, None if resource is None else (resource,)))
        if after is not None:
            query = query.where(tasks.c.id < after)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(tasks.c.id.desc()).limit(limit + 1)).mappings().all()
        records = [TaskRecord(**row) for row in rows]
        return Page(records[:limit], records[limit - 1].id if len(records) > limit else None)

    def is_open(self, kind: str, resource: str, *, connection: sa.Connection | None = None) -> bool:
        """Whether a task of a kind on a resource waits or runs."""
        query = sa.select(tasks.c.id).where(tasks.c.kind == kind, tasks.c.resource == resource, _IS_OPEN)
        with self._database.writing(connection) as open_connection:
            return open_connection.execute(query.limit(1)).first() is not None

    def find_open(self, kind: str, resource: str, *, connection: sa.Connection | None = None) -> list[TaskRecord]:
        """The tasks of a kind on a resource that wait or run, the oldest first."""
        query = sa.select(*_COLUMNS).where(tasks.c.kind == kind, tasks.c.resource == resource, _IS_OPEN)
        with self._database.writing(connection) as open_connection:
            return [TaskRecord(**row) for row in open_connection.execute(query.order_by(tasks.c.id)).mappings().all()]

    # ---- of the process that does a task ----

    def claim(
        self, kinds: Collection[str], resources: Collection[str] | None = None, *, now: datetime | None = None
    ) -> TaskRecord | None:
        """Take the oldest task that waits, or that a process left behind, unless another one of these kinds runs.

        Args:
            kinds: of the task.
            resources: what it may be about; anything if None.
            now: the present time.

        Returns:
            The task: as it runs now, or as it failed, since it was begun ``max_attempts`` times. None where there is none.
        """
        now = now or utc_now()
        own = _choose(kinds, resources)
        with self._database.reading() as connection:
            if _find_next(connection, own, now) is None:  # mostly: no lock is taken
                return None
        with self._database.writing() as connection:
            record = _find_next(connection, own, now, is_locked=True)
            if record is None:
                return None
            values: dict[str, Any]
            if record.attempts >= record.max_attempts:
                times = f" {record.attempts} times" if record.attempts > 1 else ""
                values = {"state": FAILED, "error": f"the process that did it ended{times}", "finished": now}
            else:
                values = {
                    "state": RUNNING, "attempts": record.attempts + 1, "token": secrets.token_hex(16), "started": now,
                    "lease_end": now + timedelta(seconds=LEASE_S), "step": "", "count": 0, "total": 0,
                }  # fmt: skip
            connection.execute(tasks.update().where(tasks.c.id == record.id).values(values))
            return replace(record, **values)

    def report(
        self, record: TaskRecord, step: str = "", count: int = 0, total: int = 0, *, now: datetime | None = None
    ) -> bool:
        """Write down how far a task is, and hold it further; False where it is no longer this process's to do."""
        lease_end = (now or utc_now()) + timedelta(seconds=LEASE_S)
        return self._change(record, {"step": step, "count": count, "total": total, "lease_end": lease_end})

    def keep_result(self, record: TaskRecord, result: Mapping[str, Any]) -> bool:
        """Write down what came of a task before it ends; False where it is no longer this process's to do."""
        return self._change(record, {"result": dict(result)}, sync=True)

    def finish(self, record: TaskRecord, state: str = DONE, *, error: str = "") -> bool:
        """Write down how a task ended; False where it is no longer this process's to do."""
        check_choice(state, (DONE, FAILED), "state")
        return self._change(record, {"state": state, "error": error, "finished": utc_now()}, sync=True)

    def release(self, record: TaskRecord) -> bool:
        """Give a task back that this process cannot finish, since it ends: it waits again, and this attempt does not count.

        A task that may be begun once alone fails. False where it is no longer this process's to do.
        """
        if record.max_attempts == 1:
            return self.finish(record, FAILED, error=STOPPED)
        values = {"state": WAITING, "attempts": max(0, record.attempts - 1), "lease_end": None, "started": None}
        return self._change(record, {**values, "step": "", "count": 0, "total": 0}, sync=True)

    def _change(self, record: TaskRecord, values: Mapping[str, Any], *, sync: bool = False) -> bool:
        """Change a task that runs, where its token is that of this process."""
        is_own = sa.and_(tasks.c.id == record.id, tasks.c.token == record.token, tasks.c.state == RUNNING)
        with self._database.writing(sync=sync) as connection:
            return connection.execute(tasks.update().where(is_own).values(values)).rowcount == 1

    # ---- of all others ----

    def cancel(self, task_id: str, *, error: str = "", connection: sa.Connection | None = None) -> bool:
        """Cancel a task that waits or runs; False where it is over, or there is none. Its process ends it when it reports next."""
        change = tasks.update().where(tasks.c.id == task_id, _IS_OPEN)
        with self._database.writing(connection) as open_connection:
            values = {"state": CANCELED, "error": error, "finished": utc_now()}
            return open_connection.execute(change.values(values)).rowcount == 1

    def cancel_all(self, kind: str, *, error: str = "") -> None:
        """Cancel all tasks of a kind that wait or run."""
        values = {"state": CANCELED, "error": error, "finished": utc_now()}
        with self._database.writing() as connection:
            connection.execute(tasks.update().where(tasks.c.kind == kind, _IS_OPEN).values(values))


def _choose(kinds: Collection[str] | None, resources: Collection[str] | None) -> list[sa.ColumnElement[bool]]:
    """Which tasks are of some kinds, or about some resources."""
    choices = ((tasks.c.kind, kinds), (tasks.c.resource, resources))
    return [column.in_(list(values)) for column, values in choices if values is not None]


def _find_next(
    connection: sa.Connection, own: list[sa.ColumnElement[bool]], now: datetime, *, is_locked: bool = False
) -> TaskRecord | None:
    """The oldest of some tasks that waits, or that a process left behind; None where there is none, or where another one runs."""
    is_lost = sa.and_(tasks.c.state == RUNNING, tasks.c.lease_end < now)
    query = sa.select(*_COLUMNS).where(*own, sa.or_(tasks.c.state == WAITING, is_lost)).order_by(tasks.c.id).limit(1)
    # PostgreSQL: of two processes the second waits here for the first, and then sees in the next statement what that one began.
    row = connection.execute(query.with_for_update() if is_locked else query).mappings().first()
    if row is None:
        return None
    running = sa.select(tasks.c.id).where(*own, tasks.c.state == RUNNING, tasks.c.lease_end >= now).limit(1)
    return None if connection.execute(running).first() is not None else TaskRecord(**row)
