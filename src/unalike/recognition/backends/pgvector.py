"""A gallery in PostgreSQL, searched by pgvector: many writers and many readers on many machines share it.

A change is one transaction, on the server's disk when the call returns. A view is one transaction too: all that is read
through it belongs to one state (REPEATABLE READ).

Shape letters: M enrolled vectors, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from unalike.errors import DataError, ModelError
from unalike.recognition.backends.database_address import DatabaseAddress
from unalike.recognition.backends.database_gallery import DatabaseGallery
from unalike.recognition.backends.hnsw_index import (
    HnswIndex,
    check_indexable,
    index_statement,
    measure,
    says_if_memory_is_short,
)
from unalike.recognition.backends.postgres_attributes import write_attributes
from unalike.recognition.backends.postgres_change import PostgresChange
from unalike.recognition.backends.postgres_connections import Connections, import_psycopg
from unalike.recognition.backends.postgres_copy import copy_in_steps, insert_classes, new_row, references
from unalike.recognition.backends.postgres_tables import (
    GalleryRow,
    copy_vectors,
    create_indexes,
    create_tables,
    decode_text,
    delete_row,
    find_row,
    find_row_of_id,
    insert_row,
    lock_copies,
    lock_former_rows,
    prepare_database,
    read_changes,
    read_row,
    retire_row,
    write_row,
)
from unalike.recognition.backends.postgres_view import PostgresView, Prototypes

if TYPE_CHECKING:
    import psycopg

    from unalike.recognition.gallery import Gallery

TRIES = 5  # to read a gallery that is replaced again and again


class PostgresGallery(DatabaseGallery):
    """A gallery in PostgreSQL. ``open`` and ``create`` make one.

    Args:
        connections: to its database.
        row: its row, as it was read last.
    """

    def __init__(self, connections: Connections, row: GalleryRow) -> None:
        super().__init__(row)
        self._connections, self._row = connections, row
        self._kept_prototypes: tuple[int, int, Prototypes] | None = None  # of a gallery's number and revision
        self._change: PostgresChange | None = None

    @classmethod
    def open(cls, address: DatabaseAddress, *, verify: bool = False) -> PostgresGallery:
        """Open a gallery that exists.

        Args:
            address: of the gallery.
            verify: compare its counters with its tables.

        Raises:
            DataError: there is none, the server cannot be reached, or its counters are wrong.
            MissingExtra: psycopg is not installed.
        """
        connections = Connections(address)
        with connections.reading() as connection:
            gallery = cls(connections, read_row(connection, address.gallery, address.shown))
            if verify:
                gallery._verify(connection)
        return gallery

    @classmethod
    def create(cls, address: DatabaseAddress, source: Gallery, *, overwrite: bool = False) -> PostgresGallery:
        """Keep a gallery in the database, with its ids and its calibration.

        Args:
            address: of the gallery.
            source: what is kept.
            overwrite: replace the gallery of that name; whoever reads it goes on until that is complete.

        Raises:
            DataError: there is one, or the database cannot hold it.
        """
        connections = Connections(address)
        with connections.writing() as connection:
            old = cls._replaced(connections, connection, overwrite=overwrite)
            row = _create_filled(connection, address.gallery, source)
            if old is not None:
                delete_row(connection, old)
            insert_row(connection, row)
        return cls(connections, row)

    @classmethod
    def copy(cls, address: DatabaseAddress, source: Gallery, key: str, *, overwrite: bool = False) -> PostgresGallery:
        """As ``create``, in many transactions: a copy that was interrupted goes on, and nobody sees it before it is complete.

        Args:
            address: of the gallery.
            source: what is copied.
            key: digest of it, in hexadecimal digits, by which an interrupted copy is known again.
            overwrite: replace the gallery of that name.

        Raises:
            DataError: there is one, or the database cannot hold it.
        """
        connections = Connections(address)
        with connections.writing() as connection:
            cls._replaced(connections, connection, overwrite=overwrite)
        return cls(connections, copy_in_steps(connections, source.view(), key, overwrite=overwrite))

    @classmethod
    def replace(
        cls, address: DatabaseAddress, source: Gallery, before: PostgresView, on_replace: Callable[[], None] | None = None
    ) -> bool:  # fmt: skip
        """Put a gallery of another network in the place of one, in one transaction, where that was not changed since a view.

        Whoever has the former one open goes on reading it until ``drop_former``.

        Args:
            address: of the gallery.
            source: what is kept, with its ids and its calibration.
            before: a view of the gallery that ``source`` was made from; it may be closed.
            on_replace: called just before, while nobody else can change the gallery.

        Returns:
            False where it was changed since; nothing is replaced then.

        Raises:
            DataError: there is no such gallery, or the database cannot hold the new one.
        """
        connections = Connections(address)
        try:
            with connections.writing() as connection:
                row = _create_filled(connection, address.gallery, source)  # before others have to wait
                old = read_row(connection, address.gallery, address.shown, lock=True)
                if not before.is_of(old):
                    connection.rollback()
                    return False
                if on_replace is not None:
                    on_replace()
                retire_row(connection, old)
                insert_row(connection, row)
            return True
        finally:
            connections.close()

    @classmethod
    def delete(cls, address: DatabaseAddress) -> None:
        """Delete a gallery with its tables. Raises DataError where there is none."""
        connections = Connections(address)
        with connections.writing() as connection:
            delete_row(connection, read_row(connection, address.gallery, address.shown, lock=True))
            copies = [row for _, row in lock_copies(connection, address.gallery, address.shown)]
            for row in [*lock_former_rows(connection, address.gallery, address.shown, 0.0), *copies]:
                delete_row(connection, row)
        connections.close()

    @classmethod
    def check_new(cls, address: DatabaseAddress, *, overwrite: bool = False) -> None:
        """Find out whether a gallery can be created; errors as of ``create``."""
        connections = Connections(address)
        with connections.writing() as connection:
            cls._replaced(connections, connection, overwrite=overwrite)
        connections.close()

    @staticmethod
    def _replaced(
        connections: Connections, connection: psycopg.Connection[Any], *, overwrite: bool
    ) -> GalleryRow | None:
        """Prepare the database; the gallery that a new one replaces, locked, or None."""
        address = connections.address
        prepare_database(connection, address.shown)
        connections.register(connection)
        old = find_row(connection, address.gallery, address.shown, lock=True)
        if old is not None and not overwrite:
            raise DataError(f"{address.shown} exists", expected="a new gallery",
                            remedy="choose another name or overwrite it")  # fmt: skip
        return old

    # ---- what it is ----

    @property
    def address(self) -> str:
        """The address without secrets."""
        return self._connections.address.shown

    @property
    def state(self) -> GalleryRow:
        """The row of the gallery as it was read last."""
        return self._row

    def _accept(self, row: GalleryRow) -> None:
        """Take over the row of the gallery, which may have been replaced. Raises ModelError for another network."""
        if row.id != self._row.id or row.dim != self._row.dim:
            if row.dim != self._row.dim:
                raise ModelError(f"{self.address} now has width {row.dim}, not {self._row.dim}",
                                 remedy="start again with the network that it was made with")  # fmt: skip
            row.model_identity.check_compatible(self._identity)
        if not row.model_identity.equals(self._row.model_identity):
            self._identity = row.model_identity
        self._row = row

    # ---- reading ----

    def view(self) -> PostgresView:
        """The present state, which holds a connection until it is closed."""
        if self._change is not None:
            return self._change.view()
        psycopg = import_psycopg()
        for _ in range(TRIES):
            with ExitStack() as stack:
                connection = stack.enter_context(self._connections.reading())
                name = self._connections.address.gallery
                try:
                    with connection.pipeline():
                        # Before the row is read: from then on nobody can drop the table, nor rewrite it.
                        connection.execute(f"LOCK TABLE {self._row.vectors_table} IN ACCESS SHARE MODE".encode())
                        row = read_row(connection, name, self.address)
                except psycopg.errors.UndefinedTable:
                    connection.rollback()
                    self._accept(read_row(connection, name, self.address))
                    continue
                if row.id != self._row.id:
                    former = self._former_row(connection, row)
                    if former is None:
                        self._accept(row)
                        continue
                    row = former
                return PostgresView(connection, row, self.address, self._prototypes, stack.pop_all().close)
        raise DataError(f"{self.address} is replaced again and again", remedy="try again")

    def _former_row(self, connection: psycopg.Connection[Any], row: GalleryRow) -> GalleryRow | None:
        """The row of this object's gallery where ``row`` of another network replaced it, and it is kept; else None."""
        try:
            row.model_identity.check_compatible(self._identity)
        except ModelError:
            return find_row_of_id(connection, self._row.id, self.address)
        return None if row.dim == self._row.dim else find_row_of_id(connection, self._row.id, self.address)

    def _prototypes(self, view: PostgresView) -> Prototypes:
        cache, key = self._kept_prototypes, (view.row.id, view.row.revision)
        if cache is not None and cache[:2] == key:
            labels = {number: label for number, label in view.fetch(f"SELECT id, label FROM {view.row.classes_table}")}
            return replace(cache[2], labels_C=tuple(decode_text(labels[number]) for number in cache[2].ids_C.tolist()))
        prototypes = view.read_prototypes()
        self._kept_prototypes = (*key, prototypes)
        return prototypes

    def refresh(self) -> bool:
        """Whether others changed the gallery since; answers always come from its present state."""
        name = self._connections.address.gallery
        with self._connections.reading() as connection:
            if read_changes(connection, name) == (self._row.id, self._row.changes):
                return False
            self._accept(read_row(connection, name, self.address))
        return True

    def drop_former(self, least_s: float = 0.0) -> None:
        """Delete the galleries of another network that this one replaced so many seconds ago or earlier."""
        address = self._connections.address
        with self._connections.writing() as connection:
            for row in lock_former_rows(connection, address.gallery, address.shown, least_s):
                delete_row(connection, row)

    def _verify(self, connection: psycopg.Connection[Any]) -> None:
        row = self._row
        statement = (
            f"SELECT (SELECT count(*) FROM {row.vectors_table}), (SELECT count(*) FROM {row.classes_table}), "
            f"(SELECT count(*) FROM (SELECT class, count(*) AS images FROM {row.vectors_table} GROUP BY class) v "
            f"FULL JOIN {row.classes_table} c ON c.id = v.class WHERE v.images IS DISTINCT FROM c.vectors)"
        )
        counters = connection.execute(statement.encode()).fetchone()
        if counters != (row.vectors, row.classes, 0):
            raise DataError(f"{self.address} is damaged: its counters differ from its tables",
                            remedy="another program changed its tables: restore it from a backup")  # fmt: skip

    # ---- changes ----

    @contextmanager
    def _changing(self) -> Iterator[PostgresChange]:
        """One transaction of changes, or the one that ``change`` began."""
        if self._change is not None:
            yield self._change
            return
        with self._connections.writing() as connection:
            row = read_row(connection, self._connections.address.gallery, self.address, lock=True)
            is_current = (self._row.id, self._row.changes) == (row.id, row.changes)
            if row.id != self._row.id:
                self._accept(row)
            change = PostgresChange(connection, row, self.address)
            self._complete_identity(change, row.model_identity)
            yield change
            if change.row is not row:
                write_row(connection, change.row)
        # What others changed before stays unknown to this object, so that ``refresh`` tells it.
        if is_current:
            self._row, self._identity = change.row, change.row.model_identity

    @contextmanager
    def change(self) -> Iterator[PostgresGallery]:
        """Make several changes one transaction, while others who change the gallery wait.

        Yields:
            The gallery to change, for this thread and inside the block alone.
        """
        with self._changing() as change:
            draft = PostgresGallery(self._connections, change.row)
            draft._change = change
            yield draft

    def close(self) -> None:
        """Close the connections that nobody uses."""
        self._connections.close()

    def open_index(self) -> HnswIndex:
        """The HNSW index, built and measured where there is none yet; others can search meanwhile, but not change."""
        with self.view() as view:
            index = HnswIndex.of(view.row)
        if index is not None:
            return index
        with self._changing() as change:
            check_indexable(change.row)
            with says_if_memory_is_short(change.connection):
                change.connection.execute(index_statement(change.row).encode())
        with self.view() as view:
            index = measure(view)
        with self._changing() as change:
            change.row = replace(change.row, search_index=index.to_dict())
        return index

    def __getstate__(self) -> dict[str, Any]:
        self._require_no_change()
        return {"address": self._connections.address, "row": self._row, "identity": self._identity}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(Connections(state["address"]), state["row"])  # type: ignore[misc]
        self._identity = state["identity"]


def _create_filled(connection: psycopg.Connection[Any], name: str, source: Gallery) -> GalleryRow:
    """Create the tables of a gallery with what another one holds; ``insert_row`` makes it known. Raises DataError."""
    view, snapshot = source.view(), source.snapshot
    row = create_tables(connection, new_row(name, view))
    copy_vectors(connection, row, references(snapshot, insert_classes(connection, row, view.counts())))
    row = write_attributes(connection, row, snapshot.ids_N.tolist(), snapshot.attributes)
    create_indexes(connection, row)
    return row
