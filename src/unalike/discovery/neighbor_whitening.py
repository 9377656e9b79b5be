"""Whitening of features by the differences between nearest neighbors, without labels.

An image and its nearest neighbor mostly show the same thing (in 97 of 100 cases on the Grocery photographs, 2026-11-26), so
their difference is irrelevant variation: lighting, angle, crop. Dividing features by the scatter of these differences separates
different things. Near-identical copies of one picture count once: they carry no information about what differs.

Shape letters: N images, R of them that are no copies, F features, D dimensions, S sampled images, P pairs, Q queries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unalike.metrics.diagnostics import near_duplicates
from unalike.numerics.covariance import ledoit_wolf
from unalike.numerics.nearest_neighbors import EXCLUDED, scan
from unalike.numerics.normalization import l2_normalize

DUPLICATE_COSINE = 1 - 1e-5  # of two copies of one picture
MAX_SCATTER_IMAGES = 20_000  # from which a scatter is estimated: more make no measurable difference


@dataclass(frozen=True)
class NeighborWhitening:
    """The linear map ``features_NF @ matrix_FD - offset_D``."""

    matrix_FD: np.ndarray
    offset_D: np.ndarray

    def transform(self, features_NF: np.ndarray) -> np.ndarray:
        """Apply the map, float32 (N, D)."""
        vectors_ND: np.ndarray = np.asarray(features_NF, np.float32) @ self.matrix_FD - self.offset_D
        return vectors_ND.astype(np.float32, copy=False)

    @classmethod
    def fit(cls, features_NF: np.ndarray, *, seed: int = 0) -> NeighborWhitening:
        """Fit the map that divides features by the scatter of the differences between nearest neighbors.

        Where no two images differ it only subtracts the mean.

        Args:
            features_NF: Features of any network.
            seed: Seed of the sample of ``MAX_SCATTER_IMAGES`` images whose differences count, where there are more.
        """
        features_NF = np.asarray(features_NF, np.float32)
        return cls.fit_distinct(features_NF[np.unique(first_duplicates(features_NF))], seed)

    @classmethod
    def fit_distinct(cls, features_RF: np.ndarray, seed: int) -> NeighborWhitening:
        """``fit`` for features without copies."""
        width = features_RF.shape[1]
        mean_F = features_RF.mean(axis=0, dtype=np.float64) if len(features_RF) else np.zeros(width)
        centering = cls(np.eye(width, dtype=np.float32), mean_F.astype(np.float32))
        if len(features_RF) < 2:
            return centering
        sample_S = sample_indices(len(features_RF), MAX_SCATTER_IMAGES, seed)
        unit_RF = l2_normalize(features_RF - mean_F.astype(np.float32))
        _, nearest_S = nearest_other(unit_RF[sample_S], unit_RF, sample_S)
        # Two images that are each other's nearest are one pair: counted twice, they would be overweighted.
        pairs_P2 = np.unique(np.sort(np.stack([sample_S, nearest_S], axis=1), axis=1), axis=0)
        difference_PF = (features_RF[pairs_P2[:, 0]].astype(np.float64) - features_RF[pairs_P2[:, 1]]) / np.sqrt(2)
        scatter_FF, _ = ledoit_wolf(difference_PF)
        values_F, axes_FF = np.linalg.eigh(scatter_FF)
        if not values_F[-1] > 0:
            return centering
        matrix_FF = (axes_FF / np.sqrt(np.maximum(values_F, values_F[-1] * 1e-9))) @ axes_FF.T
        # Scaled to the size of the features, since what follows (a network's head, float16) works best on numbers near 1.
        matrix_FF *= np.sqrt(float(np.trace(scatter_FF)) / len(values_F))
        return cls(matrix_FF.astype(np.float32), (mean_F @ matrix_FF).astype(np.float32))


def nearest_other(
    query_QD: np.ndarray, reference_RD: np.ndarray, excluded_Q: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest reference of each query except one.

    Args:
        query_QD, reference_RD: Unit vectors.
        excluded_Q: Index of the reference that is excluded for each query; -1 for none.

    Returns:
        (cosine, index), (Q,) each; index -1 where there is no other reference.
    """

    def hide(scores_BC: np.ndarray, top: int, left: int) -> None:
        column_B = excluded_Q[top : top + len(scores_BC)] - left
        inside_B = np.flatnonzero((column_B >= 0) & (column_B < scores_BC.shape[1]))
        scores_BC[inside_B, column_B[inside_B]] = EXCLUDED

    cosine_Q1, index_Q1 = scan(query_QD, lambda left, right: reference_RD[left:right], len(reference_RD), 1, hide=hide)
    return cosine_Q1[:, 0], index_Q1[:, 0]


def first_duplicates(vectors_ND: np.ndarray) -> np.ndarray:
    """The first image that each is a copy of, directly or through other copies, int64 (N,)."""
    neighbors = min(10, max(1, len(vectors_ND) - 1))
    pairs_P2 = near_duplicates(vectors_ND, threshold=DUPLICATE_COSINE, k=neighbors).pairs_P2
    return first_connected(len(vectors_ND), pairs_P2)


def first_connected(count: int, pairs_P2: np.ndarray) -> np.ndarray:
    """The lowest index in the connected component of each node of a graph, int64 (``count``,).

    Args:
        count: Number of nodes.
        pairs_P2: The edges.
    """
    first_N = np.arange(count)
    while True:
        lower_P = first_N[pairs_P2].min(axis=1) if len(pairs_P2) else np.zeros(0, np.int64)
        updated_N = first_N.copy()
        np.minimum.at(updated_N, pairs_P2[:, 0], lower_P)
        np.minimum.at(updated_N, pairs_P2[:, 1], lower_P)
        updated_N = updated_N[updated_N]
        if np.array_equal(updated_N, first_N):
            return first_N
        first_N = updated_N


def sample_indices(count: int, limit: int, seed: int) -> np.ndarray:
    """Sample at most ``limit`` of ``count`` indices without replacement, sorted."""
    if count <= limit:
        return np.arange(count)
    return np.sort(np.random.default_rng([seed, 29]).choice(count, limit, replace=False))
