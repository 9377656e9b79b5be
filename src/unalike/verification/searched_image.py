"""An image in which assets are searched: its small edge map and its keypoints, each computed once."""

from __future__ import annotations

import functools

import numpy as np

from unalike.comparison.registration import import_opencv

# Gradient, in gray levels per pixel, at which an edge's strength saturates.
EDGE_GRADIENT = 22.0
# Longer side, in pixels, at which keypoints are detected, the most of them, and their least contrast (SIFT's own scale).
KEYPOINT_SIDE, MAX_KEYPOINTS, KEYPOINT_CONTRAST = 416, 1500, 0.02


class SearchedImage:
    """An image, uint8 RGB (H, W, 3), with what localization derives from it; keep one for all assets that are searched."""

    def __init__(self, image_HW3: np.ndarray) -> None:
        self.image_HW3 = image_HW3
        self._edges: dict[int, tuple[np.ndarray, float]] = {}

    def edges(self, side: int) -> tuple[np.ndarray, float]:
        """Return the edge map at most ``side`` pixels a side, and its scale (at most 1)."""
        if side not in self._edges:
            small, scale = self.resized(side / max(self.image_HW3.shape[:2]))
            self._edges[side] = compute_edges(small), scale
        return self._edges[side]

    def resized(self, scale: float) -> tuple[np.ndarray, float]:
        """Return a copy shrunk by ``scale``, and the factor (at most 1); from a half-size copy where that suffices."""
        longest = max(self.image_HW3.shape[:2])
        if scale > 0.5:
            return limit_size(self.image_HW3, scale * longest)
        half, half_scale = self._half
        small, rest = limit_size(half, scale * longest)
        return small, half_scale * rest

    @functools.cached_property
    def _half(self) -> tuple[np.ndarray, float]:
        return limit_size(self.image_HW3, 0.5 * max(self.image_HW3.shape[:2]))

    @functools.cached_property
    def keypoints(self) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints: (x, y) in pixels of the image, (N, 2), and their SIFT descriptors, (N, 128)."""
        small, scale = self.resized(KEYPOINT_SIDE / max(self.image_HW3.shape[:2]))
        points_N2, descriptors = detect_keypoints(small)
        return points_N2 / scale, descriptors


def detect_keypoints(image_HW3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Detect SIFT keypoints (Lowe, IJCV 2004) of the gray image: (x, y) in pixels (N, 2), and descriptors (N, 128)."""
    cv2 = import_opencv()
    sift = cv2.SIFT_create(MAX_KEYPOINTS, contrastThreshold=KEYPOINT_CONTRAST)
    keypoints, descriptors = sift.detectAndCompute(cv2.cvtColor(image_HW3, cv2.COLOR_RGB2GRAY), None)
    if descriptors is None:
        return np.zeros((0, 2)), np.zeros((0, 128), np.float32)
    return np.array([keypoint.pt for keypoint in keypoints], np.float64), descriptors


def compute_edges(pixels_HWC: np.ndarray, blur: float = 0.8) -> np.ndarray:
    """Compute the edge strength of each pixel.

    Args:
        pixels_HWC: Any number of channels; the strongest edge counts.
        blur: Standard deviation of the Gaussian blur before the gradient, in pixels.

    Returns:
        float32 (H, W), 0 to 1, saturated so that the edge's contrast hardly matters.
    """
    cv2 = import_opencv()
    blurred = cv2.GaussianBlur(pixels_HWC.astype(np.float32), (0, 0), blur)
    gradient_x = cv2.Sobel(blurred, cv2.CV_32F, 1, 0, scale=1 / 8)
    gradient_y = cv2.Sobel(blurred, cv2.CV_32F, 0, 1, scale=1 / 8)
    squared = gradient_x * gradient_x + gradient_y * gradient_y
    strength: np.ndarray = np.tanh(np.sqrt(squared if squared.ndim == 2 else channel_max(squared)) / EDGE_GRADIENT)
    return strength


def channel_max(values_HWC: np.ndarray) -> np.ndarray:
    """The largest channel of each pixel, (H, W): ``max(axis=2)``, which is ten times slower for few channels."""
    return functools.reduce(np.maximum, (values_HWC[..., channel] for channel in range(values_HWC.shape[2])))


def limit_size(pixels: np.ndarray, max_side: float) -> tuple[np.ndarray, float]:
    """Shrink an image so that its longer side is at most ``max_side`` pixels; return it and the factor (at most 1)."""
    scale = min(1.0, max_side / max(pixels.shape[:2]))
    if scale == 1.0:
        return pixels, 1.0
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    cv2 = import_opencv()
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), scale
