"""The references nearest to each query: exact, chunked over both axes, in bounded memory.

Shape letters: Q queries, R references, D vector width, K neighbours kept.
Equal scores are ordered by reference index, the lower first, whatever the chunking.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from unalike.errors import UnalikeError

# Scores held at once by top_k. 64 MiB keeps a tile of 2,048 references x 8,192 queries and still feeds BLAS well.
CHUNK_BYTES = 64 * 2**20
# Rows of one product: fewer starve BLAS (105 GFLOP/s with 128 rows against 145 with 512; own measurement, 2026-11-23).
QUERY_ROWS = 512
# Below any cosine, above -inf: what an excluded pair scores, so that arithmetic on scores stays finite.
EXCLUDED = np.float32(-1.75)


def workers() -> int:
    """Threads worth starting: the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


def unit(vectors_ND: np.ndarray, *, name: str = "vectors") -> np.ndarray:
    """Vectors scaled to length 1, float32, C order; a zero vector stays zero (cosine 0 to everything).

    Takes any float or integer array (N, D). Raises UnalikeError when it is not two-dimensional or holds NaN or
    infinity, naming how many rows and the first.
    """
    vectors_ND = np.asarray(vectors_ND)
    if vectors_ND.ndim != 2 or not np.issubdtype(vectors_ND.dtype, np.number):
        raise UnalikeError(
            f"{name} have shape {vectors_ND.shape} and type {vectors_ND.dtype}", expected="numbers of shape (N, D)"
        )
    out_ND = np.array(vectors_ND, dtype=np.float32, order="C", copy=True)
    # Scaling by the largest entry first keeps the squares of very long or very short vectors inside float32.
    largest_N = np.abs(out_ND).max(axis=1, initial=0.0) if out_ND.size else np.zeros(len(out_ND), np.float32)
    finite_N = np.isfinite(largest_N)
    if not finite_N.all():
        raise UnalikeError(
            f"{np.count_nonzero(~finite_N)} of {len(out_ND)} {name} hold NaN or infinity, the first is number "
            f"{int(np.argmin(finite_N))}",
            expected="finite vectors",
            remedy="look at the images of those rows and at the network's precision (fp16 overflows)",
        )
    out_ND /= np.where(largest_N > 0, largest_N, 1)[:, None]
    length_N = np.sqrt(np.einsum("nd,nd->n", out_ND, out_ND))
    out_ND /= np.where(length_N > 0, length_N, 1)[:, None]
    return out_ND


def check_widths(query_QD: np.ndarray, reference_RD: np.ndarray) -> None:
    """Raises UnalikeError when queries and references differ in width."""
    if query_QD.shape[1] != reference_RD.shape[1]:
        raise UnalikeError(
            f"query vectors have width {query_QD.shape[1]}, reference vectors {reference_RD.shape[1]}",
            expected="one network for both",
            remedy="embed query and reference with the same model",
        )


def top_k(
    query_QD: np.ndarray,
    reference_RD: np.ndarray,
    k: int,
    *,
    exclude_self: bool = False,
    chunk_bytes: int = CHUNK_BYTES,
) -> tuple[np.ndarray, np.ndarray]:
    """The k references of highest cosine for every query: (scores_QK float32, indices_QK int64), best first.

    K is k or, when there are fewer references, their number (less one with ``exclude_self``, which leaves out the
    reference of the query's own row number: for queries that are the first rows of the references).
    Vectors need not be of unit length. Memory beside the inputs' unit copies and the result stays near
    ``chunk_bytes``. Raises UnalikeError for k < 1, unequal widths, NaN.
    """
    if k < 1:
        raise UnalikeError(f"k is {k}", expected="at least 1")
    query_QD, reference_RD = unit(query_QD, name="query vectors"), unit(reference_RD, name="reference vectors")
    check_widths(query_QD, reference_RD)
    queries, references = len(query_QD), len(reference_RD)
    k = max(0, min(k, references - int(exclude_self)))
    scores_QK = np.full((queries, k), EXCLUDED, np.float32)
    indices_QK = np.full((queries, k), -1, np.int64)
    if not queries or not k:
        return scores_QK, indices_QK
    rows = max(1, min(QUERY_ROWS, queries, chunk_bytes // (4 * 1024)))
    columns = max(1, min(references, chunk_bytes // (4 * rows)))
    for top in range(0, queries, rows):
        bottom = min(top + rows, queries)
        best_BK, indices_BK = np.empty((bottom - top, 0), np.float32), np.empty((bottom - top, 0), np.int64)
        for left in range(0, references, columns):
            right = min(left + columns, references)
            scores_BC = query_QD[top:bottom] @ reference_RD[left:right].T
            if exclude_self:
                own = np.arange(max(top, left), min(bottom, right))
                scores_BC[own - top, own - left] = EXCLUDED
            tile_BK, where_BK = _best_of_tile(scores_BC, k)
            where_BK += left
            best_BK, indices_BK = _merge(best_BK, indices_BK, tile_BK, where_BK, k)
        scores_QK[top:bottom], indices_QK[top:bottom] = best_BK, indices_BK
    return scores_QK, indices_QK


def _best_of_tile(scores_BC: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The best min(k, C) of every row, best first, ties by column."""
    rows, columns = scores_BC.shape
    k = min(k, columns)
    if k == 1:
        column_B1 = scores_BC.argmax(axis=1)[:, None]
        return np.take_along_axis(scores_BC, column_B1, axis=1), column_B1
    columns_BK = np.empty((rows, k), np.int64)
    for row, scores_C in enumerate(scores_BC):
        # Everything at or above the k-th score, ties included; then a stable sort settles ties by column.
        threshold = np.partition(scores_C, columns - k)[columns - k]
        candidates = np.flatnonzero(scores_C >= threshold)
        columns_BK[row] = candidates[np.argsort(-scores_C[candidates], kind="stable")[:k]]
    return np.take_along_axis(scores_BC, columns_BK, axis=1), columns_BK


def _merge(
    left_scores: np.ndarray, left_indices: np.ndarray, right_scores: np.ndarray, right_indices: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The best k of two sorted lists a row; the left one holds the lower indices, so a stable sort keeps the order."""
    scores = np.concatenate([left_scores, right_scores], axis=1)
    indices = np.concatenate([left_indices, right_indices], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(indices, order, axis=1)


def as_labels(labels: np.ndarray | Sequence[int], count: int, name: str) -> np.ndarray:
    """Integer labels (N,) as int64; raises UnalikeError for another length, another type, or a negative label."""
    labels_N = np.asarray(labels)
    if labels_N.shape != (count,):
        raise UnalikeError(f"{name} labels have shape {labels_N.shape}", expected=f"one label a vector ({count})")
    if count and not np.issubdtype(labels_N.dtype, np.integer):
        raise UnalikeError(f"{name} labels are of type {labels_N.dtype}", expected="whole class numbers")
    if count and labels_N.min() < 0:
        raise UnalikeError(
            f"{np.count_nonzero(labels_N < 0)} {name} images have no label",
            expected="a class for every image",
            remedy="keep labelled images only",
        )
    return labels_N.astype(np.int64, copy=False)
