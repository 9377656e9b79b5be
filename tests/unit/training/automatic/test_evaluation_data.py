"""Where images are few, all of them are queries of repeated cross-validation; where a network is tuned, some are held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.series import images_and_features
from unalike.data.imageset import ImageSet
from unalike.data.view import View
from unalike.model.backbones import PretrainedConfig
from unalike.training.automatic import evaluation_data
from unalike.training.automatic.evaluation_data import EvaluationData, evaluate_frozen
from unalike.training.automatic.holdout import TooFewImages
from unalike.training.automatic.single_images import has_second_images
from unalike.training.heads.config import HeadConfig
from unalike.training.heads.features import TrunkFeatures
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


COUNTS = {"25x2": [2] * 25, "200x2": [2] * 200, "5x2": [2] * 5, "2x2": [2] * 2, "3+1": [3, 1], "9x1+2x2": [1] * 9 + [2] * 2,
          "20x1+1x3": [1] * 20 + [3]}  # fmt: skip


@pytest.mark.parametrize("tunes", [True, False])
@pytest.mark.parametrize("name", COUNTS)
def test_what_is_held_out_leaves_enough_to_compare_heads_whatever_the_seed(name: str, tunes: bool) -> None:
    counts = COUNTS[name]
    labels = np.repeat(np.arange(len(counts)), counts)
    images = ImageSet(tuple(Path(f"{i}.jpg") for i in range(len(labels))), labels, tuple(map(str, range(len(counts)))))
    assert has_second_images(labels, None, "x")
    for seed in range(4):
        rng = np.random.default_rng(seed)
        vectors = (rng.normal(size=(len(counts), 8))[labels] + 0.3 * rng.normal(size=(len(labels), 8))).astype(
            np.float32
        )
        features = TrunkFeatures(
            "a trunk", View(8, 8), PretrainedConfig.__new__(PretrainedConfig), vectors, np.arange(len(labels)), 10.0
        )
        data = EvaluationData.create(images, features, "new-classes", seed, tunes=tunes)
        rows, splits = data.search_splits("new-classes")
        assert np.isin(rows, data.fit_N).all() and all(len(s.query_N) and len(s.fit_N) for s in splits)
        pairs_left = np.bincount(labels[data.fit_N]).max()
        assert pairs_left > 1, "a class with two images is left to learn from"


def test_groups_that_leave_too_little_are_an_error_of_their_own() -> None:
    labels = np.array([0, 1, 1, 2, 2])
    images = ImageSet(tuple(Path(f"{i}.jpg") for i in range(5)), labels, ("a", "b", "c"), ("x", "y", "x", "x", "y"))
    vectors = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    features = TrunkFeatures(
        "a trunk", View(8, 8), PretrainedConfig.__new__(PretrainedConfig), vectors, np.arange(5), 10.0
    )
    with pytest.raises(TooFewImages, match="cannot be split"):
        EvaluationData.create(images, features, "both", 45, tunes=True)
