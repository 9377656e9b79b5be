"""Grouping and order of what is asked, against slow oracles."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.discovery.review_order import group_likely_classes, order_by_uncertainty
from unalike.errors import UnalikeError


def clusters(sizes: list[int], dim: int = 16, noise: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors around one direction for each size, shuffled, and the cluster of each."""
    rng = np.random.default_rng(seed)
    centers = np.linalg.qr(rng.normal(size=(dim, dim)))[0][: len(sizes)]
    truth = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return (centers[truth] + noise * rng.normal(size=(len(truth), dim)) / dim**0.5).astype(np.float32), truth


def oracle_groups(vectors: np.ndarray, min_cosine: float) -> list[set[int]]:
    """Average linkage of all pairs, one merge after the other."""
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    groups = [{number} for number in range(len(units))]
    while len(groups) > 1:
        best = max(
            (float(np.mean([units[i] @ units[j] for i in a for j in b])), x, y)
            for x, a in enumerate(groups) for y, b in enumerate(groups) if x < y
        )  # fmt: skip
        if best[0] <= min_cosine:
            break
        groups[best[1]] |= groups.pop(best[2])
    return groups


def test_groups_are_those_of_average_linkage_the_largest_first() -> None:
    vectors, truth = clusters([3, 6, 4, 1, 1])
    group = group_likely_classes(vectors, 0.5)
    assert sorted(np.bincount(group[group >= 0]), reverse=True) == [6, 4, 3] == np.bincount(group[group >= 0]).tolist()
    assert set(truth[group == -1]) == {3, 4}
    for expected in oracle_groups(vectors, 0.5):
        numbers = {int(group[member]) for member in expected}
        assert len(numbers) == 1 and (numbers == {-1}) == (len(expected) == 1)


def test_nothing_and_one_image_are_no_group() -> None:
    assert group_likely_classes(np.empty((0, 4), np.float32), 0.5).tolist() == []
    assert group_likely_classes(np.ones((1, 4), np.float32), 0.5).tolist() == [-1]
    assert group_likely_classes(np.ones((2, 4), np.float32), 0.5).tolist() == [0, 0]


def oracle_order(vectors: np.ndarray, weights: np.ndarray, count: int) -> list[int]:
    units = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    order: list[int] = []
    while len(order) < min(count, len(units)):
        gains = [
            -1.0 if row in order
            else weights[row] * max(min([1.0, *(1 - float(units[row] @ units[other]) for other in order)]), 1e-6)
            for row in range(len(units))
        ]  # fmt: skip
        order.append(int(np.argmax(gains)))
    return order


@pytest.mark.parametrize("seed", range(5))
def test_the_order_is_that_of_the_plain_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, weights = rng.normal(size=(40, 8)).astype(np.float32), rng.uniform(size=40)
    assert order_by_uncertainty(vectors, weights, 25).tolist() == oracle_order(vectors, weights, 25)


def test_of_ten_pictures_of_one_thing_one_comes_first() -> None:
    vectors, truth = clusters([10, 1, 1, 1], noise=0.01)
    weights = np.where(truth == 0, 1.0, 0.5)  # the ten are more uncertain
    order = order_by_uncertainty(vectors, weights, 13).tolist()
    assert truth[order[0]] == 0 and sorted(truth[order[1:4]]) == [1, 2, 3] and set(truth[order[4:]]) == {0}
    assert sorted(order) == list(range(13))


def test_what_does_not_fit_is_refused() -> None:
    vectors = np.eye(3, dtype=np.float32)
    for weights in ([1.0], [1.0, -1.0, 0.0], [1.0, float("nan"), 0.0]):
        with pytest.raises(UnalikeError, match="weights of 3 images"):
            order_by_uncertainty(vectors, np.array(weights), 2)
