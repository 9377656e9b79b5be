"""Lighting correction: smooth gain and offset fields that map the reference's gray levels to the image's.

Shapes: H, W of the compared image, C channels, h, w of the fields.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from unalike.comparison.deformation import warp_window
from unalike.comparison.registration import IN_PLACE, Registration, downscale, find_plain, import_opencv
from unalike.comparison.visibility import measure_contrast
from unalike.spec.compare import Lighting

LIGHTING: tuple[str, ...] = get_args(Lighting)
# Bounds of the common gain, and of one channel's gain relative to the others. A recolored part lies outside them.
GAIN_RANGE, TINT_RANGE = (0.4, 2.5), (0.87, 1.15)
# Standard deviation of the local windows, twice over, as a share of the shorter side; longer side of the local fields.
WINDOW_SHARE, FIELD_SIDE = 0.2, 256
# Half the width of the most frequent logarithms of the gain.
MODE_WIDTH = 0.15
# Longer side, in pixels, at which the correction is estimated.
MAX_SIDE = 1024


@dataclass(frozen=True)
class LightingCorrection:
    """Gain and offset of each channel: ``gain * reference + offset`` has the image's lighting; smooth over the image.

    Attributes:
        gain_hwC: float32.
        offset_hwC: float32, gray levels.
        contrast_hw: Which part of the reference's contrast the image has, 0 to 1; None where lighting explains nothing.
    """

    gain_hwC: np.ndarray
    offset_hwC: np.ndarray
    contrast_hw: np.ndarray | None = None

    def apply(self, pixels_HWC: np.ndarray, window: tuple[int, int, int, int], shape: tuple[int, ...]) -> np.ndarray:
        """Correct a tile of the aligned reference.

        Args:
            pixels_HWC: uint8 tile.
            window: Its (left, top, right, bottom) in the image.
            shape: (H, W) of the whole image.

        Returns:
            uint8 (H, W, C).
        """
        if self.gain_hwC.shape[:2] == (1, 1):
            gain, offset = self.gain_hwC, self.offset_hwC
        else:
            gain, offset = (sample_field(field, window, shape) for field in (self.gain_hwC, self.offset_hwC))
        result: np.ndarray = np.clip(pixels_HWC * gain + offset + 0.5, 0, 255).astype(np.uint8)
        return result


def fit_lighting(
    reference_HWC: np.ndarray, image_HWC: np.ndarray, registration: Registration, lighting: str
) -> LightingCorrection:
    """Estimate the correction that maps the reference's lighting to the image's.

    Args:
        reference_HWC: uint8, 1 or 3 channels.
        image_HWC: uint8, as many channels.
        registration: How the image is aligned to the reference.
        lighting: ``local`` (gain and offset vary over the image), ``global`` (they do not), or ``none`` (no correction).
    """
    channels = image_HWC.shape[2]
    identity = LightingCorrection(np.ones((1, 1, channels), np.float32), np.zeros((1, 1, channels), np.float32))
    if lighting == "none":
        return identity
    small_b, to_image = downscale(image_HWC, MAX_SIDE)
    small_b = small_b.reshape(*small_b.shape[:2], channels)
    flow = None if registration.flow_GhGw2 is None else registration.flow_GhGw2 / np.float32(to_image[0, 0])
    side = max(8, round(max(reference_HWC.shape[:2]) / max(1.0, registration.scale * to_image[0, 0])))
    small_a, to_reference = downscale(reference_HWC, side)
    small_a = small_a.reshape(*small_a.shape[:2], channels)
    matrix = np.linalg.inv(to_reference) @ registration.matrix_33 @ to_image
    small_registration = Registration(matrix, registration.quality, registration.overlap, registration.method, flow)
    height, width = small_b.shape[:2]
    warped, inside = warp_window(small_a, small_registration, (height, width), (0, 0, width, height))
    if not inside.any():
        return identity
    fitted = _fit(warped, small_b, inside, lighting == "local", registration.method == IN_PLACE)
    return replace(fitted, contrast_hw=_measure_contrast(warped, small_b, inside))


def _fit(
    a_HWC: np.ndarray, b_HWC: np.ndarray, inside_HW: np.ndarray, local: bool, in_place: bool
) -> LightingCorrection:
    """Fit gain and offset of all channels together, with a bounded tint of each."""
    cv2 = import_opencv()
    a, b = a_HWC.astype(np.float32), b_HWC.astype(np.float32)
    gray_a, gray_b = a.mean(axis=2), b.mean(axis=2)
    gain, offset, weight = (_fit_ground if in_place else _fit_global)(gray_a, gray_b, inside_HW)
    gains, offsets = np.full((1, 1), gain, np.float32), np.full((1, 1), offset, np.float32)
    if local:
        gains, offsets = _fit_local(gain * gray_a + offset, gray_b, weight.astype(np.float32))
        gains, offsets = gains * gain, gains * offset + offsets
    tint = np.ones(a.shape[2], np.float32)
    if a.shape[2] > 1:
        image_total = (weight[..., None] * b).sum(axis=(0, 1)) + 1e-6
        reference_total = (weight[..., None] * (gain * a + offset)).sum(axis=(0, 1)) + 1e-6
        tint = np.clip(image_total / reference_total, *TINT_RANGE).astype(np.float32)
    return LightingCorrection(gains[..., None] * tint, cv2.resize(offsets, gains.shape[::-1])[..., None] * tint)


def _fit_ground(a_HW: np.ndarray, b_HW: np.ndarray, inside_HW: np.ndarray) -> tuple[np.float32, np.float32, np.ndarray]:
    """Fit the gain of a plain ground; things on it, which one image may lack, have no say.

    Returns:
        Gain, offset 0, and the weight of each pixel.
    """
    cv2 = import_opencv()
    plain_HW = inside_HW.copy()
    for gray_HW in (a_HW, b_HW):
        plain = find_plain(gray_HW.astype(np.uint8)).astype(np.uint8)
        plain_HW &= cv2.resize(plain, gray_HW.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    if not plain_HW.any():
        plain_HW = inside_HW
    ratios = np.log((b_HW[plain_HW] + 1) / (a_HW[plain_HW] + 1))
    mode = _find_mode(ratios)
    gain = np.float32(np.clip(np.exp(mode), *GAIN_RANGE))
    residual = gain * a_HW - b_HW
    # Around their median: what lies beyond the bounds of the gain is a difference, also where it is the same everywhere.
    ground_N = residual[plain_HW][np.abs(ratios - mode) <= MODE_WIDTH]
    spread = float(np.median(np.abs(ground_N - np.median(ground_N))))
    return gain, np.float32(0), plain_HW / (1 + (residual / max(4.0, 2 * 1.4826 * spread)) ** 2)


def _find_mode(ratios_N: np.ndarray) -> float:
    """Return the center of the ratios around a frequent one, and of several that are frequent around the one nearest to 0.

    The ground need not be the larger part: the interior of a large thing is plain too, and the other image may lack it.
    """
    width = MODE_WIDTH * 2 / 3
    counts, edges = np.histogram(ratios_N, np.arange(-6, 6 + width, width))
    shares = np.convolve(counts, np.ones(3), "same") / len(ratios_N)
    centers = (edges[:-1] + edges[1:]) / 2
    frequent = centers[shares >= min(0.25, float(shares.max()))]
    mode = frequent[np.abs(frequent).argmin()]
    return float(np.median(ratios_N[np.abs(ratios_N - mode) <= MODE_WIDTH]))


def _fit_global(a_HW: np.ndarray, b_HW: np.ndarray, inside_HW: np.ndarray) -> tuple[np.float32, np.float32, np.ndarray]:
    """Fit gain and offset by robust regression; also returns the weight of each pixel."""
    weight = inside_HW.astype(np.float32)
    gain, offset = np.float32(1), np.float32(0)
    for _ in range(5):  # iterative reweighting: pixels that the fit does not explain are differences and count less
        total = float(weight.sum()) + 1e-6
        mean_a, mean_b = float((weight * a_HW).sum()) / total, float((weight * b_HW).sum()) / total
        variance = float((weight * (a_HW - mean_a) ** 2).sum()) / total
        covariance = float((weight * (a_HW - mean_a) * (b_HW - mean_b)).sum()) / total
        gain = np.float32(np.clip((covariance + 25) / (variance + 25), *GAIN_RANGE))
        offset = np.float32(mean_b - gain * mean_a)
        residual = np.abs(gain * a_HW + offset - b_HW)
        scale = max(4.0, 2 * 1.4826 * float(np.median(residual[inside_HW])))
        weight = inside_HW / (1 + (residual / scale) ** 2)
    return gain, offset, weight


def _fit_local(corrected_HW: np.ndarray, b_HW: np.ndarray, weight_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit gain and offset fields (h, w), near 1 and 0, by regressions in overlapping wide windows."""
    cv2 = import_opencv()
    moments = (weight_HW, weight_HW * corrected_HW, weight_HW * b_HW, weight_HW * corrected_HW**2,
               weight_HW * corrected_HW * b_HW)  # fmt: skip
    small = [downscale(np.ascontiguousarray(m, dtype=np.float32), FIELD_SIDE)[0] for m in moments]
    width = max(2.0, min(small[0].shape) * WINDOW_SHARE / 2)
    w, wa, wb, waa, wab = (cv2.GaussianBlur(m, (0, 0), width, borderType=cv2.BORDER_REFLECT) for m in small)
    w = w + 1e-3
    mean_a, mean_b = wa / w, wb / w
    variance, covariance = waa / w - mean_a**2, wab / w - mean_a * mean_b
    # A prior of gain 1 holds where the window has little structure.
    prior = 100.0 + 0.1 * float(variance.mean())
    gain = np.clip((covariance + prior) / (variance + prior), 0.5, 2.0)
    # Where little of the window is known, the fields return to gain 1 and offset 0.
    reliability = np.clip(w / (0.05 + w), 0, 1)
    gain = 1 + reliability * (gain - 1)
    offset = reliability * (mean_b - gain * mean_a)
    return gain.astype(np.float32), offset.astype(np.float32)


def _measure_contrast(a_HWC: np.ndarray, b_HWC: np.ndarray, inside_HW: np.ndarray) -> np.ndarray:
    """Which part of the reference's contrast the image has, in the windows of the local fields."""
    gray = (part.mean(axis=2, dtype=np.float32) for part in (a_HWC, b_HWC))
    a, b, weight = (downscale(part, FIELD_SIDE)[0] for part in (*gray, inside_HW.astype(np.float32)))
    return measure_contrast(a, b, weight, max(2.0, min(a.shape) * WINDOW_SHARE / 2))


def sample_field(field_hwC: np.ndarray, window: tuple[int, int, int, int], shape: tuple[int, ...]) -> np.ndarray:
    """Interpolate a field (h, w, C) over a window of the whole image, float32 (H, W, C)."""
    cv2 = import_opencv()
    left, top, right, bottom = window
    rows, columns = field_hwC.shape[:2]
    x = (np.arange(left, right, dtype=np.float32) + 0.5) * (columns / shape[1]) - 0.5
    y = (np.arange(top, bottom, dtype=np.float32) + 0.5) * (rows / shape[0]) - 0.5
    grid_x, grid_y = (np.ascontiguousarray(p) for p in np.meshgrid(x, y))
    sampled: np.ndarray = cv2.remap(field_hwC, grid_x, grid_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return sampled.reshape(*grid_x.shape, field_hwC.shape[2])
