"""Scores and regions of anomaly maps; the maps themselves are tested through test_inspector.py."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unalike.inspection.anomaly_map import find_regions, image_score

RNG = np.random.default_rng(7)


def test_regions_are_where_the_map_is_above_the_threshold():
    map_hw = np.zeros((4, 6), np.float32)
    map_hw[1, 1:3], map_hw[3, 5] = [2, 3], 9
    highest, other = find_regions(map_hw, 1.5, (40, 60))
    assert highest.box == (50, 30, 60, 40) and highest.score == 9 and highest.area == 100
    assert other.box == (10, 10, 30, 20) and other.area == 200
    assert find_regions(map_hw, 9.0, (40, 60)) == () and find_regions(map_hw, math.nan, (40, 60)) == ()
    (cut,) = find_regions(map_hw, 5.0, (38, 57), (40 / 38, 60 / 57))  # the last patches reach beyond the image
    assert cut.box == (50, 30, 57, 38)


@pytest.mark.parametrize("share,count", [(0.0, 1), (0.01, 6), (0.05, 16), (1.0, 16)])
def test_the_score_is_the_mean_of_the_highest_values(share, count):
    map_hw = RNG.random((20, 30)).astype(np.float32)
    assert image_score(map_hw, share) == pytest.approx(np.sort(map_hw.ravel())[-count:].mean(), rel=1e-6)
    assert image_score(np.ones((1, 1), np.float32), share) == 1.0
