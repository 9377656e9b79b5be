"""Pixels that differ are grouped into regions with boxes, scores and an order."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.comparison.lighting import LightingCorrection
from unalike.comparison.pixel_difference import PixelDifference
from unalike.comparison.preset import Sensitivity
from unalike.comparison.regions import find_pixel_regions

pytest.importorskip("cv2")

SENSITIVITY = Sensitivity("photo", 3, 5, 40.0, 0.5, 12)


def difference_of(boxes: list[tuple[int, int, int, int]], counted: int, pool: int = 1) -> PixelDifference:
    """A difference with rectangles (left, top, right, bottom), in which each map pixel counts ``counted`` pixels."""
    heat, count = np.zeros((100, 120), np.uint8), np.zeros((100, 120), np.uint16)
    for left, top, right, bottom in boxes:
        heat[top:bottom, left:right], count[top:bottom, left:right] = 200, counted
    identity = LightingCorrection(np.ones((1, 1, 1), np.float32), np.zeros((1, 1, 1), np.float32))
    return PixelDifference(
        heat, heat > 0, count, count.astype(np.int32) * -7, pool, 40.0, SENSITIVITY, 1.0, 0.0, identity
    )


def test_regions_have_extent_margin_score_and_order() -> None:
    found = difference_of([(10, 20, 14, 23), (60, 50, 70, 60), (0, 97, 3, 99)], 1)
    first, second = find_pixel_regions(found, (100, 120), margin=8)
    assert first.extent == (60, 50, 70, 60) and first.box == (52, 42, 78, 68) and first.area == 100
    assert first.score == pytest.approx(100 / 12, abs=0.01) and first.contrast == 200 and first.change == "darker"
    assert second.score == 1 and second.box == (2, 12, 22, 31)
    assert len(find_pixel_regions(found, (100, 120), min_area=6)) == 3
    assert find_pixel_regions(found, (100, 120), min_area=6)[-1].box == (
        0,
        93,
        7,
        100,
    )  # cut at the image's edge, margin 4


def test_parts_near_each_other_are_one_region() -> None:
    assert len(find_pixel_regions(difference_of([(10, 10, 20, 13), (23, 10, 33, 13)], 1), (100, 120))) == 1
    assert len(find_pixel_regions(difference_of([(10, 10, 20, 13), (30, 10, 40, 13)], 1), (100, 120))) == 2


def test_regions_of_pooled_and_smaller_comparisons_are_in_image_pixels() -> None:
    (region,) = find_pixel_regions(difference_of([(10, 20, 20, 30)], 3, pool=2), (400, 480), scale=2.0)
    assert region.extent == (40, 80, 80, 120) and region.area == 1200
