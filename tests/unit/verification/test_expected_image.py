"""The expected image: lighting cannot explain another color, and the background is fitted robustly."""

from __future__ import annotations

import numpy as np

from unalike.verification.expected_image import fit_background, fit_lighting


def test_lighting_is_one_gain_and_one_offset() -> None:
    colors = np.random.default_rng(0).uniform(20, 220, (30, 40, 3)).astype(np.float32)
    ink = np.ones((30, 40), bool)
    darker = fit_lighting(colors, colors * 0.8 + 6, ink).apply(colors)
    assert np.abs(darker - (colors * 0.8 + 6)).max() < 3
    red = np.zeros((30, 40, 3), np.float32) + (200, 20, 20)
    blue = np.zeros((30, 40, 3), np.float32) + (20, 20, 200)
    assert np.abs(fit_lighting(red, blue, ink).apply(red) - blue).max() > 80
    black = np.zeros((30, 40, 3), np.float32)
    assert np.abs(fit_lighting(black, black + 255, ink).apply(black) - 255).min() > 200


def test_the_background_ignores_what_does_not_belong_to_it() -> None:
    y, x = np.mgrid[0:60, 0:80].astype(np.float32)
    background = np.stack([100 + x / 2, 120 + y / 3, 90 + x / 4], axis=-1)
    observed = background.copy()
    observed[5:15, 5:20] = (0, 0, 0)
    free = np.ones((60, 80), bool)
    free[20:40, 30:50] = False
    fitted, noise = fit_background(observed, free)
    assert np.abs(fitted - background).max() < 4 and noise < 2
