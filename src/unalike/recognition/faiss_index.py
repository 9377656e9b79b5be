"""Approximate nearest neighbors through faiss (extra ``ann``), for galleries whose exact search takes too long.

Neighbors that faiss returns are scored again with the gallery's own vectors, so that scores mean the same as those of exact
search. Recall is measured: for a sample of the gallery's own vectors, the share of their true nearest others that is found.

Shape letters: N enrolled vectors, Q queries, K neighbors, D width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unalike.errors import DataError, SpecError, closest, missing_extra
from unalike.metrics.knn import EXCLUDED
from unalike.recognition.gallery import Gallery
from unalike.recognition.snapshot import HALF_ROWS, GallerySnapshot

# What faiss builds: vectors in half precision, in cells around centroids or in a graph.
KINDS = {"cells": "IVF{cells},SQfp16", "graph": "HNSW32_SQfp16"}
# Target recall, the number of neighbors that it counts, and the number of vectors that it is measured on.
RECALL, RECALL_AT, SAMPLE = 0.99, 10, 256
TRAINING_VECTORS = 50  # vectors a cell that the centroids are computed from


@dataclass(frozen=True, eq=False)
class FaissIndex:
    """An approximate index over one state of a gallery.

    Attributes:
        faiss_index: the index of faiss.
        snapshot: the state of the gallery that was indexed.
        kind: ``cells`` or ``graph``.
        effort: cells that a search visits, or candidates that it keeps in a graph.
        recall: measured for ``RECALL_AT`` neighbors, 0..1.
    """

    faiss_index: Any
    snapshot: GallerySnapshot = field(repr=False)
    kind: str
    effort: int
    recall: float

    def to_dict(self) -> dict[str, Any]:
        """Kind, effort, measured recall, and on how many of the gallery's vectors it was measured: plain data."""
        return {"kind": self.kind, "effort": self.effort, "recall": self.recall,
                "neighbours": RECALL_AT, "trials": min(SAMPLE, len(self.snapshot))}  # fmt: skip

    def is_current(self, snapshot: GallerySnapshot) -> bool:
        """Whether ``snapshot`` is the state of the gallery that was indexed."""
        return snapshot is self.snapshot

    def search(self, vectors_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the nearest vectors of unit-length queries.

        Returns:
            (scores_QK, indices_QK), best first; EXCLUDED and -1 where fewer were found.
        """
        k = min(k, len(self.snapshot))
        _, indices_QK = self.faiss_index.search(np.ascontiguousarray(vectors_QD, np.float32), k)
        near_KD = self.snapshot.vectors(np.maximum(indices_QK, 0).ravel()).reshape(*indices_QK.shape, -1)
        scores_QK = np.einsum("qkd,qd->qk", near_KD, vectors_QD).astype(np.float32)
        scores_QK[indices_QK < 0] = EXCLUDED
        order_QK = np.lexsort((indices_QK, -scores_QK), axis=1)
        return np.take_along_axis(scores_QK, order_QK, 1), np.take_along_axis(indices_QK, order_QK, 1)


def build_index(gallery: Gallery, kind: str = "cells", *, recall: float = RECALL, seed: int = 0) -> FaissIndex:
    """Index the present state of a gallery.

    Args:
        gallery: its vectors are indexed; later changes are not seen.
        kind: ``cells`` (inverted file) or ``graph`` (HNSW).
        recall: the effort of a search is raised until this recall (0..1) is measured, as far as it can be.
        seed: draws the training vectors and the vectors that recall is measured on.

    Raises:
        MissingExtra: faiss is not installed.
        DataError: the gallery is empty.
        SpecError: there is no such kind.
    """
    if kind not in KINDS:
        raise SpecError(f"an index of kind {kind!r}", expected=" or ".join(KINDS), remedy=closest(kind, KINDS))
    snapshot = gallery.snapshot
    if not len(snapshot):
        raise DataError("the gallery is empty", remedy="enrol reference images first")
    try:
        import faiss
    except ImportError as error:
        raise missing_extra("faiss", "ann", "approximate search") from error
    count = len(snapshot)
    cells = max(1, min(round(4 * math.sqrt(count)), count // TRAINING_VECTORS))
    faiss_index = faiss.index_factory(snapshot.dim, KINDS[kind].format(cells=cells), faiss.METRIC_INNER_PRODUCT)
    rng = np.random.default_rng(seed)
    faiss_index.train(snapshot.vectors(np.sort(rng.choice(count, min(count, TRAINING_VECTORS * cells), replace=False))))
    read = snapshot.reader()
    for first in range(0, count, HALF_ROWS):
        faiss_index.add(np.ascontiguousarray(read(first, min(first + HALF_ROWS, count))))
    sample_Q = np.sort(rng.choice(count, min(SAMPLE, count), replace=False))
    queries_QD = snapshot.vectors(sample_Q)
    # One more than counts: the nearest of an enrolled vector is itself, which any index finds.
    true_QK = snapshot.search(queries_QD, RECALL_AT + 1)[1]
    inner: Any = faiss.downcast_index(faiss_index)
    effort, largest = 1, cells if kind == "cells" else count
    while True:
        if kind == "cells":
            inner.nprobe = effort
        else:
            inner.hnsw.efSearch = max(effort, RECALL_AT + 1)
        index = FaissIndex(faiss_index, snapshot, kind, effort, 0.0)
        measured = _recall(true_QK, index.search(queries_QD, RECALL_AT + 1)[1], sample_Q)
        if measured >= recall or effort >= largest:
            return FaissIndex(faiss_index, snapshot, kind, effort, measured)
        effort = min(largest, 2 * effort)


def _recall(true_QK: np.ndarray, found_QK: np.ndarray, row_Q: np.ndarray) -> float:
    """Share of the true neighbors that were found, the query itself (``row_Q``) left out."""
    is_found_QK = (true_QK[:, :, None] == found_QK[:, None, :]).any(axis=2)
    counts_QK = true_QK != row_Q[:, None]
    return float(is_found_QK[counts_QK].mean()) if counts_QK.any() else 1.0
