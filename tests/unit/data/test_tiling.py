"""Tiling: every pixel covered, brightness evened, fit and scale chosen."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from unalike.data.tiling import Tiling, choose_fit, choose_scale
from unalike.errors import SpecError

RNG = np.random.default_rng(7)


@pytest.mark.parametrize("size", [(96, 64), (97, 130), (300, 50), (20, 10), (64, 65)])
@pytest.mark.parametrize("scale", [1.0, 0.6])
def test_tiles_cover_every_pixel_on_one_grid(size, scale):
    pixels = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
    tiling = Tiling(64, 48, "scale", scale)
    scaled = np.asarray(tiling.transform(Image.fromarray(pixels)))
    assert scaled.shape[:2] == tiling.scaled_size(size)
    covered = np.zeros(scaled.shape[:2], int)
    for tile in tiling.tiles(Image.fromarray(pixels)):
        assert tile.pixels_HWC.shape == (64, 48, 3) and tile.top % 8 == tile.left % 8 == 0
        window = np.s_[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
        assert np.array_equal(tile.pixels_HWC[: tile.height, : tile.width], scaled[window])
        covered[window] += 1
    assert covered.min() >= 1
    if scale == 1.0:
        assert np.array_equal(scaled, pixels)


def test_even_light_undoes_a_darker_exposure():
    pixels = RNG.integers(80, 160, (64, 64, 3), dtype=np.uint8)
    tiling = Tiling(64, 64, "whole", 1.0, "even")
    bright, dark = (
        np.asarray(tiling.transform(Image.fromarray((pixels * f).astype(np.uint8))), float) for f in (1.0, 0.6)
    )
    assert np.abs(bright - dark).max() <= 2 and abs(np.median(bright) - 100) <= 2


def test_fit_and_scale_are_chosen_by_the_sizes_of_the_images():
    assert choose_fit([(300, 310), (600, 622)], (224, 224)) == "whole"
    assert choose_fit([(300, 300), (600, 900)], (224, 224)) == "scale"
    assert choose_fit([(100, 900)] * 3, (224, 224)) == "scale"  # one aspect, yet far from the network's
    assert choose_scale([(50, 90), (60, 60)], (224, 224)) == 1.0
    assert choose_scale([(448, 448), (900, 900), (20, 20)], (224, 224)) == 0.5
    for wrong in ({"fit": "tile"}, {"light": "dim"}, {"scale": 0.0}):
        with pytest.raises(SpecError):
            Tiling(64, 64, **wrong)
