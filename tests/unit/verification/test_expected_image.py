"""The expected image: lighting cannot explain another color, and the background is fitted robustly."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.marks import draw_busy_background
from unalike.verification.expected_image import find_busy_background, fit_background
from unalike.verification.lighting import fit_lighting

pytest.importorskip("cv2")


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


def test_a_bright_image_is_not_dark() -> None:
    """Darker ink in weak light is the same ink; beside a white that is as bright as ever, it is another."""
    color = np.zeros((30, 40, 3), np.float32) + (200, 60, 60)
    ink = np.ones((30, 40), bool)
    darker = color * 0.6
    assert np.abs(fit_lighting(color, darker, ink, brightest=255 * 0.6).apply(color) - darker).max() < 8
    assert np.abs(fit_lighting(color, darker, ink, brightest=255).apply(color) - darker).max() > 45


def test_lighting_can_be_removed() -> None:
    colors = np.random.default_rng(0).uniform(40, 160, (30, 40, 3)).astype(np.float32)
    lighting = fit_lighting(colors, colors * 0.7 + 5, np.ones((30, 40), bool))
    assert np.abs(lighting.remove(lighting.apply(colors)) - colors).max() < 0.01


def test_a_busy_background_goes_on_beyond_the_frame() -> None:
    free = np.ones((400, 600), bool)
    photograph = draw_busy_background(1)
    surface, noise = fit_background(photograph, free)
    assert find_busy_background(photograph, surface, noise, free).all()
    plain = np.full((400, 600, 3), 220, np.float32)
    plain[100:150, 200:260] = 30  # ends within the frame: it may be an added part
    plain[300:, 500:540] = 90  # goes on beyond it
    busy = find_busy_background(plain, np.full_like(plain, 220), 0.0, free)
    assert busy[350, 520] and not busy[120, 220] and not busy[20, 20]
