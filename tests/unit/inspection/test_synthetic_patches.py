"""Sampling of tiles and cells; synthesis itself is tested through test_inspector.py."""

from __future__ import annotations

import numpy as np

from unalike.inspection.synthetic_patches import cell_shares, sample_tiles

RNG = np.random.default_rng(0)


def test_the_share_of_a_cell():
    mask = RNG.random((13, 18)) > 0.5
    expected = np.zeros((4, 5))
    for y, x in np.argwhere(mask):
        expected[y // 4, x // 4] += 1 / 16
    assert np.allclose(cell_shares(mask, 4), expected)
    for shift in ((0.5, -0.25), (-0.75, 0.5), (0.0, 0.75)):
        expected = np.zeros((4, 5))
        for y, x in np.argwhere(mask):
            row, column = (y - round(4 * shift[0])) // 4, (x - round(4 * shift[1])) // 4
            if 0 <= row < 4 and 0 <= column < 5:
                expected[row, column] += 1 / 16
        assert np.allclose(cell_shares(mask, 4, shift), expected)


def test_all_tiles_are_equally_likely():
    counts = np.zeros(6)
    for seed in range(600):
        for tile in sample_tiles(iter(range(6)), 2, np.random.default_rng(seed)):
            counts[tile] += 1
    assert (abs(counts - 200) < 50).all() and sample_tiles(iter(range(2)), 5, RNG) == [0, 1]
