"""Rows of scores are ranked as a stable sort ranks them, and parts of the queries as all of them."""

import numpy as np
import pytest

from unalike.metrics import score_ranking
from unalike.metrics.score_ranking import Relevance, Tally


def adversarial(name, rng, rows=20, references=700):
    """Score matrices that mislead a search which looks at some columns first, or that are full of ties."""
    scores = rng.uniform(-1, 1, (rows, references))
    if name == "ascending":
        scores.sort(axis=1)
    elif name == "descending":
        scores = -np.sort(-scores, axis=1)
    elif name == "periodic":  # every 32nd column is the best, or all of one group of columns
        scores -= (np.arange(references) % 32 != 0) * 0.9
        scores /= 2
    elif name == "coarse":
        scores = np.round(scores * 4) / 4
    elif name == "coarse and ascending":
        scores = np.sort(np.round(scores * 16) / 16, axis=1)
    elif name == "constant":
        scores[:] = 0.25
    elif name == "zeros of both signs":
        scores = np.where(scores > 0, 0.0, -0.0)
    return scores.astype(np.float32)


@pytest.mark.parametrize("classes", [1, 4, 40, 300])
@pytest.mark.parametrize(
    "name", ["ascending", "descending", "periodic", "coarse", "coarse and ascending", "constant", "zeros of both signs"]
)
@pytest.mark.parametrize("counting", [False, True])
def test_awkward_scores_rank_as_a_stable_sort_does(name, classes, counting, monkeypatch):
    monkeypatch.setattr(score_ranking, "COUNTING_REACH", 1 if counting else 10**9)
    rng = np.random.default_rng(classes)
    scores = adversarial(name, rng)
    codes_Q, codes_R = rng.integers(0, classes, 20, np.int32), rng.integers(0, classes, 700, np.int32)
    relevant = np.array([np.count_nonzero(codes_R == code) for code in codes_Q])
    depth = int(relevant.max())
    tally = Tally(Relevance(codes_Q, codes_R, relevant, depth, max(depth, 10)), 3)
    score_ranking.rank_scores_of_block(scores, 0, tally)
    for q, order in enumerate(np.argsort(-scores, axis=1, kind="stable")):
        ranks = np.flatnonzero(codes_R[order] == codes_Q[q]) + 1
        precision = np.arange(1, len(ranks) + 1) / ranks
        assert (tally.nearest[q], tally.score[q]) == (order[0], scores[q, order[0]])
        assert tally.neighbors_QK[q].tolist() == order[:3].tolist()
        assert tally.neighbor_scores_QK[q].tolist() == scores[q, order[:3]].tolist()
        assert tally.first[q] == (ranks[0] if len(ranks) and ranks[0] <= tally.relevance.reach else 0)
        assert tally.within_r[q] == np.count_nonzero(ranks <= relevant[q])
        np.testing.assert_allclose(tally.sum_at_r[q], precision[ranks <= relevant[q]].sum(), atol=1e-9)
        np.testing.assert_allclose(tally.sum_at_depth[q], precision[ranks <= depth].sum(), atol=1e-9)


@pytest.mark.parametrize("name", ["ascending", "descending", "periodic"])
@pytest.mark.parametrize("reach", [1, 7, 50, 300, 700])
@pytest.mark.parametrize("counting", [False, True])
def test_candidates_are_complete_and_few_whatever_the_order(name, reach, counting, monkeypatch):
    monkeypatch.setattr(score_ranking, "COUNTING_REACH", 1 if counting else 10**9)
    scores = adversarial(name, np.random.default_rng(reach))
    places = score_ranking._candidates(scores, reach)
    assert (np.diff(places) > 0).all()
    for row, best in enumerate(np.argsort(-scores, axis=1, kind="stable")[:, :reach]):
        of_row = places[places // 700 == row] - 700 * row
        assert np.isin(best, of_row).all()
        assert len(of_row) <= (score_ranking.MAX_GROUP + 1) * (reach + counting * reach // 16)


def test_counting_finds_a_tight_threshold_and_gives_up_where_an_outlier_hides_it(monkeypatch):
    rng = np.random.default_rng(0)
    largest = rng.normal(0, 0.1, (6, 2000)).astype(np.float32)
    largest[1:3] = 0.5 + largest[1:3] / 1e3  # all but equal ...
    largest[1:3, 7], largest[2, 8] = -1, 1  # ... but for outliers on one side, or on both
    largest[3] = np.round(largest[3] * 10) / 10
    largest[4] = 0
    exact = -np.sort(-largest, axis=1)[:, 799]
    thresholds = score_ranking._counted(largest.copy(), 800)
    attained = (largest >= thresholds[:, None]).sum(axis=1)
    assert (attained >= 800).all() and (attained[[0, 1, 2, 5]] <= 850).all()
    assert (largest[3:5] >= exact[3:5, None]).sum(axis=1).tolist() == attained[3:5].tolist()
    monkeypatch.setattr(score_ranking, "COUNTS", 1)
    np.testing.assert_array_equal(score_ranking._counted(largest.copy(), 800)[1:5], exact[1:5])


def test_the_results_of_parts_fill_a_tally_of_all():
    rng = np.random.default_rng(0)
    scores = rng.uniform(-1, 1, (20, 90)).astype(np.float32)
    codes_Q, codes_R = rng.integers(0, 6, 20, np.int32), rng.integers(0, 5, 90, np.int32)
    relevance = Relevance(codes_Q, codes_R, np.bincount(codes_R, minlength=6)[codes_Q], 30, 40)
    whole, joined = Tally(relevance, 4), Tally(relevance, 4)
    score_ranking.rank_scores_of_block(scores, 0, whole)
    for first, after in ((0, 7), (7, 20)):
        part = Tally(relevance.of_queries(first, after), 4)
        score_ranking.rank_scores_of_block(scores[first:after], 0, part)
        joined.fill(first, part.results())
    assert whole.results().keys() == joined.results().keys()
    for name, values in whole.results().items():
        np.testing.assert_array_equal(joined.results()[name], values, err_msg=name)
