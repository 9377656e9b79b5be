"""Migrations: up and down on both databases, equal to the tables, by one of several processes, in one transaction."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.support.postgres import new_database
from unalike.errors import StoreError
from unalike.serve.store import DecisionRecord, migration, open_store
from unalike.serve.store.database import Database
from unalike.serve.store.tables import metadata


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    return Database(new_database() if request.param == "postgresql" else None, tmp_path)


def table_names(database: Database) -> set[str]:
    with database.reading() as connection:
        return set(sa.inspect(connection).get_table_names())


def test_up_down_and_up_again(database: Database) -> None:
    assert migration.current_version(database) is None
    migration.upgrade(database)
    assert migration.current_version(database) == migration.HEAD == migration.versions()[-1]
    assert table_names(database) == {*metadata.tables, migration.VERSION_TABLE}
    for version in [*migration.versions()[-2::-1], "base"]:
        migration.downgrade(database, version)
        assert migration.current_version(database) == (None if version == "base" else version)
    assert table_names(database) == {migration.VERSION_TABLE}
    migration.upgrade(database)
    assert migration.current_version(database) == migration.HEAD


def test_the_tables_are_those_that_sqlalchemy_describes(database: Database) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    migration.upgrade(database)
    with database.writing() as connection:
        options = {"version_table": migration.VERSION_TABLE, "compare_type": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []


def test_a_store_of_the_newest_version_opens_without_alembic(tmp_path: Path) -> None:
    open_store(None, tmp_path).close()
    program = (
        "import sys; from unalike.serve.store import open_store; open_store(None, sys.argv[1]); "
        "print('alembic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_a_store_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    open_store(None, tmp_path).close()
    with sqlite3.connect(tmp_path / "store.db") as connection:
        connection.execute(f"UPDATE {migration.VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(
        StoreError, match=f"has version 9999; expected at most {migration.HEAD}; use the unalike that wrote it"
    ):
        open_store(None, tmp_path)


def test_there_is_no_such_version(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"version '0815'; expected base or one of 0001, 0002, .*{migration.HEAD}"):
        migration.downgrade(Database(None, tmp_path), "0815")


def test_of_several_processes_that_open_a_new_store_none_fails(database: Database, tmp_path: Path) -> None:
    program = "import sys; from unalike.serve.store import open_store; open_store(sys.argv[1] or None, sys.argv[2])"
    url = "" if database.path else database._url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", program, url, str(tmp_path)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    messages = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, messages
    assert migration.current_version(database) == migration.HEAD


def test_a_migration_that_fails_changes_nothing(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alembic import op

    def fail(name: str, *arguments: object, **options: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(op, "create_index", fail)
        with pytest.raises(ZeroDivisionError):
            migration.upgrade(database)
    assert table_names(database) == set()
    migration.upgrade(database)
    url = None if database.path else database._url.render_as_string(hide_password=False)
    with open_store(url, tmp_path) as store:
        store.decisions.add([DecisionRecord("identify", "shop", "label")])
