"""L2 normalization."""

import numpy as np
import pytest

from unalike.errors import UnalikeError
from unalike.numerics.normalization import l2_normalize, unit_vectors


def test_l2_normalize_keeps_zero_and_extreme_vectors_apart_from_nan():
    vectors = np.array([[3, 4], [0, 0], [1e30, 0], [0, 1e-30]])
    np.testing.assert_allclose(l2_normalize(vectors), [[0.6, 0.8], [0, 0], [1, 0], [0, 1]], rtol=1e-6)
    assert l2_normalize(vectors[:1].astype(np.float16)).dtype == np.float32
    with pytest.raises(UnalikeError, match="1 of 2 vectors hold NaN or infinity, the first is number 1"):
        l2_normalize(np.array([[1.0, 2.0], [np.nan, 0.0]]))
    with pytest.raises(UnalikeError, match="shape"):
        l2_normalize(np.ones(3))


def test_l2_normalize_counts_what_is_not_finite_over_all_its_parts():
    vectors = np.random.default_rng(0).standard_normal((3 * 2**15, 2))
    unit_vectors = l2_normalize(vectors)
    np.testing.assert_allclose((unit_vectors**2).sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(l2_normalize(vectors[-7:]), unit_vectors[-7:])
    vectors[[40_000, 70_000, 70_001], 1] = np.inf
    with pytest.raises(UnalikeError, match="3 of 98304 vectors hold NaN or infinity, the first is number 40000"):
        l2_normalize(vectors)


def test_unit_vectors_are_normalized_once():
    vectors = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32)
    marked = unit_vectors(vectors)
    assert unit_vectors(marked) is marked and not marked.flags.writeable
    assert np.shares_memory(l2_normalize(marked), marked) and type(l2_normalize(marked)) is np.ndarray
    np.testing.assert_array_equal(marked, l2_normalize(vectors))
    rows = marked.rows(np.array([4, 2]))
    assert unit_vectors(rows) is rows
    joined = marked.join(rows)
    assert unit_vectors(joined) is joined and len(joined) == 52


@pytest.mark.parametrize(
    "change", [lambda v: 2 * v, lambda v: v[:, :3], lambda v: -v.rows(np.arange(3)), lambda v: v.T.copy()]
)
def test_what_is_made_of_unit_vectors_is_normalized_again(change):
    changed = change(unit_vectors(np.random.default_rng(0).standard_normal((50, 6))))
    np.testing.assert_allclose(np.linalg.norm(l2_normalize(changed), axis=1), 1, rtol=1e-6)
