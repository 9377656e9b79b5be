"""Expected image of an asset: background, lighting and sharpness fitted to the observed image.

Shapes: H, W of the frame (the asset with a margin). Colors and gray levels are 0 to 255.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unalike.comparison.registration import import_opencv
from unalike.verification.lighting import Lighting, fit_lighting
from unalike.verification.searched_image import channel_max

# Least contrast, in gray levels, in whose shares differences are measured.
MIN_CONTRAST = 40.0
# Candidate blurs of the expected image, standard deviation in pixels.
BLURS = (0, 0.6, 1.0, 1.5, 2.2)
# Standard deviation in pixels of the blur that JPEG's halved color channels leave.
CHROMA_BLUR = 1.5
# Median deviation from a smooth background, in gray levels, from which all of the background is busy; below it, what deviates
# by the second number (and four times the median) and reaches the frame's border is.
BUSY_NOISE, BUSY_DEVIATION = 9.0, 24.0
# Distance in pixels from a busy background within which the edge of the ink cannot be predicted.
BUSY_REACH = 4


@dataclass(frozen=True, eq=False)
class ExpectedImage:
    """What a frame should show if the asset is unaltered.

    Attributes:
        alpha_HW: Opacity of the asset, 0 to 1.
        lighting: The fitted lighting.
        image_HW3: Asset and background, as sharp as the observed image.
        background_noise: Median deviation of the observed background from the fitted one, in gray levels.
        busy_HW: bool, background that no smooth surface describes, such as a photograph: there the observed one is expected.
        contrast: Contrast of the asset with its background, in gray levels.
        ink_HW: bool, pixels that show nothing but the asset.
    """

    alpha_HW: np.ndarray
    lighting: Lighting
    image_HW3: np.ndarray
    background_noise: float
    busy_HW: np.ndarray
    contrast: float
    ink_HW: np.ndarray

    @property
    def predictable_HW(self) -> np.ndarray:
        """bool, pixels of which the image can be predicted: not those on, and at the edge of, busy background."""
        if not self.busy_HW.any():
            return np.ones_like(self.busy_HW)
        predictable: np.ndarray = (dilate_alpha(self.busy_HW.astype(np.float32), BUSY_REACH) < 0.5) | self.ink_HW
        return predictable


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
    free = inside_HW & (dilate_alpha(alpha, 2) < 0.03)
    background, noise = fit_background(observed_HW3, free)
    busy = np.zeros_like(free) if opaque else find_busy_background(observed_HW3, background, noise, free)
    if busy.any():
        background = _fill_background(observed_HW3, background, free, busy)
        noise = min(noise, BUSY_NOISE) if busy.all() or not (free & ~busy).any() else noise
    ink = inside_HW & (erode_alpha(alpha, 1) > 0.95)
    if ink.sum() < 30:
        ink = inside_HW & (alpha > 0.7)
    brightest = float(np.quantile(observed_HW3[inside_HW].max(axis=1), 0.98)) if inside_HW.any() else 0.0
    lighting = fit_lighting(color, observed_HW3, ink, brightest)
    asset = lighting.apply(color)
    image = _match_sharpness(asset, alpha, background, observed_HW3, inside_HW)
    contrast = _measure_contrast(asset, background, alpha, image, opaque)
    return ExpectedImage(alpha, lighting, image, noise, busy, contrast, ink)


def find_busy_background(
    observed_HW3: np.ndarray, surface_HW3: np.ndarray, noise: float, free_HW: np.ndarray
) -> np.ndarray:
    """Find background that the fitted surface does not describe.

    If most of the background deviates, all of it is busy. Otherwise only structures are that go on beyond the frame: one that
    ends within it may be an added part.

    Returns:
        bool (H, W), a part of ``free_HW``.
    """
    if noise > BUSY_NOISE:
        return free_HW.copy()
    cv2 = import_opencv()
    deviation = channel_max(np.abs(observed_HW3 - surface_HW3))
    deviating = (free_HW & (deviation > max(BUSY_DEVIATION, 4 * noise))).astype(np.uint8)
    if not deviating.any():
        return np.zeros_like(free_HW)
    _, labels = cv2.connectedComponents(deviating, connectivity=8)
    border = np.concatenate([labels[:2].ravel(), labels[-2:].ravel(), labels[:, :2].ravel(), labels[:, -2:].ravel()])
    busy: np.ndarray = np.isin(labels, np.setdiff1d(border, [0]))
    return busy


def _fill_background(
    observed_HW3: np.ndarray, surface_HW3: np.ndarray, free_HW: np.ndarray, busy_HW: np.ndarray
) -> np.ndarray:
    """The observed background where it is busy, continued under the ink's edge from what is near."""
    cv2 = import_opencv()
    weight = free_HW.astype(np.float32)
    result, valid_HW = surface_HW3.copy(), np.zeros_like(free_HW)
    for blur in (12.0, 5.0, 2.5):  # from far to near: the nearest that is known counts
        total = cv2.GaussianBlur(weight, (0, 0), blur)
        near = cv2.GaussianBlur(observed_HW3 * weight[..., None], (0, 0), blur) / np.maximum(total, 1e-6)[..., None]
        valid_HW = total > 0.02
        result[valid_HW] = near[valid_HW]
    beside = dilate_alpha(busy_HW.astype(np.float32), 3 * BUSY_REACH) > 0.5
    background = np.where(beside[..., None], result, surface_HW3)
    background[busy_HW] = observed_HW3[busy_HW]
    return np.asarray(background, np.float32)


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


def _match_sharpness(
    asset_HW3: np.ndarray, alpha_HW: np.ndarray, background_HW3: np.ndarray, observed_HW3: np.ndarray,
    inside_HW: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Draw the asset on its background, blurred as much as leaves the least difference."""
    cv2 = import_opencv()
    alpha_HW1 = alpha_HW[..., None]
    premultiplied = np.concatenate([asset_HW3 * alpha_HW1, alpha_HW1], axis=2)
    images = []
    for blur in BLURS:
        layer = premultiplied if blur == 0 else cv2.GaussianBlur(premultiplied, (0, 0), blur)
        images.append(layer[..., :3] + background_HW3 * (1 - layer[..., 3:]))

    def residual(image: np.ndarray) -> float:
        return float(np.abs(image - observed_HW3)[inside_HW].mean()) if inside_HW.any() else 0.0

    sharpest = min(images, key=residual)
    # JPEG halves the color channels: in thin strokes hues are blurred, brightness is not.
    brightness = sharpest.mean(axis=2, keepdims=True)
    hues_blurred = brightness + cv2.GaussianBlur(sharpest - brightness, (0, 0), CHROMA_BLUR)
    return min((sharpest, hues_blurred), key=residual)


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
    return max(float(np.median(channel_max(np.abs(asset_HW3 - background_HW3))[ink])), MIN_CONTRAST)


def dilate_alpha(alpha_HW: np.ndarray, reach: int) -> np.ndarray:
    """Return the largest value within ``reach`` pixels (a square)."""
    dilated: np.ndarray = import_opencv().dilate(alpha_HW, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    return dilated


def erode_alpha(alpha_HW: np.ndarray, reach: int) -> np.ndarray:
    """Return the smallest value within ``reach`` pixels (a square)."""
    eroded: np.ndarray = import_opencv().erode(alpha_HW, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    return eroded
