"""Two models on the same images: hits by a plain loop, changes with both labels, intervals of the project's own code."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.errors import DataError
from unalike.learning.paired_result import compare_models
from unalike.metrics.intervals import difference_interval


def test_hits_and_changes_are_those_of_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    labels_R, labels_Q = [f"c{n % 5}" for n in range(30)], [f"c{n % 5}" for n in range(40)]
    before, after = (
        (rng.normal(size=(40, 6)), rng.normal(size=(30, 6))),
        (rng.normal(size=(40, 9)), rng.normal(size=(30, 9))),
    )
    images = [(f"{n:064x}", f"image {n}") for n in range(40)]
    result = compare_models(before, after, labels_Q, labels_R, images)
    expected = []
    for query_QD, reference_RD in (before, after):
        unit_Q = query_QD / np.linalg.norm(query_QD, axis=1, keepdims=True)
        unit_R = reference_RD / np.linalg.norm(reference_RD, axis=1, keepdims=True)
        expected.append([labels_R[int((unit_R @ q).argmax())] for q in unit_Q])
    hits = [np.array(answer) == np.array(labels_Q) for answer in expected]
    assert (result.hit_before_Q == hits[0]).all() and (result.hit_after_Q == hits[1]).all()
    changed = {n for n in range(40) if hits[0][n] != hits[1][n]}
    assert {int(change.sha256, 16) for change in result.changes} == changed and changed
    for change in result.changes:
        n = int(change.sha256, 16)
        assert (change.label, change.before, change.after) == (labels_Q[n], expected[0][n], expected[1][n])
        assert change.is_gain == hits[1][n] and change.to_dict()["gain"] == change.is_gain
    assert [change.is_gain for change in result.changes] == sorted([c.is_gain for c in result.changes], reverse=True)
    assert (result.gains, result.losses) == (sum(hits[1] & ~hits[0]), sum(hits[0] & ~hits[1]))
    interval = difference_interval(hits[0], hits[1])
    assert result.difference == interval and result.to_dict()["difference"] == interval.to_dict()
    assert result.to_dict()["before"] == pytest.approx(hits[0].mean())


def test_without_images_there_are_no_rates_and_without_references_nothing() -> None:
    empty = (np.empty((0, 3)), np.ones((2, 3)))
    result = compare_models(empty, empty, [], ["a", "b"], [])
    assert len(result) == 0 and result.to_dict()["before"] is None and result.to_dict()["difference"]["value"] is None
    with pytest.raises(DataError, match="no reference to compare"):
        compare_models((np.empty((0, 3)), np.empty((0, 3))), empty, [], [], [])
    with pytest.raises(DataError, match="vectors for"):
        compare_models((np.ones((2, 3)), np.ones((2, 3))), empty, [], ["a", "b"], [])
