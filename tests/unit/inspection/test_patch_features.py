"""Positions of patches; what else patch features do is tested through test_inspector.py."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
from PIL import Image

from unalike.data.tiling import Tiling
from unalike.engines.metadata import MapFacts
from unalike.inspection.patch_features import PatchExtractor, patch_positions


def test_positions_are_those_of_a_loop():
    positions = patch_positions(2, 3, (3, 4), (9, 12), 16)
    for y, x in itertools.product(range(3), range(4)):
        row, column = y + 2.5, x + 3.5
        expected = [row / 12, column / 12, 16 * row, 16 * (9 - row), 16 * column, 16 * (12 - column)]
        assert np.allclose(positions[y, x], expected)


CENTERS = ((5.0, 3.0), (-1.0, 7.0))  # of the maps of strides 8 and 16


def coordinate_extractor(centers, ignored_HW=None):
    """Both maps hold, in two channels, the row and the column in pixels that their cells lie at."""
    facts = (MapFacts("fine", 8, 2, 8, 10), MapFacts("coarse", 16, 2, 4, 5))

    def maps(images_BHWC):
        made = []
        for fact, (y, x) in zip(facts, CENTERS, strict=True):
            grid = np.meshgrid(
                fact.stride * np.arange(fact.height) + y, fact.stride * np.arange(fact.width) + x, indexing="ij"
            )
            made.append(np.repeat(np.stack(grid)[None], len(images_BHWC), 0).astype(np.float32))
        return made

    engine = SimpleNamespace(map_facts=facts, batch=2, maps=maps, input_size=(64, 80))
    return PatchExtractor(engine, Tiling(64, 80, "whole"), ignored_HW, centers)


def test_maps_of_several_strides_are_joined_where_their_cells_lie():
    (patches,) = coordinate_extractor(CENTERS)(Image.new("RGB", (80, 64)))
    inside = patches.vectors_hwF[2:4, 3:7]  # between coarse cells that the mean of 3 x 3 at the edge leaves as they are
    assert inside.size and np.allclose(inside[..., :2], inside[..., 2:], atol=1e-4)
    (stretched,) = coordinate_extractor(None)(Image.new("RGB", (80, 64)))
    apart = stretched.vectors_hwF[3, 3:7, :2] - stretched.vectors_hwF[3, 3:7, 2:]
    assert np.allclose(apart, [10, 0], atol=1e-4)  # earlier versions took 4 and 8 for 5 and -1, and for 3 and 7


def test_masks_are_seen_where_the_patches_lie():
    rows = np.repeat(np.arange(128, dtype=np.float32)[:, None], 160, axis=1)  # of an image of twice the size
    extractor = coordinate_extractor(CENTERS)
    assert extractor.shift == (5 / 8 - 0.5, 3 / 8 - 0.5)
    assert np.allclose(extractor.sample_mask(rows)[:, 0], (8 * np.arange(8) + 5) * 2 - 0.5)
    assert np.allclose(coordinate_extractor(None).sample_mask(rows)[:, 0], (8 * np.arange(8) + 4) * 2 - 0.5)


def test_ignored_pixels_are_in_the_cells_around_the_patches():
    for y, x in itertools.product(range(0, 64, 3), range(0, 80, 3)):
        ignored = np.zeros((64, 80), np.bool_)
        ignored[y, x] = True
        cells = coordinate_extractor(CENTERS, ignored).ignored_cells((64, 80))
        ((row, column),) = np.argwhere(cells)
        assert abs(8 * row + 5 - (y + 0.5)) <= 4 or row in (0, 7)
        assert abs(8 * column + 3 - (x + 0.5)) <= 4 or column in (0, 9)
