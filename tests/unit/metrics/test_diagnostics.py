"""Findings from vectors and labels, each beside a slow and obvious way to the same."""

import math
import sys
from collections import Counter

import numpy as np
import pytest

from unalike.errors import UnalikeError
from unalike.metrics import diagnostics as insight
from unalike.metrics.diagnostics import (
    confused_classes,
    embedding_map,
    hardest_pairs,
    near_duplicates,
    suspected_labels,
)
from unalike.numerics.nearest_neighbors import top_k
from unalike.numerics.normalization import l2_normalize


def blobs(classes, images, width=16, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), images)
    return l2_normalize(rng.normal(size=(classes, width)))[labels] + noise * rng.normal(
        size=(len(labels), width)
    ) / 4, labels


def all_pairs(vectors, labels, k):
    """The oracle: every cosine in a list, sorted."""
    cosine = l2_normalize(vectors) @ l2_normalize(vectors).T
    pairs = [(a, b) for a in range(len(labels)) for b in range(a + 1, len(labels))]
    other = sorted(-cosine[a, b] for a, b in pairs if labels[a] != labels[b])[:k]
    own = sorted(cosine[a, b] for a, b in pairs if labels[a] == labels[b])[:k]
    return -np.array(other), np.array(own), cosine


@pytest.mark.parametrize("seed", range(4))
def test_hardest_pairs_are_those_of_the_whole_matrix(seed):
    rng = np.random.default_rng(seed)
    vectors, labels = rng.normal(size=(60, 5)), rng.integers(0, 7, 60)
    near, far = hardest_pairs(vectors, labels, 9)
    expected_near, expected_far, cosine = all_pairs(vectors, labels, 9)
    np.testing.assert_allclose(near.scores_P, expected_near, atol=1e-6)
    np.testing.assert_allclose(far.scores_P, expected_far, atol=1e-6)
    for pairs, same in ((near, False), (far, True)):
        assert len({tuple(pair) for pair in pairs.pairs_P2.tolist()}) == len(pairs) == 9
        for (a, b), score in zip(pairs.pairs_P2, pairs.scores_P, strict=True):
            assert a < b and (labels[a] == labels[b]) is np.bool_(same) and abs(cosine[a, b] - score) < 1e-6


def test_hardest_pairs_in_corners():
    for vectors, labels in ((np.zeros((0, 3)), []), (np.ones((1, 3)), [4])):
        assert [len(pairs) for pairs in hardest_pairs(vectors, np.array(labels, int), 3)] == [0, 0]
    near, far = hardest_pairs(np.ones((4, 3)), [0, 0, 0, 0], 2)  # one class, all equal
    assert len(near) == 0 and far.pairs_P2.tolist() == [[0, 1], [0, 2]]
    near, far = hardest_pairs(np.eye(3), [0, 1, 2], 9)  # classes of one
    assert len(near) == 3 and len(far) == 0
    with pytest.raises(UnalikeError):
        hardest_pairs(np.eye(3), [0, 1, 2], 0)


def test_confusions_count_both_ways():
    rng = np.random.default_rng(1)
    labels, predicted = rng.integers(0, 6, 300), rng.integers(0, 7, 300)
    times = Counter((a, b) for a, b in zip(labels.tolist(), predicted.tolist(), strict=True) if a != b)
    confusions = confused_classes(labels, predicted)
    assert sum(c.count for c in confusions) == sum(times.values())
    assert [c.count for c in confusions] == sorted((c.count for c in confusions), reverse=True)
    for c in confusions:
        assert c.a < c.b and (c.a_as_b, c.b_as_a) == (times[c.a, c.b], times[c.b, c.a])
        assert c.a_rate == c.a_as_b / np.sum(labels == c.a)
        assert math.isnan(c.b_rate) if c.b == 6 else c.b_rate == c.b_as_a / np.sum(labels == c.b)
    assert confused_classes([], []) == [] and confused_classes([1, 2], [1, 2]) == []


@pytest.mark.parametrize("seed", range(3))
def test_planted_wrong_labels_are_found(seed):
    """5 % of the labels of 20 separable classes moved at random: precision and recall of at least 0.95."""
    vectors, truth = blobs(20, 20, seed=seed)
    rng = np.random.default_rng(seed)
    planted = rng.choice(len(truth), 20, replace=False)
    labels = truth.copy()
    labels[planted] = (truth[planted] + rng.integers(1, 20, 20)) % 20
    suspicions = suspected_labels(vectors, labels)
    right = {s.image for s in suspicions} & set(planted.tolist())
    assert len(right) / len(suspicions) >= 0.95 and len(right) / len(planted) >= 0.95
    assert all(s.suggested == truth[s.image] and s.label == labels[s.image] for s in suspicions if s.image in right)
    assert [s.chance for s in suspicions] == sorted(s.chance for s in suspicions)


def test_labels_without_meaning_are_not_suspected():
    """Random labels on random vectors: neighbors agree by chance alone, so (nearly) nobody is accused."""
    rng = np.random.default_rng(0)
    alarms = [len(suspected_labels(rng.normal(size=(300, 8)), rng.integers(0, 5, 300))) for _ in range(5)]
    assert sum(alarms) <= 5


def test_look_alike_classes_explain_their_own_confusions():
    vectors, truth = blobs(10, 30)
    twins = truth.copy()
    half = np.flatnonzero(truth == 0)[::2]
    twins[half] = 1  # class 0's images stand half under 0 and half under 1: nobody can say which is wrong
    suspected = {s.image for s in suspected_labels(vectors, twins)}
    assert len(suspected & set(np.flatnonzero(truth == 0).tolist())) <= 3


def test_suspicion_in_corners():
    assert suspected_labels(np.zeros((0, 2)), []) == [] == suspected_labels(np.ones((1, 2)), [3])
    assert suspected_labels(np.ones((5, 2)), [1] * 5) == []
    vectors, labels = blobs(3, 10)
    labels[0] = 9  # alone in its class: cannot be judged
    assert 0 not in {s.image for s in suspected_labels(vectors, labels)}
    assert isinstance(suspected_labels(np.ones((6, 2)), [0, 1] * 3), list)  # ties everywhere
    with pytest.raises(UnalikeError):
        suspected_labels(vectors, labels, 0)


def test_binomial_tail_is_the_sum_of_its_terms():
    draws = np.random.default_rng(0).binomial(8, 0.3, 200_000)
    for m in range(9):
        assert insight._binomial_tail(m, 8, 0.3) == pytest.approx((draws >= m).mean(), abs=0.005)
    assert insight._binomial_tail(1, 8, 0.0) == 0 and insight._binomial_tail(3, 8, 7.0) == 1


@pytest.mark.parametrize("two", [False, True])
def test_near_duplicates_at_a_given_threshold(two):
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(40, 3)), rng.normal(size=(30, 3))
    duplicates = near_duplicates(a, b if two else None, 0.97, k=50)
    cosine = l2_normalize(a) @ l2_normalize(b if two else a).T
    expected = {(i, j) for i, j in np.argwhere(cosine >= 0.97).tolist() if two or i < j}
    assert {tuple(pair) for pair in duplicates.pairs_P2.tolist()} == expected and expected
    assert (np.diff(duplicates.scores_P) <= 0).all() and duplicates.threshold == 0.97


def test_planted_copies_and_nothing_else_are_duplicates():
    rng = np.random.default_rng(3)
    vectors, _ = blobs(20, 15)
    copies = vectors[[3, 50, 120]] + 1e-3 * rng.normal(size=(3, 16))
    duplicates = near_duplicates(np.concatenate([vectors, copies]))
    assert {tuple(p) for p in duplicates.pairs_P2.tolist()} == {(3, 300), (50, 301), (120, 302)}
    assert {tuple(p) for p in near_duplicates(copies, vectors, duplicates.threshold).pairs_P2.tolist()} == {
        (0, 3), (1, 50), (2, 120),
    }  # fmt: skip
    assert len(near_duplicates(vectors)) == 0
    everything = near_duplicates(vectors, vectors)  # a set against itself: no median to go by
    assert len(everything) == 300 and everything.threshold > 0.9999


def test_duplicates_in_corners():
    for a, b in ((np.zeros((0, 3)), None), (np.ones((1, 3)), None), (np.zeros((0, 3)), np.ones((2, 3)))):
        assert len(near_duplicates(a, b)) == 0
    assert len(near_duplicates(np.ones((1, 3)), np.zeros((0, 3)))) == 0
    with pytest.raises(UnalikeError):
        near_duplicates(np.ones((2, 3)), threshold=1.5)
    with pytest.raises(UnalikeError):
        near_duplicates(np.ones((2, 3)), np.ones((2, 4)))


@pytest.mark.parametrize("learn", [True, False])
def test_map_keeps_classes_together(learn, monkeypatch):
    if learn:
        pytest.importorskip("sklearn")
    else:
        monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    vectors, labels = blobs(3, 12)
    places = embedding_map(vectors, 1)
    assert places.shape == (36, 2) and np.isfinite(places).all()
    np.testing.assert_array_equal(places, embedding_map(vectors, 1))
    distance = np.linalg.norm(places[:, None] - places[None], axis=2) + 1e9 * np.eye(36)
    assert (labels[distance.argmin(axis=1)] == labels).mean() > 0.9


def test_principal_axes_are_those_of_the_svd():
    vectors = l2_normalize(np.random.default_rng(0).normal(size=(50, 6)))
    places = embedding_map(vectors, most=0)
    left, values, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(places), np.abs(left[:, :2] * values[:2]), atol=1e-4)


@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (2, 3), (12, 1), (30, 3)])
def test_map_in_corners(shape):
    assert embedding_map(np.ones(shape)).shape == (shape[0], 2)


def test_neighbors_that_are_known_are_not_searched_again(monkeypatch):
    vectors = np.random.default_rng(2).standard_normal((60, 5))
    vectors[10], labels = vectors[3], np.arange(60) % 4
    neighbors = top_k(vectors, vectors, 30, exclude_self=True)
    expected = near_duplicates(vectors), suspected_labels(vectors, labels)
    monkeypatch.setattr(insight, "top_k", None)
    duplicates = near_duplicates(vectors, neighbors=neighbors)
    np.testing.assert_array_equal(duplicates.pairs_P2, expected[0].pairs_P2)
    assert duplicates.threshold == expected[0].threshold
    assert suspected_labels(vectors, labels, neighbors=neighbors) == expected[1]
