"""One state of a gallery in PostgreSQL: searched by the server through pgvector, in one transaction.

Exact search orders all vectors by their inner product with the query. Sums are rounded otherwise than in numpy: scores differ
by less than 2e-6 from those of a gallery's file.

Shape letters: N enrolled vectors, Q queries, K neighbors, C classes, D width, U queries whose second class is not among their
neighbors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.data.class_names import normalize_class_name
from unalike.errors import DataError, closest
from unalike.numerics.nearest_neighbors import EXCLUDED
from unalike.numerics.normalization import l2_normalize
from unalike.recognition.attributes import Where
from unalike.recognition.backends.database_gallery import DatabaseView, named_classes
from unalike.recognition.backends.neighbor_rows import NeighborRows
from unalike.recognition.backends.postgres_attributes import (
    attribute_columns,
    count_attributes,
    passing_condition,
    passing_sets,
    plain_attributes,
    read_attributes,
)
from unalike.recognition.backends.postgres_connections import database_errors
from unalike.recognition.backends.postgres_tables import GalleryRow, decode_text, encode_text
from unalike.recognition.backends.protocol import (
    Entry,
    RankedClasses,
    check_limit,
)
from unalike.recognition.ranking import (
    rank_by_prototype,
)
from unalike.recognition.snapshot import EnrolledNames, GallerySnapshot

if TYPE_CHECKING:
    import psycopg

    from unalike.recognition.backends.hnsw_index import HnswIndex

ROWS_READ = 2000  # of a table that is read whole, at a time


@dataclass(frozen=True, eq=False)
class Prototypes:
    """Means of classes at one revision.

    Attributes:
        ids_C: numbers of the classes.
        labels_C: their names.
        vectors_CD: float32, unit length.
    """

    ids_C: np.ndarray
    labels_C: tuple[str, ...]
    vectors_CD: np.ndarray


class PostgresView(DatabaseView):
    """A gallery as one transaction sees it, for one thread.

    Args:
        connection: in that transaction.
        row: the gallery's row in it.
        display: address of the gallery, for messages.
        prototypes: returns the means of the classes, kept from an earlier view of the same revision perhaps.
        close: ends the transaction.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        row: GalleryRow,
        display: str,
        prototypes: Callable[[PostgresView], Prototypes] | None = None,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.state = self.row = row
        self.connection, self._shown = connection, display
        self._prototypes, self._close = prototypes or PostgresView.read_prototypes, close

    def close(self) -> None:
        """End the transaction."""
        self._close()

    def continues(self, earlier: PostgresView) -> bool:
        """Whether this is a later state of the same gallery, or the same one."""
        return self.row.id == earlier.row.id and self.row.revision >= earlier.row.revision

    def is_unchanged_since(self, earlier: PostgresView) -> bool:
        """Whether nothing of the gallery was changed since another view of it."""
        return earlier.is_of(self.row)

    def is_of(self, row: GalleryRow) -> bool:
        """Whether this is the state of a row; also after the view was closed."""
        return (self.row.id, self.row.changes) == (row.id, row.changes)

    def fetch(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement; its rows. Raises DataError where the server refuses it or is gone."""
        with database_errors(self._shown):
            return self.connection.execute(statement.encode(), parameters, binary=True).fetchall()

    # ---- lists ----

    def counts(self) -> dict[str, int]:
        """Number of vectors of each class."""
        rows = self.fetch(f"SELECT label, vectors FROM {self.row.classes_table} ORDER BY id")
        return {decode_text(label): count for label, count in rows}

    def attributes(self) -> dict[str, dict[str, int]]:
        """Number of references by the name and the value of each attribute."""
        return count_attributes(self)

    def entries(
        self, label: str | None = None, after: int = -1, limit: int = 100, where: Where | None = None
    ) -> list[Entry]:
        """References by ascending id, a page at a time."""
        conditions, sets = ["v.id > %s"], passing_sets(self, where)
        parameters: list[Any] = [after]
        if label is not None:
            conditions, parameters = [*conditions, "v.class = %s"], [*parameters, self.class_number(label)]
        if sets is not None:
            conditions, parameters = [*conditions, f"v.{passing_condition(self.row, '%s')}"], [*parameters, sets]
        attributes, joins = attribute_columns(self.row, "v")
        rows = self.fetch(
            f"SELECT v.id, c.label, v.name, {attributes} FROM {self.row.vectors_table} v JOIN {self.row.classes_table} c "
            f"ON c.id = v.class {joins} WHERE {' AND '.join(conditions)} ORDER BY v.id LIMIT %s",
            [*parameters, check_limit(limit)],
        )
        return [_entry(*row) for row in rows]

    def class_number(self, label: str) -> int:
        """The number of a class. Raises DataError where there is none of this name."""
        name = normalize_class_name(label)
        rows = self.fetch(f"SELECT id FROM {self.row.classes_table} WHERE label = %s", [encode_text(name)])
        if not rows:
            raise DataError(f"no class {label!r} in the gallery", remedy=closest(name, self.counts()))
        return int(rows[0][0])

    def entry(self, id: int) -> Entry | None:
        """The reference with this id; None where there is none."""
        if not 0 <= id < self.row.next_id:
            return None
        entries = self.entries(after=id - 1, limit=1)
        return entries[0] if entries and entries[0].id == id else None

    def ids_of_name(self, name: str) -> list[int]:
        """Ascending ids of the references that were enrolled under this name."""
        return self.ids_of_names([name])[name]

    def ids_of_names(self, names: Sequence[str]) -> dict[str, list[int]]:
        """Ascending ids of the references that were enrolled under each of these names."""
        table, texts = self.row.vectors_table, [encode_text(name) for name in names]
        rows = self.fetch(
            f"SELECT g.number, v.id FROM unnest(%s::text[]) WITH ORDINALITY AS g(name, number) JOIN {table} v "
            "ON normalize(v.name) = normalize(g.name) AND v.name <> '' ORDER BY v.id",
            [texts],
        )
        if "" in texts:
            empty = texts.index("") + 1
            rows += [(empty, *row) for row in self.fetch(f"SELECT id FROM {table} WHERE name = '' ORDER BY id")]
        ids_of: dict[str, list[int]] = {name: [] for name in names}
        for number, id in rows:
            ids_of[names[number - 1]].append(int(id))
        return ids_of

    def first_entries(self, labels: Sequence[str]) -> dict[str, Entry]:
        """The reference with the smallest id of each of these classes."""
        attributes, joins = attribute_columns(self.row, "v")
        rows = self.fetch(
            f"SELECT v.id, c.label, v.name, {attributes} FROM {self.row.classes_table} c CROSS JOIN LATERAL (SELECT id, name FROM "
            f"{self.row.vectors_table} WHERE class = c.id ORDER BY id LIMIT 1) v {joins} WHERE c.label = ANY(%s)",
            [[encode_text(label) for label in labels]],
        )
        return {entry.label: entry for entry in (_entry(*row) for row in rows)}

    def vectors(self, ids: Sequence[int]) -> np.ndarray:
        """float32 (M, D) vectors of the references with these ids."""
        rows = self.fetch(f"SELECT id, vector FROM {self.row.vectors_table} WHERE id = ANY(%s)", [list(ids)])
        vector_of = {number: vector.to_numpy() for number, vector in rows}
        missing = [id for id in ids if id not in vector_of]
        if missing:
            raise DataError(f"no reference {missing[0]} in the gallery")
        chosen_MD = np.empty((len(ids), self.dim), np.float32)
        for row, id in enumerate(ids):
            chosen_MD[row] = vector_of[id]
        return chosen_MD

    # ---- search ----

    def passing_sets(self, where: Where | None) -> list[int] | None:
        """Numbers of the sets of attributes that a filter lets pass; None without a filter."""
        return passing_sets(self, where)

    def find(
        self, vectors_QD: np.ndarray, k: int, index: HnswIndex | None = None, other_than_Q: np.ndarray | None = None,
        sets: Sequence[int] | None = None,
    ) -> NeighborRows:  # fmt: skip
        """Search unit-length queries."""
        conditions = [] if other_than_Q is None else ["class <> %(other_than)s"]
        conditions += [] if sets is None else [passing_condition(self.row)]
        statement = self._statement(index if index is not None and k <= index.most else None, conditions)
        if index is not None:
            index.prepare(self, k)
        from pgvector import Vector

        with database_errors(self._shown):
            with self.connection.pipeline():
                cursors = []
                for q, vector_D in enumerate(vectors_QD):
                    parameters: dict[str, Any] = {"query": Vector(vector_D), "k": k, "sets": sets}
                    if other_than_Q is not None:
                        parameters["other_than"] = int(other_than_Q[q])
                    cursors.append(self.connection.execute(statement.encode(), parameters, binary=True))
            rows_Q = [cursor.fetchall() for cursor in cursors]
        if index is not None:
            index.finish(self)
        return _found(rows_Q, k)

    def _statement(self, index: HnswIndex | None, conditions: Sequence[str]) -> str:
        """The statement of a search. Ordering by a negated distance keeps the server from the index where the search is exact."""
        row = self.row
        vector = f"vector::vector({row.dim})" if row.half else "vector"
        score = f"-({vector} <#> %(query)b)"
        order = f"{score} DESC, id" if index is None else index.order(row)
        condition = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        attributes, joins = attribute_columns(row, "n")
        return (
            f"SELECT n.id, n.class, c.label, n.name, n.score, {attributes} FROM (SELECT id, class, name, {score} AS score "
            f"FROM {row.vectors_table} {condition} ORDER BY {order} LIMIT %(k)s) n "
            f"JOIN {row.classes_table} c ON c.id = n.class {joins} ORDER BY n.score DESC, n.id"
        )

    def rank_by_prototypes(
        self, vectors_QD: np.ndarray, k: int, index: Any, sets: Sequence[int] | None, where: Where | None
    ) -> RankedClasses:
        """Rank the classes by the means of their vectors, which the server computes."""
        nearest = self._search(vectors_QD, k, index, sets=sets)
        prototypes = self._prototypes(self) if sets is None else self.read_prototypes(sets)
        ranking = rank_by_prototype(vectors_QD, prototypes.vectors_CD)
        return named_classes(ranking, dict(enumerate(prototypes.labels_C)), nearest.first(k))

    def read_prototypes(self, sets: Sequence[int] | None = None) -> Prototypes:
        """Compute the means of the classes on the server; with ``sets``, of references with one of these sets of attributes."""
        row = self.row
        condition, parameters = ("", []) if sets is None else (f"WHERE {passing_condition(row, '%s')} ", [list(sets)])
        rows = self.fetch(
            f"SELECT c.id, c.label, m.mean FROM (SELECT class, avg(vector::vector({row.dim})) AS mean FROM {row.vectors_table} "
            f"{condition}GROUP BY class) m JOIN {row.classes_table} c ON c.id = m.class ORDER BY c.id",
            parameters,
        )
        means_CD = np.stack([vector.to_numpy() for _, _, vector in rows])
        ids_C = np.array([number for number, _, _ in rows], np.int64)
        return Prototypes(ids_C, tuple(decode_text(label) for _, label, _ in rows), l2_normalize(means_CD))

    def snapshot(self) -> GallerySnapshot:
        """Read all vectors into memory."""
        row = self.row
        classes = self.fetch(f"SELECT id, label FROM {row.classes_table} ORDER BY id")
        code_of = {number: code for code, (number, _) in enumerate(classes)}
        vectors_ND = np.empty((row.vectors, row.dim), np.float16 if row.half else np.float32)
        codes_N, ids_N, names = np.empty(row.vectors, np.int32), np.empty(row.vectors, np.int64), []
        name_of_cursor = f"unalike_snapshot_{id(self)}"
        with database_errors(self._shown), self.connection.cursor(name_of_cursor, binary=True) as cursor:
            cursor.itersize = ROWS_READ
            cursor.execute(f"SELECT id, class, name, vector FROM {row.vectors_table} ORDER BY id".encode())
            for n, (number, of_class, name, vector) in enumerate(cursor):
                ids_N[n], codes_N[n], vectors_ND[n] = number, code_of[of_class], vector.to_numpy()
                names.append(decode_text(name))
        labels = [decode_text(label) for _, label in classes]
        return GallerySnapshot(vectors_ND, codes_N, ids_N, labels, EnrolledNames(added=names),
                               revision=row.revision, next_id=row.next_id, attributes=read_attributes(self, ids_N))  # fmt: skip


def _entry(id: int, label: str, name: str, attributes: Mapping[str, str] | None) -> Entry:
    return Entry(id, decode_text(label), decode_text(name), plain_attributes(attributes))


def _found(rows_Q: Sequence[Sequence[tuple[Any, ...]]], k: int) -> NeighborRows:
    scores_QK = np.full((len(rows_Q), k), EXCLUDED, np.float32)
    ids_QK, classes_QK = (np.full((len(rows_Q), k), -1, np.int64) for _ in range(2))
    labels: dict[int, str] = {}
    for q, rows in enumerate(rows_Q):
        for rank, (id, number, label, _, score, _) in enumerate(rows):
            scores_QK[q, rank], ids_QK[q, rank], classes_QK[q, rank] = score, id, number
            labels.setdefault(number, decode_text(label))
    entries_QK = tuple(tuple(_entry(row[0], row[2], row[3], row[5]) for row in rows) for rows in rows_Q)
    return NeighborRows(scores_QK, ids_QK, classes_QK, entries_QK, labels)
