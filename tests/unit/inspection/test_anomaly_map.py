"""Scores and regions of anomaly maps; the maps themselves are tested through test_inspector.py."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unalike.inspection.anomaly_map import AnomalyMaps, find_regions, image_score

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


def test_boxes_lie_where_the_patches_do():
    map_hw = np.zeros((4, 6), np.float32)
    map_hw[1, 2], map_hw[3, 5], map_hw[0, 0] = 9, 8, 7
    boxes = [region.box for region in find_regions(map_hw, 1, (40, 60), shift=(0.4, -0.6))]
    assert boxes == [(14, 14, 24, 24), (44, 34, 54, 40), (0, 4, 4, 14)]
    (beyond,) = find_regions(map_hw, 7.5, (31, 60), (40 / 31, 1.0), shift=(0.4, 0.0))[1:]
    assert beyond.box == (50, 30, 60, 31)  # its center lies below the image: the last row of pixels is marked


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2])
def test_distances_are_scaled_to_the_score_of_the_image(share):
    for seed in range(20):
        draws = np.random.default_rng(seed)
        maps = AnomalyMaps(draws.random((20, 30)).astype(np.float32), draws.random((20, 30)).astype(np.float32) * 3)
        score, map_hw = image_score(maps.score_hw, share), maps.localize(share)
        factor = score / image_score(maps.distance_hw, share)
        assert np.allclose(map_hw, maps.distance_hw * factor, rtol=1e-5) and map_hw.max() >= score
        below = float(np.nextafter(np.float32(score), np.float32(0)))
        assert find_regions(map_hw, below, (20, 30))  # an image above the threshold has a region
    equal = AnomalyMaps(np.full((3, 3), 0.3, np.float32), np.full((3, 3), 0.7, np.float32))
    assert equal.localize(share).max() >= image_score(equal.score_hw, share)
    assert AnomalyMaps(maps.score_hw, np.zeros((20, 30), np.float32)).localize(share) is maps.score_hw
