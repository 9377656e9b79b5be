"""A memory of patch vectors and how far new ones lie from it: exact in bounded memory, or through faiss (extra ``ann``).

Distances are Euclidean. Shape letters: M remembered vectors, Q queries, F width, K neighbours.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unalike.errors import DataError, SpecError, missing_extra

# Distances held at once, as float32.
CHUNK_BYTES = 32 * 2**20
QUERY_ROWS = 1024
SEARCHES = ("exact", "ann")
# Below this many vectors the product is faster than any index.
WORTH_INDEXING = 2000
# Neighbours in faiss' graph, and how far a search looks: measured recall of the nearest 0.99 and above (2026-11-26).
LINKS, EFFORT = 32, 64


class PatchMemory:
    """``vectors_MF`` (float32) and the search over them. Any number of threads may ask it."""

    def __init__(self, vectors_MF: np.ndarray, search: str = "exact") -> None:
        self.vectors_MF = np.ascontiguousarray(vectors_MF, np.float32)
        if self.vectors_MF.ndim != 2 or not len(self.vectors_MF):
            raise DataError(f"a memory of shape {self.vectors_MF.shape}", expected="at least one vector")
        if not np.isfinite(self.vectors_MF).all():
            raise DataError("the memory holds NaN or infinity", remedy="fit it again, in fp32")
        if search not in SEARCHES:
            raise SpecError(f"search {search!r}", expected=" or ".join(SEARCHES))
        self.search = search
        self._squared_M = np.einsum("mf,mf->m", self.vectors_MF, self.vectors_MF)
        self._index: Any = None
        if search == "ann":
            self._index = self._build()

    def __len__(self) -> int:
        return len(self.vectors_MF)

    @property
    def width(self) -> int:
        """F."""
        return int(self.vectors_MF.shape[1])

    def _build(self) -> Any:
        try:
            import faiss
        except ImportError as error:
            raise missing_extra("faiss", "ann", "search ann") from error
        if len(self) < WORTH_INDEXING:
            return None
        index = faiss.IndexHNSWFlat(self.width, LINKS)
        index.hnsw.efConstruction = 2 * EFFORT
        index.add(self.vectors_MF)
        index.hnsw.efSearch = EFFORT
        return index

    def nearest(self, queries_QF: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """(distances_QK float32, indices_QK int64), nearest first; equal ones by index. K is k, or M where that is less.

        Exact search holds ``CHUNK_BYTES`` of distances at a time, whatever Q and M. Raises DataError for another width.
        """
        queries_QF = np.ascontiguousarray(queries_QF, np.float32)
        if queries_QF.ndim != 2 or queries_QF.shape[1] != self.width:
            raise DataError(f"patches of shape {queries_QF.shape}", expected=f"(any, {self.width})")
        k = min(k, len(self))
        if self._index is not None:
            squared_QK, index_QK = self._index.search(queries_QF, k)
            return np.sqrt(np.maximum(squared_QK, 0)), index_QK
        distance_QK = np.empty((len(queries_QF), k), np.float32)
        index_QK = np.empty((len(queries_QF), k), np.int64)
        columns = max(k, CHUNK_BYTES // (4 * QUERY_ROWS))
        for top in range(0, len(queries_QF), QUERY_ROWS):
            rows = slice(top, top + QUERY_ROWS)
            distance_QK[rows], index_QK[rows] = self._scan(queries_QF[rows], k, columns)
        return distance_QK, index_QK

    def _scan(self, queries_QF: np.ndarray, k: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
        own_Q1 = np.einsum("qf,qf->q", queries_QF, queries_QF)[:, None]
        best_QK = np.full((len(queries_QF), k), np.inf, np.float32)
        place_QK = np.full((len(queries_QF), k), -1, np.int64)
        for left in range(0, len(self), columns):
            part_MF = self.vectors_MF[left : left + columns]
            tile_QM = queries_QF @ part_MF.T
            tile_QM *= -2
            tile_QM += self._squared_M[left : left + columns]
            if k == 1:
                found_QK = tile_QM.argmin(axis=1)[:, None]
            else:
                kept = min(k, tile_QM.shape[1])
                found_QK = np.argpartition(tile_QM, kept - 1, axis=1)[:, :kept]
            candidates = np.concatenate([best_QK, np.take_along_axis(tile_QM, found_QK, 1)], axis=1)
            places = np.concatenate([place_QK, found_QK + left], axis=1)
            order_QK = np.lexsort((places, candidates), axis=1)[:, :k]
            best_QK = np.take_along_axis(candidates, order_QK, 1)
            place_QK = np.take_along_axis(places, order_QK, 1)
        return np.sqrt(np.maximum(best_QK + own_Q1, 0)), place_QK
