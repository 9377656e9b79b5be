"""Average-linkage clustering over a graph of nearest neighbors, as a dendrogram.

Where groups are compared the result is exact: their similarity is the mean cosine of all pairs between them, which for unit
vectors is the product of their sums over the product of their sizes (Sokal and Michener, 1958). Only groups that some pair
of neighbors joins are compared.

Written here because no library does average linkage on a sparse graph of neighbors in bounded memory: scipy and fastcluster
hold all N x N distances, and scikit-learn computes average linkage over a connectivity graph from the distances of its
edges alone, not from all pairs of two groups. Here memory is N x K beside the vectors. It also runs without scikit-learn,
which a deployed tool does not install.

Shape letters: N images, D vector width, K neighbors, M merges.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

TOLERANCE = 1e-6  # of a mean cosine: a queue entry that is higher by more is out of date


@dataclass(frozen=True)
class Dendrogram:
    """The merges of a clustering, in order.

    Where a merge creates groups that are more similar than it was itself, which a graph with missing pairs allows,
    ``cosine_M`` holds the lower of the two, so that a cut by cosine is a cut by order.

    Attributes:
        images: Number of images (N).
        kept_M, merged_M: Merge m joins group ``merged_M[m]`` into group ``kept_M[m]``, each named by one of its images.
        cosine_M: Mean cosine of each merge, not increasing.
    """

    images: int
    kept_M: np.ndarray
    merged_M: np.ndarray
    cosine_M: np.ndarray

    def cut(self, merges: int) -> np.ndarray:
        """The group of each image after this many merges, int64 (N,): 0 .. G - 1 in the order of their first images."""
        merges = max(0, min(merges, len(self.merged_M)))
        parent_N = np.arange(self.images)
        parent_N[self.merged_M[:merges]] = self.kept_M[:merges]
        while True:
            grandparent_N = parent_N[parent_N]
            if np.array_equal(grandparent_N, parent_N):
                break
            parent_N = grandparent_N
        _, first, group_N = np.unique(parent_N, return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first, kind="stable")] = np.arange(len(first))
        cut_N: np.ndarray = rank[group_N]
        return cut_N

    def merges_above(self, cosine: float) -> int:
        """Number of merges at this mean cosine or a higher one."""
        return int(np.searchsorted(-self.cosine_M, -cosine, side="right"))


def average_linkage(unit_ND: np.ndarray, neighbor_NK: np.ndarray, *, min_cosine: float = 0.0) -> Dendrogram:
    """Merge the two most similar neighboring groups until none are more similar than ``min_cosine``.

    Args:
        unit_ND: Vectors of unit length, float32.
        neighbor_NK: Indices of each image's neighbors, -1 for none.
        min_cosine: Mean cosine at and below which groups are not merged.
    """
    groups = _MergingGroups(unit_ND, neighbor_NK)
    for image in range(len(unit_ND)):
        groups.push_nearest(image)
    merges: list[tuple[int, int]] = []
    cosines: list[float] = []
    while (pair := groups.pop_most_similar()) is not None and pair[2] > min_cosine:
        merges.append(groups.merge(pair[0], pair[1]))
        cosines.append(min(pair[2], cosines[-1]) if cosines else pair[2])
    pairs_M2 = np.array(merges, np.int64).reshape(-1, 2)
    return Dendrogram(len(unit_ND), pairs_M2[:, 0], pairs_M2[:, 1], np.array(cosines))


class _MergingGroups:
    """The current groups: their sums, sizes and neighbors, and the most similar neighbor of each in a priority queue.

    A merge never makes a group more similar to a third one than the more similar of its two parts was, so a queue entry
    whose partner has changed since is an upper bound: it is recomputed when it comes up, not before.
    """

    def __init__(self, unit_ND: np.ndarray, neighbor_NK: np.ndarray) -> None:
        self.sum_ND = np.array(unit_ND, np.float32)
        self.size_N = np.ones(len(unit_ND))
        self.exists_N = np.ones(len(unit_ND), bool)
        self.neighbors: list[set[int]] = [set() for _ in range(len(unit_ND))]
        for image, row in enumerate(neighbor_NK.tolist()):
            for other in row:
                if other >= 0 and other != image:
                    self.neighbors[image].add(other)
                    self.neighbors[other].add(image)
        self.version = [0] * len(unit_ND)
        self.queue: list[tuple[float, int, int, int]] = []

    def push_nearest(self, group: int) -> None:
        """Put the group's most similar neighbor into the queue; of equally similar ones the lowest index."""
        if not self.neighbors[group]:
            return
        others_K = np.array(sorted(self.neighbors[group]), np.int64)
        cosine_K = (self.sum_ND[others_K] @ self.sum_ND[group]) / (self.size_N[others_K] * self.size_N[group])
        best = int(cosine_K.argmax())
        heapq.heappush(self.queue, (-float(cosine_K[best]), group, int(others_K[best]), self.version[group]))

    def pop_most_similar(self) -> tuple[int, int, float] | None:
        """The two most similar neighboring groups and their mean cosine; None when no neighbors are left."""
        while self.queue:
            negative_cosine, group, other, version = heapq.heappop(self.queue)
            if not self.exists_N[group] or self.version[group] != version:
                continue
            if self.exists_N[other]:
                size = self.size_N[group] * self.size_N[other]
                cosine = float(self.sum_ND[group] @ self.sum_ND[other] / size)
                if cosine >= -negative_cosine - TOLERANCE:
                    return group, other, cosine
            self.push_nearest(group)
        return None

    def merge(self, a: int, b: int) -> tuple[int, int]:
        """Merge two groups; returns (the one whose index stays, the other)."""
        if len(self.neighbors[a]) < len(self.neighbors[b]):
            a, b = b, a
        self.sum_ND[a] += self.sum_ND[b]
        self.size_N[a] += self.size_N[b]
        self.exists_N[b] = False
        self.version[a] += 1
        for other in self.neighbors[b]:
            self.neighbors[other].discard(b)
            if other != a:
                self.neighbors[other].add(a)
        self.neighbors[a] |= self.neighbors[b]
        self.neighbors[a] -= {a, b}
        self.neighbors[b] = set()
        self.push_nearest(a)
        return a, b
