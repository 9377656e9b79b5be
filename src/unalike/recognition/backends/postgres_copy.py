"""Copying of references into tables of PostgreSQL: at once, or in transactions of some thousand, so that a copy goes on after a kill.

Until a copy is complete its tables belong to a hidden name, which holds the digest of what is copied; the last transaction gives
them the name of the gallery.

Shape letters: D width of a vector.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.errors import DataError
from unalike.progress import progress, say
from unalike.recognition.backends.postgres_attributes import write_attributes
from unalike.recognition.backends.postgres_connections import Connections
from unalike.recognition.backends.postgres_tables import (
    MAX_DIM,
    GalleryRow,
    copy_vectors,
    create_indexes,
    create_tables,
    decode_text,
    delete_row,
    encode_text,
    find_row,
    find_row_of_id,
    insert_row,
    lock_copies,
    publish_row,
    write_row,
)
from unalike.recognition.snapshot import HALF_ROWS, GallerySnapshot
from unalike.recognition.snapshot_view import SnapshotView

if TYPE_CHECKING:
    import psycopg

BATCH = 8192  # references a transaction


def new_row(name: str, view: SnapshotView) -> GalleryRow:
    """The row of a gallery that holds what a view does. Raises DataError for vectors that PostgreSQL cannot hold."""
    if view.dim > MAX_DIM:
        raise DataError(f"vectors of width {view.dim}", expected=f"at most {MAX_DIM} in PostgreSQL")
    snapshot, (vectors, classes) = view.snapshot(), view.size
    return GalleryRow(
        id=0, name=name, dim=view.dim, half=snapshot.half, vectors=vectors, classes=classes, revision=view.revision,
        next_id=snapshot.next_id, changes=0, model_identity=view.model_identity, calibration=view.calibration, search_index=None,
    )  # fmt: skip


def insert_classes(connection: psycopg.Connection[Any], row: GalleryRow, counts: Mapping[str, int]) -> dict[str, int]:
    """Add classes with their numbers of vectors; the number of each class by its name."""
    numbers = [
        connection.execute(
            f"INSERT INTO {row.classes_table} (label, vectors) VALUES (%s, %s) RETURNING id".encode(),
            [encode_text(label), images],
        ).fetchone()[0]  # type: ignore[index]
        for label, images in counts.items()
    ]
    return dict(zip(counts, numbers, strict=True))


def references(
    snapshot: GallerySnapshot, number_of: Mapping[str, int], first: int = 0, last: int | None = None
) -> Iterator[tuple[int, int, str, np.ndarray]]:
    """(id, number of the class, name, vector (D,)) of the references ``first`` to ``last`` (exclusive) of a snapshot."""
    read_rows, stop = snapshot.reader(), len(snapshot) if last is None else last
    names = snapshot.names if last is not None else snapshot.names.unpack()
    for start in range(first, stop, HALF_ROWS):
        end = min(start + HALF_ROWS, stop)
        for n, vector_D in zip(range(start, end), read_rows(start, end), strict=True):
            label = snapshot.classes[snapshot.codes_N[n]]
            yield int(snapshot.ids_N[n]), number_of[label], names[n], vector_D


def copy_in_steps(connections: Connections, view: SnapshotView, key: str, *, overwrite: bool) -> GalleryRow:
    """Copy a gallery into the database, a transaction a ``BATCH``; an interrupted copy of the same references goes on.

    Args:
        connections: to the database, which is prepared; the address names the gallery.
        view: what is copied.
        key: digest of it.
        overwrite: replace the gallery of that name when the copy is complete.

    Returns:
        The row of the gallery.

    Raises:
        DataError: there is one meanwhile, or the database cannot hold it.
    """
    address, snapshot = connections.address, view.snapshot()
    row = _begun_copy(connections, view, key)
    with connections.reading() as connection:
        classes = connection.execute(f"SELECT label, id FROM {row.classes_table}".encode()).fetchall()
    number_of = {decode_text(label): number for label, number in classes}
    if row.vectors:
        say(f"{address.shown}: the copy goes on at {row.vectors} of {len(snapshot)} references")
    with progress("copying", len(snapshot) - row.vectors, "references") as advance:
        while row.vectors < len(snapshot):
            before = row.vectors
            row = _copy_batch(connections, row, snapshot, number_of)
            advance(row.vectors - before)
    complete = replace(new_row(address.gallery, view), id=row.id, format=row.format)
    with connections.writing() as connection:
        create_indexes(connection, complete)
        old = find_row(connection, address.gallery, address.shown, lock=True)
        if old is not None and not overwrite:
            raise DataError(f"{address.shown} exists", expected="a new gallery",
                            remedy="choose another name or overwrite it")  # fmt: skip
        if old is not None:
            delete_row(connection, old)
        publish_row(connection, complete)
    return complete


def _begun_copy(connections: Connections, view: SnapshotView, key: str) -> GalleryRow:
    """The row of an interrupted copy of the same references, or of a new one; those of other references are deleted."""
    address = connections.address
    with connections.writing() as connection:
        earlier = None
        for other_key, row in lock_copies(connection, address.gallery, address.shown):
            if other_key == key:
                earlier = row
            else:
                delete_row(connection, row)
        if earlier is not None:
            return earlier
        row = create_tables(connection, replace(new_row(address.gallery, view), vectors=0))
        insert_classes(connection, row, view.counts())
        insert_row(connection, row, copy_key=key)
        return row


def _copy_batch(
    connections: Connections, row: GalleryRow, snapshot: GallerySnapshot, number_of: Mapping[str, int]
) -> GalleryRow:
    """Copy the next references in one transaction, while another process that makes the same copy waits."""
    with connections.writing() as connection:
        current = find_row_of_id(connection, row.id, connections.address.shown, lock=True)
        if current is None:
            raise DataError(
                f"{connections.address.shown}: the copy was removed by another process", remedy="copy again"
            )
        first = current.vectors
        last = min(first + BATCH, len(snapshot))
        copy_vectors(connection, current, references(snapshot, number_of, first, last))
        if snapshot.attributes is not None:
            attributes = snapshot.attributes.select(np.arange(first, last))
            current = write_attributes(connection, current, snapshot.ids_N[first:last].tolist(), attributes)
        current = replace(current, vectors=last)
        write_row(connection, current)
    return current
