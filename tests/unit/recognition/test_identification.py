"""The result of a query: class, score, distance, neighbors, and the note of an unknown image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from unalike.recognition.backends.protocol import RankedClasses, no_classes
from unalike.recognition.gallery import Gallery
from unalike.recognition.identification import Identification, lead_over_others, make_identification


def ranked(gallery: Gallery, k: int) -> RankedClasses:
    return gallery.view().rank(np.array([[0.6, 0.8]], np.float32), "nearest", k=k)


def identify(decision: str, threshold: float | None = None) -> Identification:
    gallery = Gallery(2)
    gallery.enrol(np.array([[1.0, 0.0], [0.0, 1.0]], np.float32), ["cup", "mug"], names=["a.png", "b.png"])
    return make_identification(ranked(gallery, 2), 0, decision, calibration=None, stale=False, threshold=threshold)


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
    nearest = replace(ranked(gallery, 1).nearest, scores_QK=np.array([[1.0, -1.75]]), ids_QK=np.array([[0, -1]]))
    result = make_identification(
        replace(ranked(gallery, 1), nearest=nearest), 0, "label", calibration=None, stale=False, threshold=None
    )
    assert len(result.neighbours) == 1 and result.second is None


def test_an_image_for_which_no_reference_passes_the_filter_says_so() -> None:
    where = {"site": ("berlin", "lyon"), "line": ("1",)}
    result = make_identification(
        no_classes(1), 0, "unknown", calibration=None, stale=False, threshold=None, where=where
    )
    assert (result.label, result.nearest, result.second, result.neighbours) == (None, "", None, ())
    assert (result.score, result.distance, result.margin) == (-1.0, 4.0, None)
    assert result.note == "no reference passes the filter site=berlin or lyon, line=1"


def test_the_lead_under_a_filter_is_that_over_the_whole_gallery() -> None:
    """Cup, mug and jug at cosines 0.9, 0.8 and 0.5 of the query; a filter leaves one of them."""
    gallery = Gallery(4)
    cosines = np.array([0.9, 0.8, 0.5])
    vectors = np.hstack([cosines[:, None], np.diag(np.sqrt(1 - cosines**2))])
    sites = [{"site": site} for site in ("a", "b", "c")]
    gallery.enrol(vectors.astype(np.float32), ["cup", "mug", "jug"], None, sites)
    query = np.eye(1, 4, dtype=np.float32)
    with gallery.view() as view:
        whole = view.rank(query)
        for site, lead in (("a", 0.1), ("b", -0.1), ("c", -0.4)):
            part = view.rank(query, where={"site": (site,)})
            assert np.isinf(part.margin_Q[0]) and lead_over_others(part, whole)[0] == pytest.approx(lead, abs=1e-6)
    assert np.isinf(lead_over_others(no_classes(1), whole)).all()
    one = Gallery(4)
    one.enrol(vectors[:1].astype(np.float32), ["cup"])
    only = one.view().rank(query)
    assert np.isinf(lead_over_others(only, only)).all()
