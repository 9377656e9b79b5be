"""Scenes are series of similar images, found in the features; groups of the user take precedence."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.series import feature_series
from unalike.training.automatic import scenes
from unalike.training.automatic.scenes import MAX_SCENES, assign_scenes, find_series, scenes_of_images


def test_scenes_are_the_series() -> None:
    features, labels, series = feature_series()
    scene = assign_scenes(features, labels)
    assert scene.min() >= 0 and scene.max() < MAX_SCENES
    for c in np.unique(labels):
        rows = labels == c
        for s in np.unique(series[rows]):
            assert len(np.unique(scene[rows & (series == s)])) == 1
        assert len(np.unique(scene[rows])) >= 2


def test_groups_of_the_user_take_precedence() -> None:
    features, labels, _ = feature_series()
    groups = [f"shop {i % 2}" for i in range(len(labels))]
    scene = assign_scenes(features, labels, groups=groups)
    for c in np.unique(labels):
        rows = np.flatnonzero(labels == c)
        assert all((scene[i] == scene[j]) == (groups[i] == groups[j]) for i in rows for j in rows)


def test_scenes_are_seeded_and_leave_references_in_every_class() -> None:
    rng = np.random.default_rng(2)
    labels = np.repeat(np.arange(5), [1, 2, 3, 4, 40])
    features = rng.normal(size=(50, 8))
    scene = assign_scenes(features, labels, seed=3)
    assert np.array_equal(scene, assign_scenes(features, labels, seed=3))
    assert len(np.unique(scene[labels == 0])) == 1
    assert [len(np.unique(scene[labels == c])) for c in (1, 2, 3)] == [2, 2, 2]
    copies = np.zeros((6, 8)) + 1.0
    assert len(np.unique(assign_scenes(copies, np.zeros(6, int)))) == 1


def test_images_more_alike_than_classes_are_of_one_series() -> None:
    features, labels, series = feature_series(classes=10, seed=1)
    found = find_series(features, labels)
    for c in np.unique(labels):
        rows = labels == c
        assert len({(a, b) for a, b in zip(found[rows], series[rows], strict=True)}) == len(np.unique(series[rows]))
    assert len(np.unique(found)) > 2 * 10 and not (set(found[labels == 0]) & set(found[labels == 1]))


def test_images_that_are_not_more_alike_are_series_of_their_own() -> None:
    rng = np.random.default_rng(0)
    found = find_series(rng.normal(size=(200, 64)), np.repeat(np.arange(4), 50))
    assert len(np.unique(found)) > 150


def test_the_same_series_are_distributed_anew_by_another_seed() -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(60, 32)), np.repeat(np.arange(3), 20)
    first, second = (assign_scenes(features, labels, seed=seed) for seed in (0, 1))
    assert np.bincount(first[labels == 0], minlength=MAX_SCENES).min() >= 4
    together = [(s[:, None] == s[None])[labels == 0][:, labels == 0] for s in (first, second)]
    assert (together[0] != together[1]).any()


def test_large_classes_are_clustered_before_they_are_linked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "MAX_LINKED", 20)
    features, labels, _ = feature_series(classes=2, per_class=60, per_series=15)
    found = find_series(features, labels)
    assert 2 <= len(np.unique(found)) <= 20


def test_images_divide_a_class_where_nothing_else_does() -> None:
    labels = np.array([3, 1, 3, 3, 1, 3, 3, 7])
    assert scenes_of_images(labels).tolist() == [0, 0, 1, 2, 1, 3, 0, 0]
