"""Connections to PostgreSQL for any number of threads, and its errors as one line (extra ``postgres``)."""

from __future__ import annotations

import os
import selectors
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any

from unalike.errors import DatabaseUnavailable, DataError, missing_extra
from unalike.recognition.backends.database_address import DatabaseAddress
from unalike.storage.process_lock import ProcessLock

if TYPE_CHECKING:
    import psycopg

MAX_IDLE = 8  # connections that are kept open while nobody uses them
CONNECT_TIMEOUT_S, LOCK_TIMEOUT_S = 10, 600
# Commits are on the disk when they return, also where the server's default is otherwise.
_SETTINGS = (
    f"SELECT set_config('lock_timeout', '{LOCK_TIMEOUT_S}s', false), set_config('client_min_messages', 'warning', false), "
    "CASE WHEN current_setting('synchronous_commit') IN ('off', 'local') THEN set_config('synchronous_commit', 'on', false) END"
)
# Errors of connecting carry no SQLSTATE: what they say, and the SQLSTATE that it stands for.
_CONNECTING = {
    "password": "28",
    "authentication": "28",
    "no pg_hba.conf entry": "28",
    "does not exist": "3D000",
    "too many": "53",
}
# What to do, by the class of an SQLSTATE or by all of it.
_REMEDIES = {
    "25P02": "a statement of this change failed: repeat the change",
    "28": "check the user and the password: in the address, in PGPASSWORD or in ~/.pgpass",
    "3D000": "create the database, or check its name",
    "42501": "ask the owner of the database for the right",
    "53": "the server is out of connections, memory or disk",
    "55P03": f"another program changes this gallery for more than {LOCK_TIMEOUT_S} s: wait for it, or end it",
    "57": "the server was stopped; try again when it runs",
}


def import_psycopg() -> ModuleType:
    """The package psycopg. Raises MissingExtra where it or pgvector's client is not installed."""
    try:
        import pgvector.psycopg
        import psycopg
    except ImportError as error:
        raise missing_extra("psycopg and pgvector", "postgres", "a gallery in PostgreSQL") from error
    assert pgvector.psycopg
    module: ModuleType = psycopg
    return module


class Connections:
    """Open connections to one database, each used by one thread at a time; none is shared with a forked process.

    Args:
        address: where to connect.
    """

    def __init__(self, address: DatabaseAddress) -> None:
        self.address = address
        self._idle: list[psycopg.Connection[Any]] = []
        self._lock, self._process = ProcessLock(), os.getpid()

    @contextmanager
    def reading(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection for one transaction that sees one state of the database (REPEATABLE READ) and changes nothing."""
        with self._transaction(is_reader=True) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection for one transaction: committed, and on the server's disk, when the block ends without an exception."""
        with self._transaction(is_reader=False) as connection:
            yield connection

    @contextmanager
    def _transaction(self, is_reader: bool) -> Iterator[psycopg.Connection[Any]]:
        psycopg = import_psycopg()
        with database_errors(self.address.shown):
            connection = self._take()
            try:
                connection.isolation_level = (
                    psycopg.IsolationLevel.REPEATABLE_READ if is_reader else psycopg.IsolationLevel.READ_COMMITTED
                )
                connection.read_only = is_reader
                yield connection
                if not is_reader:
                    self._commit(connection)
            finally:  # of a reader, and after an exception
                with suppress(psycopg.Error):
                    connection.rollback()
                self._give_back(connection)

    def _commit(self, connection: psycopg.Connection[Any]) -> None:
        """Commit; a transaction in which a statement failed would be rolled back without a word."""
        from psycopg.pq import TransactionStatus

        if connection.info.transaction_status == TransactionStatus.INERROR:
            raise DataError(f"{self.address.shown}: a statement of this change failed", remedy="repeat the change")
        connection.commit()

    def _take(self) -> psycopg.Connection[Any]:
        with self._lock:
            if self._process != os.getpid():  # those of the parent process are not ours, nor to be closed
                self._idle, self._process = [], os.getpid()
            while self._idle:
                connection = self._idle.pop()
                if not connection.closed and not _was_ended(connection):
                    return connection
                connection.close()
        return self._connect()

    def _connect(self) -> psycopg.Connection[Any]:
        import psycopg
        from pgvector.psycopg import register_vector

        settings = {"application_name": "unalike", "connect_timeout": CONNECT_TIMEOUT_S, **self.address.parameters()}
        try:
            connection = psycopg.connect(self.address.connection, autocommit=True, prepare_threshold=None, **settings)
        except psycopg.ProgrammingError:  # whose message quotes the address
            raise DataError(f"the address {self.address.shown} cannot be read by libpq") from None
        connection.execute(_SETTINGS.encode())
        with suppress(psycopg.ProgrammingError):  # without the extension; creating a gallery adds it
            register_vector(connection)
        connection.autocommit = False
        return connection

    def register(self, connection: psycopg.Connection[Any]) -> None:
        """Make vectors known to a connection that created the extension itself."""
        from pgvector.psycopg import register_vector

        register_vector(connection)

    def _give_back(self, connection: psycopg.Connection[Any]) -> None:
        from psycopg.pq import TransactionStatus

        with self._lock:
            is_idle = not connection.closed and connection.info.transaction_status == TransactionStatus.IDLE
            if is_idle and len(self._idle) < MAX_IDLE and self._process == os.getpid():
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with self._lock:
            idle, self._idle = self._idle, []
            if self._process == os.getpid():
                for connection in idle:
                    connection.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"address": self.address}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["address"])  # type: ignore[misc]


def _was_ended(connection: psycopg.Connection[Any]) -> bool:
    """Whether the server said something to an idle connection: it ended it, since it was stopped for example."""
    with selectors.DefaultSelector() as selector:
        selector.register(connection.fileno(), selectors.EVENT_READ)
        return bool(selector.select(0))


def is_of_server(error: Any) -> bool:
    """Whether an error of psycopg is of the server or the way to it: no connection, no room or memory, a stop or a crash."""
    if error.sqlstate:
        return str(error.sqlstate)[:2] in ("08", "53", "57", "58", "XX")
    return isinstance(error, import_psycopg().OperationalError)


@contextmanager
def database_errors(display: str) -> Iterator[None]:
    """While inside, errors of PostgreSQL are DataErrors of one line that name the address without secrets.

    Those of the server or the way to it, not of what was asked, are DatabaseUnavailable.
    """
    psycopg = import_psycopg()
    try:
        yield
    except psycopg.Error as error:
        state = error.sqlstate or ""
        lines = str(error).strip().split("\n")
        remedy = _REMEDIES.get(state, _REMEDIES.get(state[:2], ""))
        if not state and isinstance(error, psycopg.OperationalError):
            remedies = [_REMEDIES[code] for words, code in _CONNECTING.items() if words in str(error)]
            remedy = remedies[0] if remedies else "check that the server runs, and the address"
        kind = DatabaseUnavailable if is_of_server(error) else DataError
        raise kind(f"{display}: {lines[0].strip()}", remedy=remedy) from error
