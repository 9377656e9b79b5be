"""Migrations: up and down on both databases, equal to the tables, by one of several processes, in one transaction."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.support.postgres import new_database
from unalike.errors import StoreError
from unalike.serve.store import DecisionRecord, migration, open_store
from unalike.serve.store.database import Database
from unalike.serve.store.tables import UtcTime, metadata

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC)


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


def test_fits_and_trainings_of_before_are_tasks_and_can_be_divided_again(database: Database, tmp_path: Path) -> None:
    migration.upgrade(database)
    migration.downgrade(database, "0006")
    work = {"kind": "inspector.fit", "options": '{"images":[1]}', "actor": "ann", "request_id": "r", "created": MOMENT, "attempts": 2, "token": "t",
            "lease_end": MOMENT, "step": "sampling", "count": 3, "total": 9, "finished": None, "result": "{}", "error": ""}  # fmt: skip
    task = {"time": MOMENT, "gallery": "shop", "actor": "bob", "request_id": "q", "options": '{"minutes":2}', "started": MOMENT,
            "finished": None, "beat": MOMENT, "owner": '["boot",7,"3"]', "message": "why", "result": '{"model":"m"}'}  # fmt: skip
    rows = [
        {**work, "id": f"w{state}", "resource": state, "state": state} for state in ("waiting", "running", "canceled")
    ]
    learning = [
        ("train", "queued"),
        ("train", "running"),
        ("promote", "running"),
        ("compare", "cancelled"),
        ("rollback", "ended"),
        ("train", "done"),
    ]
    others = [{**task, "id": f"t{kind}-{state}", "kind": kind, "state": state} for kind, state in learning]
    others[0] |= {"started": None, "beat": None}
    insert(database, "work", rows)
    insert(database, "tasks", others)
    migration.upgrade(database)
    with open_store(address(database), tmp_path) as store:
        records = {record.id: record for record in store.tasks.find().items}
        fit, training = records["wrunning"], records["ttrain-running"]
        assert (fit.resource, fit.options, fit.attempts, fit.max_attempts, fit.token) == (
            "running",
            {"images": [1]},
            2,
            3,
            "t",
        )
        assert (fit.step, fit.count, fit.total, fit.created, fit.lease_end) == ("sampling", 3, 9, MOMENT, MOMENT)
        assert (training.resource, training.options, training.result) == ("shop", {"minutes": 2}, {"model": "m"})
        assert (training.actor, training.request_id, training.created, training.started) == ("bob", "q", MOMENT, MOMENT)
        states = {record.id: (record.state, record.attempts, record.max_attempts) for record in records.values()}
        assert states == {
            "wwaiting": ("waiting", 2, 3), "wrunning": ("running", 2, 3), "wcanceled": ("canceled", 2, 3), "ttrain-queued": ("waiting", 0, 3),
            "ttrain-running": ("running", 1, 3), "tpromote-running": ("running", 1, 1), "tcompare-cancelled": ("canceled", 1, 3),
            "trollback-ended": ("failed", 1, 1), "ttrain-done": ("done", 1, 3),
        }  # fmt: skip
        assert records["trollback-ended"].error == "why"
        # Their processes are gone: what may be begun again is, the others fail.
        ends = {kind: store.tasks.claim((kind,)) for kind in ("inspector.fit", "promote")}
        assert [record and record.state for record in ends.values()] == ["running", "failed"]
    migration.downgrade(database, "0006")
    with database.reading() as connection:
        former = {row["id"]: row for row in connection.execute(sa.text("SELECT * FROM tasks")).mappings()}
        fits = {row["id"]: row for row in connection.execute(sa.text("SELECT * FROM work")).mappings()}
    assert set(fits) == {"wwaiting", "wrunning", "wcanceled"} and fits["wrunning"]["attempts"] == 3
    assert {name: row["state"] for name, row in former.items()} == {
        "ttrain-queued": "queued", "ttrain-running": "running", "tpromote-running": "failed", "tcompare-cancelled": "cancelled",
        "trollback-ended": "failed", "ttrain-done": "done",
    }  # fmt: skip
    training = former["ttrain-running"]
    assert (training["gallery"], training["options"], training["message"], training["owner"]) == (
        "shop",
        '{"minutes":2}',
        "why",
        "null",
    )
    migration.upgrade(database)
    with open_store(address(database), tmp_path) as store:
        assert {record.id for record in store.tasks.find().items} == set(records)


def insert(database: Database, table: str, rows: list[dict[str, object]]) -> None:
    """Rows of a table as an earlier version wrote them."""
    columns = [sa.column(name, UtcTime() if isinstance(value, datetime) else None) for name, value in rows[-1].items()]
    with database.writing() as connection:
        connection.execute(sa.insert(sa.table(table, *columns)), rows)


def address(database: Database) -> str | None:
    return None if database.path else database._url.render_as_string(hide_password=False)


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
    command = [sys.executable, "-c", program, address(database) or "", str(tmp_path)]
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
    with open_store(address(database), tmp_path) as store:
        store.decisions.add([DecisionRecord("identify", "shop", "label")])


def test_decisions_of_before_have_no_file_name_and_keep_all_else(database: Database, tmp_path: Path) -> None:
    migration.upgrade(database)
    migration.downgrade(database, "0008")
    row = {"id": "d", "time": MOMENT, "kind": "identify", "resource": "shop", "decision": "label", "label": "pear", "model": "net",
           "request_id": "r", "actor": "ann", "result": "{}"}  # fmt: skip
    insert(database, "decisions", [row])
    migration.upgrade(database)
    with open_store(address(database), tmp_path) as store:
        record = store.decisions.get("d")
        assert record is not None and (record.file, record.label, record.time) == (None, "pear", MOMENT)
        store.decisions.add([DecisionRecord("identify", "shop", "label", file="photo.png")])
    migration.downgrade(database, "0008")
    with database.reading() as connection:
        assert "file" not in {column["name"] for column in sa.inspect(connection).get_columns("decisions")}
        assert connection.execute(sa.text("SELECT count(*) FROM decisions")).scalar() == 2
