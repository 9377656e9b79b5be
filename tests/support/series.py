"""Made-up features of classes: in series of near-duplicates, or drowned in noise; and results with given metrics."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unalike.data.imageset import ImageSet
from unalike.data.view import View
from unalike.model.backbones import PretrainedConfig
from unalike.training.automatic.holdout_result import HoldoutResult
from unalike.training.heads.features import TrunkFeatures


def feature_series(
    classes: int = 6, per_class: int = 12, per_series: int = 3, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each class a mixture of tight series: features (N, 16), labels (N), the series within the class (N)."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), per_class)
    series = np.tile(np.repeat(np.arange(per_class // per_series), per_series), classes)
    centers = {(c, s): rng.normal(size=16) for c in range(classes) for s in range(per_class // per_series)}
    features = np.stack([centers[c, s] + 0.05 * rng.normal(size=16) for c, s in zip(labels, series, strict=True)])
    return features, labels, series


def noisy_features() -> tuple[np.ndarray, np.ndarray]:
    """Ten classes, numbered 3, 5, 7, ..., under noise in four directions: features (160, 24) float32, labels (160)."""
    rng = np.random.default_rng(2)
    labels = 2 * np.repeat(np.arange(10), 16) + 3
    directions = rng.normal(size=(4, 24))
    features = rng.normal(size=(10, 24))[labels // 2 - 1] + rng.normal(size=(160, 4)) @ directions
    return (features + 0.5 * rng.normal(size=features.shape)).astype(np.float32), labels


def holdout_result(hits: np.ndarray, precisions: np.ndarray, kind: str = "known") -> HoldoutResult:
    """A result of one kind, with these values per query, of 50 classes in turn."""
    return HoldoutResult(
        np.array([kind] * len(hits)), hits.astype(float), precisions.astype(float), np.arange(len(hits)) % 50
    )


def images_and_features(classes: int, groups: bool = False) -> tuple[ImageSet, TrunkFeatures]:
    """Images of classes of 12, whose files do not exist, and noisy features in series of two."""
    features, labels, _ = feature_series(classes=classes, per_class=12, per_series=2, seed=3)
    features = features + 0.4 * np.random.default_rng(0).normal(size=features.shape)
    names = tuple(f"day {i % 4}" for i in range(len(labels))) if groups else None
    paths = tuple(Path(f"{i}.jpg") for i in range(len(labels)))
    images = ImageSet(paths, labels, tuple(f"class {c}" for c in range(classes)), names)
    facts = PretrainedConfig.__new__(PretrainedConfig)
    rows = np.arange(len(labels))
    return images, TrunkFeatures("a trunk", View(8, 8), facts, features.astype(np.float32), rows, 10.0)
