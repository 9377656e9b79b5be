"""Positions of patches; what else patch features do is tested through test_inspector.py."""

from __future__ import annotations

import itertools

import numpy as np

from unalike.inspection.patch_features import patch_positions


def test_positions_are_those_of_a_loop():
    positions = patch_positions(2, 3, (3, 4), (9, 12), 16)
    for y, x in itertools.product(range(3), range(4)):
        row, column = y + 2.5, x + 3.5
        expected = [row / 12, column / 12, 16 * row, 16 * (9 - row), 16 * column, 16 * (12 - column)]
        assert np.allclose(positions[y, x], expected)
