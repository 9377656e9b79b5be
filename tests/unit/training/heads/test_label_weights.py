"""Images whose neighbors contradict their label weigh less, and a head that is fitted so withstands wrong labels."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.training.heads.config import HeadConfig
from unalike.training.heads.discriminant import fit_scatter
from unalike.training.heads.label_weights import (
    LEAST_WEIGHT,
    MIN_SUSPECTED_SHARE,
    label_weights,
    suspected_share,
    trusted_rows,
)
from unalike.training.heads.trained import fit_head


def draw(seed: int, classes: int = 12, images: int = 15, distance: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Classes that differ in 6 of 20 features by about ``distance``, with noise that is larger in the others."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), images)
    means = np.zeros((classes, 20))
    means[:, :6] = distance * rng.normal(size=(classes, 6))
    noise = rng.normal(size=(len(labels), 20)) * np.r_[np.full(6, 0.35), np.full(14, 0.8)]
    return (means[labels] + noise).astype(np.float32), labels


def flip(labels: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    wrong = labels.copy()
    rows = rng.choice(len(labels), round(share * len(labels)), replace=False)
    wrong[rows] = (labels[rows] + rng.integers(1, labels.max() + 1, len(rows))) % (labels.max() + 1)
    return wrong


def nearest_mean_share(head: object, features: np.ndarray, labels: np.ndarray, new: np.ndarray) -> float:
    """Share of new images that lie nearest to the mean vector of their own class."""
    vectors = head(features)  # type: ignore[operator]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    means = np.stack([unit[labels == c].mean(axis=0) for c in np.unique(labels)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return float((np.argmax(head(new) @ means.T, axis=1) == labels).mean())  # type: ignore[operator]


@pytest.mark.parametrize("sqrt", [False, True])
def test_integer_weights_equal_images_that_are_repeated(sqrt: bool) -> None:
    features, labels = draw(seed=1, classes=4, images=6)
    weights = np.random.default_rng(0).integers(1, 4, len(labels))
    ours = fit_scatter(features, labels, sqrt=sqrt, weights_N=weights.astype(float))
    theirs = fit_scatter(np.repeat(features, weights, axis=0), np.repeat(labels, weights), sqrt=sqrt)
    np.testing.assert_allclose(ours.mean_F, theirs.mean_F, atol=1e-9)
    np.testing.assert_allclose(ours.values_F, theirs.values_F, rtol=1e-6, atol=1e-9)
    distances = [np.linalg.norm(s.means_CF[:, None] - s.means_CF[None], axis=2) for s in (ours, theirs)]
    np.testing.assert_allclose(distances[0], distances[1], atol=1e-8)
    same = fit_scatter(features, labels, sqrt=sqrt, weights_N=np.full(len(labels), 0.3))
    plain = fit_scatter(features, labels, sqrt=sqrt)
    np.testing.assert_allclose(same.values_F, plain.values_F, rtol=1e-9)
    assert same.share == pytest.approx(plain.share)


def test_wrong_labels_weigh_least() -> None:
    features, labels = draw(seed=2)
    wrong = flip(labels, 0.15)
    weights = label_weights(features, wrong)
    assert weights.shape == labels.shape and weights.min() >= LEAST_WEIGHT and weights.max() == 1
    assert np.median(weights[wrong != labels]) < 0.2 and np.median(weights[wrong == labels]) > 0.8
    rows = trusted_rows(weights, wrong)
    assert (wrong[rows] != labels[rows]).mean() < 0.03 and len(rows) > 0.75 * len(labels)


@pytest.mark.parametrize("residual", [0.0, 0.5])
def test_a_head_withstands_wrong_labels(residual: float) -> None:
    features, labels = draw(seed=3)
    new, _ = draw(seed=3 + 100)
    means = np.stack([features[labels == c].mean(axis=0) for c in range(12)])
    new = (means[labels] + (new - np.stack([new[labels == c].mean(axis=0) for c in range(12)])[labels])).astype(
        np.float32
    )
    wrong = flip(labels, 0.3)
    shares = {
        name: nearest_mean_share(
            fit_head(features, given, HeadConfig(False, residual, label_weights=weighted)), features, labels, new
        )
        for name, given, weighted in (("right", labels, False), ("wrong", wrong, False), ("weighted", wrong, True))
    }
    assert shares["weighted"] > shares["wrong"] + 0.5 * (shares["right"] - shares["wrong"])


def test_few_labels_are_suspected_unless_they_are_wrong() -> None:
    features, labels = draw(seed=4)
    assert suspected_share(features, labels) < MIN_SUSPECTED_SHARE
    assert suspected_share(features, flip(labels, 0.1)) > 0.05


def test_a_second_view_does_not_vouch_for_its_image() -> None:
    features, labels = draw(seed=5)
    wrong = flip(labels, 0.15)
    twice = np.concatenate([features, features + 1e-3])
    weights = label_weights(twice, np.tile(wrong, 2), views=2)
    np.testing.assert_array_equal(weights, np.tile(label_weights(features, wrong), 2))
    assert np.median(weights[: len(labels)][wrong != labels]) < 0.2


def test_small_classes_keep_their_images() -> None:
    features, labels = draw(seed=6)
    labels = np.r_[labels[:-2], 50, 51]  # two classes of one image each, among others
    weights = label_weights(features, labels)
    assert weights[-1] == weights[-2] == 1
    assert set(trusted_rows(np.full(5, LEAST_WEIGHT), np.array([0, 0, 0, 1, 1]))) == set(range(5))
    assert trusted_rows(np.array([1, 1, LEAST_WEIGHT]), np.zeros(3, int)).tolist() == [0, 1]
