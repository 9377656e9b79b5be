"""Average linkage over a graph of neighbours: which groups of images merge, in which order, at which mean cosine.

Exact where it compares: the similarity of two groups is the mean cosine of all pairs between them, which for unit vectors
is the product of their sums over the product of their sizes (Sokal and Michener, 1958). Only groups that some pair of
neighbours joins are compared, so that memory stays at N x K beside the vectors and no N x N matrix is ever held.
Shape letters: N images, D vector width, K neighbours, M merges.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

TOLERANCE = 1e-6  # of a mean cosine: an older estimate that is higher by more is made anew


@dataclass(frozen=True)
class Tree:
    """Merges in their order: ``lost_M`` joins ``kept_M`` (each named by one of its images) at ``cosine_M``, falling.

    Where a merge brings groups together that are more alike than it was itself, which a graph with missing pairs allows,
    ``cosine_M`` holds the lower of the two, so that a cut by cosine is a cut by order.
    """

    images: int
    kept_M: np.ndarray
    lost_M: np.ndarray
    cosine_M: np.ndarray

    def cut(self, merges: int) -> np.ndarray:
        """The groups after so many merges, (N,) int64: 0 .. G - 1 in the order of their first images."""
        merges = max(0, min(merges, len(self.lost_M)))
        above_N = np.arange(self.images)
        above_N[self.lost_M[:merges]] = self.kept_M[:merges]
        while True:
            higher_N = above_N[above_N]
            if np.array_equal(higher_N, above_N):
                break
            above_N = higher_N
        _, first, group_N = np.unique(above_N, return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first, kind="stable")] = np.arange(len(first))
        return rank[group_N]

    def merges_above(self, cosine: float) -> int:
        """How many merges were made at this mean cosine or a higher one."""
        return int(np.searchsorted(-self.cosine_M, -cosine, side="right"))


def average_linkage(unit_ND: np.ndarray, near_NK: np.ndarray, *, floor: float = 0.0) -> Tree:
    """Merge the two most alike neighbouring groups again and again, until none are more alike than ``floor``.

    ``unit_ND``: vectors of unit length, float32; ``near_NK``: places of each image's neighbours, -1 for none.
    """
    groups = _Groups(unit_ND, near_NK)
    for image in range(len(unit_ND)):
        groups.seek(image)
    merges: list[tuple[int, int]] = []
    cosines: list[float] = []
    while (found := groups.nearest()) is not None and found[2] > floor:
        merges.append(groups.merge(found[0], found[1]))
        cosines.append(min(found[2], cosines[-1]) if cosines else found[2])
    pairs_M2 = np.array(merges, np.int64).reshape(-1, 2)
    return Tree(len(unit_ND), pairs_M2[:, 0], pairs_M2[:, 1], np.array(cosines))


class _Groups:
    """The groups of the moment: sums, sizes, neighbours, and each one's most alike neighbour in a queue.

    A merge never makes a group more alike to a third than the more alike of its two parts was, so an entry of the queue
    whose partner has changed since is an upper bound: it is made anew when it comes up, not before.
    """

    def __init__(self, unit_ND: np.ndarray, near_NK: np.ndarray) -> None:
        self.sum_ND = np.array(unit_ND, np.float32)
        self.size_N = np.ones(len(unit_ND))
        self.alive_N = np.ones(len(unit_ND), bool)
        self.near: list[set[int]] = [set() for _ in range(len(unit_ND))]
        for image, row in enumerate(near_NK.tolist()):
            for other in row:
                if other >= 0 and other != image:
                    self.near[image].add(other)
                    self.near[other].add(image)
        self.version = [0] * len(unit_ND)
        self.queue: list[tuple[float, int, int, int]] = []

    def seek(self, group: int) -> None:
        """Put the group's most alike neighbour into the queue; of equally alike ones the lowest."""
        if not self.near[group]:
            return
        others_K = np.array(sorted(self.near[group]), np.int64)
        cosine_K = (self.sum_ND[others_K] @ self.sum_ND[group]) / (self.size_N[others_K] * self.size_N[group])
        best = int(cosine_K.argmax())
        heapq.heappush(self.queue, (-float(cosine_K[best]), group, int(others_K[best]), self.version[group]))

    def nearest(self) -> tuple[int, int, float] | None:
        """The two most alike neighbouring groups and their mean cosine; None when no neighbours are left."""
        while self.queue:
            negative, group, other, version = heapq.heappop(self.queue)
            if not self.alive_N[group] or self.version[group] != version:
                continue
            if self.alive_N[other]:
                size = self.size_N[group] * self.size_N[other]
                cosine = float(self.sum_ND[group] @ self.sum_ND[other] / size)
                if cosine >= -negative - TOLERANCE:
                    return group, other, cosine
            self.seek(group)
        return None

    def merge(self, a: int, b: int) -> tuple[int, int]:
        """Join two groups; returns (the one whose name stays, the other)."""
        if len(self.near[a]) < len(self.near[b]):
            a, b = b, a
        self.sum_ND[a] += self.sum_ND[b]
        self.size_N[a] += self.size_N[b]
        self.alive_N[b] = False
        self.version[a] += 1
        for other in self.near[b]:
            self.near[other].discard(b)
            if other != a:
                self.near[other].add(a)
        self.near[a] |= self.near[b]
        self.near[a] -= {a, b}
        self.near[b] = set()
        self.seek(a)
        return a, b
