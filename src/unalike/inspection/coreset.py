"""The few vectors that stand for many: greedy k-centre selection (Gonzalez, 1985), as PatchCore chooses its memory.

Each step takes the vector that is farthest from all taken so far, so that what is rare among the good stays in. Distances
are measured on a random projection (Johnson and Lindenstrauss) where vectors are wide.

Shape letters: N vectors, F their width, P projected width.
"""

from __future__ import annotations

import numpy as np

# A projection of this width keeps distances to some 15 %: enough to choose by, a third of the work.
PROJECTED = 64


def greedy_coreset(vectors_NF: np.ndarray, count: int, *, seed: int = 0, projected: int = PROJECTED) -> np.ndarray:
    """Indices (int64) of ``count`` of the vectors, or of all where there are no more, in the order in which they were taken.

    The first is drawn by ``seed``; equal distances go to the lower index. Memory beside the input: N x P float32. Work:
    count x N x P.
    """
    vectors_NF = np.ascontiguousarray(vectors_NF, np.float32)
    total, width = vectors_NF.shape
    if count >= total:
        return np.arange(total)
    draws = np.random.default_rng(seed)
    if width > projected:
        mix_FP = draws.normal(size=(width, projected)).astype(np.float32) / np.float32(np.sqrt(projected))
        vectors_NF = vectors_NF @ mix_FP
    vectors_NF = vectors_NF - vectors_NF.mean(axis=0)  # near the origin squares lose no digits
    squared_N = np.einsum("nf,nf->n", vectors_NF, vectors_NF)
    nearest_N = np.full(total, np.inf, np.float32)
    chosen = np.empty(count, np.int64)
    at = int(draws.integers(total))
    for number in range(count):
        chosen[number] = at
        distance_N = vectors_NF @ vectors_NF[at]
        distance_N *= -2
        distance_N += squared_N
        distance_N += squared_N[at]
        np.minimum(nearest_N, distance_N, out=nearest_N)
        nearest_N[at] = -np.inf  # never twice, even where all the rest are equal to it
        at = int(nearest_N.argmax())
    return chosen
