"""Changes of a gallery in PostgreSQL within one transaction, which holds the lock of the gallery's row.

Shape letters: M enrolled vectors, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.data.class_names import check_class_name, normalize_class_name
from unalike.errors import DataError, closest
from unalike.numerics.arguments import check_list
from unalike.recognition.attributes import ReferenceAttributes
from unalike.recognition.backends.postgres_attributes import remove_attributes, write_attributes
from unalike.recognition.backends.postgres_tables import GalleryRow, copy_vectors, encode_text
from unalike.recognition.backends.postgres_view import PostgresView
from unalike.recognition.decision import GalleryCalibration
from unalike.recognition.gallery_change import checked_removal
from unalike.recognition.model_identity import ModelIdentity

if TYPE_CHECKING:
    import psycopg


class PostgresChange:
    """The changes of one transaction. What does not exist is refused before anything is changed.

    Args:
        connection: in a transaction that locked the row.
        row: of the gallery.
        display: address of the gallery, for messages.

    Attributes:
        row: the row after the changes; the end of the transaction writes it.
    """

    def __init__(self, connection: psycopg.Connection[Any], row: GalleryRow, display: str) -> None:
        self.connection, self.row, self._shown = connection, row, display

    def view(self) -> PostgresView:
        """The state with the changes so far."""
        return PostgresView(self.connection, self.row, self._shown)

    def _count(self, *, vectors: int = 0, classes: int = 0, revision: int = 0, ids: int = 0) -> None:
        """Add to the counters of the row."""
        row = self.row
        self.row = replace(row, vectors=row.vectors + vectors, classes=row.classes + classes,
                           revision=row.revision + revision, next_id=row.next_id + ids, changes=row.changes + 1)  # fmt: skip

    def set_calibration(self, calibration: GalleryCalibration | None) -> None:
        """Give the gallery another calibration, or none."""
        self.row = replace(self.row, calibration=calibration)
        self._count()

    def set_identity(self, identity: ModelIdentity) -> None:
        """Write what is known of the network."""
        if not identity.equals(self.row.model_identity):
            self.row = replace(self.row, model_identity=identity)
            self._count()

    def enrol(
        self,
        vectors_MD: np.ndarray,
        labels: Sequence[str],
        names: Sequence[str],
        attributes: ReferenceAttributes | None = None,
    ) -> list[int]:
        """Add references whose values were checked; their ids. Raises DataError for too many different attributes."""
        ids = list(range(self.row.next_id, self.row.next_id + len(labels)))
        self.row = write_attributes(self.connection, self.row, ids, attributes)
        row, images = self.row, dict.fromkeys(labels, 0)
        for label in labels:
            images[label] += 1
        rows = self.connection.execute(
            f"INSERT INTO {row.classes_table} AS c (label, vectors) SELECT label, vectors FROM "
            "unnest(%s::text[], %s::bigint[]) WITH ORDINALITY AS g(label, vectors, number) ORDER BY number "
            "ON CONFLICT (label) DO UPDATE SET vectors = c.vectors + excluded.vectors RETURNING id, label, vectors".encode(),
            [[encode_text(label) for label in images], list(images.values())],
        ).fetchall()
        number_of = {label: number for number, label, _ in rows}
        numbers = [number_of[encode_text(label)] for label in labels]
        copy_vectors(self.connection, row, zip(ids, numbers, names, vectors_MD, strict=True))
        count_of = {encode_text(label): count for label, count in images.items()}
        new = sum(total == count_of[label] for _, label, total in rows)
        self._count(vectors=len(labels), classes=new, revision=1, ids=len(labels))
        return ids

    def remove(self, labels: Sequence[str], names: Sequence[str], ids: Sequence[int]) -> int:
        """Remove classes and single references; the number of vectors removed."""
        labels, names, ids = checked_removal(labels, names, ids)
        view, row = self.view(), self.row
        classes = [view.class_number(label) for label in labels]
        id_set = set(ids)
        for name, matches in (view.ids_of_names(list(dict.fromkeys(names))) if names else {}).items():
            if not matches:
                names_there = [entry.name for entry in view.entries(limit=10_000)]
                raise DataError(f"no image {name!r} in the gallery", remedy=closest(name, names_there))
            id_set.update(matches)
        there = view.fetch(f"SELECT id FROM {row.vectors_table} WHERE id = ANY(%s)", [sorted(id_set)]) if id_set else []
        if missing := id_set - {number for (number,) in there}:
            raise DataError(f"no image of id {min(missing)} in the gallery")
        if not classes and not id_set:
            return 0
        remove_attributes(self.connection, row, classes, sorted(id_set))
        images = view.fetch(
            f"WITH removed AS (DELETE FROM {row.vectors_table} WHERE class = ANY(%s) OR id = ANY(%s) RETURNING class) "
            "SELECT class, count(*) FROM removed GROUP BY class",
            [classes, sorted(id_set)],
        )
        if images:
            self._add_images({number: -count for number, count in images})
        return sum(count for _, count in images)

    def _add_images(self, images: dict[int, int]) -> None:
        """Count vectors that classes, by their numbers, got or lost; a class without any is none."""
        table = self.row.classes_table
        self.connection.execute(
            f"UPDATE {table} c SET vectors = c.vectors + g.images FROM unnest(%s::bigint[], %s::bigint[]) AS g(id, images) "
            "WHERE g.id = c.id".encode(),
            [list(images), list(images.values())],
        )
        statement = f"DELETE FROM {table} WHERE vectors = 0 AND id = ANY(%s)"
        count = self.connection.execute(statement.encode(), [list(images)]).rowcount
        self._count(vectors=sum(images.values()), classes=-count, revision=1)

    def rename(self, label: str, new: str) -> None:
        """Rename a class."""
        view, row = self.view(), self.row
        number = view.class_number(label)
        label, new = normalize_class_name(label), check_class_name(new)
        if new == label:
            return
        if view.fetch(f"SELECT id FROM {row.classes_table} WHERE label = %s", [encode_text(new)]):
            raise DataError(f"{new!r} is in the gallery already", remedy=f"merge {label!r} into it instead")
        self._set_label(number, new)
        self._count()

    def _set_label(self, number: int, label: str) -> None:
        statement = f"UPDATE {self.row.classes_table} SET label = %s WHERE id = %s"
        self.connection.execute(statement.encode(), [encode_text(label), number])

    def merge(self, labels: Sequence[str], into: str) -> int:
        """Merge classes into ``into``, which may be new; the number of vectors whose class changed."""
        view, row, into = self.view(), self.row, normalize_class_name(into)
        names = check_list("labels", labels, "a class name", ordered=False)
        merged = [name for label in names if (name := normalize_class_name(label)) != into]
        numbers = [view.class_number(label) for label in merged]
        if not numbers:
            raise DataError("nothing to merge", expected="at least one class other than the one to merge into")
        matches = view.fetch(f"SELECT id FROM {row.classes_table} WHERE label = %s", [encode_text(into)])
        if not matches:
            check_class_name(into)
        target = int(matches[0][0]) if matches else numbers[0]
        images: dict[int, int] = dict(
            view.fetch(f"SELECT id, vectors FROM {row.classes_table} WHERE id = ANY(%s)", [numbers])
        )
        moves = {number: -count for number, count in images.items() if number != target}
        statement = f"UPDATE {row.vectors_table} SET class = %s WHERE class = ANY(%s)"
        self.connection.execute(statement.encode(), [target, list(moves)])
        self._add_images({**moves, target: -sum(moves.values())})
        if not matches:
            self._set_label(target, into)
        return sum(images.values())
