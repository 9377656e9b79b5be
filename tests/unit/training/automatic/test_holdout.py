"""Splits keep scenes and classes apart; scenes are series of similar pictures; results are means over queries."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.series import feature_series
from unalike.errors import DataError
from unalike.training.automatic.holdout import (
    HoldoutResult,
    cross_validation_splits,
    draw_holdout,
    evaluate_embeddings,
    holdout_splits,
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


def test_results_equal_those_of_a_loop_over_queries() -> None:
    features, labels, _ = feature_series(seed=5)
    features = features + 0.8 * np.random.default_rng(0).normal(size=features.shape)
    splits = cross_validation_splits(labels, assign_scenes(features, labels), "both")
    result = evaluate_embeddings(splits, labels, lambda _, s: (features[s.query_N], features[s.reference_N]))
    place = 0
    for s in splits:
        references = features[s.reference_N] / np.linalg.norm(features[s.reference_N], axis=1, keepdims=True)
        for query in s.query_N:
            cosines = references @ (features[query] / np.linalg.norm(features[query]))
            order = labels[s.reference_N][np.argsort(-cosines)]
            relevant = (labels[s.reference_N] == labels[query]).sum()
            hits = order[:relevant] == labels[query]
            precision = (hits * np.cumsum(hits) / np.arange(1, relevant + 1)).sum() / relevant
            assert result.hit_Q[place] == (order[0] == labels[query])
            assert result.precision_Q[place] == pytest.approx(precision)
            place += 1
    assert place == len(result.hit_Q)


def test_scores_weigh_by_goal_and_gains_are_paired() -> None:
    kind = np.array(["known"] * 4 + ["new"] * 2)
    worse = HoldoutResult(kind, np.array([1, 0, 0, 0, 1, 0.0]), np.zeros(6), np.arange(6))
    better = HoldoutResult(kind, np.array([1, 1, 1, 0, 1, 1.0]), np.ones(6), np.arange(6))
    assert worse.score("known-classes") == pytest.approx(0.125)
    assert worse.score("new-classes") == pytest.approx(0.25)
    assert worse.score("both") == pytest.approx(0.1875)
    gain = better.gain_over(worse)
    assert gain["known"]["R@1"].value == pytest.approx(0.5) and gain["new"]["MAP@R"].value == pytest.approx(1.0)


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
        assert {s.kind for s in splits} >= ({"new"} if goal != "known-classes" and teaching >= 8 else {"known"})
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
