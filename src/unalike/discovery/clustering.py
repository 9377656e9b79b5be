"""Cluster vectors into groups, with the confidence of each image (own group against the nearest other).

Features are whitened by how nearest neighbors differ (``whitening``), merged by average linkage over the graph of
neighbors (``linkage``), and the dendrogram is cut where two halves of the features stop agreeing (``cut``). Needs numpy only.
Copies of one image count once.

Shape letters: N images, R of them that are no copies, D dimensions, G groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unalike.discovery.cut import ALWAYS_MERGE_COSINE, AgreementCurve, Cut, build_dendrogram, choose_cut, whiten
from unalike.discovery.neighbor_whitening import DUPLICATE_COSINE, first_connected, nearest_other
from unalike.errors import UnalikeError
from unalike.metrics.diagnostics import near_duplicates
from unalike.numerics.normalization import l2_normalize

NEIGHBORS = 15  # of each image in the graph; 10 to 30 gave the same groups on Grocery (2026-11-26)

# Field of ImageGroups -> its key in files, where the two differ.
STORED_KEYS = {
    "subgroup_N": "part_N", "next_group_N": "next_N", "duplicate_of_N": "copy_of_N", "medoid_G": "typical_G",
    "nearest_group_G": "near_G", "nearest_cosine_G": "near_cosine_G", "cut_cosine": "cosine", "agreement_curve": "curve",
}  # fmt: skip


@dataclass(frozen=True)
class ImageGroups:
    """The groups of a set of images.

    Attributes:
        group_N: Group of each image, 0 .. G - 1, the largest first; -1 for an image that is similar to no other.
        subgroup_N: Finer groups within these, of images that are very similar (mostly one series of one object).
        confidence_N: Silhouette of each image (Rousseeuw, 1987): 0 where another group is as near, 1 where nothing else is
            near; 0 for an image of no group. A ranking of what to review first, no probability.
        next_group_N: The nearest other group of each image, -1 for none.
        duplicate_of_N: The first image that each is a near-duplicate of, -1 for none.
        medoid_G: The image of each group with the highest mean cosine to the others.
        nearest_group_G, nearest_cosine_G: The most similar other group of each group (-1 for none) and its mean cosine.
        cut_cosine: Mean cosine (whitened) of the last merge.
        agreement: Adjusted Rand index of the groups of two halves of the features; NaN where it was not measured.
        agreement_curve: (groups, agreement) of every cut that was considered.
    """

    group_N: np.ndarray
    subgroup_N: np.ndarray
    confidence_N: np.ndarray
    next_group_N: np.ndarray
    duplicate_of_N: np.ndarray
    medoid_G: np.ndarray
    nearest_group_G: np.ndarray
    nearest_cosine_G: np.ndarray
    cut_cosine: float = 1.0
    agreement: float = float("nan")
    agreement_curve: AgreementCurve = ()

    @property
    def count(self) -> int:
        """Number of groups (G)."""
        return len(self.medoid_G)

    def group_name(self, group: int) -> str:
        """Name of a group's folder, ``group-007``: as many digits as the largest number needs, at least three."""
        return f"group-{group + 1:0{max(3, len(str(self.count)))}d}"

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays for a file, under the stored keys."""
        return {STORED_KEYS.get(name, name): np.asarray(value) for name, value in vars(self).items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> ImageGroups:
        """The inverse of ``to_arrays``."""
        fields = {key: name for name, key in STORED_KEYS.items()}
        values: dict[str, Any] = {fields.get(key, key): value for key, value in arrays.items()}
        values["cut_cosine"], values["agreement"] = float(values["cut_cosine"]), float(values["agreement"])
        points = values["agreement_curve"].reshape(-1, 2)
        values["agreement_curve"] = tuple((int(count), float(value)) for count, value in points)
        return cls(**values)

    def sizes(self) -> np.ndarray:
        """Number of images of each group, int64 (G,)."""
        return np.bincount(self.group_N[self.group_N >= 0], minlength=self.count).astype(np.int64)

    def group_confidence(self) -> np.ndarray:
        """Mean confidence of each group's images, (G,)."""
        rows = self.group_N >= 0
        sum_G = np.bincount(self.group_N[rows], self.confidence_N[rows], minlength=self.count)
        mean_G: np.ndarray = sum_G / np.maximum(self.sizes(), 1)
        return mean_G


def group_images(
    features_NF: np.ndarray, *, groups: int | None = None, seed: int = 0, neighbors: int = NEIGHBORS
) -> ImageGroups:
    """Find groups of similar images.

    Memory: N x F a few times over, and N x ``neighbors``.

    Args:
        features_NF: Features of any network.
        groups: Approximate number of groups; by default chosen by agreement (``cut``).
        seed: Seed of samples and halves.
        neighbors: Neighbors of each image in the graph.

    Raises:
        UnalikeError: NaN or infinity among the features, no images, or ``groups`` below 1.
    """
    features_NF = np.asarray(features_NF, np.float32)
    if not len(features_NF):
        raise UnalikeError("no images to group", expected="at least one")
    if groups is not None and groups < 1:
        raise UnalikeError(f"{groups} groups", expected="at least 1")
    l2_normalize(features_NF, name="features")  # refuses NaN
    duplicates = near_duplicates(features_NF)
    copies_N = first_connected(len(features_NF), duplicates.pairs_P2[duplicates.scores_P >= DUPLICATE_COSINE])
    distinct_R, index_N = np.unique(copies_N, return_inverse=True)
    unit_RD = whiten(features_NF[distinct_R], seed)
    dendrogram = build_dendrogram(unit_RD, neighbors)
    if groups is not None:
        cut = Cut(len(distinct_R) - groups)
    else:
        cut = choose_cut(features_NF[distinct_R], unit_RD, dendrogram, neighbors, seed)
    merges = max(0, min(cut.merges, len(dendrogram.cosine_M)))
    group_N = _number_by_size(dendrogram.cut(merges)[index_N])
    first_N = first_connected(len(features_NF), duplicates.pairs_P2)
    return replace(
        _describe(unit_RD[index_N], group_N),
        subgroup_N=dendrogram.cut(min(merges, dendrogram.merges_above(ALWAYS_MERGE_COSINE)))[index_N],
        duplicate_of_N=np.where(first_N == np.arange(len(first_N)), -1, first_N),
        cut_cosine=float(dendrogram.cosine_M[merges - 1]) if merges else 1.0,
        agreement=cut.agreement,
        agreement_curve=cut.curve,
    )


def _number_by_size(group_N: np.ndarray) -> np.ndarray:
    """Renumber groups by size, the largest first (of equal ones the one with the first image); -1 for those of one image."""
    size_G = np.bincount(group_N)
    order_G = np.argsort(-size_G, kind="stable")
    number_G = np.empty(len(size_G), np.int64)
    number_G[order_G] = np.arange(len(size_G))
    number_G[size_G < 2] = -1
    numbered_N: np.ndarray = number_G[group_N]
    return numbered_N


def _describe(unit_ND: np.ndarray, group_N: np.ndarray) -> ImageGroups:
    """Confidence, nearest other groups and medoids, from mean cosines. Lowercase n: the images that are in a group."""
    rows = np.flatnonzero(group_N >= 0)
    count = int(group_N.max(initial=-1)) + 1
    confidence_N, next_N = np.zeros(len(group_N)), np.full(len(group_N), -1, np.int64)
    if not count:
        empty = np.zeros(0, np.int64)
        return ImageGroups(group_N, group_N, confidence_N, next_N, next_N, empty, empty, np.zeros(0))
    own_n = group_N[rows]
    size_G = np.bincount(own_n, minlength=count)
    sum_GD = np.zeros((count, unit_ND.shape[1]), np.float32)
    np.add.at(sum_GD, own_n, unit_ND[rows])
    within_n = np.einsum("nd,nd->n", unit_ND[rows], sum_GD[own_n])
    square_n = np.einsum("nd,nd->n", unit_ND[rows], unit_ND[rows])  # 1, or 0 for features that equal the mean
    own_cosine_n = np.where(square_n > 0.5, (within_n - square_n) / np.maximum(size_G[own_n] - 1, 1), 1.0)
    medoid_G = rows[np.lexsort((rows, -within_n, own_n))][np.cumsum(size_G) - size_G]
    mean_GD = sum_GD / size_G[:, None]

    other_cosine_N, next_N = nearest_other(unit_ND, mean_GD, group_N)
    nearest_cosine_G, nearest_G = nearest_other(mean_GD, mean_GD, np.arange(count))
    other_cosine_n = np.where(next_N[rows] >= 0, other_cosine_N[rows], 0.0)
    distance_n = np.maximum(1 - np.minimum(own_cosine_n, other_cosine_n), 1e-6)
    confidence_N[rows] = np.clip((own_cosine_n - other_cosine_n) / distance_n, 0.0, 1.0)
    return ImageGroups(group_N, group_N, confidence_N, next_N, next_N, medoid_G, nearest_G, nearest_cosine_G)
