"""The client of Milvus for any number of threads, and its errors as one line (extra ``milvus``)."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TypeVar

from unalike.errors import DatabaseUnavailable, DataError, missing_extra
from unalike.recognition.backends.milvus_address import MilvusAddress
from unalike.storage.process_lock import ProcessLock
from unalike.telemetry import disable_telemetry

Rows = TypeVar("Rows")
# Seconds. A write that is not answered in time fails, and with it the change.
CONNECT_TIMEOUT_S, WRITE_TIMEOUT_S, READ_TIMEOUT_S = 10.0, 10.0, 120.0
NOT_FOUND, NOT_LOADED = 100, 101  # codes of Milvus: a collection that does not exist, and one that is not in memory
MOST_ROWS = 16_384  # of Milvus: neighbors of a search, and rows of a query


class CollectionGone(DataError):
    """A collection that was dropped or renamed: whoever asked looks for the present one."""


def import_pymilvus() -> ModuleType:
    """The package pymilvus; reads no ``.env`` file while it is imported. Raises MissingExtra where it is not installed."""
    disable_telemetry()
    set_by_us = "PYTHON_DOTENV_DISABLED" not in os.environ
    os.environ.setdefault("PYTHON_DOTENV_DISABLED", "1")
    try:
        import pymilvus
    except ImportError as error:
        raise missing_extra("pymilvus", "milvus", "a gallery in Milvus") from error
    finally:
        if set_by_us:
            os.environ.pop("PYTHON_DOTENV_DISABLED", None)
    for name in ("pymilvus.decorators", "pymilvus.client.connection_manager"):
        logging.getLogger(name).setLevel(
            logging.CRITICAL
        )  # each error is also written to standard error, with a traceback
    module: ModuleType = pymilvus
    return module


class MilvusConnection:
    """Calls of a Milvus server; each process has a client of its own.

    Args:
        address: where to connect.
    """

    def __init__(self, address: MilvusAddress) -> None:
        self.address = address
        self._client: Any = None
        self._lock, self._process = ProcessLock(), os.getpid()

    def client(self) -> Any:
        """The connected client. Raises DatabaseUnavailable where the server does not answer."""
        with self._lock:
            if self._process != os.getpid():
                self._client, self._process = None, os.getpid()
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> Any:
        address, pymilvus = self.address, import_pymilvus()
        if address.is_local:
            try:
                import milvus_lite
            except ImportError as error:
                raise missing_extra("milvus-lite", "milvus-lite", "a gallery in a folder of Milvus Lite") from error
            assert milvus_lite
        with milvus_errors(address.shown):
            return pymilvus.MilvusClient(
                uri=address.uri, token=address.token(), db_name=address.database, timeout=CONNECT_TIMEOUT_S,
                dedicated=not address.is_local,
            )  # fmt: skip

    # ---- collections ----

    def names(self) -> list[str]:
        """Names of all collections of the database."""
        with milvus_errors(self.address.shown):
            return [str(name) for name in self.client().list_collections(timeout=READ_TIMEOUT_S)]

    def rename(self, name: str, new: str) -> None:
        """Rename a collection. Raises CollectionGone where there is none of this name."""
        with milvus_errors(self.address.shown):
            self.client().rename_collection(name, new, timeout=WRITE_TIMEOUT_S)

    def drop(self, name: str) -> None:
        """Drop a collection, where it exists."""
        with milvus_errors(self.address.shown):
            self.client().drop_collection(name, timeout=WRITE_TIMEOUT_S)

    def load(self, name: str) -> None:
        """Bring a collection into the server's memory, where it is not."""
        with milvus_errors(self.address.shown):
            self.client().load_collection(name, timeout=READ_TIMEOUT_S)

    def create(
        self, name: str, fields: Sequence[tuple[str, str, dict[str, Any]]], indexes: dict[str, dict[str, Any]],
        *, is_there: bool = False,
    ) -> None:  # fmt: skip
        """Create a collection and, where it has indexes, bring it into memory.

        Args:
            name: of the collection.
            fields: name, type and facts of each field; the first is the primary key.
            indexes: facts of the index of each field that has one.
            is_there: it exists; what an interrupted call left out is made up for.
        """
        pymilvus, client = import_pymilvus(), self.client()
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        for number, (field, kind, facts) in enumerate(fields):
            schema.add_field(field, getattr(pymilvus.DataType, kind), is_primary=number == 0, **facts)
        with milvus_errors(self.address.shown):
            if not is_there:
                client.create_collection(name, schema=schema, consistency_level="Strong", timeout=READ_TIMEOUT_S)
            for field, facts in indexes.items():
                if is_there and client.list_indexes(name, field_name=field):
                    continue
                parameters = client.prepare_index_params()
                parameters.add_index(field, **facts)
                client.create_index(name, parameters, timeout=READ_TIMEOUT_S, sync=False)
            if indexes:
                client.load_collection(name, timeout=READ_TIMEOUT_S)

    # ---- rows ----

    def upsert(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        """Write rows; one of the same primary key is replaced, so that a repeated call changes nothing."""
        with milvus_errors(self.address.shown):
            self.client().upsert(name, list(rows), timeout=WRITE_TIMEOUT_S)

    def delete(self, name: str, condition: str) -> None:
        """Delete rows."""
        with milvus_errors(self.address.shown):
            self.client().delete(name, filter=condition, timeout=WRITE_TIMEOUT_S)

    def query(self, name: str, condition: str, fields: Sequence[str]) -> list[dict[str, Any]]:
        """Rows of a condition, in any order, as every write that was answered left them."""
        return self._read(
            name,
            lambda client: list(client.query(name, filter=condition, output_fields=list(fields),
                                             consistency_level="Strong", timeout=READ_TIMEOUT_S)),
        )  # fmt: skip

    def count(self, name: str, condition: str) -> int:
        """Number of rows of a condition."""
        return int(self.query(name, condition, ["count(*)"])[0]["count(*)"])

    def flush(self, name: str) -> None:
        """Let the rows that were written be indexed, which a server does by itself when there are many."""
        with milvus_errors(self.address.shown):
            self.client().flush(name, timeout=READ_TIMEOUT_S)

    def search(
        self, name: str, vectors: Sequence[Any], condition: str, limit: int, fields: Sequence[str], *, field: str = "vector",
        parameters: dict[str, Any] | None = None,
    ) -> list[list[dict[str, Any]]]:  # fmt: skip
        """The nearest rows of each vector by inner product, best first, under ``distance`` and ``entity``.

        Args:
            name: of the collection.
            vectors: queries.
            condition: an expression that rows must fulfill.
            limit: number of rows.
            fields: of the rows that are returned.
            field: that is searched.
            parameters: of the search by its index.
        """
        return self._read(
            name,
            lambda client: [list(hits) for hits in client.search(
                name, data=list(vectors), anns_field=field, filter=condition, limit=limit, output_fields=list(fields),
                search_params={"metric_type": "IP", "params": parameters or {}}, consistency_level="Strong", timeout=READ_TIMEOUT_S)],
        )  # fmt: skip

    def _read(self, name: str, call: Callable[[Any], Rows]) -> Rows:
        """Read; a collection that the server does not have in memory is brought there first."""
        exception = import_pymilvus().exceptions.MilvusException
        with milvus_errors(self.address.shown):
            client = self.client()
            try:
                return call(client)
            except exception as error:
                if error.code != NOT_LOADED:
                    raise
            client.load_collection(name, timeout=READ_TIMEOUT_S)
            return call(client)

    def close(self) -> None:
        """Close the client; a later call opens another."""
        with self._lock:
            client, self._client = self._client, None
            if client is not None and self._process == os.getpid():
                client.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"address": self.address}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["address"])  # type: ignore[misc]


@contextmanager
def milvus_errors(display: str) -> Iterator[None]:
    """While inside, errors of Milvus are DataErrors of one line that name the address without secrets.

    Those of the server or the way to it, not of what was asked, are DatabaseUnavailable; a collection that does not exist is
    CollectionGone.
    """
    pymilvus = import_pymilvus()
    import grpc

    try:
        yield
    except (pymilvus.exceptions.MilvusException, grpc.RpcError) as error:
        code, text = _facts(error)
        if code == NOT_FOUND:
            raise CollectionGone(f"{display}: {text}", remedy="open the gallery again") from error
        if code in ("UNAUTHENTICATED", "PERMISSION_DENIED") or "auth check failure" in text:
            raise DataError(f"{display}: {text}", remedy="check the user and the password, or the token: in the address, in "
                            "MILVUS_TOKEN, or in MILVUS_USER and MILVUS_PASSWORD") from error  # fmt: skip
        is_unavailable = code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", 2) or "imeout" in text
        kind = DatabaseUnavailable if is_unavailable else DataError
        raise kind(
            f"{display}: {text}", remedy="check that the server runs, and the address" if is_unavailable else ""
        ) from error


def _facts(error: Any) -> tuple[Any, str]:
    """The code of an error, by name where it is one of gRPC, and what it says in one line."""
    code = error.code() if callable(error.code) else error.code
    text = getattr(error, "message", "") or (error.details() if hasattr(error, "details") else "") or str(error)
    lines = str(text).strip().splitlines() or [type(error).__name__]
    return getattr(code, "name", code), lines[0][:300]
