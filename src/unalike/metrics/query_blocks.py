"""Blocks of queries in which references are scored and ranked: a function of the numbers of vectors alone.

The last bits of a matrix product depend on its shape: a product of one row is summed in another order than one of many, and
so are small products, and that of a set with itself. Blocks therefore depend neither on the number of cores nor on where a
block is computed: one machine and a cluster call for the same products, and get the same bits from the same kind of
processor (``rounding_digest`` tells whether it is).

Shape letters: Q queries, R references, D width, B queries of a block.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from functools import cache

import numpy as np

from unalike.numerics.nearest_neighbors import EXCLUDED
from unalike.storage.digests import content_sha256

# Scores of a block, but for MIN_ROWS queries whatever the number of references. With 16 rows a product of 100,000
# references takes 4.0 times as long a row as with 512, with 64 rows 1.7 times, with 160 1.2 times (OpenBLAS 0.3.31, one core,
# width 256; own measurement, 2026-11-30).
BLOCK_BYTES = 64 * 2**20
MIN_ROWS, MAX_ROWS = 64, 512
# Rows of a block are a multiple of it, so that no product ends within a tile of the processor's registers.
TILE = 16
# Queries of the last blocks, which get smaller, so that workers end together: each has at most this part of the rest.
MIN_BLOCK, LAST_PART = 128, 8


def block_edges(queries: int, references: int) -> list[tuple[int, int]]:
    """(first, after the last) of every block of queries; a rest of fewer than TILE queries belongs to the last one."""
    rows = int(np.clip(BLOCK_BYTES // (4 * references), MIN_ROWS, MAX_ROWS)) // TILE * TILE
    edges, first = [], 0
    while first < queries:
        part = -(-(queries - first) // (LAST_PART * TILE)) * TILE
        after = first + min(rows, max(MIN_BLOCK, part))
        edges.append((first, queries if queries - after < TILE else after))
        first = edges[-1][1]
    return edges


class CosineScores:
    """Cosines of blocks of queries to all references; several threads call it at once, each with a buffer of its own.

    Args:
        query_QD: Queries of length 1, float32, in C order; the same object as the references where a set is ranked among itself.
        reference_RD: References of length 1, float32, in C order.
        same: Whether the queries are the first references; each then leaves itself out.
        offset: Number of the first query, where ``query_QD`` holds some of them.
    """

    def __init__(self, query_QD: np.ndarray, reference_RD: np.ndarray, *, same: bool, offset: int = 0) -> None:
        self._query_QD, self._reference_RD, self._same, self._offset = query_QD, reference_RD, same, offset
        self._own = threading.local()

    def __call__(self, top: int, bottom: int) -> np.ndarray:
        """Scores (B, R), float32, of the queries from ``top`` to before ``bottom``, valid until the thread's next call."""
        query_BD = self._query_QD[top - self._offset : bottom - self._offset]
        rows, references = len(query_BD), len(self._reference_RD)
        if getattr(self._own, "buffer_N", np.empty(0)).size < rows * references:
            self._own.buffer_N = np.empty(rows * references, np.float32)
        out_BR = self._own.buffer_N[: rows * references].reshape(rows, references)
        scores_BR: np.ndarray = np.matmul(query_BD, self._reference_RD.T, out=out_BR)
        if self._same:
            np.fill_diagonal(scores_BR[:, top:], EXCLUDED)
        return scores_BR


class _OneCoreAProduct(contextlib.AbstractContextManager[None]):
    """While any ranking is inside, a matrix product keeps to the core of the thread that asks for it.

    Products that spread over all cores wait for the slower of their threads, and those spin while another worker ranks:
    2.1 x the product's time against 1.5 (20,000 x 20,000, 20 classes, two cores; own measurement, 2026-11-26).
    threadpoolctl comes with scikit-learn and with Ray's extra; without it products spread as numpy has them, and their last
    bits are those of that division.
    """

    def __init__(self) -> None:
        self.lock, self.inside, self.limits = threading.Lock(), 0, None

    def __enter__(self) -> None:
        with self.lock:
            self.inside += 1
            if self.inside == 1:
                try:
                    from threadpoolctl import threadpool_limits
                except ImportError:
                    return
                self.limits = threadpool_limits(1, user_api="blas")

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside and self.limits is not None:
                self.limits.restore_original_limits()
                self.limits = None


ONE_CORE_A_PRODUCT = _OneCoreAProduct()


@cache
def rounding_digest() -> str:
    """A digest of some products: equal on machines whose products round alike."""
    vectors_RD = np.random.default_rng(0).standard_normal((1000, 256), dtype=np.float32)
    with ONE_CORE_A_PRODUCT:
        products = [
            np.ascontiguousarray(vectors_RD[:, :width])[:rows] @ np.ascontiguousarray(vectors_RD[:, :width]).T
            for rows in (1, TILE, 200)
            for width in (130, 256)
        ]
    return content_sha256(b"".join(product.tobytes() for product in products))


def groups_of_blocks(edges: list[tuple[int, int]], references: int, scores: int) -> Iterator[list[tuple[int, int]]]:
    """Consecutive blocks together, of at least so many scores but for the last group."""
    group: list[tuple[int, int]] = []
    for edge in edges:
        group.append(edge)
        if (edge[1] - group[0][0]) * references >= scores:
            yield group
            group = []
    if group:
        yield group
