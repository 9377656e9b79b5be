"""Groups of vectors with known groups, without any, and degenerate ones."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from unalike.discovery.clustering import ImageGroups, group_images
from unalike.discovery.cut import adjusted_rand
from unalike.errors import UnalikeError


def clustered_vectors(
    groups: int, each: int, width: int = 96, noise: float = 0.5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of ``groups`` things, ``each`` times, in mixed order, and which thing each is."""
    rng = np.random.default_rng(seed)
    class_N = rng.permutation(np.repeat(np.arange(groups), each))
    return (rng.normal(size=(groups, width))[class_N] + noise * rng.normal(size=(len(class_N), width)) + 3.0), class_N


def test_groups_are_found_and_numbered_by_size() -> None:
    vectors, class_N = clustered_vectors(8, 15)
    keep = np.ones(len(vectors), bool)
    keep[np.flatnonzero(class_N == 3)[:5]] = False
    groups = group_images(vectors[keep])
    assert groups.count == 8
    assert adjusted_rand(groups.group_N, class_N[keep]) == 1.0
    assert groups.sizes().tolist() == [15] * 7 + [10]
    assert (groups.confidence_N > 0.5).all()
    for group in range(8):
        assert groups.group_N[groups.medoid_G[group]] == group


def test_outliers_are_in_no_group() -> None:
    vectors, class_N = clustered_vectors(6, 12)
    strays = np.random.default_rng(5).normal(size=(3, vectors.shape[1])) + 3.0
    groups = group_images(np.concatenate([vectors, strays]))
    assert (groups.group_N[-3:] == -1).all() and (groups.confidence_N[-3:] == 0).all()
    assert (groups.next_group_N[-3:] >= 0).all()
    assert adjusted_rand(groups.group_N[:-3], class_N) == 1.0


def test_noise_has_no_groups() -> None:
    groups = group_images(np.random.default_rng(0).normal(size=(60, 512)))
    assert groups.count == 0 and (groups.group_N == -1).all()
    assert groups.agreement < 0.2


def test_copies_stay_together_and_are_named() -> None:
    vectors = np.random.default_rng(1).normal(size=(4, 32))
    groups = group_images(np.repeat(vectors, 3, axis=0))
    assert groups.group_N.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert groups.duplicate_of_N.tolist() == [-1, 0, 0, -1, 3, 3, -1, 6, 6, -1, 9, 9]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_different_images_make_no_group(count: int) -> None:
    groups = group_images(np.random.default_rng(3).normal(size=(count, 16)))
    assert groups.count == 0 and groups.group_N.tolist() == [-1] * count and groups.sizes().tolist() == []


def test_identical_images_are_one_group() -> None:
    groups = group_images(np.ones((20, 8)))
    assert groups.count == 1 and (groups.group_N == 0).all() and (groups.confidence_N == 1).all()
    assert groups.duplicate_of_N.tolist() == [-1] + [0] * 19 and groups.nearest_group_G.tolist() == [-1]


def test_zero_vectors_are_accepted() -> None:
    groups = group_images(np.zeros((5, 8)))
    assert len(groups.group_N) == 5 and np.isfinite(groups.confidence_N).all()


def test_the_number_of_groups_can_be_given() -> None:
    vectors, class_N = clustered_vectors(9, 8)
    groups = group_images(vectors, groups=9)
    assert groups.count == 9 and adjusted_rand(groups.group_N, class_N) == 1.0
    with pytest.raises(UnalikeError, match="0 groups"):
        group_images(vectors, groups=0)


def test_nan_and_no_images_are_refused() -> None:
    with pytest.raises(UnalikeError, match="no images"):
        group_images(np.zeros((0, 4)))
    vectors = np.ones((3, 4))
    vectors[1, 2] = np.nan
    with pytest.raises(UnalikeError, match="NaN"):
        group_images(vectors)


def test_the_same_seed_finds_the_same() -> None:
    vectors, _ = clustered_vectors(10, 6, noise=1.0)
    first, second = group_images(vectors, seed=4), group_images(vectors, seed=4)
    assert np.array_equal(first.group_N, second.group_N) and first.agreement_curve == second.agreement_curve


def test_memory_grows_with_the_images_not_with_their_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large set: the halves are compared on a sample, and no matrix of all pairs is ever held."""
    monkeypatch.setattr("unalike.discovery.cut.MAX_AGREEMENT_IMAGES", 400)
    monkeypatch.setattr("unalike.numerics.nearest_neighbors.CHUNK_BYTES", 2**20)
    vectors, class_N = clustered_vectors(60, 100, width=16, noise=0.15)
    tracemalloc.start()
    groups = group_images(vectors.astype(np.float32))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert adjusted_rand(groups.group_N, class_N) > 0.9
    assert peak < 0.5 * 4 * len(vectors) ** 2  # 6,000 x 6,000 cosines would take 144 MB


def test_groups_survive_a_file_under_the_stored_keys() -> None:
    vectors, _ = clustered_vectors(9, 8, noise=1.0)
    groups = group_images(vectors)
    arrays = groups.to_arrays()
    assert {
        "group_N",
        "part_N",
        "next_N",
        "copy_of_N",
        "typical_G",
        "near_G",
        "near_cosine_G",
        "cosine",
        "curve",
    } < set(arrays)
    loaded = ImageGroups.from_arrays(arrays)
    for name, value in vars(groups).items():
        np.testing.assert_equal(getattr(loaded, name), value)
    assert groups.group_name(0) == "group-001"
