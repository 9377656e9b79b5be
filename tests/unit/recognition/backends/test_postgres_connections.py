"""Connections: reused, not shared with a forked process, and an error where the packages are not installed."""

from __future__ import annotations

import os
import sys

import pytest

from tests.support.postgres import new_database
from unalike.errors import DatabaseUnavailable, DataError, MissingExtra
from unalike.recognition.backends.address import open_gallery
from unalike.recognition.backends.database_address import DatabaseAddress
from unalike.recognition.backends.postgres_connections import MAX_IDLE, Connections, database_errors


def test_a_missing_package_is_one_line_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("psycopg", "pgvector.psycopg"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(MissingExtra, match=r"a gallery in PostgreSQL needs psycopg.*install .*\[postgres\]"):
                open_gallery("postgresql://localhost/db?gallery=shop")


def test_connections_are_reused_and_bounded() -> None:
    connections = Connections(DatabaseAddress.parse(new_database() + "&gallery=a"))
    with connections.reading() as first:
        process = first.info.backend_pid
        with connections.writing() as second:
            assert second is not first
    with connections.reading() as again:
        assert again.info.backend_pid in (process, second.info.backend_pid)
        with pytest.raises(DataError, match="read-only"), connections.reading() as reader:
            reader.execute("CREATE TABLE x (y int)")
    with pytest.raises(KeyboardInterrupt), connections.writing() as writer:
        writer.execute("CREATE TABLE x (y int)")
        raise KeyboardInterrupt
    with connections.writing() as writer:
        assert writer.execute("SELECT to_regclass('x')").fetchone() == (None,)
        assert writer.execute("SHOW synchronous_commit").fetchone() == ("on",)
    used = [connections._take() for _ in range(MAX_IDLE + 2)]
    for connection in used:
        connections._give_back(connection)
    assert sum(not connection.closed for connection in used) == len(connections._idle) == MAX_IDLE
    connections.close()
    assert all(connection.closed for connection in used)


def test_a_forked_process_has_connections_of_its_own() -> None:
    connections = Connections(DatabaseAddress.parse(new_database() + "&gallery=a"))
    with connections.reading() as connection:
        own = connection.info.backend_pid
    child = os.fork()
    if not child:
        with connections.reading() as connection:
            os._exit(0 if connection.info.backend_pid != own else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with connections.reading() as connection:
        assert connection.info.backend_pid == own and connection.execute("SELECT 1").fetchone() == (1,)


def test_a_server_that_does_not_answer_is_told_apart_from_a_wrong_request() -> None:
    psycopg = pytest.importorskip("psycopg")
    with pytest.raises(DatabaseUnavailable, match="check that the server runs"), database_errors("shop"):
        psycopg.connect("host=127.0.0.1 port=1 connect_timeout=2")
    with pytest.raises(DataError) as caught, database_errors("shop"):
        raise psycopg.errors.UndefinedTable("relation x does not exist")
    assert not isinstance(caught.value, DatabaseUnavailable)
    with pytest.raises(DatabaseUnavailable), database_errors("shop"):
        raise psycopg.errors.DiskFull("could not extend file")
