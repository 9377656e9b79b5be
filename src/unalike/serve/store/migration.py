"""Bring the tables of a store to the version that this release needs, or to an earlier one (alembic)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from unalike.errors import StoreError
from unalike.serve.store.database import Database
from unalike.storage.file_lock import file_lock

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).with_name("migrations")
# The newest version in ``migrations/versions``; a store that has it is opened without alembic (0.2 s).
HEAD = "0009"
VERSION_TABLE = "unalike_version"
_LOCK_NUMBER = 0x756E616C696B65  # of PostgreSQL's advisory lock: "unalike"


def current_version(database: Database) -> str | None:
    """The version of the tables, or None where there are none."""
    with database.reading() as connection:
        if not sa.inspect(connection).has_table(VERSION_TABLE):
            return None
        return connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()


def upgrade(database: Database) -> None:
    """Create or update the tables; of several processes that open a store, one does it and the others wait.

    Raises:
        StoreError: a newer unalike wrote the store, or its tables cannot be changed.
    """
    if current_version(database) == HEAD:
        return
    with _locked(database):
        version = current_version(database)
        if version == HEAD:
            return
        if version is not None and version not in versions():
            raise StoreError(f"{database.address} has version {version}", expected=f"at most {HEAD}",
                             remedy="use the unalike that wrote it, or a newer one")  # fmt: skip
        _run(database, "upgrade", "head")


def downgrade(database: Database, version: str) -> None:
    """Undo migrations after ``version``; ``base`` removes all tables, with what they hold.

    Raises:
        StoreError: there is no such version.
    """
    if version != "base" and version not in versions():
        raise StoreError(f"version {version!r}", expected=f"base or one of {', '.join(versions())}")
    with _locked(database):
        _run(database, "downgrade", version)


def versions() -> list[str]:
    """All versions, the oldest first."""
    from alembic.script import ScriptDirectory

    script = ScriptDirectory.from_config(_configuration())
    return [revision.revision for revision in script.walk_revisions()][::-1]


@contextmanager
def _locked(database: Database) -> Iterator[None]:
    """One process at a time. SQLite's own file is never opened beside SQLite: closing it would release SQLite's locks."""
    if database.path:
        with file_lock(database.path.with_name(f".{database.path.name}.migration")):
            yield
        return
    with database.writing() as connection:
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK_NUMBER})
        yield


def _run(database: Database, direction: str, version: str) -> None:
    from alembic import command

    logging.getLogger("alembic").setLevel(logging.WARNING)
    configuration = _configuration()
    with database.writing() as connection:
        configuration.attributes["connection"] = connection
        getattr(command, direction)(configuration, version)


def _configuration() -> Config:
    from alembic.config import Config

    configuration = Config()
    configuration.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    configuration.set_main_option("path_separator", "os")
    return configuration
