"""Lighting correction: the gain and offset of an image are found, and applied tile by tile as to the whole."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.drawings import shapes
from unalike.comparison.lighting import fit_lighting
from unalike.comparison.registration import Registration

pytest.importorskip("cv2")
IDENTITY = Registration(np.eye(3), 1.0, 1.0, "none")


def relit(image_HWC: np.ndarray) -> np.ndarray:
    """The image with a gain that grows from left to right, and an offset."""
    gain = 0.7 + 0.3 * np.arange(image_HWC.shape[1]) / image_HWC.shape[1]
    lit: np.ndarray = np.clip(image_HWC * gain[None, :, None] + 12, 0, 255).astype(np.uint8)
    return lit


def test_local_lighting_is_corrected() -> None:
    reference = shapes(2, 300, 400)
    image = relit(reference)
    window = (0, 0, 400, 300)
    residual = {
        lighting: np.abs(
            fit_lighting(reference, image, IDENTITY, lighting).apply(reference, window, (300, 400)).astype(int) - image
        ).mean()
        for lighting in ("none", "global", "local")
    }
    assert residual["local"] < 0.3 * residual["global"] < 0.3 * residual["none"]


def test_tiles_are_corrected_like_the_whole_image() -> None:
    reference = shapes(2, 300, 400)
    correction = fit_lighting(reference, relit(reference), IDENTITY, "local")
    corrected = correction.apply(reference, (0, 0, 400, 300), (300, 400))
    tile = correction.apply(reference[100:180, 50:200], (50, 100, 200, 180), (300, 400))
    assert np.array_equal(tile, corrected[100:180, 50:200])


def test_another_color_is_no_lighting() -> None:
    red = np.full((60, 80, 3), (200, 20, 20), np.uint8)
    blue = np.full((60, 80, 3), (20, 20, 200), np.uint8)
    corrected = fit_lighting(red, blue, IDENTITY, "global").apply(red, (0, 0, 80, 60), (60, 80))
    assert corrected[..., 0].min() > corrected[..., 2].max() + 30
