"""Exact nearest-neighbor search by cosine: the k references nearest to each query, in bounded memory.

Shape letters: Q queries, R references, D vector width, K neighbors per query.
Equal scores are ordered by reference index, the lower first, whatever the chunking.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from unalike.errors import UnalikeError
from unalike.numerics.normalization import check_widths, l2_normalize

# Scores held at once by top_k. 64 MiB keeps a tile of 2,048 references x 8,192 queries and still feeds BLAS well.
CHUNK_BYTES = 64 * 2**20
# Rows of one product: fewer starve BLAS (105 GFLOP/s with 128 rows against 145 with 512; own measurement, 2026-11-23).
QUERY_ROWS = 512
# References of a scan's first tile, whose scores are partitioned; the k-th best of them spares the later ones that.
FIRST_TILE = 2048
# Products of so few queries are made one query after the other (benchmarks/results of 2026-11-30 in docs/experiments/gallery.md).
FEW_QUERIES = 4
# Columns of a later tile of scores that are there whole; what is compared at a time stays within 16 MB.
SCORE_COLUMNS = 32_768
# Below any cosine, above -inf: what an excluded pair scores, so that arithmetic on scores stays finite.
EXCLUDED = np.float32(-1.75)


class Neighbors(NamedTuple):
    """The references of highest cosine for every query, best first.

    Attributes:
        scores_QK: Cosines (Q, K), float32.
        indices_QK: Indices of references (Q, K), int64.
    """

    scores_QK: np.ndarray
    indices_QK: np.ndarray

    def first(self, k: int) -> Neighbors:
        """The k best, or all if there are fewer."""
        return Neighbors(self.scores_QK[:, :k], self.indices_QK[:, :k])


def top_k(
    query_QD: np.ndarray,
    reference_RD: np.ndarray,
    k: int,
    *,
    exclude_self: bool = False,
    chunk_bytes: int = CHUNK_BYTES,
) -> Neighbors:
    """Find the k references of highest cosine for every query.

    Args:
        query_QD: Query vectors (Q, D), of any length.
        reference_RD: Reference vectors (R, D), of any length.
        k: Number of neighbors, at least 1.
        exclude_self: Leave out the reference of the query's own row number, for queries that are the first rows of the
            references.
        chunk_bytes: Memory for scores, beside the inputs' unit copies and the result.

    Returns:
        The neighbors. K is k or, when there are fewer references, their number (less one with ``exclude_self``).

    Raises:
        UnalikeError: k is below 1, the widths differ, or a vector holds NaN.
    """
    if k < 1:
        raise UnalikeError(f"k is {k}", expected="at least 1")
    same = reference_RD is query_QD  # a set among itself is held once
    query_QD = l2_normalize(query_QD, name="query vectors")
    reference_RD = query_QD if same else l2_normalize(reference_RD, name="reference vectors")
    check_widths(query_QD, reference_RD)
    k = max(0, min(k, len(reference_RD) - int(exclude_self)))
    hide = _hide_self if exclude_self else None
    return Neighbors(
        *scan(query_QD, lambda a, b: reference_RD[a:b], len(reference_RD), k, hide=hide, chunk_bytes=chunk_bytes)
    )


def _hide_self(scores_BC: np.ndarray, top: int, left: int) -> None:
    own = np.arange(max(top, left), min(top + scores_BC.shape[0], left + scores_BC.shape[1]))
    scores_BC[own - top, own - left] = EXCLUDED


def scan(
    query_QD: np.ndarray,
    rows: Callable[[int, int], np.ndarray],
    references: int,
    k: int,
    *,
    hide: Callable[[np.ndarray, int, int], None] | None = None,
    columns: int | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the k references of highest cosine, as ``top_k`` does, for references that are read piece by piece.

    Args:
        query_QD: Query vectors (Q, D), float32.
        rows: ``rows(left, right)`` returns those references, float32 (right - left, D), of unit length.
        references: Number of references.
        k: Number of neighbors.
        hide: ``hide(scores_BC, top, left)`` sets scores of pairs that do not count to EXCLUDED, in place: its rows are
            the queries from number ``top`` on, its columns the references from ``left`` on.
        columns: Most references that are read at a time; None reads what fits ``chunk_bytes``.
        chunk_bytes: Memory for scores.

    Returns:
        As ``top_k``. Where fewer than k references count, the rest of a row is EXCLUDED with index -1.

    Once k scores of a row are known, scores no higher than the lowest of them are skipped by one comparison; only
    the few others are sorted. The scores of a tile are partitioned in the beginning alone.
    """
    queries, width = query_QD.shape
    scores_QK = np.full((queries, k), EXCLUDED, np.float32)
    indices_QK = np.full((queries, k), -1, np.int64)
    if not queries or not references or not k:
        return scores_QK, indices_QK
    height = max(1, min(QUERY_ROWS, queries, chunk_bytes // (4 * 1024)))
    fitting = chunk_bytes // (4 * max(height, width))
    columns = max(1, min(references, fitting, columns or references))
    buffer_N = np.empty(height * columns, np.float32)
    for top in range(0, queries, height):
        bottom = min(top + height, queries)
        best_BK, place_BK = scores_QK[top:bottom], indices_QK[top:bottom]
        left, right = 0, min(columns, max(FIRST_TILE, 4 * k), references)
        while left < references:
            scores_BC = buffer_N[: (bottom - top) * (right - left)].reshape(bottom - top, right - left)
            _score(query_QD[top:bottom], rows(left, right), scores_BC)
            if hide is not None:
                hide(scores_BC, top, left)
            _fold(best_BK, place_BK, scores_BC, left)
            left, right = right, min(right + columns, references)
    indices_QK[scores_QK == EXCLUDED] = -1
    return scores_QK, indices_QK


def _score(query_BD: np.ndarray, reference_CD: np.ndarray, scores_BC: np.ndarray) -> None:
    """Write the products of all pairs into ``scores_BC``.

    For a few queries one after the other: numpy hands a narrow product to a routine of BLAS that reads the references more slowly
    than they come from memory, and whose threads wait for each other where the machine has other work.
    """
    if len(query_BD) <= FEW_QUERIES and hasattr(np, "vecdot"):  # numpy 2
        for query_D, scores_C in zip(query_BD, scores_BC, strict=True):
            np.vecdot(reference_CD, query_D, out=scores_C)
    else:
        np.matmul(query_BD, reference_CD.T, out=scores_BC)


def fold_scores(scores_BR: np.ndarray, best_BK: np.ndarray, place_BK: np.ndarray) -> None:
    """Find the k best of rows of scores that are there whole, as ``scan`` does of tiles.

    Args:
        scores_BR: Scores (B, R), float32; pairs that do not count are EXCLUDED.
        best_BK, place_BK: Filled in place: scores and indices, best first; the rest of a row EXCLUDED and -1.
    """
    k, references = best_BK.shape[1], scores_BR.shape[1]
    best_BK[:], place_BK[:] = EXCLUDED, -1
    left, right = 0, min(max(FIRST_TILE, 4 * k), references)
    while left < references:
        _fold(best_BK, place_BK, scores_BR[:, left:right], left)
        left, right = right, min(right + SCORE_COLUMNS, references)
    place_BK[best_BK == EXCLUDED] = -1


def _fold(best_BK: np.ndarray, place_BK: np.ndarray, scores_BC: np.ndarray, left: int) -> None:
    """Bring a tile's scores into the best so far, in place. References of the tile come after all before it."""
    rows, k = best_BK.shape
    if not left:  # there are none so far
        first = min(k, scores_BC.shape[1])
        best_BK[:, :first], place_BK[:, :first] = _best_of_tile(scores_BC, first)
        return
    passing_BC = scores_BC > best_BK[:, -1:]  # an equal score loses: its index is higher
    passing = np.count_nonzero(passing_BC)
    if not passing:
        return
    if passing > max(4 * rows * k, scores_BC.size // 16):
        tile_BK, column_BK = _best_of_tile(scores_BC, k)
        best_BK[:], place_BK[:] = _merge(best_BK, place_BK, tile_BK, column_BK + left, k)
        return
    row_N, column_N = np.divmod(np.flatnonzero(passing_BC), scores_BC.shape[1])
    touched_T = np.unique(row_N)
    row_M = np.concatenate([np.repeat(touched_T, k), row_N])
    score_M = np.concatenate([best_BK[touched_T].ravel(), scores_BC[row_N, column_N]])
    place_M = np.concatenate([place_BK[touched_T].ravel(), column_N + left])
    order_M = np.lexsort((place_M, -score_M, row_M))
    first_T = np.searchsorted(row_M[order_M], touched_T)
    best_TK = order_M[first_T[:, None] + np.arange(k)]
    best_BK[touched_T], place_BK[touched_T] = score_M[best_TK], place_M[best_TK]


def _best_of_tile(scores_BC: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The best min(k, C) of every row, best first, ties by column."""
    rows, columns = scores_BC.shape
    k = min(k, columns)
    if k == 1:
        column_B1 = scores_BC.argmax(axis=1)[:, None]
        return np.take_along_axis(scores_BC, column_B1, axis=1), column_B1
    best_BK, column_BK = np.empty((rows, k), scores_BC.dtype), np.empty((rows, k), np.int64)
    for row, scores_C in enumerate(scores_BC):
        # Everything at or above the k-th score, ties included; then a stable sort settles ties by column.
        threshold = np.partition(scores_C, columns - k)[columns - k]
        candidates = (scores_C >= threshold).nonzero()[0]
        candidates = candidates[(-scores_C[candidates]).argsort(kind="stable")[:k]]
        best_BK[row], column_BK[row] = scores_C[candidates], candidates
    return best_BK, column_BK


def _merge(
    left_scores: np.ndarray, left_indices: np.ndarray, right_scores: np.ndarray, right_indices: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The best k of two sorted lists a row; the left one holds the lower indices, so a stable sort keeps the order."""
    scores = np.concatenate([left_scores, right_scores], axis=1)
    indices = np.concatenate([left_indices, right_indices], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(indices, order, axis=1)
