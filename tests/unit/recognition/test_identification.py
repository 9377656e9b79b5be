"""The result of a query: class, score, distance, neighbors, and the note of an unknown image."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.recognition.gallery import Gallery
from unalike.recognition.identification import Identification, make_identification
from unalike.recognition.ranking import rank_classes


def identify(decision: str, threshold: float | None = None) -> Identification:
    gallery = Gallery(2)
    gallery.enrol(np.array([[1.0, 0.0], [0.0, 1.0]], np.float32), ["cup", "mug"], names=["a.png", "b.png"])
    vectors_QD = np.array([[0.6, 0.8]], np.float32)
    scores_QK, indices_QK = gallery.snapshot.search(vectors_QD, 2)
    ranking = rank_classes(gallery.snapshot, vectors_QD, "nearest", 1, second=True)
    return make_identification(gallery.snapshot, ranking, 0, decision, scores_QK[0], indices_QK[0], calibration=None,
                               stale=False, threshold=threshold)  # fmt: skip


def test_a_label_has_its_score_margin_and_neighbors() -> None:
    result = identify("label")
    assert (result.label, result.nearest, result.second, result.note) == ("mug", "mug", "cup", "")
    assert result.score == pytest.approx(0.8) and result.margin == pytest.approx(0.2)
    assert result.distance == pytest.approx(2 - 2 * 0.8)
    assert [(n.label, n.name) for n in result.neighbours] == [("mug", "b.png"), ("cup", "a.png")]
    assert result.to_dict()["neighbours"][1]["score"] == pytest.approx(0.6)


def test_an_unknown_image_has_no_label_and_says_what_would_change_that() -> None:
    result = identify("unknown", threshold=0.9)
    assert result.label is None and result.nearest == "mug"
    assert "0.800, below the threshold of 0.900" in result.note and "enroll the image" in result.note


def test_a_row_without_an_enrolled_image_is_no_neighbor() -> None:
    gallery = Gallery(2)
    gallery.enrol(np.array([[1.0, 0.0]], np.float32), ["cup"])
    ranking = rank_classes(gallery.snapshot, np.array([[1.0, 0.0]], np.float32), "nearest", 1)
    result = make_identification(gallery.snapshot, ranking, 0, "label", np.array([1.0, -1.75]), np.array([0, -1]),
                                 calibration=None, stale=False, threshold=None)  # fmt: skip
    assert len(result.neighbours) == 1 and result.second is None
