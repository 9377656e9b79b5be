"""The database of the store: SQLite in write-ahead mode, or PostgreSQL; connections, transactions and one-line errors.

SQLite: any number of threads and processes of one machine. A writer holds the one lock of the file from the beginning of its
transaction (``BEGIN IMMEDIATE``); others wait up to ``BUSY_S``. A transaction that was committed survives a kill of the process
in any case, and a loss of power where it was committed with ``sync``.
"""

from __future__ import annotations

import importlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from unalike.engines.process_local import ProcessLocal
from unalike.errors import StoreError, missing_extra
from unalike.sanitize import redact
from unalike.storage.outside_files import reason, shorten

DATABASE_FILE = "store.db"
BUSY_S = 30.0
CONNECT_S = 10
_SCHEMES = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg",
            "postgresql+psycopg": "postgresql+psycopg"}  # fmt: skip


class Database:
    """A database, by its address.

    Args:
        url: ``postgresql://HOST/DATABASE`` or ``sqlite:///file``; None for a file in ``folder``.
        folder: the folder of the service.

    Attributes:
        address: the address without a password, for messages.
        path: the file of SQLite; None for PostgreSQL.

    Raises:
        StoreError: an address of another kind.
        MissingExtra: the driver of PostgreSQL is not installed.
    """

    def __init__(self, url: str | None, folder: Path) -> None:
        self._url = _parse(url) if url else URL.create("sqlite", database=str(folder / DATABASE_FILE))
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        self.path = Path(os.path.abspath(self._url.database or "")) if self.is_sqlite else None
        self.address = str(self.path) if self.path else redact(url or "")
        self._engine: ProcessLocal[sa.Engine] = ProcessLocal()
        # Of ``append``: a connection of its own, and statements by table.
        self._appender: ProcessLocal[Any] = ProcessLocal()
        self._append_lock = threading.Lock()
        self._inserts: dict[tuple[str, ...], tuple[str, list[Any]]] = {}
        if self.is_sqlite and (not self._url.database or self._url.database == ":memory:"):
            raise StoreError("a store in memory", expected="sqlite:///FILE, whose content outlives the process")

    @property
    def engine(self) -> sa.Engine:
        """SQLAlchemy's engine of this process."""
        return self._engine.get(self._create_engine)

    @property
    def insert(self) -> Any:
        """The database's own ``insert``, which knows ``on_conflict_do_nothing``; each is loaded where it is needed."""
        return importlib.import_module(f"sqlalchemy.dialects.{self._url.get_backend_name()}").insert

    def close(self) -> None:
        """Close the connections that are not in use."""
        with self._append_lock:
            if self._inserts:  # else it was not opened
                self._appender.get(self.engine.raw_connection).close()
                self._appender, self._inserts = ProcessLocal(), {}
        self.engine.dispose()

    @contextmanager
    def reading(self, connection: sa.Connection | None = None) -> Iterator[sa.Connection]:
        """A connection on which to read one consistent state: ``connection``, where one is given that is open already.

        Raises:
            StoreError: for what the database reports.
        """
        if connection is not None:
            yield connection
            return
        engine = self.engine
        if not self.is_sqlite:  # there one statement sees one state, and a transaction does by this alone
            engine = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with self._explain(), engine.begin() as new_connection:
            yield new_connection

    @contextmanager
    def writing(self, connection: sa.Connection | None = None, *, sync: bool = True) -> Iterator[sa.Connection]:
        """A transaction, which is committed at the end, and undone by an exception.

        Args:
            connection: a connection of a transaction that is open already; the changes become a part of that one.
            sync: wait until the disk has it. Without, SQLite leaves that to the system: a kill of the process loses
                nothing, a loss of power may lose the last transactions. PostgreSQL follows its own configuration.

        Raises:
            StoreError: for what the database reports.
        """
        if connection is not None:
            yield connection
            return
        engine = self.engine.execution_options(sqlite_writes=True, sqlite_synchronous="FULL" if sync else "NORMAL")
        with self._explain(), engine.begin() as new_connection:
            yield new_connection

    def append(self, columns: Sequence[sa.Column[Any]], rows: Sequence[Sequence[Any]], *, sync: bool = True) -> None:
        """Insert rows of a table in a transaction of their own; they are committed when this returns.

        On SQLite past SQLAlchemy's own execution: 0.2 in place of 0.7 ms for one row (own measurement, 2026-11-29), which
        every answer waits for.

        Args:
            columns: columns of one table.
            rows: a value for each column.
            sync: as of ``writing``.

        Raises:
            StoreError: for what the database reports.
        """
        if not self.is_sqlite:
            names = [column.name for column in columns]
            with self.writing(sync=sync) as connection:
                connection.execute(columns[0].table.insert(), [dict(zip(names, row, strict=True)) for row in rows])
            return
        with self._explain(), self._append_lock:
            statement, processors = self._sqlite_insert(columns)
            values = [
                [value if process is None else process(value) for process, value in zip(processors, row, strict=True)]
                for row in rows
            ]
            connection = self._appender.get(self.engine.raw_connection)
            try:
                connection.execute(f"PRAGMA synchronous={'FULL' if sync else 'NORMAL'}")
                if len(values) == 1:  # a transaction by itself
                    connection.execute(statement, values[0])
                    return
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(statement, values)
                connection.execute("COMMIT")
            except sqlite3.Error:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise

    def _sqlite_insert(self, columns: Sequence[sa.Column[Any]]) -> tuple[str, list[Any]]:
        """The statement that inserts a row, and for each column what turns a value into SQLite's."""
        key = (columns[0].table.name, *(column.name for column in columns))
        if key not in self._inserts:
            dialect = self.engine.dialect
            marks = ", ".join("?" * len(columns))
            names = ", ".join(dialect.identifier_preparer.format_column(column) for column in columns)
            table = dialect.identifier_preparer.format_table(columns[0].table)
            processors = [column.type.dialect_impl(dialect).bind_processor(dialect) for column in columns]
            self._inserts[key] = f"INSERT INTO {table} ({names}) VALUES ({marks})", processors
        return self._inserts[key]

    @contextmanager
    def _explain(self) -> Iterator[None]:
        try:
            yield
        except PoolTimeout as error:
            raise StoreError(f"{self.address}: no free connection within {BUSY_S:g} s",
                             remedy="send fewer requests at once") from error  # fmt: skip
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise self.explain(error) from error

    def explain(self, error: Exception) -> StoreError:
        """The one-line error for a failure; values of a statement are not shown."""
        cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
        detail = redact(shorten(str(cause)))
        if "locked" in detail and self.is_sqlite:
            return StoreError(f"{self.address} is locked by another process for more than {BUSY_S:g} s",
                              remedy="end the process that writes to it for so long")  # fmt: skip
        if "disk is full" in detail or "disk full" in detail or "No space left" in detail:
            return StoreError(f"{self.address}: the disk is full", remedy="free some space")
        if "malformed" in detail or "not a database" in detail:
            return StoreError(f"{self.address} is damaged ({detail})", expected="a store that unalike wrote",
                              remedy="restore a backup: unalike serve restore")  # fmt: skip
        if isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError) and not self.is_sqlite:
            return StoreError(f"{self.address} cannot be reached ({detail})", expected="a PostgreSQL server that answers there",
                              remedy="check the address, the password and the server")  # fmt: skip
        return StoreError(f"{self.address}: {detail}")

    def _create_engine(self) -> sa.Engine:
        if self.path:
            self._prepare_file(self.path)
            arguments: dict[str, Any] = {"timeout": BUSY_S, "check_same_thread": False, "isolation_level": None}
        else:
            arguments = {"connect_timeout": CONNECT_S, "application_name": "unalike"}
        try:
            engine = sa.create_engine(
                self._url, connect_args=arguments, pool_pre_ping=not self.is_sqlite, pool_size=8, max_overflow=8,
                pool_timeout=BUSY_S, hide_parameters=True, poolclass=sa.QueuePool,
            )  # fmt: skip
        except ImportError as error:
            raise missing_extra("psycopg", "postgres", "a store in PostgreSQL") from error
        if self.is_sqlite:
            sa.event.listen(engine, "connect", _set_up_sqlite)
            sa.event.listen(engine, "begin", _begin_sqlite)
        return engine

    def _prepare_file(self, path: Path) -> None:
        """Create the file for its owner alone; SQLite gives its journals the same mode."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600))
            connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
            try:
                mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            finally:
                connection.close()
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {reason(error)}", expected="a folder of this user's own",
                             remedy="name another one with --folder") from error  # fmt: skip
        except sqlite3.Error as error:
            raise self.explain(error) from error
        if mode != "wal":
            raise StoreError(f"{path.parent} does not let SQLite write ahead (journal mode {mode})", expected="a local disk",
                             remedy="name a folder on one, or use PostgreSQL with --store")  # fmt: skip


def _parse(url: str) -> URL:
    try:
        address = make_url(url)
        scheme = _SCHEMES.get(address.drivername)
    except (ArgumentError, ValueError) as error:
        raise StoreError(f"{redact(url)}: no address of a database", expected="postgresql://HOST/DATABASE") from error
    if scheme is None:
        raise StoreError(f"{redact(url)}: a store of kind {address.drivername!r}",
                         expected="postgresql://HOST/DATABASE or sqlite:///FILE")  # fmt: skip
    if "@" in (address.database or "") and scheme != "sqlite":
        raise StoreError(f"{redact(url)}: more than one @", expected="postgresql://HOST/DATABASE",
                         remedy="write an @ of a password as %40, and a / as %2F")  # fmt: skip
    return address.set(drivername=scheme)


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    """Settings that SQLite keeps for a connection: deleted rows are overwritten, and references between tables hold."""
    for setting in ("foreign_keys=ON", "secure_delete=ON", "journal_size_limit=67108864"):
        connection.execute(f"PRAGMA {setting}")


def _begin_sqlite(connection: sa.Connection) -> None:
    """Begin a transaction. The driver itself would begin one late: at the first change, after what it depends on was read."""
    options = connection.get_execution_options()
    if options.get("sqlite_writes"):
        connection.exec_driver_sql(f"PRAGMA synchronous={options['sqlite_synchronous']}")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql("BEGIN")
