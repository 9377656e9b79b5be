"""Coreset selection: the few vectors that represent many, by greedy k-center (Gonzalez, 1985), as in PatchCore.

Each step takes the vector that is farthest from all taken so far, so that rare normal patches stay in the memory bank.
Distances are measured on a random projection (Johnson and Lindenstrauss) where vectors are wide.

Written here because no dependency of the base has it (anomalib's needs torch; scikit-learn has none), and fitting an
inspector to an exported network must work without torch.

Shape letters: N vectors, F their width, P projected width.
"""

from __future__ import annotations

import numpy as np

# A projection to this width preserves distances to some 15 %: enough to choose by, a third of the work.
PROJECTED_WIDTH = 64


def greedy_coreset(
    vectors_NF: np.ndarray, count: int, *, seed: int = 0, projection_width: int = PROJECTED_WIDTH
) -> np.ndarray:
    """Choose ``count`` vectors that cover all of them.

    Memory beside the input: N x P float32. Work: count x N x P.

    Args:
        vectors_NF: The vectors to choose from.
        count: How many to choose; all are chosen where there are no more.
        seed: Seed of the first vector and of the projection.
        projection_width: Vectors wider than this are projected to it.

    Returns:
        Indices (int64) in the order of choice; equal distances go to the lower index.
    """
    vectors_NF = np.ascontiguousarray(vectors_NF, np.float32)
    total, width = vectors_NF.shape
    if count >= total:
        return np.arange(total)
    rng = np.random.default_rng(seed)
    if width > projection_width:
        projection_FP = rng.normal(size=(width, projection_width)).astype(np.float32) / np.float32(
            np.sqrt(projection_width)
        )
        vectors_NF = vectors_NF @ projection_FP
    vectors_NF = vectors_NF - vectors_NF.mean(axis=0)  # near the origin squares lose no digits
    squared_N = np.einsum("nf,nf->n", vectors_NF, vectors_NF)
    nearest_N = np.full(total, np.inf, np.float32)
    rows = np.empty(count, np.int64)
    index = int(rng.integers(total))
    for number in range(count):
        rows[number] = index
        distance_N = vectors_NF @ vectors_NF[index]
        distance_N *= -2
        distance_N += squared_N
        distance_N += squared_N[index]
        np.minimum(nearest_N, distance_N, out=nearest_N)
        nearest_N[index] = -np.inf  # never twice, even where all the rest are equal to it
        index = int(nearest_N.argmax())
    return rows
