"""What a pair shows: edge displacement, noise, share of frequent gray levels, and whether it is one of screenshots.

All but the last are measured after alignment, in windows at full size.

Shapes: H, W of a window, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from unalike.comparison.deformation import warp_window
from unalike.comparison.lighting import LightingCorrection
from unalike.comparison.registration import Registration, import_opencv

# Side and largest number along one side of the windows, at full size since shrinking would average the noise.
WINDOW_SIDE, WINDOWS = 192, 4
# Side in pixels of the blocks in which displacement is measured; a gradient from which on a pixel belongs to an edge, and the mean
# gradient of a block with edges, in gray levels per pixel.
BLOCK, EDGE_GRADIENT, BLOCK_GRADIENT = 16, 4.0, 3.0
# Standard deviation in pixels of a blur that leaves the displacement, and takes away noise and what JPEG adds beside edges; and
# how many pixels of the reference's rim are left out.
BLUR, RIM = 1.0, 7
# Share of the blocks that have at most the displacement of the pair: a changed part is seldom a quarter.
DISPLACEMENT_QUANTILE = 0.75
# Number of frequent gray levels, and how far a pixel may lie from one.
LEVELS, LEVEL_REACH = 3, 8
# A pair is one of screenshots from this share of equal pixels on, among those at an edge (a range of more than EDGE_RANGE gray
# levels within a pixel) that neither image shows black or white: screenshots have 0.17 and more, JPEG copies at most 0.02, printed
# boards no such pixels. Its edges, as they lie, are at most so many pixels apart in half of the blocks.
MIN_EQUAL, EDGE_RANGE, BLACK, WHITE, MAX_APART = 0.1, 16, 8, 247, 0.6
# Fewest such pixels, and the step of a first look.
MIN_PIXELS, SAMPLE_STEP = 50, 7
# Rows that are looked at together, a multiple of BLOCK.
BAND = 1024
Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class PairStatistics:
    """What was measured of an aligned pair.

    Attributes:
        displacement: How far edges lie apart, in pixels; three quarters of the parts with edges have less.
        noise: Standard deviation of pixel noise where there is no edge, in gray levels.
        flat: Share of pixels at the three most frequent gray levels, 0 to 1.
    """

    displacement: float
    noise: float
    flat: float


def measure_pair(
    reference_HWC: np.ndarray, image_HWC: np.ndarray, registration: Registration, correction: LightingCorrection
) -> PairStatistics:
    """Measure displacement, noise and the share of frequent gray levels.

    Args:
        reference_HWC: uint8, 1 or 3 channels.
        image_HWC: uint8, as many channels.
        registration: How the image is aligned to the reference.
        correction: Of the reference's lighting.
    """
    shape = image_HWC.shape[:2]
    pairs, residuals, references = [], [], []
    for window in _iterate_windows(shape):
        warped, inside = warp_window(reference_HWC, registration, shape, window)
        a = correction.apply(warped, window, shape).mean(axis=2).astype(np.float32)
        b = image_HWC[window[1] : window[3], window[0] : window[2]].mean(axis=2).astype(np.float32)
        pairs.append((a, b, inside))
        references.append(warped.mean(axis=2)[inside])
        residuals.append(_noise_residuals(a, b, inside))
    every = np.concatenate(residuals)
    noise = 1.4826 * float(np.median(every)) if every.size else 0.0
    displacements = np.concatenate([measure_displacements(*pair, noise) for pair in pairs])
    return PairStatistics(
        float(np.quantile(displacements, DISPLACEMENT_QUANTILE)) if displacements.size else 0.0,
        noise,
        max(measure_flat_share(references), measure_flat_share([b[inside] for _, b, inside in pairs])),
    )


def measure_flat_share(parts: Sequence[np.ndarray]) -> float:
    """Measure which share of pixels has one of the three most frequent gray levels, 0 to 1; parts (N,) of 0 to 255."""
    counts = np.zeros(256)
    for gray_N in parts:
        counts += np.bincount(gray_N.astype(np.uint8), minlength=256)
    total, share = max(1.0, counts.sum()), 0.0
    for _ in range(LEVELS):
        center = int(np.convolve(counts, np.ones(2 * LEVEL_REACH + 1), "same").argmax())
        level = slice(max(0, center - LEVEL_REACH), center + LEVEL_REACH + 1)
        share += counts[level].sum() / total
        counts[level] = 0
    return float(share)


def are_screenshots(a_HWC: np.ndarray, b_HWC: np.ndarray) -> bool:
    """Whether two images are screenshots of one size, as they lie on each other.

    Args:
        a_HWC: uint8, 1 or 3 channels.
        b_HWC: uint8, as many channels.
    """
    sample = np.s_[::SAMPLE_STEP, ::SAMPLE_STEP]
    if a_HWC.shape != b_HWC.shape or float((a_HWC[sample] == b_HWC[sample]).all(axis=2).mean()) < MIN_EQUAL:
        return False
    tops = range(0, a_HWC.shape[0], BAND)  # bands of rows, so that memory does not grow with the images
    edges, equal = np.sum([_count_edges(a_HWC, b_HWC, top) for top in tops], axis=0)
    if edges < MIN_PIXELS or equal < MIN_EQUAL * edges:
        return False
    displacements = []
    for top in tops:
        a_HW, b_HW = (image_HWC[top : top + BAND].mean(axis=2, dtype=np.float32) for image_HWC in (a_HWC, b_HWC))
        displacements.append(measure_displacements(a_HW, b_HW, np.ones(a_HW.shape, bool), 0.0, blur=0))
    apart = np.concatenate(displacements)
    return not apart.size or float(np.median(apart)) <= MAX_APART


def _count_edges(a_HWC: np.ndarray, b_HWC: np.ndarray, top: int) -> tuple[int, int]:
    """Pixels at edges of ``a_HWC`` that neither image shows black or white, in the band from ``top`` on; and how many are equal."""
    cv2 = import_opencv()
    element = np.ones((3, 3), np.uint8)
    start = max(0, top - 1)  # a row more on both sides, for the range of neighbors
    around_HWC = a_HWC[start : top + BAND + 1]
    spread_HWC = cv2.subtract(cv2.dilate(around_HWC, element), cv2.erode(around_HWC, element)).reshape(around_HWC.shape)
    edge_HW = (spread_HWC > EDGE_RANGE).any(axis=2)[top - start :][:BAND]
    a_HWC, b_HWC = a_HWC[top : top + BAND], b_HWC[top : top + BAND]
    for image_HWC in (a_HWC, b_HWC):
        darkest, brightest = image_HWC.max(axis=2), image_HWC.min(axis=2)
        edge_HW &= (darkest > BLACK) & (brightest < WHITE)
    return int(edge_HW.sum()), int((a_HWC == b_HWC).all(axis=2)[edge_HW].sum())


def measure_displacements(
    a_HW: np.ndarray, b_HW: np.ndarray, inside_HW: np.ndarray, noise: float, *, blur: float = BLUR
) -> np.ndarray:
    """Measure how far edges lie apart in each block with edges: the absolute difference per absolute gradient.

    An edge of height h that is displaced by d pixels differs by h over d pixels, and its gradient sums to h.

    Args:
        a_HW: Gray levels of the aligned reference, float32.
        b_HW: Gray levels of the image, float32.
        inside_HW: bool; where the reference has pixels.
        noise: Standard deviation of noise, in gray levels.
        blur: Standard deviation of the blur before, in pixels; 0 for none.

    Returns:
        float32, one value in pixels for each block with edges.
    """
    cv2 = import_opencv()
    rows, columns = (side // BLOCK for side in a_HW.shape)
    if not rows or not columns:
        return np.zeros(0, np.float32)
    if blur:
        a_HW, b_HW = (cv2.GaussianBlur(image, (0, 0), blur) for image in (a_HW, b_HW))
        noise /= 2 * math.sqrt(math.pi) * blur
    if not inside_HW.all():
        inside_HW = cv2.erode(inside_HW.astype(np.uint8), np.ones((2 * RIM + 1,) * 2, np.uint8)) > 0
    difference = np.maximum(np.abs(a_HW - b_HW) - 2 * noise, 0) * inside_HW
    gradient = np.maximum(*(_gradient(image) for image in (a_HW, b_HW)))
    gradient = np.where((gradient > EDGE_GRADIENT) & inside_HW, gradient, 0).astype(np.float32)
    mean_difference, mean_gradient = (
        cv2.resize(part[: rows * BLOCK, : columns * BLOCK], (columns, rows), interpolation=cv2.INTER_AREA)
        for part in (difference.astype(np.float32), gradient)
    )
    has_edge = mean_gradient > BLOCK_GRADIENT
    displacements: np.ndarray = mean_difference[has_edge] / mean_gradient[has_edge]
    return displacements


def _gradient(image_HW: np.ndarray) -> np.ndarray:
    cv2 = import_opencv()
    magnitude: np.ndarray = cv2.magnitude(
        *(cv2.Sobel(image_HW, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1)))
    )
    return magnitude


def _noise_residuals(a_HW: np.ndarray, b_HW: np.ndarray, inside_HW: np.ndarray) -> np.ndarray:
    """Absolute local differences where the reference has no edge, in gray levels."""
    cv2 = import_opencv()
    smooth = cv2.GaussianBlur(a_HW, (0, 0), 2)
    flat = inside_HW & (cv2.magnitude(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)) < 30)
    residual = b_HW - a_HW
    local: np.ndarray = np.abs(residual - cv2.GaussianBlur(residual, (0, 0), 4))[flat]
    return local


def _iterate_windows(shape: tuple[int, ...]) -> Iterator[Window]:
    """Yield windows (left, top, right, bottom) spread over an image."""
    height, width = shape
    for top in _starts(height):
        for left in _starts(width):
            yield left, top, min(left + WINDOW_SIDE, width), min(top + WINDOW_SIDE, height)


def _starts(length: int) -> list[int]:
    count = min(WINDOWS, -(-length // WINDOW_SIDE))
    starts: list[int] = np.linspace(0, max(0, length - WINDOW_SIDE), count).astype(int).tolist()
    return starts
