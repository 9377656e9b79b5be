"""Pixels of two screenshots that differ by more than antialiasing.

The difference of two colors is the weighted distance in YIQ (Kotsarenko and Ramos, 2010), in units in which black and white are
255 apart. A pixel is antialiased where it lies on a slope of brightness whose ends are flat in both images (Vysniauskas, 2009):
a rasterizer may draw such a pixel differently although nothing changed. pixelmatch joined the two, and so do these functions.

Shapes: H, W of the images, N candidate pixels.
"""

from __future__ import annotations

import numpy as np

# Weights of red, green and blue in Y, I and Q, and of the three in the distance.
YIQ = np.array(
    [[0.29889531, 0.58662247, 0.11448223], [0.59597799, -0.2741761, -0.32180189], [0.21147017, -0.52261711, 0.31114694]]
)
YIQ_WEIGHTS = np.array([0.5053, 0.299, 0.1957])
NEIGHBORS = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0))
# Neighbors of the pixel's own brightness from which on it lies on no slope, and of one color from which on a pixel is flat.
MAX_EQUAL, MIN_FLAT = 2, 3


def measure_color_distance(a_HW3: np.ndarray, b_HW3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measure how far the colors of two images lie apart.

    Args:
        a_HW3: uint8.
        b_HW3: uint8, of the same shape.

    Returns:
        float32 (H, W), 0 to about 255, and the change of brightness b - a, int16 (H, W).
    """
    change_HW3 = (b_HW3.astype(np.float32) - a_HW3) @ YIQ.T.astype(np.float32)
    distance_HW = np.sqrt((change_HW3**2) @ (YIQ_WEIGHTS / YIQ_WEIGHTS[0]).astype(np.float32))
    return distance_HW, np.rint(change_HW3[..., 0]).astype(np.int16)


def find_antialiased(a_HW3: np.ndarray, b_HW3: np.ndarray, candidates_HW: np.ndarray) -> np.ndarray:
    """Find the candidates that antialiasing explains.

    Args:
        a_HW3: uint8.
        b_HW3: uint8, of the same shape.
        candidates_HW: bool; pixels that differ.

    Returns:
        bool (H, W), a part of the candidates.
    """
    result_HW = np.zeros_like(candidates_HW)
    rows_N, columns_N = np.nonzero(candidates_HW)
    if rows_N.size:
        images = [_pad(image) for image in (a_HW3, b_HW3)]
        antialiased_N = _lies_on_slope(images[0], images[1], rows_N + 1, columns_N + 1)
        antialiased_N |= _lies_on_slope(images[1], images[0], rows_N + 1, columns_N + 1)
        result_HW[rows_N, columns_N] = antialiased_N
    return result_HW


def _pad(image_HW3: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """One pixel more on each side: color as one number (-1 outside), brightness (NaN outside), and the shape without them."""
    red, green, blue = (image_HW3[..., channel].astype(np.int32) for channel in range(3))
    color_HW = np.pad((red << 16) | (green << 8) | blue, 1, constant_values=-1)
    # In double precision, so that equal colors have equal brightness.
    brightness_HW = np.pad(image_HW3 @ YIQ[0], 1, constant_values=np.nan)
    return color_HW, brightness_HW, image_HW3.shape[:2]


def _lies_on_slope(
    own: tuple[np.ndarray, np.ndarray, tuple[int, int]], other: tuple[np.ndarray, np.ndarray, tuple[int, int]],
    rows_N: np.ndarray, columns_N: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Whether each pixel has a darker and a brighter neighbor, one of which is flat in both images."""
    color_HW, brightness_HW, shape = own
    center_N = brightness_HW[rows_N, columns_N]
    change_8N = np.stack([brightness_HW[rows_N + y, columns_N + x] - center_N for y, x in NEIGHBORS])
    on_border_N = _is_on_border(rows_N, columns_N, shape)
    equal_N = (change_8N == 0).sum(axis=0) + on_border_N
    change_8N = np.nan_to_num(change_8N, nan=0.0)
    offsets_82 = np.array(NEIGHBORS)
    is_slope_N = (equal_N <= MAX_EQUAL) & (change_8N.min(axis=0) < 0) & (change_8N.max(axis=0) > 0)
    flat_N = np.zeros(len(rows_N), bool)
    for ends_N in (change_8N.argmin(axis=0), change_8N.argmax(axis=0)):
        y_N, x_N = rows_N + offsets_82[ends_N, 0], columns_N + offsets_82[ends_N, 1]
        flat_N |= _is_flat(color_HW, y_N, x_N, shape) & _is_flat(other[0], y_N, x_N, shape)
    on_slope_N: np.ndarray = is_slope_N & flat_N
    return on_slope_N


def _is_flat(color_HW: np.ndarray, rows_N: np.ndarray, columns_N: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Whether at least three neighbors of each pixel have its color; a border counts as one."""
    rows_N, columns_N = np.clip(rows_N, 1, shape[0]), np.clip(columns_N, 1, shape[1])
    center_N = color_HW[rows_N, columns_N]
    equal_N = sum((color_HW[rows_N + y, columns_N + x] == center_N).astype(int) for y, x in NEIGHBORS)
    flat_N: np.ndarray = equal_N + _is_on_border(rows_N, columns_N, shape) >= MIN_FLAT
    return flat_N


def _is_on_border(rows_N: np.ndarray, columns_N: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Which pixels, counted in the padded image, lie at the image's edge; int (N,)."""
    on_border_N = (rows_N == 1) | (rows_N == shape[0]) | (columns_N == 1) | (columns_N == shape[1])
    border_count_N: np.ndarray = on_border_N.astype(int)
    return border_count_N
