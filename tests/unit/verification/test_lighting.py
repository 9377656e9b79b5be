"""Lighting: what gain, gamma and a slight tint explain, and what they do not."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.verification.color_difference import ciede2000, srgb_to_lab
from unalike.verification.lighting import Lighting, fit_lighting

INK = np.ones((30, 40), bool)


def flat(*color: float) -> np.ndarray:
    return np.zeros((30, 40, 3), np.float32) + np.array(color, np.float32)


def difference(color_HW3: np.ndarray, observed_HW3: np.ndarray) -> float:
    """The CIEDE2000 difference that the fitted lighting leaves."""
    plain = fit_lighting(color_HW3, observed_HW3, INK).remove(observed_HW3)
    return float(ciede2000(srgb_to_lab(plain.mean(axis=(0, 1))), srgb_to_lab(color_HW3.mean(axis=(0, 1)))))


@pytest.mark.parametrize("gamma", [0.88, 1.14])
@pytest.mark.parametrize("tint", [(1.03, 0.99, 0.98), (0.98, 0.99, 1.03)])
def test_gamma_and_a_slight_tint_are_no_recoloring(gamma: float, tint: tuple[float, float, float]) -> None:
    for color in ((200, 60, 50), (40, 90, 170), (90, 180, 120)):
        observed = 255 * (flat(*color) / 255) ** gamma * 0.8 * np.array(tint, np.float32)
        assert difference(flat(*color), observed.astype(np.float32)) < 1.5


def test_another_hue_is_a_recoloring() -> None:
    assert difference(flat(200, 60, 50), flat(200, 95, 40)) > 5
    assert difference(flat(40, 90, 170), flat(85, 80, 175)) > 5


def test_a_lighting_is_undone() -> None:
    colors = np.random.default_rng(0).uniform(40, 160, (30, 40, 3)).astype(np.float32)
    lighting = Lighting(np.full((30, 40), 0.7, np.float32), 4.0, 1.07, (1.02, 1.0, 0.98))
    assert np.abs(lighting.remove(lighting.apply(colors)) - colors).max() < 0.01


def test_shading_is_fitted() -> None:
    colors = np.random.default_rng(1).uniform(60, 200, (30, 40, 3)).astype(np.float32)
    observed = colors * np.linspace(0.8, 1.0, 40, dtype=np.float32)[None, :, None]
    assert np.abs(fit_lighting(colors, observed, INK).apply(colors) - observed).max() < 4
