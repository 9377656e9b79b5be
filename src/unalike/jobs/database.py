"""The job store: one SQLite file in the workspace, read and written by several processes at once.

Every change of a status names the status that it expects to find, so that of two processes that settle one job the
second changes nothing.
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
FILE = "jobs.db"
STATUSES = ("Pending", "Running", "Paused", "Complete", "Error", "Canceled")
AT_WORK = ("Pending", "Running")
ID_BYTES = 4
_JSON = {"spec", "filled", "overrides", "options", "gpus", "figures"}


@dataclass(frozen=True)
class Job:
    """One job as the store holds it. Times are seconds since 1970; ``spec`` is the user's own, or None without one."""

    id: str
    action: str
    status: str = "Pending"
    results_dir: str = ""
    run_dir: str = ""  # where the action writes: <action>.results_dir, or results_dir/<action>
    parent_job_id: str | None = None
    policy: str | None = None
    spec: Mapping[str, Any] | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    filled: Mapping[str, Any] = field(default_factory=dict)  # completed from the parent when it started
    where: str = "local"
    options: Mapping[str, Any] = field(default_factory=dict)  # of the place: partition, address, image, ...
    cwd: str = ""
    created: float = 0.0
    ready: float | None = None  # since when it waits for devices alone
    started: float | None = None
    ended: float | None = None
    attempt: int = 1
    exit_code: int | None = None
    error: str = ""
    note: str = ""
    requested: str = ""  # cancel or pause, while the action still saves
    gpus: Sequence[str] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    boot: str = ""  # machine and boot that the process numbers belong to
    runner_pid: int | None = None
    runner_start: str = ""
    action_pid: int | None = None
    action_start: str = ""
    handle: str = ""  # the number that SLURM or Ray gave it
    trial: int | None = None

    @property
    def host(self) -> str:
        """The machine that runs it, or ran it."""
        return self.boot.partition("/")[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for people and programs."""
        told = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name not in ("boot", "runner_start", "action_start")
        }
        told["host"] = self.host
        for name in ("created", "started", "ended", "ready"):
            told[name] = None if told[name] is None else f"{datetime.fromtimestamp(told[name]):%Y-%m-%d %H:%M:%S}"
        return told


_COLUMNS = [f.name for f in fields(Job)]
_INTEGERS = {"attempt", "exit_code", "runner_pid", "action_pid", "trial"}
_REALS = {"created", "ready", "started", "ended"}
# "where" is a word of SQL; all names are quoted.
_SCHEMA = ", ".join(
    f'"{name}" ' + ("TEXT PRIMARY KEY" if name == "id" else "INTEGER" if name in _INTEGERS else "REAL" if name in _REALS else "TEXT")
    for name in _COLUMNS
)  # fmt: skip


def _to_row(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: json.dumps(value, ensure_ascii=True) if name in _JSON and value is not None else value
        for name, value in values.items()
    }


def _to_job(row: sqlite3.Row) -> Job:
    return Job(**{n: json.loads(row[n]) if n in _JSON and row[n] is not None else row[n] for n in _COLUMNS})


class Store:
    """The jobs of a workspace. Raises RunError for a folder that cannot be used or a file of a newer version."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
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
    def change(self) -> Iterator[sqlite3.Connection]:
        """A transaction: nobody else writes between what is read and what is written inside."""
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
            with self._open() as opened:
                return self.all(opened)
        return [_to_job(row) for row in db.execute("SELECT * FROM jobs ORDER BY created, trial, id")]

    def get(self, job_id: str, db: sqlite3.Connection | None = None) -> Job | None:
        """The job of exactly this id."""
        if db is None:
            with self._open() as opened:
                return self.get(job_id, opened)
        row = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return None if row is None else _to_job(row)

    def find(self, word: str) -> Job:
        """The job of an id or of its beginning. Raises RunError when none or several fit."""
        exact = self.get(word)
        if exact is not None:
            return exact
        jobs = self.all()
        fitting = [job for job in jobs if job.id.startswith(word) and job.trial is None] if word else []
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise RunError(f"several jobs begin with {word!r}: {', '.join(job.id for job in fitting)}",
                           remedy="write more of the id")  # fmt: skip
        raise RunError(f"no job {word!r} in {self.path.parent}",
                       remedy=closest(word, [job.id for job in jobs]) or "see: unalike job list")  # fmt: skip

    # -- writing --

    def new_id(self) -> str:
        """Eight digits that no job here has."""
        while True:
            word = secrets.token_hex(ID_BYTES)
            if self.get(word) is None:
                return word

    def insert(self, job: Job, *, replace: bool = False) -> None:
        """Add a job; with ``replace`` in place of the one of that id."""
        row = _to_row({name: getattr(job, name) for name in _COLUMNS})
        marks = ", ".join("?" * len(row))
        verb = "INSERT OR REPLACE" if replace else "INSERT"
        with self.change() as db:
            db.execute(f"{verb} INTO jobs ({', '.join(_quoted(row))}) VALUES ({marks})", list(row.values()))

    def update(
        self, job_id: str, *, expect: Sequence[str] = STATUSES, at: int | None = None,
        db: sqlite3.Connection | None = None, **values: Any,
    ) -> bool:  # fmt: skip
        """Change a job whose status is one of ``expect`` (and, with ``at``, which is at that attempt); whether it was changed."""
        if db is None:
            with self.change() as opened:
                return self.update(job_id, expect=expect, at=at, db=opened, **values)
        row = _to_row(values)
        sets = ", ".join(f"{name} = ?" for name in _quoted(row))
        words = f"UPDATE jobs SET {sets} WHERE id = ? AND status IN ({', '.join('?' * len(expect))})"
        parameters = [*row.values(), job_id, *expect]
        if at is not None:
            words, parameters = f"{words} AND attempt = ?", [*parameters, at]
        return db.execute(words, parameters).rowcount == 1

    def remove(self, job_ids: Sequence[str]) -> None:
        """Forget jobs."""
        with self.change() as db:
            db.executemany("DELETE FROM jobs WHERE id = ?", [(job_id,) for job_id in job_ids])

    def setting(self, name: str, db: sqlite3.Connection | None = None) -> Any:
        """A setting of the workspace, or None."""
        if db is None:
            with self._open() as opened:
                return self.setting(name, opened)
        row = db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row["value"])

    def keep_setting(self, name: str, value: Any) -> None:
        """Keep a setting of the workspace."""
        with self.change() as db:
            db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, json.dumps(value)))


def _quoted(row: Mapping[str, Any]) -> list[str]:
    return [f'"{name}"' for name in row]


def now() -> float:
    """Seconds since 1970."""
    return time.time()
