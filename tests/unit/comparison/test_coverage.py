"""Coverage of both frames: crops, added bands and corners of rotations."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.drawings import similarity_matrix
from unalike.comparison.coverage import measure_coverage
from unalike.comparison.registration import Registration

pytest.importorskip("cv2")


def aligned(matrix: np.ndarray) -> Registration:
    return Registration(matrix, 1.0, 1.0, "features")


def test_a_crop_and_an_added_band() -> None:
    shift = np.array([[1, 0, 20], [0, 1, 0], [0, 0, 1.0]])
    coverage = measure_coverage(aligned(shift), (100, 200), (150, 180))
    assert coverage.reference.share == pytest.approx(0.9) and coverage.image.share == pytest.approx(2 / 3)
    assert coverage.reference.outside == pytest.approx(0.1) and coverage.image.outside == pytest.approx(1 / 3)
    assert coverage.reference.boxes == ((0, 0, 20, 100),) and coverage.image.boxes == ((0, 100, 180, 150),)
    assert coverage.least == coverage.image.share


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_corners_of_a_rotation_are_uncovered_and_not_outside(scale: float) -> None:
    side = round(400 / scale)
    turn = similarity_matrix(10, 1, (0, 0), side, side)
    coverage = measure_coverage(aligned(turn), (side, side), (side, side))
    expected = 2 / (1 + np.sin(np.radians(10)) + np.cos(np.radians(10)))
    for frame in (coverage.reference, coverage.image):
        assert frame.share == pytest.approx(expected, abs=0.005) and frame.outside == 0 and len(frame.boxes) == 4


def test_ignored_pixels_do_not_count() -> None:
    ignored = np.zeros((100, 200), bool)
    ignored[:, :20] = True
    shift = np.array([[1, 0, 20], [0, 1, 0], [0, 0, 1.0]])
    coverage = measure_coverage(aligned(shift), (100, 200), (100, 180), ignored)
    assert coverage.reference.share == coverage.image.share == 1 and not coverage.reference.boxes
    assert measure_coverage(aligned(np.eye(3)), (100, 200), (100, 200), np.ones((100, 200), bool)).least == 0


def test_what_lies_behind_the_horizon_is_uncovered() -> None:
    tilted = np.array([[1, 0, 0], [0, 1, 0], [0, -0.02, 1.0]])
    coverage = measure_coverage(aligned(tilted), (100, 100), (45, 100))
    assert 0 < coverage.reference.share <= 1 and 0 < coverage.image.share < 1
