"""The cut of a dendrogram: adjusted Rand index against counted pairs, the drop, samples of groups."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.unit.discovery.test_clustering import clustered_vectors
from unalike.discovery.clustering import group_images
from unalike.discovery.cut import adjusted_rand, last_before_drop


def plain_rand(a: list[int], b: list[int]) -> float:
    pairs = list(itertools.combinations(range(len(a)), 2))
    in_a, in_b = ([x[i] == x[j] for i, j in pairs] for x in (a, b))
    both = sum(p and q for p, q in zip(in_a, in_b, strict=True))
    expected = sum(in_a) * sum(in_b) / len(pairs)
    return (both - expected) / ((sum(in_a) + sum(in_b)) / 2 - expected)


@pytest.mark.parametrize("seed", range(3))
def test_adjusted_rand_counts_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 4, 30), rng.integers(0, 5, 30)
    assert adjusted_rand(a, b) == pytest.approx(plain_rand(a.tolist(), b.tolist()))
    assert adjusted_rand(a, a + 7) == 1.0


def test_the_cut_stops_at_the_first_drop() -> None:
    assert last_before_drop([0.7, 0.8, 0.78, 0.6, 0.9]) == 2
    assert last_before_drop([0.5, 0.6, 0.7]) == 2
    assert last_before_drop([0.5]) == 0


def test_a_sample_keeps_small_groups_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images drawn one by one would be strangers to each other: 400 of 2,000 leave a group of five with one."""
    monkeypatch.setattr("unalike.discovery.cut.MAX_AGREEMENT_IMAGES", 400)
    vectors, class_N = clustered_vectors(400, 5)
    groups = group_images(vectors)
    assert adjusted_rand(groups.group_N, class_N) > 0.95 and 380 <= groups.count <= 410
    large, class_N = clustered_vectors(3, 500)
    groups = group_images(large)
    assert groups.count == 3 and adjusted_rand(groups.group_N, class_N) == 1.0
