"""L2 normalization."""

import numpy as np
import pytest

from unalike.errors import UnalikeError
from unalike.numerics.normalization import l2_normalize


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
