"""Frozen features: of images and their mirror images, from the engine and from the cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unalike.data.imageset import load_images
from unalike.data.notices import Notices
from unalike.data.view import View
from unalike.spec import load_spec
from unalike.training.heads.features import compute_features

LITE = "tf_efficientnet_lite0"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Six images of two classes in ``plain``, mirrored in ``mirrored``."""
    rng = np.random.default_rng(0)
    for label in "ab":
        for folder in ("plain", "mirrored"):
            (tmp_path / folder / label).mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "plain" / label / f"{number}.png")
            Image.fromarray(pixels[:, ::-1]).save(tmp_path / "mirrored" / label / f"{number}.png")
    return tmp_path


def test_mirrored_features_are_those_of_mirrored_images(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNALIKE_CACHE", str(images / "cache"))
    spec = load_spec("train", {"dataset": {"workers": 1}})
    view = View(32, 32, resize_ratio=1.0)
    both = compute_features(LITE, load_images(images / "plain"), view, Notices(), spec, mirrored=True)
    plain = compute_features(LITE, load_images(images / "plain"), view, Notices(), spec)
    mirrored = compute_features(LITE, load_images(images / "mirrored"), view, Notices(), spec)
    assert both.mirrored_NF is not None and plain.mirrored_NF is None
    np.testing.assert_allclose(both.vectors_NF, plain.vectors_NF, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(both.mirrored_NF, mirrored.vectors_NF, rtol=1e-3, atol=1e-3)
    cached = compute_features(LITE, load_images(images / "plain"), view, Notices(), spec, mirrored=True)
    assert np.array_equal(cached.mirrored_NF, both.mirrored_NF) and cached.rate == both.rate > 0
    labels_N = np.array([0, 0, 0, 1, 1, 1])
    rows = np.array([0, 4])
    fit_NF, fit_labels_N = both.training_rows(rows, labels_N)
    assert np.array_equal(fit_NF, np.concatenate([both.vectors_NF[rows], both.mirrored_NF[rows]]))
    assert fit_labels_N.tolist() == [0, 1, 0, 1] and plain.training_rows(rows, labels_N)[1].tolist() == [0, 1]
