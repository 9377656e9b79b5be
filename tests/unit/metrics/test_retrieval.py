import tracemalloc

import numpy as np
import pytest

from tests.support.oracles import ranking_metrics
from unalike.errors import UnalikeError
from unalike.metrics import retrieval
from unalike.metrics.retrieval import evaluate_ranking, rank_scores

FIELDS = ("precision_at_1", "r_precision", "average_precision_at_r", "average_precision", "reciprocal_rank")
PML = {
    "precision_at_1": "precision_at_1",
    "r_precision": "r_precision",
    "mean_average_precision_at_r": "average_precision_at_r",
    "mean_average_precision": "average_precision",
    "mean_reciprocal_rank": "reciprocal_rank",
}


def clouds(seed, count, classes, width=6, noise=1.0, centres=0):
    labels = np.random.default_rng(seed).integers(0, classes, count)
    middle = np.random.default_rng(centres).standard_normal((classes, width))
    return middle[labels] + noise * np.random.default_rng(seed + 1).standard_normal((count, width)), labels


def agree(queries, labels, references, reference_labels, **options):
    ranking = evaluate_ranking(queries, labels, references, reference_labels, **options)
    oracle = ranking_metrics(
        queries.tolist(), list(labels), references.tolist(), list(reference_labels),
        same=options.get("same", False), ks=options.get("ks", (1, 5, 10)),
    )  # fmt: skip
    for q, row in enumerate(oracle):
        assert (ranking.nearest[q], ranking.predicted[q], ranking.relevant[q], ranking.open_set[q]) == (
            row["nearest"], row["predicted"], row["relevant"], row["open_set"],
        )  # fmt: skip
        for name in FIELDS:
            np.testing.assert_allclose(getattr(ranking, name)[q], row.get(name, np.nan), atol=1e-12, err_msg=name)
        for k, values in ranking.recall_at.items():
            np.testing.assert_equal(values[q], row.get(f"recall_at_{k}", np.nan))
    return ranking


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("same", [False, True])
def test_equals_the_oracle_on_random_inputs(seed, same):
    references, reference_labels = clouds(10 * seed, 90, 2 + 3 * seed)
    queries, labels = (references[:37], reference_labels[:37]) if same else clouds(10 * seed + 5, 37, 2 + 3 * seed)
    agree(queries, labels, references, reference_labels, same=same)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("same", [False, True])
def test_ties_go_to_the_lower_index(seed, same):
    # Signs in four dimensions: every cosine is a multiple of a half, exact in float32, and most are tied.
    rng = np.random.default_rng(seed)
    references, reference_labels = np.sign(rng.standard_normal((80, 4))), rng.integers(0, 5, 80)
    queries, labels = (references[:30], reference_labels[:30]) if same else (references[50:], reference_labels[50:])
    agree(queries, labels, references, reference_labels, same=same, ks=(1, 2, 30))


@pytest.mark.parametrize("same", [False, True])
def test_one_class_and_identical_vectors(same):
    vectors = np.random.default_rng(0).standard_normal((12, 3))
    ranking = agree(vectors, np.zeros(12, int), vectors, np.zeros(12, int), same=same)
    assert (ranking.average_precision_at_r == 1).all()
    ones = np.ones((12, 4))
    agree(ones, np.arange(12) % 3, ones, np.arange(12) % 3, same=same)


def test_class_of_one_is_open_set_when_it_can_only_find_itself():
    vectors, labels = clouds(0, 20, 3)
    labels[7] = 3
    ranking = agree(vectors, labels, vectors, labels, same=True)
    assert ranking.open_set.tolist() == [q == 7 for q in range(20)]


def test_ks_beyond_the_largest_class_and_beyond_the_references():
    references, reference_labels = clouds(0, 15, 5)
    queries, labels = clouds(3, 9, 5, noise=3.0)
    agree(queries, labels, references, reference_labels, ks=(1, 7, 15, 400))


def test_zero_and_negated_vectors():
    references = np.array([[1.0, 0], [-1, 0], [0, 0], [0, 1], [0, -1]])
    agree(references, np.array([0, 0, 1, 1, 1]), references, np.array([0, 0, 1, 1, 1]))


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
    monkeypatch.setattr(retrieval, "COUNTING_REACH", 1 if counting else 10**9)
    rng = np.random.default_rng(classes)
    scores = adversarial(name, rng)
    codes_Q, codes_R = rng.integers(0, classes, 20, np.int32), rng.integers(0, classes, 700, np.int32)
    relevant = np.array([np.count_nonzero(codes_R == code) for code in codes_Q])
    depth = int(relevant.max())
    tally = retrieval._Tally(codes_Q, codes_R, relevant, depth, max(depth, 10))
    retrieval._rank(scores, 0, tally)
    for q, order in enumerate(np.argsort(-scores, axis=1, kind="stable")):
        ranks = np.flatnonzero(codes_R[order] == codes_Q[q]) + 1
        precision = np.arange(1, len(ranks) + 1) / ranks
        assert (tally.nearest[q], tally.score[q]) == (order[0], scores[q, order[0]])
        assert tally.first[q] == (ranks[0] if len(ranks) and ranks[0] <= tally.reach else 0)
        assert tally.within_r[q] == np.count_nonzero(ranks <= relevant[q])
        np.testing.assert_allclose(tally.sum_at_r[q], precision[ranks <= relevant[q]].sum(), atol=1e-9)
        np.testing.assert_allclose(tally.sum_at_depth[q], precision[ranks <= depth].sum(), atol=1e-9)


@pytest.mark.parametrize("name", ["ascending", "descending", "periodic"])
@pytest.mark.parametrize("reach", [1, 7, 50, 300, 700])
@pytest.mark.parametrize("counting", [False, True])
def test_candidates_are_complete_and_few_whatever_the_order(name, reach, counting, monkeypatch):
    monkeypatch.setattr(retrieval, "COUNTING_REACH", 1 if counting else 10**9)
    scores = adversarial(name, np.random.default_rng(reach))
    places = retrieval._candidates(scores, reach)
    assert (np.diff(places) > 0).all()
    for row, best in enumerate(np.argsort(-scores, axis=1, kind="stable")[:, :reach]):
        of_row = places[places // 700 == row] - 700 * row
        assert np.isin(best, of_row).all()
        assert len(of_row) <= (retrieval.MAX_GROUP + 1) * (reach + counting * reach // 16)


def test_counting_finds_a_tight_threshold_and_gives_up_where_an_outlier_hides_it(monkeypatch):
    rng = np.random.default_rng(0)
    largest = rng.normal(0, 0.1, (6, 2000)).astype(np.float32)
    largest[1:3] = 0.5 + largest[1:3] / 1e3  # all but equal ...
    largest[1:3, 7], largest[2, 8] = -1, 1  # ... but for outliers on one side, or on both
    largest[3] = np.round(largest[3] * 10) / 10
    largest[4] = 0
    exact = -np.sort(-largest, axis=1)[:, 799]
    thresholds = retrieval._counted(largest.copy(), 800)
    attained = (largest >= thresholds[:, None]).sum(axis=1)
    assert (attained >= 800).all() and (attained[[0, 1, 2, 5]] <= 850).all()
    assert (largest[3:5] >= exact[3:5, None]).sum(axis=1).tolist() == attained[3:5].tolist()
    monkeypatch.setattr(retrieval, "COUNTS", 1)
    np.testing.assert_array_equal(retrieval._counted(largest.copy(), 800)[1:5], exact[1:5])


@pytest.mark.parametrize("queries, rows, threads", [(1, 1024, 2), (20_000, 1024, 2), (1000, 16, 8), (129, 128, 1)])
def test_chunks_cover_every_query_once_and_get_smaller(queries, rows, threads):
    edges = retrieval._edges(queries, rows, threads)
    assert [edge[0] for edge in edges] == [0, *[edge[1] for edge in edges[:-1]]] and edges[-1][1] == queries
    sizes = [after - first for first, after in edges]
    assert max(sizes) <= rows and sizes == sorted(sizes, reverse=True)


def test_products_keep_to_one_core_while_any_ranking_lasts():
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def most():
        return max(pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas")

    np.ones((2, 2)) @ np.ones((2, 2))
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before = most()
        with retrieval._ONE_CORE_A_PRODUCT:
            with retrieval._ONE_CORE_A_PRODUCT:
                assert most() == 1
            assert most() == 1
        assert most() == before


def test_few_rows_at_a_time_change_nothing(monkeypatch):
    references, reference_labels = clouds(0, 300, 7)
    queries, labels = clouds(5, 130, 9)
    ranking = evaluate_ranking(queries, labels, references, reference_labels)
    monkeypatch.setattr(retrieval, "MAX_ROWS", 17)
    monkeypatch.setattr(retrieval, "RANK_SCORES", 3 * 300)
    parts = evaluate_ranking(queries, labels, references, reference_labels)
    for name, values in ranking.metrics().items():
        np.testing.assert_allclose(parts.metrics()[name], values, atol=1e-9)


def test_ways_to_score_are_ranked_as_vectors_are(monkeypatch):
    monkeypatch.setattr(retrieval, "MAX_ROWS", 17)
    (references, reference_labels), (queries, labels) = clouds(0, 300, 7), clouds(5, 130, 9)
    weights = (np.ones(6), np.arange(1.0, 7), np.array([1, 0, 0, 0, 0, 1e-3]))
    units = [(retrieval.l2_normalize(queries * w), retrieval.l2_normalize(references * w)) for w in weights]
    rankings = rank_scores(lambda a, b: (q[a:b] @ r.T for q, r in units), 3, labels, reference_labels, ks=(1, 5))
    for ranking, w in zip(rankings, weights, strict=True):
        alone = evaluate_ranking(queries * w, labels, references * w, reference_labels, ks=(1, 5))
        for name, values in alone.metrics().items():
            np.testing.assert_allclose(ranking.metrics()[name], values, atol=1e-9)
        np.testing.assert_array_equal(ranking.nearest, alone.nearest)


def test_scores_of_nothing_or_of_fewer_ways_are_an_error():
    with pytest.raises(UnalikeError, match="0 queries and 3 references"):
        rank_scores(lambda a, b: [], 1, [], [0, 1, 1])
    with pytest.raises(UnalikeError, match="no class in common"):
        rank_scores(lambda a, b: [np.zeros((b - a, 3), np.float32)], 1, [5], [0, 1, 1])
    with pytest.raises(ValueError, match="shorter"):
        rank_scores(lambda a, b: [np.zeros((b - a, 3), np.float32)], 2, [1], [0, 1, 1])


def test_float16_equals_float32_of_the_same_numbers():
    vectors, labels = clouds(0, 60, 4)
    vectors = vectors.astype(np.float16)
    half = evaluate_ranking(vectors, labels, vectors, labels, same=True)
    full = evaluate_ranking(vectors.astype(np.float32), labels, vectors.astype(np.float32), labels, same=True)
    np.testing.assert_array_equal(half.average_precision_at_r, full.average_precision_at_r)


@pytest.mark.parametrize("classes, noise", [(1, 1.0), (3, 0.5), (12, 1.0), (60, 2.0)])
@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("per_class", [False, True])
def test_equals_pytorch_metric_learning(classes, noise, same, per_class):
    torch = pytest.importorskip("torch")
    accuracy = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    references, reference_labels = clouds(1, 200, classes, noise=noise)
    queries, labels = (references, reference_labels) if same else clouds(7, 90, classes + 2, noise=noise)
    ranking = evaluate_ranking(queries, labels, references, reference_labels, same=same)
    calculator = accuracy.AccuracyCalculator(
        include=tuple(PML), k="max_bin_count", avg_of_avgs=per_class, device=torch.device("cpu")
    )
    query_units, reference_units = retrieval.l2_normalize(queries), retrieval.l2_normalize(references)
    theirs = calculator.get_accuracy(query_units, labels, reference_units, reference_labels, same)
    closed = ~ranking.open_set
    for name, field in PML.items():
        values = getattr(ranking, field)[closed]
        if per_class:
            of_class = ranking.labels[closed]
            ours = np.mean([values[of_class == c].mean() for c in np.unique(of_class)])
        else:
            ours = values.mean()
        assert ours == pytest.approx(theirs[name], abs=1e-6), name


def test_d18_query_class_missing_from_reference_is_open_set():
    references, reference_labels = clouds(0, 40, 4)
    queries, labels = clouds(5, 25, 6, centres=9)
    ranking = agree(queries, labels, references, reference_labels)
    assert ranking.open_set.tolist() == (labels >= 4).tolist()
    assert np.isnan(ranking.precision_at_1[ranking.open_set]).all()
    assert not np.isnan(ranking.precision_at_1[~ranking.open_set]).any()


def test_d18_wholly_disjoint_sides_are_an_error_that_names_both():
    vectors = np.ones((4, 2))
    with pytest.raises(UnalikeError, match="shop/test .* and shop/train .*no class in common"):
        evaluate_ranking(
            vectors, [0, 0, 1, 1], vectors, [2, 2, 3, 3], query_name="shop/test", reference_name="shop/train"
        )
    with pytest.raises(UnalikeError, match="every class of .* has one image only"):
        evaluate_ranking(vectors, [0, 1, 2, 3], vectors, [0, 1, 2, 3], same=True)


def test_d27_memory_stays_bounded(monkeypatch):
    # One class holds everything: a top-k of the largest class would keep 3000 x 3000 indices and more.
    monkeypatch.setattr(retrieval, "SCORE_BYTES", 2**20)
    vectors = np.random.default_rng(0).standard_normal((3000, 16)).astype(np.float32)
    labels = np.zeros(3000, int)
    labels[:20] = 1
    tracemalloc.start()
    evaluate_ranking(vectors, labels, vectors, labels, same=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3000 * 3000 * 4 * 0.75


@pytest.mark.parametrize(
    "change, message",
    [
        ({"query_QD": np.ones((0, 3)), "query_labels_Q": np.zeros(0, int)}, "query holds no vectors"),
        ({"reference_RD": np.ones((0, 3)), "reference_labels_R": np.zeros(0, int)}, "reference holds no vectors"),
        ({"query_QD": np.full((4, 3), np.nan)}, "4 of 4 vectors of query hold NaN"),
        ({"reference_RD": np.ones((5, 2))}, "width"),
        ({"query_labels_Q": np.zeros(3, int)}, "labels have shape"),
        ({"query_labels_Q": np.array([0, -1, 0, 0])}, "1 query images have no label"),
        ({"query_labels_Q": np.zeros(4)}, "type float64"),
        ({"same": True, "query_labels_Q": np.array([1, 0, 0, 0])}, "not the beginning"),
        ({"ks": (0, 1)}, "ranks of at least 1"),
    ],
)
def test_wrong_inputs_are_named(change, message):
    arguments = {
        "query_QD": np.ones((4, 3)), "query_labels_Q": np.zeros(4, int),
        "reference_RD": np.ones((5, 3)), "reference_labels_R": np.zeros(5, int),
    }  # fmt: skip
    with pytest.raises(UnalikeError, match=message):
        evaluate_ranking(**(arguments | change))
