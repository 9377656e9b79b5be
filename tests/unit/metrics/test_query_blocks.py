"""Blocks of queries: a function of the sizes; scores of a part of the queries are those of all."""

import numpy as np
import pytest

from unalike.metrics import query_blocks
from unalike.metrics.query_blocks import CosineScores, block_edges, groups_of_blocks, rounding_digest
from unalike.numerics.nearest_neighbors import EXCLUDED
from unalike.numerics.normalization import l2_normalize


@pytest.mark.parametrize(
    "queries, references, rows",
    [(1, 5, 16), (20_000, 100_000, 160), (1_000, 10**6, 64), (129, 400_000, 64), (5_000, 2_000, 512), (17, 10, 17)],
)
def test_blocks_cover_every_query_once_and_get_smaller(queries, references, rows):
    edges = block_edges(queries, references)
    assert [edge[0] for edge in edges] == [0, *[edge[1] for edge in edges[:-1]]] and edges[-1][1] == queries
    sizes = [after - first for first, after in edges]
    assert all(size % query_blocks.TILE == 0 for size in sizes[:-1]) and max(sizes) < rows + query_blocks.TILE
    assert sizes[:-1] == sorted(sizes[:-1], reverse=True) and (len(sizes) < 2 or sizes[-1] >= query_blocks.TILE)


def test_a_rest_of_one_query_is_no_block_of_its_own():
    # A product of one row is summed in another order than one of many.
    assert block_edges(513, 10**6)[-1] == (448, 513)


def test_products_keep_to_one_core_while_any_ranking_lasts():
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def most():
        return max(pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas")

    np.ones((2, 2)) @ np.ones((2, 2))
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before = most()
        with query_blocks.ONE_CORE_A_PRODUCT:
            with query_blocks.ONE_CORE_A_PRODUCT:
                assert most() == 1
            assert most() == 1
        assert most() == before


def test_scores_of_a_part_of_the_queries_are_those_of_all():
    rng = np.random.default_rng(0)
    references = l2_normalize(rng.standard_normal((400, 24)))
    for queries, same in ((l2_normalize(rng.standard_normal((90, 24))), False), (references[:90].copy(), True)):
        whole, part = (
            CosineScores(queries, references, same=same),
            CosineScores(queries[32:], references, same=same, offset=32),
        )
        for top, bottom in ((32, 64), (64, 90), (48, 64)):
            scores = part(top, bottom)
            np.testing.assert_array_equal(scores, whole(top, bottom))
            assert scores.shape == (bottom - top, 400)
            assert ((scores == EXCLUDED).sum(axis=1) == int(same)).all()
            assert not same or (np.flatnonzero(scores[0] == EXCLUDED) == [top]).all()


def test_groups_hold_so_many_scores_and_every_block_once():
    edges = block_edges(5_000, 2_000)
    groups = list(groups_of_blocks(edges, 2_000, 1_500_000))
    assert [edge for group in groups for edge in group] == edges
    assert all((group[-1][1] - group[0][0]) * 2_000 >= 1_500_000 for group in groups[:-1])
    assert list(groups_of_blocks(edges, 2_000, 10**12)) == [edges]


def test_the_digest_of_rounding_is_that_of_this_machine():
    first = rounding_digest()
    rounding_digest.cache_clear()
    assert rounding_digest() == first and len(first) == 64
