"""Average linkage against a slow one that compares all pairs of groups, and cuts."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.discovery.linkage import average_linkage
from unalike.numerics.nearest_neighbors import top_k
from unalike.numerics.normalization import l2_normalize


def plain_linkage(unit_ND: np.ndarray) -> list[tuple[frozenset[int], float]]:
    """Every merge as (the images of the new group, its mean cosine), by comparing all pairs of groups each time."""
    groups = [frozenset([i]) for i in range(len(unit_ND))]
    merges = []
    while len(groups) > 1:
        best = max(
            ((a, b) for n, a in enumerate(groups) for b in groups[n + 1 :]),
            key=lambda pair: float(np.mean([unit_ND[i] @ unit_ND[j] for i in pair[0] for j in pair[1]])),
        )
        cosine = float(np.mean([unit_ND[i] @ unit_ND[j] for i in best[0] for j in best[1]]))
        groups = [g for g in groups if g not in best] + [best[0] | best[1]]
        merges.append((best[0] | best[1], cosine))
    return merges


@pytest.mark.parametrize("seed", range(4))
def test_with_all_pairs_as_neighbors_it_is_plain_average_linkage(seed: int) -> None:
    unit_ND = l2_normalize(np.random.default_rng(seed).normal(size=(24, 5)) + 1.0)
    _, neighbor_NK = top_k(unit_ND, unit_ND, 23, exclude_self=True)
    dendrogram = average_linkage(unit_ND, neighbor_NK, min_cosine=-2.0)
    expected = plain_linkage(unit_ND)
    np.testing.assert_allclose(dendrogram.cosine_M, [cosine for _, cosine in expected], atol=1e-5)
    for number, (members, _) in enumerate(expected):
        group_N = dendrogram.cut(number + 1)
        inside = sorted(members)
        assert len(set(group_N[inside].tolist())) == 1
        assert (group_N == group_N[inside[0]]).sum() == len(inside)
        assert group_N.max() + 1 == 24 - number - 1


def test_groups_are_numbered_in_the_order_of_their_first_images() -> None:
    unit_ND = l2_normalize(np.array([[0, 1.0], [1, 0], [1, 0.1], [0, 1.1]]))
    _, neighbor_NK = top_k(unit_ND, unit_ND, 1, exclude_self=True)
    assert average_linkage(unit_ND, neighbor_NK).cut(2).tolist() == [0, 1, 1, 0]


def test_groups_without_neighboring_pairs_or_below_the_minimum_are_not_merged() -> None:
    unit_ND = l2_normalize(np.array([[1.0, 0, 0], [1, 0.1, 0], [0, 1, 0], [0, 1, 0.1]]))
    neighbor_NK = np.array([[1], [0], [3], [2]])
    dendrogram = average_linkage(unit_ND, neighbor_NK)
    assert len(dendrogram.cosine_M) == 2 and dendrogram.cut(99).tolist() == [0, 0, 1, 1]
    opposite = l2_normalize(np.array([[1.0, 0], [-1.0, 0.1]]))
    assert len(average_linkage(opposite, np.array([[1], [0]])).cosine_M) == 0


def test_cosines_do_not_increase_and_cuts_by_cosine_follow_them() -> None:
    unit_ND = l2_normalize(np.random.default_rng(1).normal(size=(300, 8)))
    _, neighbor_NK = top_k(unit_ND, unit_ND, 4, exclude_self=True)
    dendrogram = average_linkage(unit_ND, neighbor_NK)
    assert (np.diff(dendrogram.cosine_M) <= 0).all()
    for cosine in (0.9, 0.5, 0.1):
        count = dendrogram.merges_above(cosine)
        assert (dendrogram.cosine_M[:count] >= cosine).all() and (dendrogram.cosine_M[count:] < cosine).all()


def test_no_images_and_one() -> None:
    for count in (0, 1):
        dendrogram = average_linkage(np.zeros((count, 3), np.float32), np.zeros((count, 0), np.int64))
        assert dendrogram.cut(5).tolist() == list(range(count))
