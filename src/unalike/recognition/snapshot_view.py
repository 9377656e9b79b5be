"""The state of a gallery whose vectors lie in memory or in its file: a snapshot, its calibration and its network.

Shape letters: Q queries, K neighbors, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from unalike.data.class_names import normalize_class_name
from unalike.errors import DataError, closest
from unalike.numerics.arguments import check_count
from unalike.numerics.normalization import l2_normalize, unit_vectors
from unalike.recognition.attributes import Where, check_names, check_where
from unalike.recognition.backends.protocol import (
    Entry,
    GalleryView,
    NearestReferences,
    RankedClasses,
    check_limit,
    no_classes,
    no_neighbors,
)
from unalike.recognition.decision import GalleryCalibration, check_rule
from unalike.recognition.filtered_snapshot import FilteredSnapshot
from unalike.recognition.model_identity import ModelIdentity
from unalike.recognition.ranking import DEPTH, VOTERS, check_vectors, rank_classes
from unalike.recognition.snapshot import GallerySnapshot

if TYPE_CHECKING:
    from unalike.recognition.faiss_index import FaissIndex


class SnapshotView(GalleryView):
    """One state of a ``Gallery``. It costs nothing to make or to keep, and no thread changes it.

    Args:
        snapshot: vectors, classes and names.
        calibration: threshold and margin, or None.
        model_identity: the network that the vectors come from.
    """

    def __init__(
        self, snapshot: GallerySnapshot, calibration: GalleryCalibration | None, model_identity: ModelIdentity
    ) -> None:
        self._snapshot, self._calibration, self._identity = snapshot, calibration, model_identity

    @property
    def dim(self) -> int:
        """Width D of the vectors."""
        return self._snapshot.dim

    @property
    def revision(self) -> int:
        """Number of changes of vectors and of their classes."""
        return self._snapshot.revision

    @property
    def calibration(self) -> GalleryCalibration | None:
        """Threshold and margin, or None."""
        return self._calibration

    @property
    def model_identity(self) -> ModelIdentity:
        """The network that the vectors come from."""
        return self._identity

    @property
    def size(self) -> tuple[int, int]:
        """Number of vectors, and of classes that have one."""
        return len(self._snapshot), int(np.count_nonzero(self._snapshot.counts_C))

    def snapshot(self) -> GallerySnapshot:
        """The vectors, classes and names."""
        return self._snapshot

    def continues(self, earlier: SnapshotView) -> bool:
        """Whether this is a later state of the same gallery, or the same one."""
        return self._snapshot.continues(earlier.snapshot())

    def is_unchanged_since(self, earlier: SnapshotView) -> bool:
        """Whether references and classes are those of another view of the same gallery."""
        return _content(self._snapshot) == _content(earlier.snapshot())

    def counts(self) -> dict[str, int]:
        """Number of vectors of each class."""
        snapshot = self._snapshot
        return {snapshot.classes[code]: int(count) for code, count in enumerate(snapshot.counts_C) if count}

    def attributes(self) -> dict[str, dict[str, int]]:
        """Number of references by the name and the value of each attribute."""
        attributes = self._snapshot.attributes
        return {} if attributes is None else attributes.counts()

    def entries(
        self, label: str | None = None, after: int = -1, limit: int = 100, where: Where | None = None
    ) -> list[Entry]:
        """References by ascending id, a page at a time."""
        snapshot, limit, passing_M = self._snapshot, check_limit(limit), self._passing(where)
        first = int(np.searchsorted(snapshot.ids_N, after, side="right"))
        if passing_M is not None:
            rows = passing_M[np.searchsorted(passing_M, first) :]
            if label is not None:
                rows = rows[snapshot.codes_N[rows] == self._code(label)]
            return self._entries(rows[:limit])
        if label is None:
            return self._entries(np.arange(first, min(first + limit, len(snapshot))))
        return self._entries(np.flatnonzero(snapshot.codes_N[first:] == self._code(label))[:limit] + first)

    def _passing(self, where: Where | None) -> np.ndarray | None:
        """Ascending rows of the references that a filter lets pass; None for no filter."""
        values_by_name, attributes = check_where(where), self._snapshot.attributes
        if values_by_name is None:
            return None
        if attributes is None:
            check_names(values_by_name, ())
        assert attributes is not None
        return attributes.matching_rows(values_by_name)

    def _code(self, label: str) -> int:
        counts = self.counts()
        name = normalize_class_name(label)
        if name not in counts:
            raise DataError(f"no class {label!r} in the gallery", remedy=closest(name, counts))
        return list(self._snapshot.classes).index(name)

    def _entries(self, rows: np.ndarray) -> list[Entry]:
        snapshot = self._snapshot
        return [
            Entry(
                int(snapshot.ids_N[row]),
                snapshot.classes[snapshot.codes_N[row]],
                snapshot.names[row],
                snapshot.attributes_of(row),
            )
            for row in rows.tolist()
        ]

    def entry(self, id: int) -> Entry | None:
        """The reference with this id; None where there is none."""
        ids_N = self._snapshot.ids_N
        row = int(np.searchsorted(ids_N, id))
        return self._entries(np.array([row]))[0] if row < len(ids_N) and ids_N[row] == id else None

    def ids_of_name(self, name: str) -> list[int]:
        """Ascending ids of the references that were enrolled under this name."""
        snapshot = self._snapshot
        return [int(snapshot.ids_N[row]) for row in snapshot.names.rows_of([name], len(snapshot))[name]]

    def first_entries(self, labels: Sequence[str]) -> dict[str, Entry]:
        """The reference with the smallest id of each of these classes."""
        snapshot = self._snapshot
        first_C, classes = snapshot.first_rows_C, snapshot.classes
        code_of = {classes[code]: code for code in np.flatnonzero(snapshot.counts_C).tolist()}
        codes = [code_of[label] for label in labels if label in code_of]
        return {entry.label: entry for entry in self._entries(first_C[codes])}

    def vectors(self, ids: Sequence[int]) -> np.ndarray:
        """float32 (M, D) vectors of the references with these ids."""
        ids_N, ids_M = self._snapshot.ids_N, np.array(ids, np.int64)
        rows_M = np.searchsorted(ids_N, ids_M)
        is_there_M = rows_M < len(ids_N)
        is_there_M[is_there_M] = ids_N[rows_M[is_there_M]] == ids_M[is_there_M]
        if not is_there_M.all():
            raise DataError(f"no reference {ids_M[~is_there_M][0]} in the gallery")
        return self._snapshot.vectors(rows_M)

    def search_others(self, vectors_QD: np.ndarray, label: str) -> NearestReferences:
        """Find for every query the nearest reference of all classes but one."""
        vectors_QD = check_vectors(vectors_QD, self.dim)
        codes_Q = np.full(len(vectors_QD), self._code(label), np.int64)
        return self._nearest(*self._snapshot.search(vectors_QD, 1, self._snapshot.exclude_classes(codes_Q)))

    def search(
        self, vectors_QD: np.ndarray, k: int = 1, index: FaissIndex | None = None, where: Where | None = None
    ) -> NearestReferences:
        """Find the nearest references of every query by cosine."""
        vectors_QD, k, searched = check_vectors(vectors_QD, self.dim), check_count("k", k), self._searched(where)
        if searched is None:
            return no_neighbors(len(vectors_QD))
        scores_QK, rows_QK = self._search(searched, vectors_QD, k, index)
        return self._nearest(scores_QK, _rows_of_gallery(searched, rows_QK))

    def _searched(self, where: Where | None) -> GallerySnapshot | None:
        """The references that a filter lets pass; None where it lets none of them pass."""
        if where is None or not len(self._snapshot):
            return self._snapshot
        rows_M = self._passing(where)
        if rows_M is None:
            return self._snapshot
        return FilteredSnapshot.of(self._snapshot, rows_M) if len(rows_M) else None

    def _search(
        self, searched: GallerySnapshot, vectors_QD: np.ndarray, k: int, index: FaissIndex | None
    ) -> tuple[np.ndarray, np.ndarray]:
        # An index finds the nearest of all references, of which few may pass a filter.
        if index is None or searched is not self._snapshot:
            return searched.search(vectors_QD, k)
        return index.search(l2_normalize(vectors_QD), k, searched)

    def _nearest(self, scores_QK: np.ndarray, rows_QK: np.ndarray) -> NearestReferences:
        snapshot, places_QK = self._snapshot, np.maximum(rows_QK, 0)
        classes, names = snapshot.classes, snapshot.names
        ids_QK, codes_QK = snapshot.ids_N[places_QK], snapshot.codes_N[places_QK]
        entries_QK = tuple(
            tuple(
                Entry(id, classes[code], names[row], snapshot.attributes_of(row))
                for row, id, code in zip(*columns, strict=True)
                if row >= 0
            )
            for columns in zip(rows_QK.tolist(), ids_QK.tolist(), codes_QK.tolist(), strict=True)
        )
        ids_QK[rows_QK < 0] = -1
        return NearestReferences(scores_QK, ids_QK, entries_QK)

    def rank(
        self, vectors_QD: np.ndarray, rule: str = "nearest", voters: int = VOTERS, *, k: int = 1, second: bool = True,
        index: FaissIndex | None = None, where: Where | None = None,
    ) -> RankedClasses:  # fmt: skip
        """Rank the classes for every query, and find its nearest references."""
        check_rule(rule)
        k, voters, searched = check_count("k", k), check_count("voters", voters), self._searched(where)
        vectors_QD = unit_vectors(check_vectors(vectors_QD, self.dim), name="query vectors")
        if searched is None:
            return no_classes(len(vectors_QD))
        depth = k if rule == "prototype" else max(k, voters if rule == "vote" else DEPTH)
        scores_QK, rows_QK = self._search(searched, vectors_QD, depth, index)
        ranking = rank_classes(searched, vectors_QD, rule, voters, neighbors=(scores_QK, rows_QK), second=second)
        classes = searched.classes
        return RankedClasses(
            tuple(classes[code] for code in ranking.code_Q.tolist()),
            tuple(classes[code] if code >= 0 else None for code in ranking.second_Q.tolist()),
            ranking.score_Q,
            ranking.margin_Q,
            self._nearest(scores_QK[:, :k], _rows_of_gallery(searched, rows_QK[:, :k])),
        )


def _rows_of_gallery(searched: GallerySnapshot, rows_QK: np.ndarray) -> np.ndarray:
    return searched.rows_of(rows_QK) if isinstance(searched, FilteredSnapshot) else rows_QK


def _content(snapshot: GallerySnapshot) -> tuple[int, list[int], list[str], bool]:
    """What two states of one gallery differ in: the references with their classes."""
    return snapshot.revision, snapshot.ids_N.tolist(), snapshot.labels_of(snapshot.codes_N), snapshot.half
