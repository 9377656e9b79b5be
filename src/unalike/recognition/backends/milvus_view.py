"""One state of a gallery in Milvus, searched by the server; what is written later is left out by an expression.

Milvus finds candidates by exact search (index FLAT), or by HNSW where the gallery has such an index and is asked for it. Their scores are computed again here from the vectors, so that equal ones
come by their ids, and more candidates are asked for until none that is left out can belong to the nearest.

Shape letters: N enrolled vectors, M chosen ones, Q queries, K neighbors, C candidates, D width, U queries whose second class is
not among their neighbors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from unalike.data.class_names import normalize_class_name
from unalike.errors import DataError, closest
from unalike.numerics.nearest_neighbors import EXCLUDED
from unalike.recognition.attributes import AttributeSets, ReferenceAttributes, Where, count_values
from unalike.recognition.backends.database_gallery import DatabaseView
from unalike.recognition.backends.milvus_connection import MOST_ROWS, CollectionGone, MilvusConnection
from unalike.recognition.backends.milvus_index import MilvusIndex
from unalike.recognition.backends.milvus_lock import read_listing
from unalike.recognition.backends.milvus_rows import (
    FACTS,
    INDEXED,
    READ_BYTES,
    Row,
    name_key,
    name_of,
    read_rows,
    rows_of_ids,
)
from unalike.recognition.backends.milvus_state import ClassTable, MilvusState
from unalike.recognition.backends.neighbor_rows import NeighborRows
from unalike.recognition.backends.postgres_tables import encode_text
from unalike.recognition.backends.protocol import (
    Entry,
    RankedClasses,
    check_limit,
)
from unalike.recognition.filtered_snapshot import FilteredSnapshot
from unalike.recognition.snapshot import EnrolledNames, GallerySnapshot
from unalike.recognition.snapshot_view import SnapshotView

Answer = TypeVar("Answer")
LIFETIME_S = 3600.0  # of a view; rows that were removed are kept for twice as long
MORE = 16  # candidates beyond the neighbors that are asked for, at first
# Two sums of products of one pair of unit vectors, in float32 and in whatever order, differ by less.
ROUNDING = 2e-5


class MilvusView(DatabaseView):
    """A gallery at one commit. It costs the server nothing; after an hour it is refused, since what it reads may be gone.

    Args:
        connection: to the server.
        collection: of vectors.
        state: what is read.
        classes: returns the table of classes of the state.
        snapshot: returns all vectors, which are kept from an earlier view of the same state perhaps.
    """

    state: MilvusState

    def __init__(
        self,
        connection: MilvusConnection,
        collection: str,
        state: MilvusState,
        classes: Callable[[], ClassTable],
        snapshot: Callable[[MilvusView], GallerySnapshot] | None = None,
    ) -> None:
        self.connection, self.collection, self.state = connection, collection, state
        self._read_classes, self._snapshot = classes, snapshot or MilvusView.read_snapshot
        self._table: ClassTable | None = None
        self._made = time.monotonic(), time.time()

    def continues(self, earlier: MilvusView) -> bool:
        """Whether this is a later state of the same gallery, or the same one."""
        return self.state.uid == earlier.state.uid and self.state.revision >= earlier.state.revision

    def is_unchanged_since(self, earlier: MilvusView) -> bool:
        """Whether nothing of the gallery was changed since another view of it."""
        return earlier.is_of(self.state.uid, self.state.commit)

    def is_of(self, uid: str, commit: int) -> bool:
        """Whether this is the state of a commit."""
        return (self.state.uid, self.state.commit) == (uid, commit)

    def table(self) -> ClassTable:
        """The table of classes. Raises DataError where the view is too old, as all that reads from the server does."""
        if max(time.monotonic() - self._made[0], time.time() - self._made[1]) > LIFETIME_S:
            raise DataError(f"a view of {self.connection.address.shown} that is older than an hour",
                            remedy="take a new view of the gallery")  # fmt: skip
        if self._table is None:
            self._table = self._read_classes()
        return self._table

    def _query(self, condition: str, fields: Sequence[str]) -> list[Row]:
        return self._ask(lambda collection: self.connection.query(collection, condition, fields))

    def _hits(
        self, vectors_QD: np.ndarray, condition: str, limit: int, candidates: int | None = None
    ) -> list[list[Row]]:
        """Hits of exact search; with a number of candidates those of the index."""
        fields = (*FACTS, "vector")
        by: dict[str, Any] = {} if candidates is None else {"field": INDEXED, "parameters": {"ef": candidates}}
        return self._ask(lambda name: self.connection.search(name, list(vectors_QD), condition, limit, fields, **by))

    def _ask(self, call: Callable[[str], Answer]) -> Answer:
        """Ask the collection of vectors, which gets another name when somebody who changes the gallery no longer answers."""
        try:
            return call(self.collection)
        except CollectionGone:
            present = read_listing(self.connection).vectors.get(self.state.uid)
            if present is None:
                raise
            self.collection = present
        return call(self.collection)

    # ---- lists ----

    def counts(self) -> dict[str, int]:
        """Number of vectors of each class."""
        return self.table().counts()

    def attributes(self) -> dict[str, dict[str, int]]:
        """Number of references by the name and the value of each attribute."""
        return count_values(self.table().sets.values())

    def entries(
        self, label: str | None = None, after: int = -1, limit: int = 100, where: Where | None = None
    ) -> list[Entry]:
        """References by ascending id, a page at a time."""
        limit, sets = check_limit(limit), self.table().passing_sets(where)
        conditions = [] if sets is None else [f"attributes in {sets}"]
        if label is not None:
            conditions.append(f"class in {self.table().members(self.class_number(label))}")
        entries: list[Entry] = []
        for row in self.rows(FACTS, " and ".join(conditions), after) if sets != [] else ():
            entries.append(self._entry(row))
            if len(entries) == limit:
                break
        return entries

    def rows(self, fields: Sequence[str], condition: str = "", after: int = -1) -> Any:
        """Rows of the vectors by ascending id."""
        self.table()
        return read_rows(self._query, self.state, fields, condition, after)

    def rows_of_ids(self, ids: Sequence[int], fields: Sequence[str]) -> dict[int, Row]:
        """Rows of references by their ids; those that do not exist are left out."""
        self.table()
        within = [id for id in ids if 0 <= id < self.state.next_id]
        return rows_of_ids(self._query, self.state, within, fields)

    def _entry(self, row: Row) -> Entry:
        table = self.table()
        label = table.classes[table.target(row["class"])][0]
        return Entry(int(row["id"]), label, name_of(row), table.attributes_of(row["attributes"]))

    def class_number(self, label: str) -> int:
        """The number of a class. Raises DataError where there is none of this name."""
        name, number_of = normalize_class_name(label), self.table().number_of()
        if name not in number_of:
            raise DataError(f"no class {label!r} in the gallery", remedy=closest(name, number_of))
        return number_of[name]

    def entry(self, id: int) -> Entry | None:
        """The reference with this id; None where there is none."""
        rows = self.rows_of_ids([id], FACTS)
        return self._entry(rows[id]) if id in rows else None

    def ids_of_name(self, name: str) -> list[int]:
        """Ascending ids of the references that were enrolled under this name."""
        return [int(row["id"]) for row in self.rows((), f'name_key == "{name_key(name)}"')]

    def first_entries(self, labels: Sequence[str]) -> dict[str, Entry]:
        """The reference with the smallest id of each of these classes."""
        table, number_of = self.table(), self.table().number_of()
        numbers = {number_of[label] for label in labels if label in number_of}
        first: dict[str, Entry] = {}
        if numbers:
            members = [member for number in numbers for member in table.members(number)]
            for row in self.rows(FACTS, f"class in {members}"):
                entry = self._entry(row)
                first.setdefault(entry.label, entry)
                if len(first) == len(numbers):
                    break
        return first

    def vectors(self, ids: Sequence[int]) -> np.ndarray:
        """float32 (M, D) vectors of the references with these ids."""
        rows = self.rows_of_ids(list(ids), ("vector",))
        missing = [id for id in ids if id not in rows]
        if missing:
            raise DataError(f"no reference {missing[0]} in the gallery")
        chosen_MD = np.empty((len(ids), self.dim), np.float32)
        for row, id in enumerate(ids):
            chosen_MD[row] = rows[id]["vector"]
        return chosen_MD

    # ---- search ----

    def passing_sets(self, where: Where | None) -> list[int] | None:
        """Numbers of the sets of attributes that a filter lets pass; None without a filter."""
        return self.table().passing_sets(where)

    def find(
        self, vectors_QD: np.ndarray, k: int, index: Any = None, other_than_Q: np.ndarray | None = None,
        sets: Sequence[int] | None = None,
    ) -> NeighborRows:  # fmt: skip
        """Search unit-length queries."""
        neighbors: list[list[tuple[Row, float]]] = [[] for _ in vectors_QD]
        if index is not None and other_than_Q is None and sets is None and k <= index.most:
            neighbors = self._nearest_by_index(vectors_QD, k, index)
        elif other_than_Q is None:
            neighbors = self._nearest(vectors_QD, k, None, sets)
        else:
            for number in np.unique(other_than_Q).tolist():
                rows_R = np.flatnonzero(other_than_Q == number)
                for q, hits in zip(rows_R.tolist(), self._nearest(vectors_QD[rows_R], k, number, sets), strict=True):
                    neighbors[q] = hits
        return self._arrange(neighbors, k)

    def _nearest(
        self, vectors_QD: np.ndarray, k: int, other_than: int | None, sets: Sequence[int] | None
    ) -> list[list[tuple[Row, float]]]:
        """(row, score) of the nearest of each query, with the filters of ``_search``; all of them where there are fewer than ``k``."""
        condition, total = self._filtered(other_than, sets)
        k, neighbors = min(k, total), {}
        waiting, limit = list(range(len(vectors_QD))), min(k + MORE, total)
        while waiting and k:
            if limit > MOST_ROWS:
                return self._nearest_in_memory(vectors_QD, k, other_than, sets)
            step = max(1, min(MOST_ROWS // 16, READ_BYTES // (limit * (4 * self.dim + 64))))
            for first in range(0, len(waiting), step):
                part = waiting[first : first + step]
                hits_P = self._hits(vectors_QD[part], condition, limit)
                for q, hits in zip(part, hits_P, strict=True):
                    if len({hit["entity"]["id"] for hit in hits}) < limit:
                        raise DataError(f"{self.connection.address.shown}: the server gave {len(hits)} hits, not {limit} references",
                                        remedy="check the server; nothing is answered from a part of the gallery")  # fmt: skip
                    if (nearest := _complete(hits, vectors_QD[q], k, limit == total)) is not None:
                        neighbors[q] = nearest
            waiting = [q for q in waiting if q not in neighbors]
            limit = min(total, 4 * limit if limit >= MOST_ROWS else min(MOST_ROWS, 4 * limit))
        return [neighbors.get(q, []) for q in range(len(vectors_QD))]

    def _nearest_by_index(self, vectors_QD: np.ndarray, k: int, index: MilvusIndex) -> list[list[tuple[Row, float]]]:
        """As ``_nearest`` without filters, by the index; exactly for a query of which it finds too few."""
        condition, limit = self.state.condition, min(k + MORE, index.most, self.state.vectors)
        neighbors: list[list[tuple[Row, float]]] = []
        step = max(1, min(MOST_ROWS // 16, READ_BYTES // (limit * (4 * self.dim + 64))))
        for first in range(0, len(vectors_QD), step):
            hits_P = self._hits(vectors_QD[first : first + step], condition, limit, index.candidates(limit))
            neighbors += [_ranked(hits, vectors_QD[q], k) for q, hits in enumerate(hits_P, first)]
        few = [q for q, nearest in enumerate(neighbors) if len(nearest) < k]
        if few:
            for q, nearest in zip(few, self._nearest(vectors_QD[few], k, None, None), strict=True):
                neighbors[q] = nearest
        return neighbors

    def _filtered(self, other_than: int | None, sets: Sequence[int] | None) -> tuple[str, int]:
        """The expression of a search, and the number of references that it selects."""
        table, conditions, total = self.table(), [self.state.condition], self.state.vectors
        if other_than is not None:
            conditions.append(f"class not in {table.members(other_than)}")
            total -= table.classes[other_than][1]
        if sets is not None:
            conditions.append(f"attributes in {list(sets)}")
            total = sum(table.sets[number][1] for number in sets)
        condition = " and ".join(conditions)
        if other_than is not None and sets is not None:
            total = int(self._query(condition, ["count(*)"])[0]["count(*)"])
        return condition, total

    def _nearest_in_memory(
        self, vectors_QD: np.ndarray, k: int, other_than: int | None, sets: Sequence[int] | None
    ) -> list[list[tuple[Row, float]]]:
        """As ``_nearest``, by reading all vectors: for more neighbors, or more equal ones, than Milvus gives."""
        snapshot, table = self.snapshot(), self.table()
        searched, numbers, set_numbers = snapshot, sorted(table.classes), [0, *sorted(table.sets)]
        set_codes_N = np.full(len(snapshot), -1) if snapshot.attributes is None else snapshot.attributes.codes_N
        if sets is not None:
            passes_N = np.isin(set_codes_N, [set_numbers.index(number) - 1 for number in sets])
            searched = FilteredSnapshot.of(snapshot, np.flatnonzero(passes_N))
        codes_Q = np.full(len(vectors_QD), -1 if other_than is None else numbers.index(other_than), np.int64)
        scores_QK, rows_QK = searched.search(vectors_QD, k, searched.exclude_classes(codes_Q))
        rows_QK = searched.rows_of(rows_QK) if isinstance(searched, FilteredSnapshot) else rows_QK

        def plain(row: int) -> Row:
            return {"id": int(snapshot.ids_N[row]), "class": numbers[snapshot.codes_N[row]],
                    "name": encode_text(snapshot.names[row]), "attributes": set_numbers[set_codes_N[row] + 1]}  # fmt: skip

        return [
            [(plain(row), score) for row, score in zip(rows, scores, strict=True) if row >= 0]
            for rows, scores in zip(rows_QK.tolist(), scores_QK.tolist(), strict=True)
        ]

    def _arrange(self, neighbors: Sequence[Sequence[tuple[Row, float]]], k: int) -> NeighborRows:
        table = self.table()
        scores_QK = np.full((len(neighbors), k), EXCLUDED, np.float32)
        ids_QK, classes_QK = (np.full((len(neighbors), k), -1, np.int64) for _ in range(2))
        entries_QK, labels = [], {number: label for number, (label, _) in table.classes.items()}
        for q, hits in enumerate(neighbors):
            entries = []
            for rank, (row, score) in enumerate(hits):
                number = table.target(row["class"])
                scores_QK[q, rank], ids_QK[q, rank], classes_QK[q, rank] = score, row["id"], number
                entries.append(self._entry(row))
            entries_QK.append(tuple(entries))
        return NeighborRows(scores_QK, ids_QK, classes_QK, tuple(entries_QK), labels)

    def rank_by_prototypes(
        self, vectors_QD: np.ndarray, k: int, index: Any, sets: Sequence[int] | None, where: Where | None
    ) -> RankedClasses:
        """Rank the classes by the means of their vectors, which are read once a state."""
        in_memory = SnapshotView(self.snapshot(), self.calibration, self.model_identity)
        return in_memory.rank(vectors_QD, "prototype", k=k, where=where)

    def snapshot(self) -> GallerySnapshot:
        """All vectors, in memory."""
        self.table()
        return self._snapshot(self)

    def read_snapshot(self) -> GallerySnapshot:
        """Read all vectors into memory. Raises DataError where their number is not that of the state."""
        state, table = self.state, self.table()
        numbers, set_numbers = sorted(table.classes), sorted(table.sets)
        code_of = {number: code for code, number in enumerate(numbers)}
        set_code_of = {0: -1, **{number: code for code, number in enumerate(set_numbers)}}
        vectors_ND = np.empty((state.vectors, state.dim), np.float16 if state.half else np.float32)
        codes_N, set_codes_N = (np.empty(state.vectors, np.int32) for _ in range(2))
        ids_N, names = np.empty(state.vectors, np.int64), list[str]()
        for row in self.rows((*FACTS, "vector")):
            n = len(names)
            if n < state.vectors:
                ids_N[n], codes_N[n], vectors_ND[n] = row["id"], code_of[table.target(row["class"])], row["vector"]
                set_codes_N[n] = set_code_of[row["attributes"]]
            names.append(name_of(row))
        if len(names) != state.vectors:
            raise DataError(f"{self.connection.address.shown} is damaged: {len(names)} vectors in place of {state.vectors}",
                            remedy="another program changed its collections: restore it from a copy")  # fmt: skip
        sets = AttributeSets([table.sets[number][0] for number in set_numbers])
        return GallerySnapshot(
            vectors_ND, codes_N, ids_N, [table.classes[number][0] for number in numbers], EnrolledNames(added=names),
            revision=state.revision, next_id=state.next_id,
            attributes=ReferenceAttributes(sets, set_codes_N) if set_numbers else None,
        )  # fmt: skip


def _complete(
    hits: Sequence[dict[str, Any]], query_D: np.ndarray, k: int, is_all: bool
) -> list[tuple[Row, float]] | None:
    """The k nearest of the candidates by score and id; None where another reference may be as near as they are."""
    nearest = _ranked(hits, query_D, k)
    if not is_all and nearest[-1][1] - float(hits[-1]["distance"]) <= ROUNDING:
        return None
    return nearest


def _ranked(hits: Sequence[dict[str, Any]], query_D: np.ndarray, k: int) -> list[tuple[Row, float]]:
    """The k nearest of the candidates by score and id."""
    if not hits:
        return []
    candidates_CD = np.array([hit["entity"]["vector"] for hit in hits], np.float64)
    # Each row is summed for itself, in one order: equal vectors have equal scores.
    scores_C = (candidates_CD * query_D.astype(np.float64)).sum(axis=1).astype(np.float32)
    order = sorted(range(len(hits)), key=lambda c: (-scores_C[c], hits[c]["entity"]["id"]))[:k]
    return [(hits[c]["entity"], float(scores_C[c])) for c in order]
