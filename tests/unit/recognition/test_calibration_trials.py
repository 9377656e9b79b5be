"""Trials of a calibration equal those of loops over the enrolled images."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.errors import DataError
from unalike.recognition.calibration_trials import (
    SECOND_WEIGHT,
    balanced_sample,
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
        assert score == pytest.approx(best[0] - SECOND_WEIGHT * best[1], abs=1e-6)
    assert trials.knowns is not None and len(trials.knowns.score_M) == 1
    assert trials.made_from == "2 images of 2 other classes"
    with pytest.raises(DataError, match="no images of unknown classes"):
        collect_trials(gallery, images=(vectors_QD[:1], ["a"]), trials_from="images")


def test_a_sample_takes_classes_in_turn() -> None:
    codes_N = np.array([0] * 50 + [1] * 3 + [2] * 10)
    counts = np.bincount(codes_N[balanced_sample(codes_N, 15, seed=1)])
    assert counts.tolist() == [6, 3, 6]
    assert balanced_sample(codes_N, 100, seed=1).tolist() == list(range(63))
