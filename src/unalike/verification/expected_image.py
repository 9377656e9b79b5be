"""Expected image of an asset: background, lighting and sharpness fitted to the observed image.

Shapes: H, W of the frame (the asset with a margin). Colors and gray levels are 0 to 255.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unalike.comparison.registration import import_opencv

# Bounds of the common gain, and of the offset in gray levels that haze or reflections add.
GAIN_RANGE, OFFSET_RANGE = (0.55, 1.45), (-20.0, 40.0)
# Least contrast, in gray levels, in whose shares differences are measured.
MIN_CONTRAST = 40.0
# Candidate blurs of the expected image, standard deviation in pixels.
BLURS = (0, 0.6, 1.0, 1.5, 2.2)


@dataclass(frozen=True, eq=False)
class ExpectedImage:
    """What a frame should show if the asset is unaltered.

    Attributes:
        alpha_HW: Opacity of the asset, 0 to 1.
        asset_HW3: The asset's colors under the fitted lighting.
        image_HW3: Asset and background, as sharp as the observed image.
        background_noise: Median deviation of the observed background from the fitted one, in gray levels.
        contrast: Contrast of the asset with its background, in gray levels.
        ink_HW: bool, pixels that show nothing but the asset.
    """

    alpha_HW: np.ndarray
    asset_HW3: np.ndarray
    image_HW3: np.ndarray
    background_noise: float
    contrast: float
    ink_HW: np.ndarray


def predict_image(
    layer_HW4: np.ndarray, observed_HW3: np.ndarray, inside_HW: np.ndarray, opaque: bool
) -> ExpectedImage:
    """Predict what a frame shows if the asset is unaltered.

    Args:
        layer_HW4: The asset's layer in the frame, uint8 RGB and alpha.
        observed_HW3: The observed image in the frame, float32.
        inside_HW: bool, pixels of the frame that lie inside the image.
        opaque: Whether the asset fills its rectangle.
    """
    alpha, color = layer_HW4[..., 3].astype(np.float32) / 255, layer_HW4[..., :3].astype(np.float32)
    background, noise = fit_background(observed_HW3, inside_HW & (dilate_alpha(alpha, 2) < 0.03))
    ink = inside_HW & (erode_alpha(alpha, 1) > 0.95)
    if ink.sum() < 30:
        ink = inside_HW & (alpha > 0.7)
    asset = fit_lighting(color, observed_HW3, ink)
    image = _match_sharpness(asset * alpha[..., None] + background * (1 - alpha[..., None]), observed_HW3, inside_HW)
    return ExpectedImage(alpha, asset, image, noise, _measure_contrast(asset, background, alpha, image, opaque), ink)


def fit_background(observed_HW3: np.ndarray, free_HW: np.ndarray) -> tuple[np.ndarray, float]:
    """Fit a smooth surface to the background beside the asset, quadratic in x and y.

    Robust regression: what does not belong to the background, such as an added part, counts less.

    Args:
        observed_HW3: The observed image, float32.
        free_HW: bool, pixels that show background; with fewer than 40 of them the median color is returned.

    Returns:
        The surface over the whole frame, float32 (H, W, 3), and the median deviation from it in gray levels.
    """
    height, width = free_HW.shape
    grid_y, grid_x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = grid_x / width - 0.5, grid_y / height - 0.5
    terms = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=-1)
    rows, values = terms[free_HW], observed_HW3[free_HW]
    if len(rows) < 40:
        values = observed_HW3.reshape(-1, 3) if not len(values) else values
        flat = np.broadcast_to(np.median(values, axis=0), observed_HW3.shape)
        return flat.astype(np.float32), 0.0
    step = max(1, len(rows) // 4000)
    rows, values = rows[::step], values[::step]
    weight = np.ones(len(rows), np.float32)
    ridge = np.diag([1e-6, 1e-3, 1e-3, 1e-2, 1e-2, 1e-2]) * len(rows)
    for _ in range(8):  # iterative reweighting
        weighted = rows * weight[:, None]
        surface = np.linalg.solve(weighted.T @ rows + ridge, weighted.T @ values)
        residual = np.abs(values - rows @ surface).max(axis=1)
        spread = max(float(np.median(residual)) * 1.5, 2.0)
        weight = (1 / (1 + (residual / (2 * spread)) ** 2) ** 2).astype(np.float32)
    return (terms @ surface).astype(np.float32), float(np.median(residual))


def fit_lighting(color_HW3: np.ndarray, observed_HW3: np.ndarray, ink_HW: np.ndarray) -> np.ndarray:
    """Fit one gain, which may fall off to a side, and one offset for all channels to the asset's ink.

    One for all channels, so that lighting cannot explain red that turned blue; within ``GAIN_RANGE`` and
    ``OFFSET_RANGE``, so that it cannot explain black that turned white.

    Args:
        color_HW3: The asset's colors, float32.
        observed_HW3: The observed image, float32.
        ink_HW: bool, pixels that show nothing but the asset.

    Returns:
        The asset's colors under that lighting, float32 (H, W, 3).
    """
    height, width = ink_HW.shape
    grid_y, grid_x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = grid_x / width - 0.5, grid_y / height - 0.5
    gain, slope_x, slope_y, offset = 1.0, 0.0, 0.0, 0.0
    colors, values, xs, ys = color_HW3[ink_HW], observed_HW3[ink_HW], x[ink_HW], y[ink_HW]
    if len(colors):
        step = max(1, len(colors) // 3000)
        colors, values, xs, ys = colors[::step], values[::step], xs[::step], ys[::step]
        # Columns: gain, its slopes along x and y, and the offset in units of 64 gray levels.
        rows = np.stack([colors, colors * xs[:, None], colors * ys[:, None], np.full_like(colors, 64.0)], axis=-1)
        weight = np.ones(len(colors), np.float32)
        prior, ridge = np.array([1.0, 0, 0, 0]), np.diag([100.0, 400.0, 400.0, 100.0]) * len(colors)
        for _ in range(6):  # iterative reweighting
            weighted = rows * weight[:, None, None]
            square = np.einsum("nci,ncj->ij", weighted, rows) + ridge
            gain, slope_x, slope_y, offset = np.linalg.solve(
                square, np.einsum("nci,nc->i", weighted, values) + ridge @ prior
            )
            residual = np.abs(values - rows @ np.array([gain, slope_x, slope_y, offset])).max(axis=1)
            spread = max(float(np.median(residual)) * 1.5, 6.0)
            weight = (1 / (1 + (residual / (2 * spread)) ** 2)).astype(np.float32)
    gain, offset = float(np.clip(gain, *GAIN_RANGE)), float(np.clip(offset * 64, *OFFSET_RANGE))
    slope_x, slope_y = (float(np.clip(s, -0.35 * gain, 0.35 * gain)) for s in (slope_x, slope_y))
    gains = gain + slope_x * x + slope_y * y
    lit: np.ndarray = np.clip(color_HW3 * gains[..., None] + offset, 0, 255).astype(np.float32)
    return lit


def _match_sharpness(expected_HW3: np.ndarray, observed_HW3: np.ndarray, inside_HW: np.ndarray) -> np.ndarray:
    """Blur the expected image as much as leaves the least difference."""
    cv2 = import_opencv()
    blurred = [expected_HW3 if blur == 0 else cv2.GaussianBlur(expected_HW3, (0, 0), blur) for blur in BLURS]

    def residual(image: np.ndarray) -> float:
        return float(np.abs(image - observed_HW3)[inside_HW].mean()) if inside_HW.any() else 0.0

    return min(blurred, key=residual)


def _measure_contrast(
    asset_HW3: np.ndarray, background_HW3: np.ndarray, alpha_HW: np.ndarray, expected_HW3: np.ndarray, opaque: bool
) -> float:
    """Contrast of ink and background in gray levels; of an opaque asset, of its own light and dark parts."""
    ink = alpha_HW > 0.7
    if not ink.any():
        return MIN_CONTRAST
    if opaque:
        low, high = (np.quantile(expected_HW3[ink], share, axis=0) for share in (0.05, 0.95))
        return max(float((high - low).max()), MIN_CONTRAST)
    return max(float(np.median(np.abs(asset_HW3 - background_HW3).max(axis=2)[ink])), MIN_CONTRAST)


def dilate_alpha(alpha_HW: np.ndarray, reach: int) -> np.ndarray:
    """Return the largest value within ``reach`` pixels (a square)."""
    dilated: np.ndarray = import_opencv().dilate(alpha_HW, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    return dilated


def erode_alpha(alpha_HW: np.ndarray, reach: int) -> np.ndarray:
    """Return the smallest value within ``reach`` pixels (a square)."""
    eroded: np.ndarray = import_opencv().erode(alpha_HW, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    return eroded
