"""Regions of a heat map become boxes in the image; the strongest comes first."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.verification.asset import Asset
from unalike.verification.localization import AffinePose
from unalike.verification.measures import AssetDifference
from unalike.verification.regions import find_altered_regions, find_peak, project_outline

pytest.importorskip("cv2")


def difference_of(heat_HW: np.ndarray) -> AssetDifference:
    """A difference whose frame lies at (20, 30) of the image, at twice its size."""
    matrix = np.array([[2.0, 0, 20], [0, 2.0, 30]])
    image = np.zeros((*heat_HW.shape, 3), np.uint8)
    return AssetDifference(AffinePose(matrix, 1.0), {}, heat_HW, image, image, matrix, 100.0)


def test_boxes_are_in_pixels_of_the_image() -> None:
    heat = np.zeros((124, 124), np.float32)
    heat[20:30, 40:60], heat[80:90, 10:20], heat[110:112, 110:112] = 1.0, 0.5, 0.3
    difference = difference_of(heat)
    first, second, third = find_altered_regions(difference, (300, 300))
    assert first.score == 1.0 and second.score == 0.5 and third.score < 0.3
    reach = 2 * 2  # half a window of 5 pixels, at twice the size
    expected = (20 + 2 * 40 - reach, 30 + 2 * 20 - reach, 20 + 2 * 60 + reach, 30 + 2 * 30 + reach)
    assert np.abs(np.subtract(first.box, expected)).max() <= 1
    assert [region.score for region in find_altered_regions(difference, (300, 300), min_score=0.6)] == [1.0]
    x, y = find_peak(difference)
    assert 40 <= x < 60 and 20 <= y < 30


def test_the_outline_is_the_projected_layer() -> None:
    outline = project_outline(difference_of(np.zeros((10, 10), np.float32)), Asset("a", np.zeros((5, 8, 4), np.uint8)))
    assert outline.tolist() == [[20, 30], [36, 30], [36, 40], [20, 40]]
