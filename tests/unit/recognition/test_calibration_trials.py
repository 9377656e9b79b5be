"""Trials of a calibration equal those of loops over the enrolled images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from unalike.errors import DataError
from unalike.recognition.calibration_trials import (
    COMPARED_RATES,
    SECOND_WEIGHTS,
    KnownTrials,
    UnknownTrials,
    _named_shares,
    balanced_sample,
    choose_second_weight,
    collect_trials,
    leave_class_out,
    leave_image_out,
)
from unalike.recognition.gallery import Gallery

LABELS = ["a"] * 4 + ["b"] * 3 + ["c"]


@pytest.fixture
def gallery() -> Gallery:
    vectors_ND = np.random.default_rng(5).normal(size=(len(LABELS), 6)).astype(np.float32)
    result = Gallery(6)
    result.enrol(vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True), LABELS)
    return result


def test_a_class_left_out_is_compared_with_the_others(gallery: Gallery) -> None:
    cosine_NN, labels_N = gallery.vectors_ND @ gallery.vectors_ND.T, np.array(LABELS)
    trials = leave_class_out(gallery.snapshot, np.arange(len(LABELS)), "nearest", 1)
    for i, label in enumerate(LABELS):
        others = np.flatnonzero(labels_N != label)
        best = others[np.argmax(cosine_NN[i, others])]
        assert trials.score_N[i] == pytest.approx(cosine_NN[i, best], abs=1e-6)
        assert gallery.snapshot.classes[trials.matched_N[i]] == LABELS[best]
        assert trials.weight_N[i] == pytest.approx(len(LABELS) / len(others))


def test_an_image_left_out_is_compared_with_all_but_itself(gallery: Gallery) -> None:
    cosine_NN = gallery.vectors_ND @ gallery.vectors_ND.T
    np.fill_diagonal(cosine_NN, -np.inf)
    trials = leave_image_out(gallery.snapshot, 100, 0, "nearest", 1)
    assert trials is not None and len(trials.score_M) == 7  # class c has one image
    np.testing.assert_allclose(trials.score_M, cosine_NN[:7].max(axis=1), atol=1e-6)
    assert trials.right_M.tolist() == [LABELS[j] == LABELS[i] for i, j in enumerate(cosine_NN[:7].argmax(axis=1))]


def test_images_of_other_classes_are_unknown(gallery: Gallery) -> None:
    vectors_QD = np.eye(6, dtype=np.float32)[:3]
    trials = collect_trials(gallery, images=(vectors_QD, ["x", "a", "y"]))
    cosine_QN, labels_N = vectors_QD @ gallery.vectors_ND.T, np.array(LABELS)
    for score, q in zip(trials.unknowns.score_N, (0, 2), strict=True):
        best = sorted((cosine_QN[q, labels_N == label].max() for label in set(LABELS)), reverse=True)
        assert score == pytest.approx(best[0] - SECOND_WEIGHTS[0] * best[1], abs=1e-6)
    assert trials.knowns is not None and len(trials.knowns.score_M) == 1
    assert trials.made_from == "2 images of 2 other classes"
    with pytest.raises(DataError, match="no images of unknown classes"):
        collect_trials(gallery, images=(vectors_QD[:1], ["a"]), trials_from="images")


def test_a_sample_takes_classes_in_turn() -> None:
    codes_N = np.array([0] * 50 + [1] * 3 + [2] * 10)
    counts = np.bincount(codes_N[balanced_sample(codes_N, 15, seed=1)])
    assert counts.tolist() == [6, 3, 6]
    assert balanced_sample(codes_N, 100, seed=1).tolist() == list(range(63))


def random_trials(
    rng: np.random.Generator, *, second_unknown: float, count: int = 300
) -> tuple[UnknownTrials, KnownTrials, np.ndarray]:
    """Trials of 30 classes; the second class of unknown images is nearer to the best one with a larger ``second_unknown``."""
    groups = rng.integers(0, 30, (2, count))
    cosine_N, cosine_M = rng.normal(0.6, 0.1, count), rng.normal(0.7, 0.1, count)
    margin_N = np.abs(rng.normal(0, 0.02, count)) + cosine_N * (1 - second_unknown)
    margin_M = np.abs(rng.normal(0.3, 0.1, count))
    unknowns = UnknownTrials(cosine_N, groups[0], rng.integers(0, 30, count), rng.uniform(1, 1.1, count), margin_N)
    return unknowns, KnownTrials(cosine_M, margin_M, rng.random(count) < 0.9, groups[1]), margin_N


def test_the_shares_behind_the_choice_of_a_weight_are_those_of_repeated_trials() -> None:
    rng = np.random.default_rng(5)
    score_N, score_M = np.round(rng.normal(0.5, 0.1, 80), 2), np.round(rng.normal(0.6, 0.1, 80), 2)  # with ties
    right_M = rng.random(80) < 0.9
    count_BN, count_BM = rng.integers(0, 3, (6, 80)), rng.integers(0, 3, (6, 80))
    share_B = _named_shares(score_N, score_M, right_M, count_BN.astype(float), count_BM.astype(float))
    for share, count_N, count_M in zip(share_B, count_BN, count_BM, strict=True):
        unknown_scores = sorted(np.repeat(score_N, count_N), reverse=True)
        known_scores, right = np.repeat(score_M, count_M), np.repeat(right_M, count_M)
        thresholds = [unknown_scores[int(rate * len(unknown_scores) + 1e-9)] for rate in COMPARED_RATES]
        wanted = [np.mean(right & (known_scores > threshold)) for threshold in thresholds]
        assert share == pytest.approx(np.mean(wanted), abs=1e-9)


def test_a_larger_weight_is_taken_only_where_unknown_images_are_near_to_many_classes() -> None:
    rng = np.random.default_rng(6)
    assert choose_second_weight(*random_trials(rng, second_unknown=0.95)) == SECOND_WEIGHTS[1]
    assert choose_second_weight(*random_trials(rng, second_unknown=0.0)) == SECOND_WEIGHTS[0]
    unknowns, knowns, margin_N = random_trials(rng, second_unknown=0.95)
    few = KnownTrials(*(getattr(knowns, name)[:19] for name in ("score_M", "margin_M", "right_M", "group_M")))
    assert choose_second_weight(unknowns, few, margin_N) == SECOND_WEIGHTS[0]
    # Where the second class's cosine is 0, weights do not differ, and the first stays.
    assert (
        choose_second_weight(unknowns, replace(knowns, margin_M=knowns.score_M), unknowns.score_N) == SECOND_WEIGHTS[0]
    )
