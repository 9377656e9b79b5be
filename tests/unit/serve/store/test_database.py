"""The database: one line for every failure, no password in it; threads, processes and kills lose nothing."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.support.postgres import new_database
from unalike.errors import StoreError
from unalike.serve.store import DecisionRecord, Store, open_store
from unalike.serve.store import database as module
from unalike.serve.store.database import Database

# Writes decisions in batches, and says of each batch, in one write, that it was acknowledged.
WRITER = """
import os, sys
from unalike.serve.store import DecisionRecord, open_store
store = open_store(sys.argv[1] or None, sys.argv[2])
for number in range(int(sys.argv[3])):
    batch = [DecisionRecord("identify", "shop", "label", request_id=f"{os.getpid()}-{number}") for _ in range(4)]
    store.decisions.add(batch)
    os.write(1, "".join(record.id + "\\n" for record in batch).encode())
"""


def start_writer(url: str, folder: Path, batches: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, url, str(folder), str(batches)], stdout=subprocess.PIPE)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    return new_database() if request.param == "postgresql" else ""


def test_several_processes_lose_nothing(url: str, tmp_path: Path) -> None:
    open_store(url or None, tmp_path).close()
    writers = [start_writer(url, tmp_path, 25) for _ in range(3)]
    acknowledged = b"".join(writer.communicate()[0] for writer in writers).decode().split()
    assert [writer.returncode for writer in writers] == [0] * 3 and len(set(acknowledged)) == 300
    with open_store(url or None, tmp_path) as store:
        assert sorted(record.id for record in store.decisions.find(limit=1000).items) == sorted(acknowledged)


def test_a_kill_in_mid_write_loses_nothing_that_was_acknowledged_and_leaves_no_half_batch(
    url: str, tmp_path: Path
) -> None:
    open_store(url or None, tmp_path).close()
    acknowledged: list[str] = []
    for lines in (1, 13, 30):
        writer = start_writer(url, tmp_path, 10**6)
        assert writer.stdout is not None
        acknowledged += [writer.stdout.readline().decode().strip() for _ in range(lines)]
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged += writer.stdout.read().decode().split()
        writer.wait()
    with open_store(url or None, tmp_path) as store:
        store.decisions.add(
            [DecisionRecord("identify", "shop", "label", request_id="after")]
        )  # no lock was left behind
        page, records = None, []
        while page is None or page.next:
            page = store.decisions.find(after=page.next if page else None, limit=1000)
            records += page.items
    ids = {record.id for record in records}
    assert ids.issuperset(acknowledged) and len(acknowledged) >= 44
    sizes = {record.request_id: 0 for record in records if record.request_id != "after"}
    for record in records:
        if record.request_id in sizes:
            sizes[record.request_id] += 1
    assert set(sizes.values()) == {4}


def test_threads_share_a_store(store: Store) -> None:
    def write() -> None:
        for _ in range(5):
            store.decisions.add([DecisionRecord("identify", "shop", "label")])
            store.audit.finish(store.audit.begin("ann", "x", "shop"))
            store.decisions.find(limit=5)

    threads = [threading.Thread(target=write) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.decisions.count() == 30 and len(store.audit.find(outcome="done").items) == 30


def test_a_reader_sees_one_state_while_another_writes(store: Store) -> None:
    count = sa.text("SELECT count(*) FROM decisions")
    with store.database.reading() as connection:
        assert connection.execute(count).scalar() == 0
        store.decisions.add([DecisionRecord("identify", "shop", "label")])
        assert connection.execute(count).scalar() == 0
    assert store.decisions.count() == 1


def test_a_forked_process_opens_connections_of_its_own(store: Store) -> None:
    store.decisions.add([DecisionRecord("identify", "shop", "label")])
    pid = os.fork()
    if pid == 0:
        try:
            store.decisions.add([DecisionRecord("identify", "shop", "label")])
            os._exit(0 if store.decisions.count() == 2 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    store.decisions.add([DecisionRecord("identify", "shop", "label")])
    assert store.decisions.count() == 3


def synchronous(store: Store, *, sync: bool) -> int:
    with store.database.writing(sync=sync) as connection:
        return int(connection.exec_driver_sql("PRAGMA synchronous").scalar_one())


def test_what_must_survive_a_loss_of_power_waits_for_the_disk(tmp_path: Path) -> None:
    with open_store(None, tmp_path) as store:
        assert [synchronous(store, sync=sync) for sync in (True, False, True)] == [2, 1, 2]
        with store.transaction() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert not store.decisions.sync
    with open_store(None, tmp_path, sync_decisions=True) as store:
        assert store.decisions.sync
    with sqlite3.connect(tmp_path / "store.db") as plain:
        assert plain.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_deleted_rows_are_overwritten(tmp_path: Path) -> None:
    with open_store(None, tmp_path) as store, store.transaction() as connection:
        assert connection.exec_driver_sql("PRAGMA secure_delete").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "mysql://me:hunter22@host/db",
            "a store of kind 'mysql'; expected postgresql://HOST/DATABASE or sqlite:///FILE",
        ),
        ("not an address", "no address of a database"),
        ("sqlite://", "a store in memory"),
        (
            "postgresql://me:hunter22@127.0.0.1:1/db",
            "cannot be reached .*expected a PostgreSQL server that answers there",
        ),
        ("postgresql://me:hunter22@[::1/db", "postgresql"),
        ("postgresql://me:p@ss/hunter22@host:port/db", "more than one @"),
    ],
)
def test_a_wrong_address_is_one_line_without_its_password(tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as failure:
        open_store(url, tmp_path)
    assert "hunter22" not in str(failure.value) and "\n" not in str(failure.value)


def test_a_refused_password_is_not_shown(tmp_path: Path) -> None:
    database = Database("postgresql://me:hunter22@127.0.0.1:1/db", tmp_path)
    assert "hunter22" not in database.address and "hunter22" not in repr(database.engine)


def test_values_of_a_statement_are_not_shown(store: Store) -> None:
    record = DecisionRecord("identify", "shop", "label", label="private class")
    store.decisions.add([record])
    with pytest.raises(StoreError) as failure:
        store.decisions.add([record])
    assert "private" not in str(failure.value) and "private" not in str(failure.value.__cause__)


def test_a_damaged_file_is_named_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"no database at all" * 1000)
    with pytest.raises(StoreError, match=r"store\.db is damaged .*unalike serve restore"):
        open_store(None, tmp_path)


def test_a_lock_that_stays_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(None, tmp_path).close()
    monkeypatch.setattr(module, "BUSY_S", 0.05)
    holder = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with open_store(None, tmp_path) as store:
        with pytest.raises(StoreError, match=r"is locked by another process for more than 0\.05 s"):
            store.decisions.add([DecisionRecord("identify", "shop", "label")])
        assert store.decisions.count() == 0  # readers do not wait
        holder.execute("ROLLBACK")
        store.decisions.add([DecisionRecord("identify", "shop", "label")])
    holder.close()


def test_a_writer_waits_for_another(tmp_path: Path) -> None:
    open_store(None, tmp_path).close()
    holder = sqlite3.connect(tmp_path / "store.db", isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    thread = threading.Thread(target=lambda: (time.sleep(0.3), holder.execute("COMMIT")))
    thread.start()
    with open_store(None, tmp_path) as store:
        store.decisions.add([DecisionRecord("identify", "shop", "label")])
        assert store.decisions.count() == 1
    thread.join()
    holder.close()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs users")
def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/store\.db cannot be written.*--folder"):
        open_store(None, tmp_path / "file")
