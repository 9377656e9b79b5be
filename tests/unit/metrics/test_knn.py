import numpy as np
import pytest

from tests.support.oracles import ranked
from unalike.errors import UnalikeError
from unalike.metrics.knn import EXCLUDED, float16_to_float32, scan, top_k, unit


@pytest.mark.parametrize("chunk_bytes", [1, 5000, 2**26])
@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("k", [1, 3, 40, 1000])
def test_top_k_equals_a_full_sort(chunk_bytes, exclude_self, k):
    rng = np.random.default_rng(0)
    references = rng.standard_normal((40, 6)).astype(np.float32)
    queries = references[:15]
    scores, indices = top_k(queries, references, k, exclude_self=exclude_self, chunk_bytes=chunk_bytes)
    for q, query in enumerate(queries):
        assert indices[q].tolist() == ranked(query, references, q if exclude_self else None)[:k]
    assert scores.shape == indices.shape == (15, min(k, 40 - exclude_self))
    assert (np.diff(scores, axis=1) <= 0).all()
    expected = np.take_along_axis(unit(queries) @ unit(references).T, indices, axis=1)
    np.testing.assert_allclose(scores, expected, atol=1e-6)


@pytest.mark.parametrize("chunk_bytes", [1, 2**26])
def test_ties_go_to_the_lower_index(chunk_bytes):
    references = np.sign(np.random.default_rng(0).standard_normal((300, 4)))
    _scores, indices = top_k(references[:20], references, 50, chunk_bytes=chunk_bytes)
    for q in range(20):
        assert indices[q].tolist() == ranked(references[q], references)[:50]


def test_unit_keeps_zero_and_extreme_vectors_apart_from_nan():
    vectors = np.array([[3, 4], [0, 0], [1e30, 0], [0, 1e-30]])
    np.testing.assert_allclose(unit(vectors), [[0.6, 0.8], [0, 0], [1, 0], [0, 1]], rtol=1e-6)
    assert unit(vectors[:1].astype(np.float16)).dtype == np.float32
    with pytest.raises(UnalikeError, match="1 of 2 vectors hold NaN or infinity, the first is number 1"):
        unit(np.array([[1.0, 2.0], [np.nan, 0.0]]))
    with pytest.raises(UnalikeError, match="shape"):
        unit(np.ones(3))


def test_unit_counts_what_is_not_finite_over_all_its_parts():
    vectors = np.random.default_rng(0).standard_normal((3 * 2**15, 2))
    unit_vectors = unit(vectors)
    np.testing.assert_allclose((unit_vectors**2).sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(unit(vectors[-7:]), unit_vectors[-7:])
    vectors[[40_000, 70_000, 70_001], 1] = np.inf
    with pytest.raises(UnalikeError, match="3 of 98304 vectors hold NaN or infinity, the first is number 40000"):
        unit(vectors)


def test_empty_and_wrong_inputs():
    ones = np.ones((3, 2))
    assert top_k(ones[:0], ones, 2)[0].shape == (0, 2)
    assert top_k(ones, ones[:0], 2)[0].shape == (3, 0)
    with pytest.raises(UnalikeError, match="width"):
        top_k(ones, np.ones((3, 4)), 1)
    with pytest.raises(UnalikeError, match="at least 1"):
        top_k(ones, ones, 0)


@pytest.mark.parametrize("order", ["random", "rising", "ties"])
@pytest.mark.parametrize("columns", [37, 500, 4000])
def test_scan_equals_a_full_sort_whatever_the_order(order, columns):
    rng = np.random.default_rng(1)
    references = unit(rng.standard_normal((4000, 3)))
    queries = unit(rng.standard_normal((9, 3)))
    if order == "rising":  # every tile beats all before it
        references = references[np.argsort(references @ queries[0])]
    if order == "ties":
        references = unit(np.sign(references))

    def hide(scores, top, left):  # the query's own residue class does not count
        scores[(np.arange(top, top + len(scores))[:, None] - np.arange(left, left + scores.shape[1])) % 9 == 0] = (
            EXCLUDED
        )

    for k, masked in ((1, None), (7, hide), (60, None)):
        scores, indices = scan(queries, lambda a, b: references[a:b], 4000, k, hide=masked, columns=columns)
        for q, query in enumerate(queries):
            products = (references @ query).astype(np.float32)
            expected = np.sort(products if masked is None else np.delete(products, np.arange(q, 4000, 9)))[::-1][:k]
            np.testing.assert_allclose(scores[q], expected, atol=1e-6)
            np.testing.assert_allclose(products[indices[q]], scores[q], atol=1e-6)
            assert len(set(indices[q])) == k and (masked is None or ((indices[q] - q) % 9 != 0).all())
            equal = np.diff(scores[q]) == 0
            assert (np.diff(indices[q])[equal] > 0).all()


def test_scan_says_where_nothing_counts():
    def hide(scores, top, left):
        scores[:, left == 0 :] = EXCLUDED

    ones = unit(np.ones((5, 2)))
    scores, indices = scan(ones[:1], lambda a, b: ones[a:b], 5, 3, hide=hide)
    assert indices.tolist() == [[0, -1, -1]] and (scores[0, 1:] == EXCLUDED).all()


def test_widen_is_exact_for_every_half():
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)].reshape(-1, 32)
    np.testing.assert_array_equal(
        float16_to_float32(halves, np.empty(halves.shape, np.float32)), halves.astype(np.float32)
    )
