"""The job store: one SQLite file in the workspace, read and written by several processes at once.

Every change of a status names the statuses that it expects, so that of two processes that settle one job the second
changes nothing.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from unalike.errors import RunError, closest

SCHEMA_VERSION = 1
DATABASE_FILE = "jobs.db"
STATUSES = ("Pending", "Running", "Paused", "Complete", "Error", "Canceled")
ACTIVE_STATUSES = ("Pending", "Running")
ID_BYTES = 4
_JSON_COLUMNS = {"spec", "filled", "overrides", "options", "gpus", "figures"}


@dataclass(frozen=True)
class Job:
    """One job as the store holds it.

    Attributes:
        id: Eight hex digits; of a trial its search's id, a dot and the trial's number.
        action: Name of the action.
        status: One of ``STATUSES``.
        results_dir: Root of the results, a path or a URI.
        run_dir: Folder in which the action writes; of a URI the staging folder on this machine.
        parent_job_id: The job whose model the action takes, or None.
        policy: ``auto`` or ``off`` for a training, else None.
        spec: The user's own spec, or None without one.
        overrides: The user's overrides, by dotted field.
        filled: Fields that were completed from the parent when the job started, by dotted field.
        where: ``local``, ``slurm``, ``ray`` or ``kubernetes``.
        options: Options of that scheduler, such as partition, address or image.
        cwd: Working directory of the command that created the job.
        created: When it was created; all times are seconds since 1970.
        ready: Since when it waits only for its turn and for GPUs, or None.
        started: When its action started, or None.
        ended: When it ended, or None.
        attempt: Number of the attempt, from 1.
        exit_code: Exit code of the action, or None.
        error: Why it failed, in one line.
        note: A remark, in one line.
        requested: ``cancel`` or ``pause`` while the action still saves.
        gpus: Names of its GPUs.
        figures: Metrics of its run.
        boot: Machine and boot that the process numbers belong to.
        runner_pid: Process number of its runner, or None.
        runner_start: When that process began, in clock ticks.
        action_pid: Process number of its action, or None.
        action_start: When that process began, in clock ticks.
        handle: Its number in SLURM or Ray.
        trial: Number of the trial, or None for a job of its own.
    """

    id: str
    action: str
    status: str = "Pending"
    results_dir: str = ""
    run_dir: str = ""
    parent_job_id: str | None = None
    policy: str | None = None
    spec: Mapping[str, Any] | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    filled: Mapping[str, Any] = field(default_factory=dict)
    where: str = "local"
    options: Mapping[str, Any] = field(default_factory=dict)
    cwd: str = ""
    created: float = 0.0
    ready: float | None = None
    started: float | None = None
    ended: float | None = None
    attempt: int = 1
    exit_code: int | None = None
    error: str = ""
    note: str = ""
    requested: str = ""
    gpus: Sequence[str] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    boot: str = ""
    runner_pid: int | None = None
    runner_start: str = ""
    action_pid: int | None = None
    action_start: str = ""
    handle: str = ""
    trial: int | None = None

    @property
    def host(self) -> str:
        """The machine that runs the job, or ran it."""
        return self.boot.partition("/")[0]

    def to_dict(self) -> dict[str, Any]:
        """The job as plain data, with times as text."""
        values = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name not in ("boot", "runner_start", "action_start")
        }
        values["host"] = self.host
        for name in ("created", "started", "ended", "ready"):
            values[name] = None if values[name] is None else f"{datetime.fromtimestamp(values[name]):%Y-%m-%d %H:%M:%S}"
        return values


_COLUMNS = [f.name for f in fields(Job)]
_INTEGERS = {"attempt", "exit_code", "runner_pid", "action_pid", "trial"}
_REALS = {"created", "ready", "started", "ended"}
# "where" is a keyword of SQL; all names are quoted.
_SCHEMA = ", ".join(
    f'"{name}" ' + ("TEXT PRIMARY KEY" if name == "id" else "INTEGER" if name in _INTEGERS else "REAL" if name in _REALS else "TEXT")
    for name in _COLUMNS
)  # fmt: skip


def _to_row(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: json.dumps(value, ensure_ascii=True) if name in _JSON_COLUMNS and value is not None else value
        for name, value in values.items()
    }


def _to_job(row: sqlite3.Row) -> Job:
    return Job(**{n: json.loads(row[n]) if n in _JSON_COLUMNS and row[n] is not None else row[n] for n in _COLUMNS})


class JobStore:
    """The jobs of a workspace. Raises RunError for a folder that cannot be used or a file of a newer version."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / DATABASE_FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self._open() as db:
                self._prepare(db)
        except (OSError, sqlite3.DatabaseError) as error:
            raise RunError(f"{self.path} cannot be used: {error}", expected="a job store or a folder for one",
                           remedy="name another folder with --workspace") from error  # fmt: skip

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self.path, timeout=60, isolation_level=None)
        try:
            db.row_factory = sqlite3.Row
            yield db
        finally:
            db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction: no other process writes between what is read and what is written inside."""
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def _prepare(self, db: sqlite3.Connection) -> None:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == SCHEMA_VERSION:
            return
        if version > SCHEMA_VERSION:
            raise RunError(f"{self.path} has version {version}", expected=f"at most {SCHEMA_VERSION}",
                           remedy="use the unalike that wrote it, or a newer one")  # fmt: skip
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("BEGIN IMMEDIATE")
        db.execute(f"CREATE TABLE IF NOT EXISTS jobs ({_SCHEMA})")
        db.execute("CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT)")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")

    # -- reading --

    def all(self, db: sqlite3.Connection | None = None) -> list[Job]:
        """Every job, the oldest first, each search followed by its trials."""
        if db is None:
            with self._open() as connection:
                return self.all(connection)
        return [_to_job(row) for row in db.execute("SELECT * FROM jobs ORDER BY created, trial, id")]

    def get(self, job_id: str, db: sqlite3.Connection | None = None) -> Job | None:
        """The job of exactly this id."""
        if db is None:
            with self._open() as connection:
                return self.get(job_id, connection)
        row = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return None if row is None else _to_job(row)

    def find(self, prefix: str) -> Job:
        """The job of an id, or of the beginning of one. Raises RunError when none or several match."""
        exact = self.get(prefix)
        if exact is not None:
            return exact
        jobs = self.all()
        matching = [job for job in jobs if job.id.startswith(prefix) and job.trial is None] if prefix else []
        if len(matching) == 1:
            return matching[0]
        if matching:
            raise RunError(f"several jobs begin with {prefix!r}: {', '.join(job.id for job in matching)}",
                           remedy="write more of the id")  # fmt: skip
        raise RunError(f"no job {prefix!r} in {self.path.parent}",
                       remedy=closest(prefix, [job.id for job in jobs]) or "see: unalike job list")  # fmt: skip

    # -- writing --

    def new_id(self) -> str:
        """Eight hex digits that no job of the store has."""
        while True:
            job_id = secrets.token_hex(ID_BYTES)
            if self.get(job_id) is None:
                return job_id

    def insert(self, job: Job, *, replace: bool = False) -> None:
        """Add a job; with ``replace`` it replaces the one of its id."""
        row = _to_row({name: getattr(job, name) for name in _COLUMNS})
        placeholders = ", ".join("?" * len(row))
        verb = "INSERT OR REPLACE" if replace else "INSERT"
        with self.transaction() as db:
            db.execute(f"{verb} INTO jobs ({', '.join(_quoted(row))}) VALUES ({placeholders})", list(row.values()))

    def update(
        self, job_id: str, *, expect: Sequence[str] = STATUSES, at_attempt: int | None = None,
        db: sqlite3.Connection | None = None, **values: Any,
    ) -> bool:  # fmt: skip
        """Change a job where its status and attempt are as expected.

        Args:
            job_id: The job's id.
            expect: Statuses of which it must have one.
            at_attempt: Number of the attempt that it must be at; None for any.
            db: A connection inside ``transaction``; by default the change is a transaction of its own.
            **values: The new values by column.

        Returns:
            Whether the job was changed.
        """
        if db is None:
            with self.transaction() as connection:
                return self.update(job_id, expect=expect, at_attempt=at_attempt, db=connection, **values)
        row = _to_row(values)
        sets = ", ".join(f"{name} = ?" for name in _quoted(row))
        statement = f"UPDATE jobs SET {sets} WHERE id = ? AND status IN ({', '.join('?' * len(expect))})"
        parameters = [*row.values(), job_id, *expect]
        if at_attempt is not None:
            statement, parameters = f"{statement} AND attempt = ?", [*parameters, at_attempt]
        return db.execute(statement, parameters).rowcount == 1

    def remove(self, job_ids: Sequence[str]) -> None:
        """Delete jobs from the store."""
        with self.transaction() as db:
            db.executemany("DELETE FROM jobs WHERE id = ?", [(job_id,) for job_id in job_ids])

    def setting(self, name: str, db: sqlite3.Connection | None = None) -> Any:
        """A setting of the workspace, or None."""
        if db is None:
            with self._open() as connection:
                return self.setting(name, connection)
        row = db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row["value"])

    def set_setting(self, name: str, value: Any) -> None:
        """Store a setting of the workspace."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, json.dumps(value)))


def _quoted(row: Mapping[str, Any]) -> list[str]:
    return [f'"{name}"' for name in row]


def now() -> float:
    """Seconds since 1970."""
    return time.time()
