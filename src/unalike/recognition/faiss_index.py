"""Approximate search through faiss (extra ``ann``): for galleries whose exact search takes too long.

What it finds is scored again with the gallery's own vectors, so that scores mean the same as those of exact search; what it
misses is measured: for a sample of the gallery's own vectors, the share of their true nearest others that it finds.

Shape letters: N enrolled vectors, Q queries, K neighbours, D width.
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
# Recall that is aimed at, the neighbours that it counts, and the vectors that it is measured on.
RECALL, RECALL_AT, SAMPLE = 0.99, 10, 256
TRAINED_ON = 50  # vectors a cell that the centroids are computed from


@dataclass(frozen=True, eq=False)
class FaissIndex:
    """An index over one state of a gallery. ``recall`` (0..1) is measured for ``RECALL_AT`` neighbours, at ``effort``."""

    faiss_index: Any
    held: GallerySnapshot = field(repr=False)
    kind: str
    effort: int
    recall: float

    def to_dict(self) -> dict[str, Any]:
        """Kind, effort, measured recall, and on how many of the gallery's vectors it was measured: plain data."""
        return {"kind": self.kind, "effort": self.effort, "recall": self.recall,
                "neighbours": RECALL_AT, "trials": min(SAMPLE, len(self.held))}  # fmt: skip

    def is_current(self, held: GallerySnapshot) -> bool:
        """Whether the gallery is still what was indexed."""
        return held is self.held

    def search(self, vectors_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(scores_QK, indices_QK), best first, of unit vectors; EXCLUDED and -1 where it found fewer."""
        k = min(k, len(self.held))
        _, indices_QK = self.faiss_index.search(np.ascontiguousarray(vectors_QD, np.float32), k)
        near_KD = self.held.vectors(np.maximum(indices_QK, 0).ravel()).reshape(*indices_QK.shape, -1)
        scores_QK = np.einsum("qkd,qd->qk", near_KD, vectors_QD).astype(np.float32)
        scores_QK[indices_QK < 0] = EXCLUDED
        order_QK = np.lexsort((indices_QK, -scores_QK), axis=1)
        return np.take_along_axis(scores_QK, order_QK, 1), np.take_along_axis(indices_QK, order_QK, 1)


def build_index(gallery: Gallery, kind: str = "cells", *, recall: float = RECALL, seed: int = 0) -> FaissIndex:
    """Index the present state of a gallery; the effort of a search is raised until ``recall`` (0..1) is measured.

    Raises MissingExtra without faiss, DataError for an empty gallery.
    """
    if kind not in KINDS:
        raise SpecError(f"an index of kind {kind!r}", expected=" or ".join(KINDS), remedy=closest(kind, KINDS))
    held = gallery.snapshot
    if not len(held):
        raise DataError("the gallery is empty", remedy="enrol reference images first")
    try:
        import faiss
    except ImportError as error:
        raise missing_extra("faiss", "ann", "approximate search") from error
    cells = max(1, min(round(4 * math.sqrt(len(held))), len(held) // TRAINED_ON))
    built = faiss.index_factory(held.dim, KINDS[kind].format(cells=cells), faiss.METRIC_INNER_PRODUCT)
    draws = np.random.default_rng(seed)
    built.train(held.vectors(np.sort(draws.choice(len(held), min(len(held), TRAINED_ON * cells), replace=False))))
    read = held.reader()
    for first in range(0, len(held), HALF_ROWS):
        built.add(np.ascontiguousarray(read(first, min(first + HALF_ROWS, len(held)))))
    sample = np.sort(draws.choice(len(held), min(SAMPLE, len(held)), replace=False))
    queries_QD = held.vectors(sample)
    # One more than counts: the nearest of an enrolled vector is itself, which any index finds.
    true_QK = held.search(queries_QD, RECALL_AT + 1)[1]
    inner: Any = faiss.downcast_index(built)
    effort, most = 1, cells if kind == "cells" else len(held)
    while True:
        if kind == "cells":
            inner.nprobe = effort
        else:
            inner.hnsw.efSearch = max(effort, RECALL_AT + 1)
        index = FaissIndex(built, held, kind, effort, 0.0)
        found = _recall(true_QK, index.search(queries_QD, RECALL_AT + 1)[1], sample)
        if found >= recall or effort >= most:
            return FaissIndex(built, held, kind, effort, found)
        effort = min(most, 2 * effort)


def _recall(true_QK: np.ndarray, found_QK: np.ndarray, row_Q: np.ndarray) -> float:
    """The share of the true neighbours, the query itself left out, that were found."""
    there_QK = (true_QK[:, :, None] == found_QK[:, None, :]).any(axis=2)
    counts_QK = true_QK != row_Q[:, None]
    return float(there_QK[counts_QK].mean()) if counts_QK.any() else 1.0
