"""Memory bank: patch vectors of normal images, and exact or faiss nearest-neighbor search among them.

Search is exact in bounded memory, or approximate through faiss (extra ``ann``). Distances are Euclidean.

Shape letters: M vectors in the bank, Q queries, F their width, K neighbors.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unalike.engines.process_local import ForkCheck, limit_faiss_threads
from unalike.errors import DataError, SpecError, missing_extra

# Bytes of distances (float32) in memory at once, and queries of one block.
CHUNK_BYTES = 32 * 2**20
QUERY_ROWS = 1024
SEARCHES = ("exact", "ann")
# Below this many vectors the matrix product is faster than any index.
MIN_INDEXED = 2000
# Links of each vector in faiss' HNSW graph, and the width of its search: recall of the nearest 0.99 and above (2026-11-26).
HNSW_LINKS, HNSW_SEARCH_WIDTH = 32, 64


class MemoryBank:
    """Patch vectors and the search over them. Safe for any number of threads.

    Args:
        vectors_MF: At least one vector, finite; kept as float32.
        search: ``exact`` or ``ann``.

    Raises:
        DataError: No vector, or NaN or infinity among them.
        SpecError: An unknown ``search``.
        MissingExtra: ``ann`` without faiss.
    """

    def __init__(self, vectors_MF: np.ndarray, search: str = "exact") -> None:
        self.vectors_MF = np.ascontiguousarray(vectors_MF, np.float32)
        if self.vectors_MF.ndim != 2 or not len(self.vectors_MF):
            raise DataError(f"a memory bank of shape {self.vectors_MF.shape}", expected="at least one vector")
        if not np.isfinite(self.vectors_MF).all():
            raise DataError("the memory bank holds NaN or infinity", remedy="fit it again, in fp32")
        if search not in SEARCHES:
            raise SpecError(f"search {search!r}", expected=" or ".join(SEARCHES))
        self.search = search
        self._squared_M = np.einsum("mf,mf->m", self.vectors_MF, self.vectors_MF)
        self._index = self._build_index() if search == "ann" else None
        self._forked = ForkCheck()

    def __reduce__(self) -> tuple[Any, ...]:
        return MemoryBank, (self.vectors_MF, self.search)

    def __len__(self) -> int:
        return len(self.vectors_MF)

    @property
    def width(self) -> int:
        """F, the width of a vector."""
        return int(self.vectors_MF.shape[1])

    def _build_index(self) -> Any:
        """A faiss index, or None where exact search is faster."""
        try:
            import faiss
        except ImportError as error:
            raise missing_extra("faiss", "ann", "search ann") from error
        if len(self) < MIN_INDEXED:
            return None
        index = faiss.IndexHNSWFlat(self.width, HNSW_LINKS)
        index.hnsw.efConstruction = 2 * HNSW_SEARCH_WIDTH
        index.add(self.vectors_MF)
        index.hnsw.efSearch = HNSW_SEARCH_WIDTH
        return index

    def nearest(self, queries_QF: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Find the nearest vectors of each query.

        Exact search holds ``CHUNK_BYTES`` of distances at a time, whatever Q and M.

        Args:
            queries_QF: Queries of the bank's width.
            k: Number of neighbors; at most M are returned.

        Returns:
            (distances_QK float32, indices_QK int64), the nearest first; equal distances go to the lower index.

        Raises:
            DataError: Queries of another width.
        """
        queries_QF = np.ascontiguousarray(queries_QF, np.float32)
        if queries_QF.ndim != 2 or queries_QF.shape[1] != self.width:
            raise DataError(f"patches of shape {queries_QF.shape}", expected=f"(any, {self.width})")
        k = min(k, len(self))
        if self._index is not None:
            limit_faiss_threads(self._forked)
            squared_QK, index_QK = self._index.search(queries_QF, k)
            return np.sqrt(np.maximum(squared_QK, 0)), index_QK
        distance_QK = np.empty((len(queries_QF), k), np.float32)
        index_QK = np.empty((len(queries_QF), k), np.int64)
        columns = max(k, CHUNK_BYTES // (4 * QUERY_ROWS))
        for start in range(0, len(queries_QF), QUERY_ROWS):
            rows = slice(start, start + QUERY_ROWS)
            distance_QK[rows], index_QK[rows] = self._search_block(queries_QF[rows], k, columns)
        return distance_QK, index_QK

    def _search_block(self, queries_QF: np.ndarray, k: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
        """``nearest`` of one block of queries, against ``columns`` vectors of the bank at a time."""
        squared_Q1 = np.einsum("qf,qf->q", queries_QF, queries_QF)[:, None]
        best_QK = np.full((len(queries_QF), k), np.inf, np.float32)
        index_QK = np.full((len(queries_QF), k), -1, np.int64)
        for start in range(0, len(self), columns):
            block_MF = self.vectors_MF[start : start + columns]
            # The squared distance without the query's own square, which does not change the order.
            partial_QM = queries_QF @ block_MF.T
            partial_QM *= -2
            partial_QM += self._squared_M[start : start + columns]
            if k == 1:
                nearest_QK = partial_QM.argmin(axis=1)[:, None]
            else:
                count = min(k, partial_QM.shape[1])
                nearest_QK = np.argpartition(partial_QM, count - 1, axis=1)[:, :count]
            candidates = np.concatenate([best_QK, np.take_along_axis(partial_QM, nearest_QK, 1)], axis=1)
            indices = np.concatenate([index_QK, nearest_QK + start], axis=1)
            order_QK = np.lexsort((indices, candidates), axis=1)[:, :k]
            best_QK = np.take_along_axis(candidates, order_QK, 1)
            index_QK = np.take_along_axis(indices, order_QK, 1)
        return np.sqrt(np.maximum(best_QK + squared_Q1, 0)), index_QK
