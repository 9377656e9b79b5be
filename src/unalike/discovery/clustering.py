"""Groups of like images found from vectors alone, without a label: functions of arrays that need numpy and nothing else.

Three steps. *Whitening by neighbours*: an image and its nearest neighbour mostly show the same thing (on the Grocery
photographs in 97 of 100 cases, 2026-11-26), so what they differ in is what does not matter: light, angle, crop. Dividing by
that scatter, shrunk, draws different things apart. *Average linkage* over the neighbour graph gives a tree of groups.
*Where to cut it*: a tree is grown from one random half of the features, whitened by itself, and another from the other half;
groups that both find are no accident. From fine to coarse, between two bounds of likeness, the cut stops where
that agreement breaks down.
Copies of one picture count once in all of it: they say nothing about what differs, and would drown those that do.
Shape letters: N images, R of them that are no copies, F features, D dimensions, K neighbours, G groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unalike.discovery.linkage import Tree, average_linkage
from unalike.errors import UnalikeError
from unalike.metrics.covariance import shrunk_covariance
from unalike.metrics.diagnostics import near_duplicates
from unalike.metrics.knn import EXCLUDED, scan, top_k, unit

NEIGHBOURS = 15  # of each image in the graph; 10 to 30 gave the same groups on Grocery (2026-11-26)
SAME = 1 - 1e-5  # cosine of two copies of one picture
# Rows that a scatter is estimated from, and images whose halves are compared: more change nothing that can be seen.
MOST_FOR_SCATTER, MOST_FOR_HALVES = 20_000, 4096
HALVINGS = 8192  # images that are halved in all: a small set, whose agreement is noisy, more often
FEWEST_FOR_HALVES = 12
# Mean cosines (whitened): groups more alike than the first are merged whatever the halves say, and none less alike than
# the second. Unrelated images lie near 0.
ALIKE, UNLIKE = 0.5, 0.15
COARSER = 0.88  # groups from one cut that is looked at to the next
DROP = 0.05  # of agreement (adjusted Rand index) that ends the way from fine to coarse
CHANCE = 0.2  # agreement below which there is hardly anything to group by


@dataclass(frozen=True)
class Whitening:
    """vectors_ND = features_NF @ matrix_FD - offset_D."""

    matrix_FD: np.ndarray
    offset_D: np.ndarray

    def __call__(self, features_NF: np.ndarray) -> np.ndarray:
        return (np.asarray(features_NF, np.float32) @ self.matrix_FD - self.offset_D).astype(np.float32, copy=False)


@dataclass(frozen=True)
class Grouping:
    """Which group each image belongs to, and how far that can be trusted.

    ``group_N``: 0 .. G - 1, the largest group first; -1 where an image is like no other. ``part_N``: the finer
    groups of which those are made, images that are alike beyond doubt (one series of one thing, mostly). ``confidence_N``: its silhouette
    (Rousseeuw, 1987), 0 where another group is as near, 1 where the own group is all that is near; 0 for -1. A rank of what
    to look at first, not a probability. ``next_N``: the nearest other group, -1 where there is none. ``copy_of_N``: the
    first image that this one is a near-duplicate of, -1 for none. ``typical_G``: the image most like its group; ``near_G`` and
    ``near_cosine_G``: the group most like it, -1 for none, and their mean cosine. ``cosine``: that at which groups still merged
    (whitened). ``agreement``: adjusted Rand index of the groups of two halves of the features, NaN where too few images allow
    none. ``curve``: (groups, agreement) of every cut that was looked at.
    """

    group_N: np.ndarray
    part_N: np.ndarray
    confidence_N: np.ndarray
    next_N: np.ndarray
    copy_of_N: np.ndarray
    typical_G: np.ndarray
    near_G: np.ndarray
    near_cosine_G: np.ndarray
    cosine: float = 1.0
    agreement: float = float("nan")
    curve: tuple[tuple[int, float], ...] = ()

    @property
    def count(self) -> int:
        """How many groups there are."""
        return len(self.typical_G)

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Grouping:
        """From ``vars`` of a grouping whose values were made arrays."""
        plain: dict[str, Any] = {"cosine": float(arrays["cosine"]), "agreement": float(arrays["agreement"]),
                 "curve": tuple((int(count), float(value)) for count, value in arrays["curve"].reshape(-1, 2))}  # fmt: skip
        return cls(**{**arrays, **plain})

    def sizes(self) -> np.ndarray:
        """Images of each group, (G,) int64."""
        return np.bincount(self.group_N[self.group_N >= 0], minlength=self.count).astype(np.int64)

    def confidence_of_groups(self) -> np.ndarray:
        """The mean confidence of each group's images, (G,)."""
        rows = self.group_N >= 0
        sums = np.bincount(self.group_N[rows], self.confidence_N[rows], minlength=self.count)
        return sums / np.maximum(self.sizes(), 1)


def neighbour_whitening(features_NF: np.ndarray, *, seed: int = 0) -> Whitening:
    """The linear map that divides features by how nearest neighbours differ; copies of one picture do not count.

    Where no two images differ it only takes off the mean. Of more than MOST_FOR_SCATTER images the differences of a seeded
    sample count, each to its nearest of all.
    """
    features_NF = np.asarray(features_NF, np.float32)
    return _whitening_of(features_NF[np.unique(first_of_copies(features_NF))], seed)


def _whitening_of(x_RF: np.ndarray, seed: int) -> Whitening:
    """The same for features without copies."""
    width = x_RF.shape[1]
    mean_F = x_RF.mean(axis=0, dtype=np.float64) if len(x_RF) else np.zeros(width)
    plain = Whitening(np.eye(width, dtype=np.float32), mean_F.astype(np.float32))
    if len(x_RF) < 2:
        return plain
    rows_S = _sample(len(x_RF), MOST_FOR_SCATTER, seed)
    unit_RF = unit(x_RF - mean_F.astype(np.float32))
    _, near_S = _nearest_but(unit_RF[rows_S], unit_RF, rows_S)
    # Two that are each other's nearest are one pair: counted twice, they would pass for more evidence than there is.
    pairs_P2 = np.unique(np.sort(np.stack([rows_S, near_S], axis=1), axis=1), axis=0)
    apart_PF = (x_RF[pairs_P2[:, 0]].astype(np.float64) - x_RF[pairs_P2[:, 1]]) / np.sqrt(2)
    scatter_FF, _ = shrunk_covariance(apart_PF)
    values_F, axes_FF = np.linalg.eigh(scatter_FF)
    if not values_F[-1] > 0:
        return plain
    matrix_FF = (axes_FF / np.sqrt(np.maximum(values_F, values_F[-1] * 1e-9))) @ axes_FF.T
    # Of the size that the features had: what follows (a network's head, float16) likes numbers near 1.
    matrix_FF *= np.sqrt(float(np.trace(scatter_FF)) / len(values_F))
    return Whitening(matrix_FF.astype(np.float32), (mean_F @ matrix_FF).astype(np.float32))


def _nearest_but(query_QD: np.ndarray, reference_RD: np.ndarray, own_Q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(cosine, place) of each query's nearest reference other than ``own_Q`` (-1: any), -1 where there is none; (Q,) each."""

    def hide(scores_BC: np.ndarray, top: int, left: int) -> None:
        own_B = own_Q[top : top + len(scores_BC)] - left
        inside_B = np.flatnonzero((own_B >= 0) & (own_B < scores_BC.shape[1]))
        scores_BC[inside_B, own_B[inside_B]] = EXCLUDED

    cosine_Q1, place_Q1 = scan(query_QD, lambda left, right: reference_RD[left:right], len(reference_RD), 1, hide=hide)
    return cosine_Q1[:, 0], place_Q1[:, 0]


def first_of_copies(vectors_ND: np.ndarray) -> np.ndarray:
    """For every image the first one that it is a copy of (cosine of SAME and above, by way of others too), (N,)."""
    pairs = near_duplicates(vectors_ND, threshold=SAME, k=min(10, max(1, len(vectors_ND) - 1))).pairs_P2
    return first_of_linked(len(vectors_ND), pairs)


def first_of_linked(count: int, pairs_P2: np.ndarray) -> np.ndarray:
    """For every one of ``count`` things the first that a chain of pairs leads to, itself where there is none, (N,)."""
    first_N = np.arange(count)
    while True:
        lower_P = first_N[pairs_P2].min(axis=1) if len(pairs_P2) else np.zeros(0, np.int64)
        found_N = first_N.copy()
        np.minimum.at(found_N, pairs_P2[:, 0], lower_P)
        np.minimum.at(found_N, pairs_P2[:, 1], lower_P)
        found_N = found_N[found_N]
        if np.array_equal(found_N, first_N):
            return first_N
        first_N = found_N


def group_images(
    features_NF: np.ndarray, *, groups: int | None = None, seed: int = 0, neighbours: int = NEIGHBOURS
) -> Grouping:
    """Find groups in features of any network, (N, F). ``groups``: about how many, where the caller knows; else see above.

    Memory: N x F a few times over and N x ``neighbours``. Raises UnalikeError for NaN, for no images, and for ``groups`` < 1.
    """
    features_NF = np.asarray(features_NF, np.float32)
    if not len(features_NF):
        raise UnalikeError("no images to group", expected="at least one")
    if groups is not None and groups < 1:
        raise UnalikeError(f"{groups} groups", expected="at least 1")
    unit(features_NF, name="features")  # NaN is refused before anything is made of it
    near = near_duplicates(features_NF)
    copies_N = first_of_linked(len(features_NF), near.pairs_P2[near.scores_P >= SAME])
    kept_R, place_N = np.unique(copies_N, return_inverse=True)
    unit_RD = _whitened(features_NF[kept_R], seed)
    tree = grow(unit_RD, neighbours)
    curve: tuple[tuple[int, float], ...]
    if groups is not None:
        merges, agreement, curve = len(kept_R) - groups, float("nan"), ()
    else:
        merges, agreement, curve = _where_to_cut(features_NF[kept_R], unit_RD, tree, neighbours, seed)
    merges = max(0, min(merges, len(tree.cosine_M)))
    found = _numbered(tree.cut(merges)[place_N])
    cosine = float(tree.cosine_M[merges - 1]) if merges else 1.0
    first_N = first_of_linked(len(features_NF), near.pairs_P2)
    copy_of_N = np.where(first_N == np.arange(len(first_N)), -1, first_N)
    part_N = tree.cut(min(merges, tree.merges_above(ALIKE)))[place_N]
    return replace(
        _judged(unit_RD[place_N], found),
        part_N=part_N,
        copy_of_N=copy_of_N,
        cosine=cosine,
        agreement=agreement,
        curve=curve,
    )


def grow(unit_ND: np.ndarray, neighbours: int = NEIGHBOURS) -> Tree:
    """The tree of groups of unit vectors."""
    _, near_NK = top_k(unit_ND, unit_ND, neighbours, exclude_self=True)
    return average_linkage(unit_ND, near_NK)


def _whitened(features_NF: np.ndarray, seed: int) -> np.ndarray:
    return unit(_whitening_of(features_NF, seed)(features_NF))


def _where_to_cut(
    features_RF: np.ndarray, unit_RD: np.ndarray, tree: Tree, neighbours: int, seed: int
) -> tuple[int, float, tuple[tuple[int, float], ...]]:
    """(merges, agreement there, the curve). Some whole groups stand for large sets: their cut is carried over by its mean cosine.

    Where the halves agree hardly better than chance nothing is merged: there is nothing to group by.
    """
    rows = _sample_of_groups(tree, MOST_FOR_HALVES, seed)
    sampled = tree if len(rows) == len(unit_RD) else grow(unit_RD[rows], neighbours)
    finest, coarsest = (len(rows) - sampled.merges_above(cosine) for cosine in (ALIKE, UNLIKE))
    if len(rows) < FEWEST_FOR_HALVES or finest == coarsest:
        return tree.merges_above(ALIKE), float("nan"), ()
    curve = _agreement_curve(features_RF[rows], finest, coarsest, neighbours, seed)
    count, agreement = curve[coarsest_before_the_drop([value for _, value in curve])]
    if max(value for _, value in curve) < CHANCE:
        return 0, agreement, curve
    if sampled is tree:
        return len(rows) - count, agreement, curve
    return tree.merges_above(float(sampled.cosine_M[max(len(rows) - count - 1, 0)])), agreement, curve


def coarsest_before_the_drop(agreement: list[float]) -> int:
    """The last place before the values, read from fine to coarse, first fall by DROP below the highest so far."""
    best, last = agreement[0], 0
    for place, value in enumerate(agreement):
        best = max(best, value)
        if value < best - DROP:
            break
        last = place
    return last


def _agreement_curve(
    features_SF: np.ndarray, finest: int, coarsest: int, neighbours: int, seed: int
) -> tuple[tuple[int, float], ...]:
    """(groups, mean adjusted Rand index of two halves of the features), from ``finest`` groups to ``coarsest``."""
    trees = []
    for number in range(min(8, max(2, HALVINGS // len(features_SF)))):
        order_F = np.random.default_rng([seed, 23, number]).permutation(features_SF.shape[1])
        middle = max(1, len(order_F) // 2)
        parts = (order_F[:middle], order_F[middle:])
        trees.append([grow(_whitened(features_SF[:, part], seed), neighbours) for part in parts])
    curve, count = [], finest
    while count >= max(coarsest, 1):
        values = [adjusted_rand(*(half.cut(len(features_SF) - count) for half in pair)) for pair in trees]
        curve.append((count, float(np.mean(values))))
        count = min(count - 1, int(count * COARSER))
    return tuple(curve)


def adjusted_rand(first_N: np.ndarray, second_N: np.ndarray) -> float:
    """How far two groupings agree on which pairs belong together, chance taken off: 1 the same, 0 chance.

    Source: L. Hubert, P. Arabie, Comparing partitions, 1985.
    """
    _, a_N = np.unique(first_N, return_inverse=True)
    _, b_N = np.unique(second_N, return_inverse=True)
    _, both = np.unique(a_N * (int(b_N.max(initial=0)) + 1) + b_N, return_counts=True)

    def pairs(counts: np.ndarray) -> float:
        return float((counts.astype(np.float64) * (counts - 1) / 2).sum())

    together, a, b = pairs(both), pairs(np.bincount(a_N)), pairs(np.bincount(b_N))
    total = len(a_N) * (len(a_N) - 1) / 2
    expected = a * b / total if total else 0.0
    most = (a + b) / 2
    return 1.0 if most == expected else (together - expected) / (most - expected)


def _numbered(group_N: np.ndarray) -> np.ndarray:
    """Groups by size, the largest first (ties: the one with the first image first); -1 for those of one image."""
    sizes = np.bincount(group_N)
    order = np.argsort(-sizes, kind="stable")
    number = np.empty(len(sizes), np.int64)
    number[order] = np.arange(len(sizes))
    number[sizes < 2] = -1
    return number[group_N]


def _judged(unit_ND: np.ndarray, group_N: np.ndarray) -> Grouping:
    """Confidence, nearest other group and the most typical image of each group, from mean cosines."""
    rows = np.flatnonzero(group_N >= 0)
    count = int(group_N.max(initial=-1)) + 1
    confidence_N, next_N = np.zeros(len(group_N)), np.full(len(group_N), -1, np.int64)
    if not count:
        none = np.zeros(0, np.int64)
        return Grouping(group_N, group_N, confidence_N, next_N, next_N, none, none, np.zeros(0))
    own_n = group_N[rows]
    size_G = np.bincount(own_n, minlength=count)
    sum_GD = np.zeros((count, unit_ND.shape[1]), np.float32)
    np.add.at(sum_GD, own_n, unit_ND[rows])
    within_n = np.einsum("nd,nd->n", unit_ND[rows], sum_GD[own_n])
    length_n = np.einsum("nd,nd->n", unit_ND[rows], unit_ND[rows])  # 1, or 0 for a vector that is nothing but the mean
    own_cosine_n = np.where(length_n > 0.5, (within_n - length_n) / np.maximum(size_G[own_n] - 1, 1), 1.0)
    typical_G = rows[np.lexsort((rows, -within_n, own_n))][np.cumsum(size_G) - size_G]
    mean_GD = sum_GD / size_G[:, None]

    other_N, next_N = _nearest_but(unit_ND, mean_GD, group_N)
    near_cosine_G, near_G = _nearest_but(mean_GD, mean_GD, np.arange(count))
    other_n = np.where(next_N[rows] >= 0, other_N[rows], 0.0)
    apart_n = np.maximum(1 - np.minimum(own_cosine_n, other_n), 1e-6)
    confidence_N[rows] = np.clip((own_cosine_n - other_n) / apart_n, 0.0, 1.0)
    return Grouping(group_N, group_N, confidence_N, next_N, next_N, typical_G, near_G, near_cosine_G)


def _sample_of_groups(tree: Tree, most: int, seed: int) -> np.ndarray:
    """Places of about ``most`` images, in order: groups as coarse as they may be, drawn by the seed, whole.

    Images drawn one by one would leave small groups of many images with one image each, and nothing to agree on. Of a group
    larger than an eighth of ``most`` that many images stand for it.
    """
    if tree.images <= most:
        return np.arange(tree.images)
    draws = np.random.default_rng([seed, 29])
    group_N = tree.cut(tree.merges_above(UNLIKE))
    shuffled_N = draws.permutation(tree.images)
    by_group_N = shuffled_N[np.argsort(group_N[shuffled_N], kind="stable")]
    size_G = np.bincount(group_N)
    start_G = np.cumsum(size_G) - size_G
    taken_G = np.minimum(size_G, max(2, most // 8))
    order_G = draws.permutation(len(size_G))
    count = int(np.searchsorted(np.cumsum(taken_G[order_G]), most, side="right"))
    parts = [by_group_N[start_G[g] : start_G[g] + taken_G[g]] for g in order_G[: max(1, count)].tolist()]
    return np.sort(np.concatenate(parts))


def _sample(count: int, most: int, seed: int) -> np.ndarray:
    """Places of at most ``most`` of ``count`` things, in order, drawn by the seed."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng([seed, 29]).choice(count, most, replace=False))
