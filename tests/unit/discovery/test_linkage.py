"""Average linkage against a slow one that looks at every pair of groups, and its cuts."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.discovery.linkage import average_linkage
from unalike.metrics.knn import top_k, unit


def plain_linkage(unit_ND: np.ndarray) -> list[tuple[frozenset[int], float]]:
    """Every merge as (the images of the new group, its mean cosine), by looking at all pairs of groups each time."""
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
def test_with_every_pair_as_neighbours_it_is_plain_average_linkage(seed: int) -> None:
    unit_ND = unit(np.random.default_rng(seed).normal(size=(24, 5)) + 1.0)
    _, near_NK = top_k(unit_ND, unit_ND, 23, exclude_self=True)
    tree = average_linkage(unit_ND, near_NK, floor=-2.0)
    expected = plain_linkage(unit_ND)
    np.testing.assert_allclose(tree.cosine_M, [cosine for _, cosine in expected], atol=1e-5)
    for number, (members, _) in enumerate(expected):
        group_N = tree.cut(number + 1)
        inside = sorted(members)
        assert len(set(group_N[inside].tolist())) == 1
        assert (group_N == group_N[inside[0]]).sum() == len(inside)
        assert group_N.max() + 1 == 24 - number - 1


def test_groups_are_named_in_the_order_of_their_first_images() -> None:
    unit_ND = unit(np.array([[0, 1.0], [1, 0], [1, 0.1], [0, 1.1]]))
    _, near_NK = top_k(unit_ND, unit_ND, 1, exclude_self=True)
    assert average_linkage(unit_ND, near_NK).cut(2).tolist() == [0, 1, 1, 0]


def test_what_no_neighbour_joins_is_never_merged_and_the_floor_holds() -> None:
    unit_ND = unit(np.array([[1.0, 0, 0], [1, 0.1, 0], [0, 1, 0], [0, 1, 0.1]]))
    near_NK = np.array([[1], [0], [3], [2]])
    tree = average_linkage(unit_ND, near_NK)
    assert len(tree.cosine_M) == 2 and tree.cut(99).tolist() == [0, 0, 1, 1]
    opposite = unit(np.array([[1.0, 0], [-1.0, 0.1]]))
    assert len(average_linkage(opposite, np.array([[1], [0]])).cosine_M) == 0


def test_cosines_fall_whatever_the_graph_lacks_and_cuts_by_cosine_follow_them() -> None:
    unit_ND = unit(np.random.default_rng(1).normal(size=(300, 8)))
    _, near_NK = top_k(unit_ND, unit_ND, 4, exclude_self=True)
    tree = average_linkage(unit_ND, near_NK)
    assert (np.diff(tree.cosine_M) <= 0).all()
    for cosine in (0.9, 0.5, 0.1):
        count = tree.merges_above(cosine)
        assert (tree.cosine_M[:count] >= cosine).all() and (tree.cosine_M[count:] < cosine).all()


def test_no_images_and_one() -> None:
    for count in (0, 1):
        tree = average_linkage(np.zeros((count, 3), np.float32), np.zeros((count, 0), np.int64))
        assert tree.cut(5).tolist() == list(range(count))
