"""Compare an aligned image with its reference pixel by pixel, tolerant of lighting, edge displacement and noise.

Each pixel is compared with the range of values that the other image has within ``tolerance`` pixels of it (its erosion and
dilation, Serra 1982): an edge that moved, thickened or was resampled stays inside that range; a scratch, a hole, a missing
or an added part does not. The comparison runs both ways, since a thin line that vanished is visible only from the image
that still has it. A difference counts where it exceeds the range of ``tolerance``; its extent is measured with a tolerance
one pixel smaller.

In color images brightness and color are compared apart: cameras and JPEG keep color at half the resolution, so the color
planes are smoothed and their edges may lie a little farther off.

Everything runs in tiles, so that memory stays bounded whatever the images' size; the resulting maps are pooled to at most
``MAP_SIDE`` on the longer side. Shapes: H, W of the compared image, C channels, h, w of the pooled maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from unalike.comparison.deformation import warp_ignored, warp_window
from unalike.comparison.lighting import LIGHTING, LightingCorrection, fit_lighting, sample_field
from unalike.comparison.registration import Registration, import_opencv
from unalike.comparison.visibility import hidden_contrast
from unalike.errors import SpecError, closest

# Edge displacement in pixels; of scans of printed boards after alignment, 95 % of edges lie within 2 to 3 pixels
# (docs/experiments/comparison.md, 2026-11-26).
TOLERANCE, MAX_TOLERANCE = 3, 32
# Gray levels beyond the range that count at least, and as a multiple of the images' own noise.
CONTRAST, NOISE_FACTOR = 40.0, 5.0
# Side of the windows in which noise is measured.
NOISE_SIDE = 192
# Standard deviation in pixels by which color is smoothed, and how many pixels farther off its edges may lie.
COLOR_BLUR, COLOR_SLACK = 2.0, 2
TILE, MAP_SIDE = 1024, 4096
Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class PixelDifference:
    """Pooled maps of one comparison.

    Attributes:
        heat_hw: uint8, the largest difference beyond the range of ``tolerance``, in gray levels.
        reach_hw: bool, pixels that belong to a difference (beyond the range of ``tolerance - 1``).
        count_hw: uint16, number of pixels whose difference exceeds the threshold.
        sign_hw: int32, their summed change in gray levels; above 0 the image is brighter.
        pool: Image pixels per map pixel.
        threshold: Gray levels from which a difference counts.
        compared: Share of the image, without ignored pixels, that was compared, 0 to 1.
        hidden: Share of it whose differences cannot be seen (``visibility.py``), 0 to 1.
        lighting: The correction that was applied to the reference.
    """

    heat_hw: np.ndarray
    reach_hw: np.ndarray
    count_hw: np.ndarray
    sign_hw: np.ndarray
    pool: int
    threshold: float
    compared: float
    hidden: float
    lighting: LightingCorrection


def compute_pixel_difference(
    reference_HWC: np.ndarray, image_HWC: np.ndarray, registration: Registration, *, tolerance: int = TOLERANCE,
    contrast: float = CONTRAST, lighting: str = "local", ignored_HW1: np.ndarray | None = None,
    advance: Callable[[int], object] | None = None,
) -> PixelDifference:  # fmt: skip
    """Compare an image with the reference that it is aligned to.

    Args:
        reference_HWC: uint8, 1 or 3 channels.
        image_HWC: uint8, as many channels.
        registration: How the image is aligned to the reference.
        tolerance: Largest edge displacement, in image pixels, that counts as no difference; 0 to 32.
        contrast: Least difference in gray levels; raised to five times the images' noise.
        lighting: What lighting may change: ``local``, ``global`` or ``none``.
        ignored_HW1: uint8 mask of the reference, above 0 where differences are ignored.
        advance: Called with 1 after each of ``count_tiles`` tiles.

    Raises:
        SpecError: A setting is out of range.
    """
    if lighting not in LIGHTING:
        raise SpecError(f"lighting {lighting!r}", expected=", ".join(LIGHTING), remedy=closest(lighting, LIGHTING))
    if not 0 <= tolerance <= MAX_TOLERANCE:
        raise SpecError(f"tolerance {tolerance}", expected=f"0 to {MAX_TOLERANCE} pixels")
    shape = image_HWC.shape[:2]
    correction = fit_lighting(reference_HWC, image_HWC, registration, lighting)
    noise = _measure_noise(reference_HWC, image_HWC, registration, correction)
    threshold = min(250.0, max(contrast, NOISE_FACTOR * noise))
    pool = -(-max(shape) // MAP_SIDE)
    rows, columns = (-(-side // pool) for side in shape)
    heat = np.zeros((rows, columns), np.uint8)
    reach = np.zeros((rows, columns), bool)
    count = np.zeros((rows, columns), np.uint16)
    sign = np.zeros((rows, columns), np.int32)
    compared_count, ignored_count, hidden_count = 0, 0, 0
    least_visible = threshold / hidden_contrast(contrast, CONTRAST)
    for window in iterate_tiles(shape, pool):
        ignore_mask = warp_ignored(ignored_HW1, registration, shape, _widen(window, shape, tolerance))
        maps, valid = _compare_tile(
            reference_HWC, image_HWC, registration, correction, window, tolerance, threshold, ignore_mask
        )
        compared_count += int(valid.sum())
        hidden_count += int((valid & _find_hidden(correction, window, shape, least_visible)).sum())
        ignored_count += int(_inner(ignore_mask, window, shape, tolerance).sum())
        left, top, right, bottom = window
        pooled = np.s_[top // pool : -(-bottom // pool), left // pool : -(-right // pool)]
        beyond, near, change = maps
        heat[pooled] = _pool(beyond, pool, np.max)
        reach[pooled] = _pool(near, pool, np.max)
        counts = beyond > threshold
        count[pooled] = _pool(counts, pool, np.sum)
        sign[pooled] = _pool(np.where(counts, change, 0), pool, np.sum)
        if advance is not None:
            advance(1)
    compared_share, hidden_share = (
        min(1.0, part / max(1, shape[0] * shape[1] - ignored_count)) for part in (compared_count, hidden_count)
    )
    return PixelDifference(heat, reach, count, sign, pool, threshold, compared_share, hidden_share, correction)


def iterate_tiles(shape: tuple[int, ...], pool: int = 1) -> Iterator[Window]:
    """Yield windows (left, top, right, bottom) that cover an image, their edges at multiples of ``pool``."""
    step = TILE // pool * pool
    for top in range(0, shape[0], step):
        for left in range(0, shape[1], step):
            yield left, top, min(left + step, shape[1]), min(top + step, shape[0])


def count_tiles(shape: tuple[int, ...]) -> int:
    """Return the number of tiles that ``compute_pixel_difference`` compares in an image of ``shape``."""
    return sum(1 for _ in iterate_tiles(shape, -(-max(shape) // MAP_SIDE)))


def compute_excess(a_HWC: np.ndarray, b_HWC: np.ndarray, tolerance: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute how far each image leaves the other's range within ``tolerance`` pixels.

    Returns:
        The largest excess over brightness, color and both directions, uint8 (H, W), and the signed change b - a there,
        int16 (H, W); of color its sign alone. Swapping the images changes the sign of the change and nothing else.
    """
    largest = np.zeros(a_HWC.shape[:2], np.uint8)
    change = np.zeros(a_HWC.shape[:2], np.int16)
    for channel, (a, b) in enumerate(_luma_chroma_planes(a_HWC, b_HWC)):
        excess, signed_excess = _compute_plane_excess(a, b, tolerance + (COLOR_SLACK if channel else 0))
        change = np.where(excess > largest, signed_excess if channel == 0 else np.sign(signed_excess), change)
        largest = np.maximum(largest, excess)
    return largest, change


def _luma_chroma_planes(a_HWC: np.ndarray, b_HWC: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The brightness of both images; of color images also the two smoothed chroma planes."""
    cv2 = import_opencv()
    if a_HWC.shape[2] == 1:
        return [(np.ascontiguousarray(a_HWC[..., 0]), np.ascontiguousarray(b_HWC[..., 0]))]
    planes = [
        [cv2.GaussianBlur(plane, (0, 0), COLOR_BLUR) if number else plane for number, plane in enumerate(split)]
        for split in (cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)) for image in (a_HWC, b_HWC))
    ]
    return list(zip(*planes, strict=True))


def _compute_plane_excess(a_HW: np.ndarray, b_HW: np.ndarray, tolerance: int) -> tuple[np.ndarray, np.ndarray]:
    cv2 = import_opencv()
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * tolerance + 1,) * 2)
    up = np.maximum(cv2.subtract(b_HW, cv2.dilate(a_HW, disk)), cv2.subtract(cv2.erode(b_HW, disk), a_HW))
    down = np.maximum(cv2.subtract(cv2.erode(a_HW, disk), b_HW), cv2.subtract(a_HW, cv2.dilate(b_HW, disk)))
    return np.maximum(up, down), np.where(up >= down, up.astype(np.int16), -down.astype(np.int16))


def _compare_tile(
    reference_HWC: np.ndarray, image_HWC: np.ndarray, registration: Registration, correction: LightingCorrection,
    window: Window, tolerance: int, threshold: float, ignore_mask: np.ndarray,
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:  # fmt: skip
    """Return ((excess, whether a pixel belongs to a difference, signed change) of a window, which pixels were compared)."""
    cv2 = import_opencv()
    shape = image_HWC.shape[:2]
    wide = _widen(window, shape, tolerance)
    warped, inside = warp_window(reference_HWC, registration, shape, wide)
    a = correction.apply(warped, wide, shape)
    b = image_HWC[wide[1] : wide[3], wide[0] : wide[2]]
    # Beyond the reference's edge its last pixels are repeated: no valid range to compare with. What is ignored may be in the
    # range of pixels beside it.
    inside = inside & ~ignore_mask
    border = (2 * tolerance + 5,) * 2
    valid = inside if inside.all() else cv2.erode(inside.astype(np.uint8), np.ones(border, np.uint8)).astype(bool)
    beyond, change = compute_excess(a, b, tolerance)
    near = beyond if tolerance == 0 else compute_excess(a, b, tolerance - 1)[0]
    beyond, near, change, valid = (_inner(part, window, shape, tolerance) for part in (beyond, near, change, valid))
    return (beyond * valid, (near > threshold) & valid, change), valid


def _find_hidden(correction: LightingCorrection, window: Window, shape: tuple[int, ...], least: float) -> np.ndarray:
    """Which pixels of a window show less than the share ``least`` of the reference's contrast; bool (h, w)."""
    left, top, right, bottom = window
    contrast_hw = correction.contrast_hw
    if contrast_hw is None or least > 1 or float(contrast_hw.min()) >= least:
        return np.full((bottom - top, right - left), least > 1)
    hidden: np.ndarray = sample_field(contrast_hw[..., None], window, shape)[..., 0] < least
    return hidden


def _widen(window: Window, shape: tuple[int, ...], tolerance: int) -> Window:
    """The window with all pixels around it that its comparison reads."""
    margin = tolerance + COLOR_SLACK + round(3 * COLOR_BLUR)
    left, top, right, bottom = window
    return max(0, left - margin), max(0, top - margin), min(shape[1], right + margin), min(shape[0], bottom + margin)


def _inner(part: np.ndarray, window: Window, shape: tuple[int, ...], tolerance: int) -> np.ndarray:
    """The pixels of a window in an array of the widened one."""
    left, top, right, bottom = window
    wide_left, wide_top, _, _ = _widen(window, shape, tolerance)
    return part[top - wide_top : bottom - wide_top, left - wide_left : right - wide_left]


def _pool(map_HW: np.ndarray, pool: int, reduce: Callable[..., np.ndarray]) -> np.ndarray:
    if pool == 1:
        return map_HW
    rows, columns = (-(-side // pool) for side in map_HW.shape)
    padded = np.zeros((rows * pool, columns * pool), map_HW.dtype)
    padded[: map_HW.shape[0], : map_HW.shape[1]] = map_HW
    pooled: np.ndarray = reduce(padded.reshape(rows, pool, columns, pool), axis=(1, 3))
    return pooled


# ---- noise ----


def _measure_noise(
    reference_HWC: np.ndarray, image_HWC: np.ndarray, registration: Registration, correction: LightingCorrection
) -> float:
    """Estimate the standard deviation of pixel noise where the reference has no edge, in gray levels."""
    cv2 = import_opencv()
    shape = image_HWC.shape[:2]
    values: list[np.ndarray] = []
    for window in _noise_windows(shape):
        warped, inside = warp_window(reference_HWC, registration, shape, window)
        a = correction.apply(warped, window, shape).mean(axis=2).astype(np.float32)
        b = image_HWC[window[1] : window[3], window[0] : window[2]].mean(axis=2).astype(np.float32)
        smooth = cv2.GaussianBlur(a, (0, 0), 2)
        flat = inside & (cv2.magnitude(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)) < 30)
        residual = b - a
        values.append(np.abs(residual - cv2.GaussianBlur(residual, (0, 0), 4))[flat])
    every = np.concatenate(values)
    return 1.4826 * float(np.median(every)) if every.size else 0.0


def _noise_windows(shape: tuple[int, ...]) -> Iterator[Window]:
    """Yield up to nine windows spread over an image at full size, since shrinking would average the noise."""
    height, width = shape
    for top in np.linspace(0, max(0, height - NOISE_SIDE), 3).astype(int).tolist() if height > NOISE_SIDE else [0]:
        for left in np.linspace(0, max(0, width - NOISE_SIDE), 3).astype(int).tolist() if width > NOISE_SIDE else [0]:
            yield left, top, min(left + NOISE_SIDE, width), min(top + NOISE_SIDE, height)
