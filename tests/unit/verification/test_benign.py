"""Rendering of benign images: the seed determines them, and each kind of transformation can be left out."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.marks import mark
from unalike.errors import SpecError
from unalike.verification.asset import Asset
from unalike.verification.benign import BENIGN, draw_background, render_benign, warp_layer


def test_a_layer_is_warped_to_its_pose() -> None:
    layer = np.full((10, 20, 4), 255, np.uint8)
    color, alpha = warp_layer(layer, np.array([[2.0, 0, 5], [0, 2.0, 7]]), (40, 60))
    rows, columns = np.flatnonzero((alpha > 0.5).any(1)), np.flatnonzero((alpha > 0.5).any(0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (7, 26, 5, 44)
    assert np.abs(color[alpha > 0.9] - 255).max() < 1


def test_the_seed_determines_the_image_and_kinds_are_independent() -> None:
    asset = mark(1)
    first, again = (render_benign(asset, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first.image_HW3, again.image_HW3)
    kinds = ("scale", "background", "lighting", "compression")
    upright = render_benign(asset, np.random.default_rng(5), kinds=kinds)
    assert np.allclose(upright.pose_23[0, 1], 0) and not np.allclose(first.pose_23[0, 1], 0)
    scales = [np.sqrt(np.linalg.det(rendered.pose_23[:, :2])) for rendered in (first, upright)]
    assert scales[0] == pytest.approx(scales[1])
    rotated = render_benign(asset, np.random.default_rng(5), kinds=("rotation",))
    assert np.sqrt(np.linalg.det(rotated.pose_23[:, :2])) == pytest.approx(1)
    assert tuple(rotated.image_HW3[0, 0]) == asset.background_color
    with pytest.raises(SpecError, match="did you mean 'scale'"):
        render_benign(asset, np.random.default_rng(5), kinds=("scales",))
    assert len(BENIGN) == 6


def test_a_wide_asset_is_as_large_as_its_letters() -> None:
    """Its area counts: four times as wide as high, it is twice as long as a square one; and its image is no ribbon."""
    for seed in range(3):
        sizes = []
        for shape in ((100, 100, 4), (50, 200, 4)):
            rendered = render_benign(Asset("a", np.full(shape, 255, np.uint8)), np.random.default_rng(seed))
            sizes.append(np.sqrt(np.linalg.det(rendered.pose_23[:, :2])))
            assert min(rendered.image_HW3.shape[:2]) >= 0.45 * max(rendered.image_HW3.shape[:2])
        assert sizes[0] == pytest.approx(sizes[1])


def test_busy_backgrounds_keep_the_ink_visible() -> None:
    ink = np.array([[200, 30, 40], [190, 40, 40]])
    drawn = [draw_background(np.random.default_rng(seed), 90, 120, ink, busy=True) for seed in range(30)]
    plain = [draw_background(np.random.default_rng(seed), 90, 120, ink) for seed in range(30)]
    busy = [one for one, other in zip(drawn, plain, strict=True) if not np.array_equal(one, other)]
    assert 1 <= len(busy) < 12
    assert all(np.median(np.abs(one - ink.mean(axis=0)).mean(axis=2)) > 40 and np.std(one) > 8 for one in busy)
