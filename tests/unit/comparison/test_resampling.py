"""Images of two resolutions are compared at the coarser one; previews and masks have its size."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.drawings import shapes
from unalike.comparison.registration import Registration, scale_matrix
from unalike.comparison.resampling import fit_mask, make_previews, resample_to_coarser, shrink

pytest.importorskip("cv2")


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_both_images_have_the_scale_of_the_coarser_one(factor: float) -> None:
    reference = shapes(3, 240, 320)
    height, width = round(240 * factor), round(320 * factor)
    registration = Registration(scale_matrix(1 / factor), 1.0, 1.0, "none")
    a, b, resampled, scale = resample_to_coarser(reference, np.zeros((height, width, 3), np.uint8), registration)
    assert a.shape == b.shape == (round(240 * min(1, factor)), round(320 * min(1, factor)), 3)
    assert scale == max(1.0, factor) and abs(resampled.scale - 1) < 0.01


def test_previews_and_masks() -> None:
    image = np.zeros((900, 3200, 1), np.uint8)
    small, reference = make_previews(image, image, Registration(np.eye(3), 1.0, 1.0, "none"))
    assert small.shape == reference.shape == shrink(image).shape == (450, 1600, 3)
    mask = fit_mask(np.ones((40, 60), bool), (20, 30, 3))
    assert mask is not None and mask.shape == (20, 30, 1) and mask.min() == 255 and fit_mask(None, (20, 30)) is None
