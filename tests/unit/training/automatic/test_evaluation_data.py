"""Where images are few, all of them are queries of repeated cross-validation; where a network is tuned, some are held out."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.series import images_and_features
from unalike.training.automatic import evaluation_data
from unalike.training.automatic.evaluation_data import EvaluationData, evaluate_frozen
from unalike.training.heads.config import HeadConfig
from unalike.training.heads.head_search import HeadSearchSpace


@pytest.mark.parametrize("classes", [2, 5, 12])
def test_without_fine_tuning_all_images_are_queries(classes: int) -> None:
    images, features = images_and_features(classes)
    data = EvaluationData.create(images, features, "new-classes", 0, tunes=False)
    assert data.cross_validated and len(data.fit_N) == len(images)
    candidates = evaluate_frozen([None, HeadConfig(True, 0.5)], data, "new-classes", HeadSearchSpace(), None, 60)
    counts = candidates[0].result.counts()
    repeats = evaluation_data.REPEATS
    for kind in ("known", "same"):
        assert counts[kind] == {"queries": repeats * len(images), "images": len(images), "classes": classes}
    described = data.describe(candidates[0], "new-classes")
    assert described["evaluation"]["method"] == "repeated cross-validation"
    assert bool(described["not_tested"]) == (classes < 8) == ("new" not in described["tested"])
    assert candidates[0].result.metrics()["known"]["R@1"].too_few is False


def test_before_fine_tuning_some_are_held_out() -> None:
    images, features = images_and_features(5)
    data = EvaluationData.create(images, features, "new-classes", 0, tunes=True)
    assert not data.cross_validated and 0 < len(data.fit_N) < len(images)
    assert {s.kind for s in data.splits} == {"known", "same"}
    assert "5 classes" in data.untested("new-classes") and "at least 20" in data.untested("new-classes")
    assert not data.untested("known-classes")
    assert data.pooled("new-classes") is not None


def test_repeats_stop_with_the_time() -> None:
    images, features = images_and_features(3)
    data = EvaluationData.create(images, features, "both", 0, tunes=False)
    result = evaluate_frozen([None], data, "both", HeadSearchSpace(), None, 0.0)[0].result
    assert result.counts()["known"]["queries"] == len(images)


def test_groups_of_the_user_are_the_series() -> None:
    images, features = images_and_features(3, groups=True)
    data = EvaluationData.create(images, features, "both", 0, tunes=False)
    assert {s.kind for s in data.splits} == {"known"} and len(np.unique(data.series_N)) == 4
