"""Visibility of differences: the contrast that an image has of its reference's, by brightness and by variation."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.comparison.visibility import hidden_contrast, measure_contrast

pytest.importorskip("cv2")


def test_contrast_is_what_light_and_fog_leave_of_it() -> None:
    reference = np.random.default_rng(0).integers(0, 256, (120, 160)).astype(np.float32)
    inside = np.ones_like(reference)
    for image, want in (
        (reference, 1.0),
        (reference * 0.3, 0.32),
        (reference * 0.3 + 170, 0.32),
        (255 - reference, 1.0),
    ):
        contrast = measure_contrast(reference, image, inside, 12.0)
        assert contrast.shape == reference.shape and abs(float(contrast.mean()) - want) < 0.03
    half = reference.copy()
    half[:, 80:] *= 0.2
    contrast = measure_contrast(reference, half, inside, 8.0)
    assert contrast[:, :50].min() > 0.9 and contrast[:, 110:].max() < 0.3


def test_a_plain_ground_has_all_contrast_whatever_its_noise() -> None:
    draws = np.random.default_rng(1)
    noisy, clean = draws.normal(150, 4, (100, 100)), np.full((100, 100), 149.0)
    assert measure_contrast(noisy, clean, np.ones((100, 100)), 10.0).min() > 0.85


def test_a_higher_contrast_setting_allows_more_to_be_hidden() -> None:
    assert hidden_contrast(10, 40) == hidden_contrast(40, 40) == 100 and hidden_contrast(80, 40) == 200
