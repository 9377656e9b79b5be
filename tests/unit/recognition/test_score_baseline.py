"""The scores of a gallery's own references, against the plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.recognition.gallery import Gallery
from unalike.recognition.score_baseline import measure_baseline


def test_scores_are_those_of_all_pairs() -> None:
    rng = np.random.default_rng(1)
    labels = [f"class {row // 3}" for row in range(60)] + ["single"]
    gallery = Gallery(8)
    gallery.enrol(rng.normal(size=(61, 8)), labels)
    with gallery.view() as view:
        baseline = measure_baseline(view)
        vectors = view.vectors(range(61))
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -2)
    firsts = [labels.index(label) for label in dict.fromkeys(labels)]
    known = [float(scores[row].max()) for row in firsts if labels.count(labels[row]) > 1]
    foreign = [max(float(scores[row, other]) for other in range(61) if labels[other] != labels[row]) for row in firsts]
    assert baseline.known.tolist() == pytest.approx(known, abs=1e-5)
    assert baseline.foreign.tolist() == pytest.approx(foreign, abs=1e-5)
    assert baseline.revision == gallery.revision


def test_a_sample_is_spread_over_the_classes_and_can_be_stopped() -> None:
    gallery = Gallery(4)
    gallery.enrol(np.random.default_rng(0).normal(size=(100, 4)), [str(row % 50) for row in range(100)])
    calls: list[int] = []
    with gallery.view() as view:
        baseline = measure_baseline(view, 10, lambda: calls.append(1))
        assert len(baseline.known) == len(baseline.foreign) == 10 and len(calls) > 10

        def stop() -> None:
            raise TimeoutError

        with pytest.raises(TimeoutError):
            measure_baseline(view, 10, stop)


def test_one_class_has_no_foreign_scores_and_none_has_no_scores() -> None:
    gallery = Gallery(3)
    with gallery.view() as view:
        assert len(measure_baseline(view).known) == 0
    gallery.enrol(np.eye(3), ["a"] * 3)
    with gallery.view() as view:
        baseline = measure_baseline(view)
    assert len(baseline.known) == 1 and len(baseline.foreign) == 0
