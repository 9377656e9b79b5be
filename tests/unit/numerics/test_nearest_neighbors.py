import numpy as np
import pytest

from tests.support.oracles import ranked
from unalike.errors import UnalikeError
from unalike.numerics.nearest_neighbors import EXCLUDED, scan, top_k
from unalike.numerics.normalization import l2_normalize


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
    expected = np.take_along_axis(l2_normalize(queries) @ l2_normalize(references).T, indices, axis=1)
    np.testing.assert_allclose(scores, expected, atol=1e-6)


@pytest.mark.parametrize("chunk_bytes", [1, 2**26])
def test_ties_go_to_the_lower_index(chunk_bytes):
    references = np.sign(np.random.default_rng(0).standard_normal((300, 4)))
    _scores, indices = top_k(references[:20], references, 50, chunk_bytes=chunk_bytes)
    for q in range(20):
        assert indices[q].tolist() == ranked(references[q], references)[:50]


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
    references = l2_normalize(rng.standard_normal((4000, 3)))
    queries = l2_normalize(rng.standard_normal((9, 3)))
    if order == "rising":  # every tile beats all before it
        references = references[np.argsort(references @ queries[0])]
    if order == "ties":
        references = l2_normalize(np.sign(references))

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

    ones = l2_normalize(np.ones((5, 2)))
    scores, indices = scan(ones[:1], lambda a, b: ones[a:b], 5, 3, hide=hide)
    assert indices.tolist() == [[0, -1, -1]] and (scores[0, 1:] == EXCLUDED).all()
