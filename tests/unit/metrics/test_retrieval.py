import tracemalloc

import numpy as np
import pytest

from tests.support.oracles import ranking_metrics
from tests.support.rankings import assert_equal_to_the_last_bit
from unalike.errors import UnalikeError
from unalike.metrics import query_blocks, retrieval, score_ranking
from unalike.metrics.retrieval import evaluate_ranking, rank_scores
from unalike.numerics.nearest_neighbors import top_k

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


def test_few_rows_at_a_time_change_nothing(monkeypatch):
    references, reference_labels = clouds(0, 300, 7)
    queries, labels = clouds(5, 130, 9)
    ranking = evaluate_ranking(queries, labels, references, reference_labels)
    monkeypatch.setattr(query_blocks, "MAX_ROWS", 32)
    monkeypatch.setattr(query_blocks, "MIN_ROWS", 16)
    monkeypatch.setattr(query_blocks, "BLOCK_BYTES", 32 * 300 * 4)
    monkeypatch.setattr(score_ranking, "RANK_SCORES", 3 * 300)
    parts = evaluate_ranking(queries, labels, references, reference_labels)
    for name, values in ranking.metrics().items():
        np.testing.assert_allclose(parts.metrics()[name], values, atol=1e-9)


def test_ways_to_score_are_ranked_as_vectors_are(monkeypatch):
    monkeypatch.setattr(query_blocks, "MAX_ROWS", 32)
    monkeypatch.setattr(query_blocks, "MIN_ROWS", 16)
    monkeypatch.setattr(query_blocks, "BLOCK_BYTES", 32 * 300 * 4)
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


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("k", [1, 7, 5000])
def test_neighbors_are_those_of_a_search(same, ties, k):
    references, reference_labels = clouds(0, 3100, 7)
    queries, labels = (references[:90], reference_labels[:90]) if same else clouds(5, 90, 9)
    if ties:
        references, queries = np.sign(references), np.sign(queries)
    neighbors = evaluate_ranking(queries, labels, references, reference_labels, same=same, neighbors=k).neighbors
    expected = top_k(queries, references, k, exclude_self=same)
    np.testing.assert_array_equal(neighbors.indices_QK, expected.indices_QK)
    np.testing.assert_allclose(neighbors.scores_QK, expected.scores_QK, atol=1e-6)
    assert evaluate_ranking(queries, labels, references, reference_labels, same=same).neighbors is None


# Once the last product had one row on 7 cores, on 2 cores or on one, and 128 or 64 rows on others.
@pytest.mark.parametrize("queries", [1, 257, 385, 513, 514, 1025])
def test_nothing_depends_on_the_number_of_cores(queries, monkeypatch):
    references, reference_labels = clouds(0, 700, 7, width=130)
    vectors, labels = clouds(5, queries, 9, width=130)
    rankings = []
    for cores in (1, 2, 7):
        monkeypatch.setattr(retrieval, "usable_cores", lambda cores=cores: cores)
        rankings.append(evaluate_ranking(vectors, labels, references, reference_labels, neighbors=5))
    for ranking in rankings[1:]:
        assert_equal_to_the_last_bit(ranking, rankings[0])


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
    monkeypatch.setattr(query_blocks, "BLOCK_BYTES", 2**17)
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
