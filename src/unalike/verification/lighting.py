"""Lighting of an image, fitted to an asset's ink: gain, offset, gamma and a slight tint.

Within narrow bounds, so that lighting explains what cameras and printers do, but not red that turned blue, nor black that
turned white.

Shapes: H, W of the frame; N pixels. Colors and gray levels are 0 to 255.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Bounds of the common gain, and of the offset in gray levels that haze or reflections add.
GAIN_RANGE, OFFSET_RANGE = (0.4, 1.22), (-3.0, 8.0)
# Candidates of the exponent of the colors (0 to 1): contrast that cameras and converters change.
GAMMAS = (0.88, 0.94, 1.0, 1.07, 1.14)
# Largest change of a channel's gain beside the common one: the white balance is off by so much.
MAX_TINT = 0.03
# A picture whose brightest pixels reach a share of 255 is lit at least by that share of it: nothing reflects more than all of
# the light. The rest is for gamma and tints.
BRIGHTNESS_SLACK = 0.92
# Largest slope of the gain across the frame, as a share of the gain.
MAX_SLOPE = 0.35
# Squared gray levels of residual that a gamma, and a tint, must explain to be preferred to none.
GAMMA_PENALTY, TINT_PENALTY = 2.0, 400.0
MAX_PIXELS = 3000


@dataclass(frozen=True, eq=False)
class Lighting:
    """Lighting: colors (0 to 1) to the power of ``gamma``, times ``gain_HW`` and ``tint_3``, plus ``offset`` gray levels."""

    gain_HW: np.ndarray
    offset: float
    gamma: float = 1.0
    tint_3: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def apply(self, color_HW3: np.ndarray) -> np.ndarray:
        """Light the asset's colors; float32 (H, W, 3), 0 to 255."""
        curved = _curve(color_HW3, self.gamma)
        result: np.ndarray = np.clip(curved * self._gain_HW3() + self.offset, 0, 255).astype(np.float32)
        return result

    def remove(self, observed_HW3: np.ndarray) -> np.ndarray:
        """Return colors as under the asset's own lighting; float32 (H, W, 3), 0 to 255."""
        curved = np.clip((observed_HW3 - self.offset) / self._gain_HW3(), 0, 255)
        plain: np.ndarray = _curve(curved, 1 / self.gamma).astype(np.float32)
        return plain

    def _gain_HW3(self) -> np.ndarray:
        return np.asarray(self.gain_HW[..., None] * np.array(self.tint_3, np.float32))


def fit_lighting(
    color_HW3: np.ndarray, observed_HW3: np.ndarray, ink_HW: np.ndarray, brightest: float = 0.0
) -> Lighting:
    """Fit the lighting to the asset's ink: one gain, which may fall off to a side, one offset, a gamma and a slight tint.

    Args:
        color_HW3: The asset's colors, float32.
        observed_HW3: The observed image, float32.
        ink_HW: bool, pixels that show nothing but the asset.
        brightest: Gray levels that the brightest pixels reach; no weaker light than that explains is fitted.
    """
    height, width = ink_HW.shape
    grid_y, grid_x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = grid_x / width - 0.5, grid_y / height - 0.5
    colors, values = color_HW3[ink_HW], observed_HW3[ink_HW]
    if not len(colors):
        return Lighting(np.ones(ink_HW.shape, np.float32), 0.0)
    step = max(1, len(colors) // MAX_PIXELS)
    colors, values, xs, ys = colors[::step], values[::step], x[ink_HW][::step], y[ink_HW][::step]
    gain, slope_x, slope_y, weight_N = _fit_linear(colors, values, xs, ys)
    slope_x, slope_y = (float(np.clip(slope / max(gain, 0.1), -MAX_SLOPE, MAX_SLOPE)) for slope in (slope_x, slope_y))
    shade_N = 1 + slope_x * xs + slope_y * ys
    least = max(GAIN_RANGE[0], min(1.0, BRIGHTNESS_SLACK * brightest / 255))
    candidates = (_fit_gamma(colors, values, shade_N, weight_N, gamma, least) for gamma in GAMMAS)
    _, gain, offset, gamma, tint_3 = min(candidates, key=lambda candidate: candidate[0])
    gain_HW = (gain * (1 + slope_x * x + slope_y * y)).astype(np.float32)
    return Lighting(gain_HW, offset, gamma, tint_3)


def _curve(color: np.ndarray, gamma: float) -> np.ndarray:
    """Colors, 0 to 255, to the power of gamma."""
    if gamma == 1.0:
        return color
    return np.asarray(255 * (np.clip(color, 0, 255) / 255) ** gamma, np.float32)


def _fit_linear(
    color_N3: np.ndarray, value_N3: np.ndarray, x_N: np.ndarray, y_N: np.ndarray
) -> tuple[float, float, float, np.ndarray]:
    """Robust gain and its slopes along x and y, with an offset; and the weight of each pixel, low where it does not fit."""
    # Columns: gain, its slopes along x and y, and the offset in units of 64 gray levels.
    rows = np.stack([color_N3, color_N3 * x_N[:, None], color_N3 * y_N[:, None], np.full_like(color_N3, 64.0)], axis=-1)
    weight_N = np.ones(len(color_N3), np.float32)
    prior, ridge = np.array([1.0, 0, 0, 0]), np.diag([100.0, 400.0, 400.0, 100.0]) * len(color_N3)
    for _ in range(6):  # iterative reweighting
        weighted = rows * weight_N[:, None, None]
        square = np.einsum("nci,ncj->ij", weighted, rows) + ridge
        fit = np.linalg.solve(square, np.einsum("nci,nc->i", weighted, value_N3) + ridge @ prior)
        residual = np.abs(value_N3 - rows @ fit).max(axis=1)
        spread = max(float(np.median(residual)) * 1.5, 6.0)
        weight_N = (1 / (1 + (residual / (2 * spread)) ** 2)).astype(np.float32)
    return float(fit[0]), float(fit[1]), float(fit[2]), weight_N


def _fit_gamma(
    color_N3: np.ndarray, value_N3: np.ndarray, shade_N: np.ndarray, weight_N: np.ndarray, gamma: float, least: float
) -> tuple[float, float, float, float, tuple[float, float, float]]:
    """The residual, gain, offset, gamma and tint for one gamma; the gain is at least ``least``."""
    lit_N3 = _curve(color_N3, gamma) * shade_N[:, None]
    weight_N1, total = weight_N[:, None], 3 * float(weight_N.sum())
    # Weighted least squares for gain and offset, drawn towards 1 and 0.
    square = np.array([[(weight_N1 * lit_N3 * lit_N3).sum(), 64 * (weight_N1 * lit_N3).sum()], [0, 64**2 * total]])
    square[1, 0] = square[0, 1]
    right = np.array([(weight_N1 * lit_N3 * value_N3).sum(), 64 * (weight_N1 * value_N3).sum()])
    ridge = 33.0 * total
    gain, offset = np.linalg.solve(square + np.eye(2) * ridge, right + [ridge, 0.0])
    gain, offset = float(np.clip(gain, least, GAIN_RANGE[1])), float(np.clip(64 * offset, *OFFSET_RANGE))
    # One is at its bound: the other explains what it can.
    gain = float((weight_N1 * lit_N3 * (value_N3 - offset)).sum() / max((weight_N1 * lit_N3 * lit_N3).sum(), 1.0))
    gain = float(np.clip(gain, least, GAIN_RANGE[1]))
    own_3 = gain * (weight_N1 * lit_N3 * lit_N3).sum(axis=0)
    tint = ((weight_N1 * lit_N3 * (value_N3 - offset)).sum(axis=0) + TINT_PENALTY * total / 3) / (
        own_3 + TINT_PENALTY * total / 3
    )
    tint = np.clip(tint / np.exp(np.log(np.maximum(tint, 0.1)).mean()), 1 - MAX_TINT, 1 + MAX_TINT)
    residual_N3 = value_N3 - np.clip(lit_N3 * gain * tint + offset, 0, 255)
    residual = float((weight_N1 * residual_N3**2).sum() / total) + GAMMA_PENALTY * abs(gamma - 1) / 0.15
    return residual, gain, offset, gamma, (float(tint[0]), float(tint[1]), float(tint[2]))
