"""The view of an inspection's answer, and of the scores of an inspector."""

from __future__ import annotations

from typing import Any

import pytest

from unalike.serve.pages.inspection_view import BINS, Distribution, InspectionView, axis_end, place_on_axis
from unalike.serve.store import DecisionRecord, Feedback


def record(score: float | None, threshold: float | None = 1.0, **values: Any) -> DecisionRecord:
    return DecisionRecord("inspect", "part", values.pop("decision", "good"), score=score, threshold=threshold, **values)


def test_score_and_threshold_stand_on_one_scale() -> None:
    view = InspectionView.of(
        record(0.5, 1.0, result={"size": [30, 40], "spots": [{"box": [1, 2, 3, 4], "score": 2.0}]})
    )
    assert view.headline == "Normal" and view.size == (30, 40) and view.regions[0]["box"] == [1, 2, 3, 4]
    assert (view.high, view.threshold, view.score) == (2.0, 200.0, 110.0)
    far = InspectionView.of(record(100.0, 1.0, decision="defective"))
    assert far.headline == "Defective" and far.score is not None and far.threshold is not None
    assert (far.high, far.threshold, far.score) == (4.0, 110.0, 380.0) and far.size is None and far.regions == ()
    nothing = InspectionView.of(record(None, None, decision="undecided"))
    assert nothing.headline == "Not decided" and nothing.score is None and nothing.threshold is None


def test_the_latest_feedback_counts() -> None:
    assert (
        InspectionView.of(record(1.0, feedback=(Feedback("confirmed"), Feedback("wrong")))).feedback.verdict == "wrong"
    )  # type: ignore[union-attr]
    assert InspectionView.of(record(1.0, feedback=(Feedback("confirmed"), Feedback("withdrawn")))).feedback is None


def test_a_threshold_separates_what_it_would_flag() -> None:
    records = [record(score) for score in (0.2, 3.0, 1.5, 1.0, None)]
    spread = Distribution.of([0.1, 0.2, 0.9, 1.1], records, 1.0, 4.0)
    assert (spread.fit_count, spread.fit_above, spread.recent_count, spread.recent_above) == (4, 1, 4, 2)
    assert [entry.score for entry in spread.flagged] == [1.5, 3.0] and spread.threshold == place_on_axis(
        1.0, 4.0
    ) == 110.0
    assert sum(bar.height == 50 for bar in spread.fit) >= 1 and all(20 <= bar.x < 380 for bar in spread.fit)
    none = Distribution.of([], [], None, 1.0)
    assert none.threshold is None and none.fit == none.recent == () and none.flagged == ()


def test_all_scores_have_a_bar_and_the_axis_reaches_beyond_them() -> None:
    scores = [0.0, 1.0, 2.0, 3.0]
    high = axis_end(scores, [record(7.5), record(None)], None, 2.0)
    assert high == pytest.approx(8.25) and axis_end([], [], None) == 1.0
    assert axis_end(scores, [record(900.0)]) == 12.0 and axis_end([], [record(900.0)]) == 990.0
    assert len(Distribution.of(scores, [], None, 3.0).fit) == 4 <= BINS
    assert place_on_axis(99, 3) == 380 and place_on_axis(-1, 3) == 20
