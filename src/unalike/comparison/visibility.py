"""Visibility of differences: where an image is too dark, too faint or too noisy to show them.

A difference of the reference appears in the image at the contrast that light and exposure leave of it, and it counts from a
threshold that the noise raises. Where the two together hide differences of more than ``hidden_contrast`` gray levels of the
reference, nothing can be said: such pixels are not compared.

Shapes: H, W of the compared image, C channels, h, w of a small map of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unalike.comparison.registration import import_opencv

# Pixels that hide differences of more than so many times the contrast that counts (the default where that is lower) are not
# compared: light at 0.4 of the reference's, or noise with a standard deviation of 20 gray levels.
HIDDEN_FACTOR = 2.5
# Gray levels that are added to a mean, and to a standard deviation, before two of them are divided: below, neither means much.
DARK_LEVEL, PLAIN_DEVIATION = 8.0, 8.0


@dataclass(frozen=True)
class HiddenShare:
    """Share of the image in which differences could not be seen, 0 to 1, and the reason."""

    share: float = 0.0
    reason: str = ""


NOTHING_HIDDEN = HiddenShare()


def measure_contrast(a_HW: np.ndarray, b_HW: np.ndarray, weight_HW: np.ndarray, width: float) -> np.ndarray:
    """Measure which part of the reference's contrast the image has, by brightness and by variation in wide windows.

    Args:
        a_HW: Gray levels of the aligned reference.
        b_HW: Gray levels of the image.
        weight_HW: Weight of each pixel; 0 where the reference shows nothing.
        width: Standard deviation of the windows, in pixels.

    Returns:
        float32 (H, W), 0 to 1; 1 where the image has as much as the reference.
    """
    cv2 = import_opencv()
    weight, a, b = (np.ascontiguousarray(part, dtype=np.float32) for part in (weight_HW, a_HW, b_HW))
    total, sum_a, sum_b, squares_a, squares_b = (
        cv2.GaussianBlur(part, (0, 0), width, borderType=cv2.BORDER_REFLECT)
        for part in (weight, weight * a, weight * b, weight * a * a, weight * b * b)
    )
    total += 1e-6
    mean_a, mean_b = sum_a / total, sum_b / total
    variance_a, variance_b = (
        np.maximum(squares / total - mean * mean, 0) for squares, mean in ((squares_a, mean_a), (squares_b, mean_b))
    )
    brightness = (mean_b + DARK_LEVEL) / (mean_a + DARK_LEVEL)
    variation = np.sqrt((variance_b + PLAIN_DEVIATION**2) / (variance_a + PLAIN_DEVIATION**2))
    contrast: np.ndarray = np.minimum(1, np.minimum(brightness, variation)).astype(np.float32)
    return contrast


def hidden_contrast(contrast: float, default: float) -> float:
    """Gray levels of the reference from which a hidden difference matters, for a setting of ``contrast`` and its default."""
    return HIDDEN_FACTOR * max(contrast, default)
