"""Feature distances by a slow oracle, the pair's own threshold, and regions."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.comparison.feature_difference import (
    FeatureDifference,
    compute_distances,
    compute_threshold,
    find_feature_regions,
)

pytest.importorskip("cv2")


def slow_distance(a_Chw: np.ndarray, b_Chw: np.ndarray, y: int, x: int) -> float:
    """1 - cosine of the summed 3 x 3 neighborhoods, the edge repeated."""
    height, width = a_Chw.shape[1:]
    sums = []
    for map_Chw in (a_Chw, b_Chw):
        total = np.zeros(len(map_Chw))
        for j in (y - 1, y, y + 1):
            for i in (x - 1, x, x + 1):
                total += map_Chw[:, min(max(j, 0), height - 1), min(max(i, 0), width - 1)]
        sums.append(total)
    return 1 - float(sums[0] @ sums[1] / np.linalg.norm(sums[0]) / np.linalg.norm(sums[1]))


def test_distances_are_those_of_neighborhoods() -> None:
    draws = np.random.default_rng(0)
    a, b = (draws.normal(0, 1, (5, 6, 9)).astype(np.float32) for _ in range(2))
    fine, _ = compute_distances([a], [b], (6, 9))
    for y, x in ((0, 0), (5, 8), (2, 4), (3, 0)):
        assert fine[y, x] == pytest.approx(slow_distance(a, b, y, x), abs=1e-5)
    coarse = [draws.normal(0, 1, (3, 3, 9)).astype(np.float32) for _ in range(2)]
    both, _ = compute_distances([a, coarse[0]], [b, coarse[1]], (6, 9))
    # A coarse map's row centers lie between two fine ones: a quarter of the way at rows 1 and 2.
    low, high = (slow_distance(*coarse, row, 4) for row in (0, 1))
    assert both[1, 4] == pytest.approx((fine[1, 4] + 0.75 * low + 0.25 * high) / 2, abs=1e-5)
    zero = np.zeros_like(a)
    assert not compute_distances([zero], [zero], (6, 9))[0].any()
    assert np.isnan(compute_distances([a * np.nan], [b], (6, 9))[0]).all()


def test_unrelated_places_are_half_the_image_apart() -> None:
    draws = np.random.default_rng(0)
    two = draws.normal(0, 1, (2, 40)).astype(np.float32)
    a = np.repeat(np.repeat(two.T[:, None, :], 12, axis=1), 32, axis=2)  # (40, 12, 64): a left and a right half
    heat, unrelated = compute_distances([a], [a], (12, 64))
    cosine = float(two[0] @ two[1] / np.linalg.norm(two[0]) / np.linalg.norm(two[1]))
    assert heat.max() < 1e-5 and unrelated == pytest.approx(1 - cosine, abs=1e-5)


def test_the_threshold_is_set_by_the_pair() -> None:
    heat = np.abs(np.random.default_rng(0).normal(0.3, 0.05, (40, 40))).astype(np.float32)
    known = np.ones(heat.shape, bool)
    assert compute_threshold(heat, known, 0.5, deviations=6) == pytest.approx(0.6, abs=0.03)
    assert compute_threshold(heat, known, 1.5, share=0.6) == pytest.approx(0.9)
    assert compute_threshold(heat, known, 0.1, floor=0.7) == 0.7
    assert compute_threshold(heat, ~known, 0.1, floor=0.3) == 0.3
    known[:20] = False
    heat[:20] = 2
    assert compute_threshold(heat, known, 0.1, deviations=6) == pytest.approx(0.6, abs=0.05)


def test_cells_that_touch_are_one_region_if_one_reaches_the_threshold() -> None:
    heat = np.zeros((20, 30), np.float32)
    heat[4:6, 10:14], heat[5, 11] = 0.32, 0.5  # with a peak
    heat[12, 20] = 0.39  # below
    heat[19, 29] = 0.8
    difference = FeatureDifference(heat, heat >= 0, (8.0, 8.0), 0.4)
    first, second = find_feature_regions(difference, (157, 240), margin=3)
    assert first.extent == (232, 152, 240, 157) and first.box == (229, 149, 240, 157) and first.score == 2.0
    assert second.extent == (80, 32, 112, 48) and second.area == 8 * 64 and second.contrast == 0.5
    assert first.level == second.level == "features"
