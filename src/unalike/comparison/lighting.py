"""Lighting correction: smooth gain and offset fields that map the reference's gray levels to the image's.

Shapes: H, W of the compared image, C channels, h, w of the fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np

from unalike.comparison.deformation import warp_window
from unalike.comparison.registration import Registration, downscale, import_opencv
from unalike.spec.compare import Lighting

LIGHTING: tuple[str, ...] = get_args(Lighting)
# Bounds of the common gain, and of one channel's gain relative to the others. A recolored part lies outside them.
GAIN_RANGE, TINT_RANGE = (0.4, 2.5), (0.87, 1.15)
# Standard deviation of the local windows, twice over, as a share of the shorter side; longer side of the local fields.
WINDOW_SHARE, FIELD_SIDE = 0.2, 256
# Longer side, in pixels, at which the correction is estimated.
MAX_SIDE = 1024


@dataclass(frozen=True)
class LightingCorrection:
    """Gain and offset of each channel: ``gain * reference + offset`` has the image's lighting; smooth over the image."""

    gain_hwC: np.ndarray
    offset_hwC: np.ndarray

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
            gain, offset = (_sample_field(field, window, shape) for field in (self.gain_hwC, self.offset_hwC))
        corrected: np.ndarray = np.clip(pixels_HWC * gain + offset + 0.5, 0, 255).astype(np.uint8)
        return corrected


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
    return _fit(warped, small_b, inside, lighting == "local") if inside.any() else identity


def _fit(a_HWC: np.ndarray, b_HWC: np.ndarray, inside_HW: np.ndarray, local: bool) -> LightingCorrection:
    """Fit gain and offset by robust regression, of all channels together with a bounded tint of each."""
    cv2 = import_opencv()
    a, b = a_HWC.astype(np.float32), b_HWC.astype(np.float32)
    gray_a, gray_b = a.mean(axis=2), b.mean(axis=2)
    weight = inside_HW.astype(np.float32)
    gain, offset = np.float32(1), np.float32(0)
    for _ in range(5):  # iterative reweighting: pixels that the fit does not explain are differences and count less
        total = float(weight.sum()) + 1e-6
        mean_a, mean_b = float((weight * gray_a).sum()) / total, float((weight * gray_b).sum()) / total
        variance = float((weight * (gray_a - mean_a) ** 2).sum()) / total
        covariance = float((weight * (gray_a - mean_a) * (gray_b - mean_b)).sum()) / total
        gain = np.float32(np.clip((covariance + 25) / (variance + 25), *GAIN_RANGE))
        offset = np.float32(mean_b - gain * mean_a)
        residual = np.abs(gain * gray_a + offset - gray_b)
        scale = max(4.0, 2 * 1.4826 * float(np.median(residual[inside_HW])))
        weight = inside_HW / (1 + (residual / scale) ** 2)
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
    known = np.clip(w / (0.05 + w), 0, 1)
    gain = 1 + known * (gain - 1)
    offset = known * (mean_b - gain * mean_a)
    return gain.astype(np.float32), offset.astype(np.float32)


def _sample_field(field_hwC: np.ndarray, window: tuple[int, int, int, int], shape: tuple[int, ...]) -> np.ndarray:
    """Interpolate a field over a window of the whole image, float32 (H, W, C)."""
    cv2 = import_opencv()
    left, top, right, bottom = window
    rows, columns = field_hwC.shape[:2]
    x = (np.arange(left, right, dtype=np.float32) + 0.5) * (columns / shape[1]) - 0.5
    y = (np.arange(top, bottom, dtype=np.float32) + 0.5) * (rows / shape[0]) - 0.5
    grid_x, grid_y = (np.ascontiguousarray(p) for p in np.meshgrid(x, y))
    sampled: np.ndarray = cv2.remap(field_hwC, grid_x, grid_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return sampled.reshape(*grid_x.shape, field_hwC.shape[2])
