"""Where to cut a dendrogram: the coarsest groups on which two random halves of the features still agree.

A dendrogram is built from one random half of the features, whitened by itself, and another from the other half; groups that
appear in both are not due to chance. From fine to coarse, between two bounds of similarity, the cut stops where that agreement drops.

Shape letters: N images, S sampled images, R images that are no copies, F features, D dimensions, G groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unalike.discovery.linkage import Dendrogram, average_linkage
from unalike.discovery.neighbor_whitening import NeighborWhitening
from unalike.numerics.nearest_neighbors import top_k
from unalike.numerics.normalization import l2_normalize

# Most images on which the agreement is measured: more make no measurable difference.
MAX_AGREEMENT_IMAGES = 4096
# Images that are divided into halves of features in all: small sets, whose agreement is noisy, are divided more often.
TOTAL_AGREEMENT_IMAGES = 8192
MIN_AGREEMENT_IMAGES = 12
# Mean cosines (whitened): groups above the first are merged whatever the agreement, groups below the second never. Unrelated
# images lie near 0.
ALWAYS_MERGE_COSINE, NEVER_MERGE_COSINE = 0.5, 0.15
COUNT_RATIO = 0.88  # number of groups of one cut to that of the next finer one
MAX_DROP = 0.05  # of agreement (adjusted Rand index) from its maximum, on the way from fine to coarse
CHANCE_AGREEMENT = 0.2  # below it there are no groups to find

AgreementCurve = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Cut:
    """Where a dendrogram is cut.

    Attributes:
        merges: Number of merges.
        agreement: Mean adjusted Rand index of two halves of the features there; NaN where it was not measured.
        curve: (groups, agreement) of every cut that was considered.
    """

    merges: int
    agreement: float = float("nan")
    curve: AgreementCurve = ()


def build_dendrogram(unit_ND: np.ndarray, neighbors: int) -> Dendrogram:
    """Average linkage over the graph of each vector's nearest ``neighbors``."""
    _, neighbor_NK = top_k(unit_ND, unit_ND, neighbors, exclude_self=True)
    return average_linkage(unit_ND, neighbor_NK)


def whiten(features_RF: np.ndarray, seed: int) -> np.ndarray:
    """Unit vectors of features without copies, whitened by their neighbors."""
    return l2_normalize(NeighborWhitening.fit_distinct(features_RF, seed).transform(features_RF))


def choose_cut(features_RF: np.ndarray, unit_RD: np.ndarray, dendrogram: Dendrogram, neighbors: int, seed: int) -> Cut:
    """Choose where to cut a dendrogram.

    Of large sets, a sample of complete groups is measured and its cut is carried over by its mean cosine. Where the halves
    agree hardly better than chance, nothing is merged: there are no groups to find.

    Args:
        features_RF: Features without copies.
        unit_RD: The same, whitened.
        dendrogram: Of ``unit_RD``.
        neighbors: Neighbors of each image in the graph.
        seed: Seed of the sample and of the halves.
    """
    sample_S = sample_groups(dendrogram, MAX_AGREEMENT_IMAGES, seed)
    sampled = dendrogram if len(sample_S) == len(unit_RD) else build_dendrogram(unit_RD[sample_S], neighbors)
    finest, coarsest = (
        len(sample_S) - sampled.merges_above(cosine) for cosine in (ALWAYS_MERGE_COSINE, NEVER_MERGE_COSINE)
    )
    if len(sample_S) < MIN_AGREEMENT_IMAGES or finest == coarsest:
        return Cut(dendrogram.merges_above(ALWAYS_MERGE_COSINE))
    curve = _agreement_curve(features_RF[sample_S], finest, coarsest, neighbors, seed)
    count, agreement = curve[last_before_drop([value for _, value in curve])]
    if max(value for _, value in curve) < CHANCE_AGREEMENT:
        return Cut(0, agreement, curve)
    if sampled is dendrogram:
        return Cut(len(sample_S) - count, agreement, curve)
    cosine = float(sampled.cosine_M[max(len(sample_S) - count - 1, 0)])
    return Cut(dendrogram.merges_above(cosine), agreement, curve)


def last_before_drop(agreement: list[float]) -> int:
    """Last index before the values first fall by more than ``MAX_DROP`` below the highest so far."""
    best, last = agreement[0], 0
    for index, value in enumerate(agreement):
        best = max(best, value)
        if value < best - MAX_DROP:
            break
        last = index
    return last


def _agreement_curve(features_SF: np.ndarray, finest: int, coarsest: int, neighbors: int, seed: int) -> AgreementCurve:
    """(groups, mean adjusted Rand index of two halves of the features), from ``finest`` groups to ``coarsest``."""
    pairs = []
    for number in range(min(8, max(2, TOTAL_AGREEMENT_IMAGES // len(features_SF)))):
        order_F = np.random.default_rng([seed, 23, number]).permutation(features_SF.shape[1])
        middle = max(1, len(order_F) // 2)
        halves = (order_F[:middle], order_F[middle:])
        pairs.append([build_dendrogram(whiten(features_SF[:, half], seed), neighbors) for half in halves])
    curve, count = [], finest
    while count >= max(coarsest, 1):
        values = [adjusted_rand(*(half.cut(len(features_SF) - count) for half in pair)) for pair in pairs]
        curve.append((count, float(np.mean(values))))
        count = min(count - 1, int(count * COUNT_RATIO))
    return tuple(curve)


def sample_groups(dendrogram: Dendrogram, limit: int, seed: int) -> np.ndarray:
    """Sample complete groups, as coarse as ``NEVER_MERGE_COSINE`` allows, of about ``limit`` images in all.

    Sampling single images would leave one image of each small group, and nothing to agree on. Of a group of more than an
    eighth of ``limit``, that many images are sampled.

    Returns:
        Sorted indices of the images.
    """
    if dendrogram.images <= limit:
        return np.arange(dendrogram.images)
    rng = np.random.default_rng([seed, 29])
    group_N = dendrogram.cut(dendrogram.merges_above(NEVER_MERGE_COSINE))
    shuffled_N = rng.permutation(dendrogram.images)
    by_group_N = shuffled_N[np.argsort(group_N[shuffled_N], kind="stable")]
    size_G = np.bincount(group_N)
    start_G = np.cumsum(size_G) - size_G
    quota_G = np.minimum(size_G, max(2, limit // 8))
    order_G = rng.permutation(len(size_G))
    count = int(np.searchsorted(np.cumsum(quota_G[order_G]), limit, side="right"))
    parts = [by_group_N[start_G[g] : start_G[g] + quota_G[g]] for g in order_G[: max(1, count)].tolist()]
    return np.sort(np.concatenate(parts))


def adjusted_rand(first_N: np.ndarray, second_N: np.ndarray) -> float:
    """Adjusted Rand index of two groupings: 1 for equal ones, 0 for chance (Hubert and Arabie, 1985).

    Written here because it is scikit-learn's, which is not installed with an exported model.
    """
    _, a_N = np.unique(first_N, return_inverse=True)
    _, b_N = np.unique(second_N, return_inverse=True)
    _, common = np.unique(a_N * (int(b_N.max(initial=0)) + 1) + b_N, return_counts=True)

    def pairs(counts: np.ndarray) -> float:
        return float((counts.astype(np.float64) * (counts - 1) / 2).sum())

    together, a, b = pairs(common), pairs(np.bincount(a_N)), pairs(np.bincount(b_N))
    total = len(a_N) * (len(a_N) - 1) / 2
    expected_pairs = a * b / total if total else 0.0
    maximum = (a + b) / 2
    return 1.0 if maximum == expected_pairs else (together - expected_pairs) / (maximum - expected_pairs)
