"""Choice of the images to label next: typical ones of clusters that have no label yet, and of those whose class is uncertain.

The images are cut into as many clusters as there will be labels (average linkage, as ``clustering``). Clusters are chosen by how
many images they hold, weighted by how uncertain the class of each is, and divided by the labels that they have: the method of
highest averages, by which parliaments distribute seats. Of a cluster the most typical image is asked for; a second one is also to
be unlike the labeled ones. Without labels this is TypiClust (Hacohen, Dekel and Weinshall, "Active learning on a budget", ICML
2022) with average linkage; the uncertainty is the margin between the two nearest classes (Scheffer, Decomain and Wrobel, 2001).
Measured beside other choices in docs/experiments/labels.md. Needs numpy only.

Shape letters: N images, L of them labeled, D vector width, K neighbors, C classes, G clusters.
"""

from __future__ import annotations

import heapq

import numpy as np

from unalike.discovery.linkage import average_linkage
from unalike.discovery.neighbor_whitening import NeighborWhitening
from unalike.errors import UnalikeError
from unalike.numerics.nearest_neighbors import scan, top_k
from unalike.numerics.normalization import l2_normalize

UNLABELED = -1
# Neighbors of each image, of which the first link clusters (as ``clustering``) and all say how typical it is (as TypiClust).
LINKED_NEIGHBORS, TYPICAL_NEIGHBORS = 15, 20
# Margin at which the weight of an image has fallen to 1/e, and how much a label weighs against a cluster's images: chosen on scenes
# that were withheld of the Grocery training photographs (docs/experiments/labels.md, 2026-11-29).
MARGIN_SCALE, LABEL_WEIGHT = 0.1, 8.0
BLOCK_NUMBERS = 2**22  # cosines that are held at once: 16 MB


class LabelChooser:
    """Chooses images of one set, in as many rounds as there are labels for.

    Memory: N x ``TYPICAL_NEIGHBORS`` beside the vectors; cosines are computed by blocks.

    Args:
        vectors_ND: Vectors in which like things are near each other, such as whitened features (``fit``).

    Raises:
        UnalikeError: A vector holds NaN.
    """

    def __init__(self, vectors_ND: np.ndarray) -> None:
        self.unit_ND = l2_normalize(np.asarray(vectors_ND, np.float32), name="vectors")
        neighbors = top_k(self.unit_ND, self.unit_ND, TYPICAL_NEIGHBORS, exclude_self=True)
        has_neighbors = neighbors.scores_QK.shape[1] > 0
        self.typicality_N = neighbors.scores_QK.mean(axis=1) if has_neighbors else np.zeros(len(self.unit_ND))
        self.dendrogram = average_linkage(self.unit_ND, neighbors.first(LINKED_NEIGHBORS).indices_QK)

    @classmethod
    def fit(cls, features_NF: np.ndarray, *, seed: int = 0) -> LabelChooser:
        """A chooser for features of any network, whitened by their neighbors.

        Args:
            features_NF: The features.
            seed: Seed of the sample that the whitening is fitted to, where there are very many images.
        """
        return cls(NeighborWhitening.fit(features_NF, seed=seed).transform(features_NF))

    def choose(
        self, labels_N: np.ndarray, count: int, *, fitted_ND: np.ndarray | None = None, candidate_N: np.ndarray | None = None,
        clusters: int | None = None,
    ) -> np.ndarray:  # fmt: skip
        """Choose the images to label next.

        Args:
            labels_N: Class of each image, an integer from 0 on; ``UNLABELED`` where it is not known.
            count: How many images; fewer are returned where fewer are left.
            fitted_ND: Vectors of the images by a classifier that was fitted to these labels, such as a head's; by default those
                of the chooser. Margins are computed in them.
            candidate_N: Whether an image may be chosen (N,), bool; by default all without a label.
            clusters: Into how many clusters the images are cut; by default as many as there will be labels.

        Returns:
            Indices of images, int64, the most informative first. The same input gives the same choice.

        Raises:
            UnalikeError: ``count`` is negative, or the lengths differ.
        """
        labels_N = np.asarray(labels_N)
        if count < 0 or len(labels_N) != len(self.unit_ND):
            raise UnalikeError(f"{count} of {len(self.unit_ND)} images with {len(labels_N)} labels",
                               expected="a number from 0 on, and a label or -1 for each image")  # fmt: skip
        has_label_N = labels_N != UNLABELED
        free_N = ~has_label_N if candidate_N is None else ~has_label_N & candidate_N
        fitted_ND = self.unit_ND if fitted_ND is None else l2_normalize(fitted_ND, name="fitted vectors")
        weight_N = np.exp(-class_margins(fitted_ND, labels_N) / MARGIN_SCALE)
        clusters = int(has_label_N.sum()) + count if clusters is None else clusters
        group_N = self.dendrogram.cut(len(labels_N) - min(clusters, len(labels_N)))
        return self._distribute(group_N, weight_N, has_label_N, free_N, count)

    def _distribute(
        self, group_N: np.ndarray, weight_N: np.ndarray, has_label_N: np.ndarray, free_N: np.ndarray, count: int
    ) -> np.ndarray:
        """Choose a cluster after another by its weight over its labels, and an image of each."""
        order_N = np.argsort(group_N, kind="stable")
        first_G = np.searchsorted(group_N[order_N], np.arange(int(group_N.max(initial=-1)) + 2))
        weight_G = np.bincount(group_N, weight_N, minlength=len(first_G) - 1)
        labels_G = np.bincount(group_N[has_label_N], minlength=len(first_G) - 1)
        nearest_N = self._labeled_cosine(has_label_N)

        def score(group: int) -> float:
            return float(weight_G[group] / (1 + LABEL_WEIGHT * labels_G[group]))

        queue = [(-score(group), group) for group in np.unique(group_N[free_N]).tolist()]
        heapq.heapify(queue)
        choice: list[int] = []
        free_N = free_N.copy()
        while queue and len(choice) < count:
            group = heapq.heappop(queue)[1]
            members = order_N[first_G[group] : first_G[group + 1]]
            candidates = members[free_N[members]]
            value_M = self.typicality_N[candidates] * (1 - nearest_N[candidates] if labels_G[group] else 1.0)
            image = int(candidates[value_M.argmax()])
            choice.append(image)
            free_N[image] = False
            labels_G[group] += 1
            nearest_N[members] = np.maximum(nearest_N[members], self.unit_ND[members] @ self.unit_ND[image])
            if len(candidates) > 1:
                heapq.heappush(queue, (-score(group), group))
        return np.array(choice, np.int64)

    def _labeled_cosine(self, has_label_N: np.ndarray) -> np.ndarray:
        """Cosine of each image to the nearest labeled one, 0 to 1."""
        labeled_LD = self.unit_ND[has_label_N]
        if not len(labeled_LD):
            return np.zeros(len(has_label_N), np.float32)
        cosine_N1, _ = scan(self.unit_ND, lambda left, right: labeled_LD[left:right], len(labeled_LD), 1)
        nearest_N: np.ndarray = np.clip(cosine_N1[:, 0], 0.0, 1.0)
        return nearest_N


def class_margins(vectors_ND: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """Compute how much nearer the nearest class of each image is than the second nearest.

    Args:
        vectors_ND: Unit vectors.
        labels_N: Class of each image; ``UNLABELED`` where it is not known.

    Returns:
        The cosine to the nearest labeled image less that to the nearest of another class, (N,), 0 to 2; 0 for all where fewer
        than two classes are known.
    """
    rows_L = np.flatnonzero(labels_N != UNLABELED)
    rows_L = rows_L[np.argsort(labels_N[rows_L], kind="stable")]
    classes_C, start_C = np.unique(labels_N[rows_L], return_index=True)
    margin_N = np.zeros(len(vectors_ND), np.float32)
    if len(classes_C) < 2:
        return margin_N
    labeled_LD = vectors_ND[rows_L]
    height = max(1, BLOCK_NUMBERS // len(rows_L))
    for top in range(0, len(vectors_ND), height):
        best_BC = np.maximum.reduceat(vectors_ND[top : top + height] @ labeled_LD.T, start_C, axis=1)
        best_B2 = np.partition(best_BC, len(classes_C) - 2, axis=1)[:, -2:]
        margin_N[top : top + height] = best_B2[:, 1] - best_B2[:, 0]
    return margin_N
