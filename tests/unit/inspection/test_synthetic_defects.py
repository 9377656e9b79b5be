"""Drawn defects stay in their shape, come from the seed and match their mask."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.inspection.synthetic_defects import DEFECT_TYPES, draw_defects


def ground(seed, size=(60, 90)):
    draws = np.random.default_rng(seed)
    return np.repeat(draws.normal(110, 6, (*size, 1)).clip(0, 255).astype(np.uint8), 3, axis=2)


@pytest.mark.parametrize("kind", sorted(DEFECT_TYPES))
@pytest.mark.parametrize("color", [(1, 1, 1), (1, 0.5, 0.2)])
def test_each_defect_stays_in_its_shape_and_comes_from_the_seed(kind, color):
    image, other = ground(0).astype(np.float32) * np.float32(color), ground(1, (40, 33))
    for seed in range(12):
        drawn, alpha = DEFECT_TYPES[kind][0](image, other, np.random.default_rng(seed))
        again, _ = DEFECT_TYPES[kind][0](image, other, np.random.default_rng(seed))
        assert drawn.shape == image.shape and alpha.shape == image.shape[:2] and np.array_equal(drawn, again)
        assert alpha.min() >= 0 and alpha.max() <= 1 and np.isfinite(drawn).all()
        assert np.array_equal(drawn[alpha == 0], image[alpha == 0])


def test_the_mask_is_where_the_image_changed():
    image, other, empty, alpha = ground(0), ground(1), 0, []
    for seed in range(60):
        drawn, mask = draw_defects(image, other, np.random.default_rng(seed))
        assert drawn.dtype == np.uint8 and mask.dtype == bool and mask.shape == image.shape[:2]
        changed = np.abs(drawn.astype(int) - image).max(axis=2) > 0
        assert not mask.any() or changed[mask].mean() > 0.8
        empty += not mask.any()
        alpha.append(mask.mean())
    assert empty < 12 and 0.005 < np.mean(alpha) < 0.5


@pytest.mark.parametrize("size", [(1, 1), (2, 50), (8, 8)])
def test_tiny_images_are_accepted(size):
    for seed in range(20):
        drawn, mask = draw_defects(ground(0, size), ground(1, size), np.random.default_rng(seed))
        assert drawn.shape == (*size, 3) and mask.shape == size
