"""Groups from vectors alone: heaps whose groups are known, heaps that have none, and the odd ones."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest

from unalike.discovery.clustering import (
    adjusted_rand,
    coarsest_before_the_drop,
    first_of_copies,
    first_of_linked,
    group_images,
    neighbour_whitening,
)
from unalike.errors import UnalikeError


def heap(groups: int, each: int, width: int = 96, noise: float = 0.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of ``groups`` things, ``each`` times, in mixed order, and which thing each is."""
    rng = np.random.default_rng(seed)
    thing_N = rng.permutation(np.repeat(np.arange(groups), each))
    return (rng.normal(size=(groups, width))[thing_N] + noise * rng.normal(size=(len(thing_N), width)) + 3.0), thing_N


def test_groups_that_are_there_are_found_largest_first() -> None:
    vectors, thing_N = heap(8, 15)
    keep = np.ones(len(vectors), bool)
    keep[np.flatnonzero(thing_N == 3)[:5]] = False
    found = group_images(vectors[keep])
    assert found.count == 8
    assert adjusted_rand(found.group_N, thing_N[keep]) == 1.0
    assert found.sizes().tolist() == [15] * 7 + [10]
    assert (found.confidence_N > 0.5).all()
    for group in range(8):
        assert found.group_N[found.typical_G[group]] == group


def test_directions_that_only_light_changes_are_divided_out() -> None:
    """What nearest neighbours differ in may be louder than what tells things apart; whitening quietens it."""
    rng = np.random.default_rng(2)
    thing_N = np.repeat(np.arange(30), 12)
    vectors = np.zeros((len(thing_N), 64))
    vectors[:, :20] = rng.normal(size=(30, 20))[thing_N]
    vectors[:, 20:30] = 2.0 * rng.normal(size=(len(thing_N), 10))
    vectors += 0.05 * rng.normal(size=vectors.shape)

    def right(x: np.ndarray) -> float:
        x = x - x.mean(axis=0)
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        cosine = x @ x.T
        np.fill_diagonal(cosine, -2)
        return float((thing_N[cosine.argmax(axis=1)] == thing_N).mean())

    before, after = right(vectors), right(neighbour_whitening(vectors)(vectors))
    assert after > before + 0.1


def test_what_is_like_nothing_else_is_in_no_group() -> None:
    vectors, thing_N = heap(6, 12)
    strays = np.random.default_rng(5).normal(size=(3, vectors.shape[1])) + 3.0
    found = group_images(np.concatenate([vectors, strays]))
    assert (found.group_N[-3:] == -1).all() and (found.confidence_N[-3:] == 0).all()
    assert (found.next_N[-3:] >= 0).all()
    assert adjusted_rand(found.group_N[:-3], thing_N) == 1.0


def test_noise_has_no_groups() -> None:
    found = group_images(np.random.default_rng(0).normal(size=(60, 512)))
    assert found.count == 0 and (found.group_N == -1).all()
    assert found.agreement < 0.2


def test_copies_stay_together_and_are_named() -> None:
    vectors = np.random.default_rng(1).normal(size=(4, 32))
    found = group_images(np.repeat(vectors, 3, axis=0))
    assert found.group_N.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert found.copy_of_N.tolist() == [-1, 0, 0, -1, 3, 3, -1, 6, 6, -1, 9, 9]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_different_images_make_no_group(count: int) -> None:
    found = group_images(np.random.default_rng(3).normal(size=(count, 16)))
    assert found.count == 0 and found.group_N.tolist() == [-1] * count and found.sizes().tolist() == []


def test_all_alike_are_one_group() -> None:
    found = group_images(np.ones((20, 8)))
    assert found.count == 1 and (found.group_N == 0).all() and (found.confidence_N == 1).all()
    assert found.copy_of_N.tolist() == [-1] + [0] * 19 and found.near_G.tolist() == [-1]


def test_vectors_of_nothing_are_survived() -> None:
    found = group_images(np.zeros((5, 8)))
    assert len(found.group_N) == 5 and np.isfinite(found.confidence_N).all()


def test_the_number_of_groups_may_be_asked_for() -> None:
    vectors, thing_N = heap(9, 8)
    found = group_images(vectors, groups=9)
    assert found.count == 9 and adjusted_rand(found.group_N, thing_N) == 1.0
    with pytest.raises(UnalikeError, match="0 groups"):
        group_images(vectors, groups=0)


def test_what_cannot_be_grouped_is_refused() -> None:
    with pytest.raises(UnalikeError, match="no images"):
        group_images(np.zeros((0, 4)))
    vectors = np.ones((3, 4))
    vectors[1, 2] = np.nan
    with pytest.raises(UnalikeError, match="NaN"):
        group_images(vectors)


def test_the_same_seed_finds_the_same() -> None:
    vectors, _ = heap(10, 6, noise=1.0)
    first, second = group_images(vectors, seed=4), group_images(vectors, seed=4)
    assert np.array_equal(first.group_N, second.group_N) and first.curve == second.curve


def test_memory_grows_with_the_images_not_with_their_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large set: the halves are compared on a sample, and no matrix of all pairs is ever held."""
    monkeypatch.setattr("unalike.discovery.clustering.MOST_FOR_HALVES", 400)
    monkeypatch.setattr("unalike.metrics.knn.CHUNK_BYTES", 2**20)
    vectors, thing_N = heap(60, 100, width=16, noise=0.15)
    tracemalloc.start()
    found = group_images(vectors.astype(np.float32))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert adjusted_rand(found.group_N, thing_N) > 0.9
    assert peak < 0.5 * 4 * len(vectors) ** 2  # 6,000 x 6,000 cosines would take 144 MB


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
    assert coarsest_before_the_drop([0.7, 0.8, 0.78, 0.6, 0.9]) == 2
    assert coarsest_before_the_drop([0.5, 0.6, 0.7]) == 2
    assert coarsest_before_the_drop([0.5]) == 0


def test_chains_of_pairs_lead_to_the_first() -> None:
    assert first_of_linked(6, np.array([[4, 5], [1, 4], [3, 5]])).tolist() == [0, 1, 2, 1, 1, 1]
    assert first_of_linked(2, np.zeros((0, 2), np.int64)).tolist() == [0, 1]
    assert first_of_copies(np.array([[1.0, 0], [0, 1], [2, 0]])).tolist() == [0, 1, 0]


def test_a_sample_of_many_small_groups_keeps_them_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images drawn one by one would be strangers to each other: 400 of 2,000 leave a group of five with one."""
    monkeypatch.setattr("unalike.discovery.clustering.MOST_FOR_HALVES", 400)
    vectors, thing_N = heap(400, 5)
    found = group_images(vectors)
    assert adjusted_rand(found.group_N, thing_N) > 0.95 and 380 <= found.count <= 410
    large, thing_N = heap(3, 500)
    found = group_images(large)
    assert found.count == 3 and adjusted_rand(found.group_N, thing_N) == 1.0
