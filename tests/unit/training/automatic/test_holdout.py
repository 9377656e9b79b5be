"""Splits keep scenes and classes apart; scenes are series of similar pictures; results are means over queries."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.series import feature_series
from unalike.errors import DataError
from unalike.training.automatic.holdout import (
    MIN_CLASSES_TO_HOLD_OUT,
    cross_validation_splits,
    draw_holdout,
    holdout_splits,
    pooled_splits,
    same_series_splits,
)
from unalike.training.automatic.scenes import assign_scenes


@pytest.mark.parametrize("goal", ["new-classes", "known-classes", "both"])
def test_no_split_leaks(goal: str) -> None:
    features, labels, _ = feature_series(classes=8)
    scene = assign_scenes(features, labels)
    splits = cross_validation_splits(labels, scene, goal)
    assert {s.kind for s in splits} == {"known", "new"}
    known_queries = []
    for s in splits:
        assert not set(s.query_N) & set(s.reference_N) and not set(s.query_N) & set(s.fit_N)
        others = [*s.reference_N, *s.fit_N]
        assert not {(labels[i], scene[i]) for i in s.query_N} & {(labels[i], scene[i]) for i in others}
        assert set(labels[s.query_N]) <= set(labels[s.reference_N])
        if s.kind == "new":
            assert not set(labels[s.fit_N]) & set(labels[s.query_N])
        else:
            known_queries += s.query_N.tolist()
    assert sorted(known_queries) == list(range(len(labels)))  # every image is the query of one known split


@pytest.mark.parametrize("search_all", [False, True])
def test_held_out_images_are_looked_up_among_all_that_may_be_searched(search_all: bool) -> None:
    features, labels, _ = feature_series(classes=20)
    scene = assign_scenes(features, labels)
    holdout = draw_holdout(labels, scene, "both")
    assert holdout.class_N.any() and holdout.scene_N.any()
    held_out_N = holdout.class_N | holdout.scene_N
    assert np.array_equal(holdout.fit_N, np.flatnonzero(~held_out_N))
    times_queried = {"new": np.zeros(len(labels), int), "known": np.zeros(len(labels), int)}
    for s in holdout_splits(labels, scene, holdout, search_all=search_all):
        mask_N = holdout.class_N if s.kind == "new" else holdout.scene_N
        assert not np.isin(s.query_N, s.reference_N).any() and mask_N[s.query_N].all()
        assert not held_out_N[s.fit_N].any()
        reference_N = np.zeros(len(labels), bool)
        reference_N[s.reference_N] = True
        if s.kind == "new":
            assert np.array_equal(reference_N & ~holdout.class_N, search_all & ~held_out_N)
            for query in s.query_N:  # the other scenes of its class are references, its own is not
                class_N = labels == labels[query]
                assert not (reference_N & class_N & (scene == scene[query])).any()
                assert (reference_N & class_N).sum() == (class_N & (scene != scene[query])).sum() > 0
        times_queried[s.kind][s.query_N] += 1
    assert (times_queried["new"][holdout.class_N] == 1).all()
    assert (times_queried["known"] == holdout.scene_N).all()


def test_too_few_images_to_split_are_an_error() -> None:
    labels = np.arange(5)
    with pytest.raises(DataError, match="cannot be split"):
        cross_validation_splits(labels, np.zeros(5, int), "both")


COUNTS = {"16x1+4x6": [1] * 16 + [6] * 4, "1500x1+30x2": [1] * 1500 + [2] * 30, "40x3": [3] * 40, "60x2": [2] * 60,
          "4x5": [5] * 4, "1x2+1": [2, 1], "8x2+4x20": [2] * 8 + [20] * 4}  # fmt: skip


@pytest.mark.parametrize("goal", ["new-classes", "known-classes", "both"])
@pytest.mark.parametrize("name", COUNTS)
def test_small_classes_are_held_out_whatever_the_seed(name: str, goal: str) -> None:
    labels = np.repeat(np.arange(len(COUNTS[name])), COUNTS[name])
    for seed in range(6):
        rng = np.random.default_rng(seed)
        features = rng.normal(size=(len(COUNTS[name]), 8))[labels] + 0.3 * rng.normal(size=(len(labels), 8))
        scene = assign_scenes(features, labels, seed=seed)
        holdout = draw_holdout(labels, scene, goal, seed=seed)
        splits = holdout_splits(labels, scene, holdout, search_all=True)
        assert all(np.isin(labels[s.query_N], labels[s.reference_N]).all() for s in splits)
        teaching = (np.bincount(labels) > 1).sum()
        new = goal != "known-classes" and teaching >= MIN_CLASSES_TO_HOLD_OUT
        assert {s.kind for s in splits} == ({"new", "known"} if new else {"known"})
        assert cross_validation_splits(labels, scene, goal, seed=seed)
        assert len(np.unique(labels[holdout.fit_N])) > 1


@pytest.mark.parametrize("goal", ["new-classes", "known-classes", "both"])
@pytest.mark.parametrize("shoots", [2, 4, 9])
def test_groups_that_span_classes_are_never_both_fitted_to_and_asked_for(shoots: int, goal: str) -> None:
    rng = np.random.default_rng(shoots)
    labels = np.repeat(np.arange(20), 12)
    groups = np.array([f"shoot {rng.integers(shoots)}" for _ in labels])
    scene = assign_scenes(rng.normal(size=(240, 8)), labels, groups=groups.tolist())
    splits = cross_validation_splits(labels, scene, goal)
    holdout = draw_holdout(labels, scene, goal)
    for s in [*splits, *holdout_splits(labels, scene, holdout, search_all=True)]:
        assert len(s.query_N) and not set(groups[s.fit_N]) & set(groups[s.query_N])


def test_a_class_in_one_group_is_not_torn() -> None:
    labels = np.repeat([0, 1, 2], 6)
    groups = ["a"] * 6 + ["b"] * 3 + ["c"] * 3 + [""] * 6
    scene = assign_scenes(np.random.default_rng(0).normal(size=(18, 4)), labels, groups=groups)
    assert [len(np.unique(scene[labels == c])) for c in (0, 1)] == [1, 2]
    assert len(np.unique(scene[labels == 2])) > 1


@pytest.mark.parametrize(("classes", "goal"), [(3, "new-classes"), (7, "both"), (9, "both"), (9, "known-classes")])
def test_in_cross_validation_every_image_is_a_query_once_of_each_kind(classes: int, goal: str) -> None:
    features, labels, _ = feature_series(classes=classes, per_class=16, per_series=2)
    scene = assign_scenes(features, labels, seed=4)
    splits = pooled_splits(features, labels, goal, seed=4)
    kinds = {"known", "same"} | ({"new"} if classes >= 8 and goal != "known-classes" else set())
    assert {s.kind for s in splits} == kinds
    for kind in kinds:
        queries = np.concatenate([s.query_N for s in splits if s.kind == kind])
        assert sorted(queries.tolist()) == list(range(len(labels)))
    for s in splits:
        assert not set(s.query_N) & set(s.fit_N)
        if s.leave_one_out:
            assert s.kind == "same" and sorted(s.reference_N) == list(range(len(labels)))
            assert np.array_equal(s.reference_N[: len(s.query_N)], s.query_N)
            continue
        own = {(labels[i], scene[i]) for i in s.query_N}
        assert not own & {(labels[i], scene[i]) for i in [*s.reference_N, *s.fit_N]}
        if s.kind == "new":
            assert not set(labels[s.fit_N]) & set(labels[s.query_N])


def test_groups_of_the_user_leave_one_claim() -> None:
    features, labels, _ = feature_series(classes=4)
    groups = [f"day {i % 3}" for i in range(len(labels))]
    assert {s.kind for s in pooled_splits(features, labels, "both", groups=groups)} == {"known"}


def test_a_scene_of_known_classes_is_held_out_for_every_goal() -> None:
    features, labels, _ = feature_series(classes=30)
    scene = assign_scenes(features, labels)
    for goal in ("new-classes", "known-classes", "both"):
        holdout = draw_holdout(labels, scene, goal)
        assert holdout.scene_N.any() and not (holdout.scene_N & holdout.class_N).any()
        assert len(np.unique(labels[holdout.class_N])) == (0 if goal == "known-classes" else 4)
        splits = holdout_splits(labels, scene, holdout, search_all=True)
        same = same_series_splits(splits, np.arange(len(labels)))
        assert len(same) == 1 and np.array_equal(same[0].query_N, np.flatnonzero(holdout.scene_N))
