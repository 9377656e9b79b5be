"""Displacement, noise and kind of a pair are measured; screenshots are told from copies by a camera, a scanner or JPEG."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.drawings import as_jpeg, shapes
from unalike.comparison import pair_statistics
from unalike.comparison.lighting import fit_lighting
from unalike.comparison.pair_statistics import are_screenshots, measure_displacements, measure_flat_share, measure_pair
from unalike.comparison.registration import Registration

cv2 = pytest.importorskip("cv2")
IDENTITY = Registration(np.eye(3), 1.0, 1.0, "none")


@pytest.mark.parametrize("moved_by", [0, 1, 2])
def test_displacement_is_that_of_the_edges(moved_by: int) -> None:
    image = np.full((96, 96), 220, np.float32)
    image[:, 24:32] = image[:, 56:72] = 30
    other = np.roll(image, moved_by, axis=1)
    values = measure_displacements(image, other, np.ones(image.shape, bool), 0.0)
    # Beyond a pixel the larger of the two gradients counts edges of both images: less than the displacement, and still more.
    assert 0.6 * moved_by <= float(np.median(values)) <= 1.2 * moved_by
    assert not measure_displacements(image[:8], other[:8], np.ones((8, 96), bool), 0.0).size


def test_noise_and_flat_share_of_a_pair() -> None:
    reference = shapes(3)
    noisy = (reference + np.random.default_rng(0).normal(0, 6, reference.shape)).clip(0, 255).astype(np.uint8)
    result = measure_pair(reference, noisy, IDENTITY, fit_lighting(reference, noisy, IDENTITY, "none"))
    assert 2 < result.noise < 6 and result.flat > 0.65 and result.displacement < 0.3
    assert measure_flat_share([np.arange(256)]) < 0.25 and measure_flat_share([np.full(9, 7)]) == 1


def test_screenshots_have_equal_pixels_at_edges() -> None:
    reference = shapes(3)
    changed = reference.copy()
    changed[100:120, 150:180] = (255, 0, 255)
    assert are_screenshots(reference, changed) and are_screenshots(changed, reference)
    assert not are_screenshots(reference, np.roll(reference, (3, 2), (0, 1)))
    assert not are_screenshots(reference, as_jpeg(reference, 95))
    assert not are_screenshots(reference, reference[:-1])
    center, size = (reference.shape[1] / 2, reference.shape[0] / 2), reference.shape[1::-1]
    turned = cv2.warpAffine(reference, cv2.getRotationMatrix2D(center, 4, 1), size, borderMode=cv2.BORDER_REPLICATE)
    assert not are_screenshots(reference, turned)


def test_bands_count_what_the_whole_image_has(monkeypatch: pytest.MonkeyPatch) -> None:
    reference, changed = shapes(3), shapes(3)
    changed[60:90, 30:180] = (250, 0, 255)
    whole = pair_statistics._count_edges(reference, changed, 0)
    monkeypatch.setattr(pair_statistics, "BAND", 32)
    bands = [pair_statistics._count_edges(reference, changed, top) for top in range(0, len(reference), 32)]
    assert tuple(np.sum(bands, axis=0)) == whole and whole[0] > whole[1] > 0
    assert are_screenshots(reference, changed)
