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

from unalike.comparison.antialiasing import find_antialiased, measure_color_distance
from unalike.comparison.deformation import warp_ignored, warp_window
from unalike.comparison.lighting import LIGHTING, LightingCorrection, fit_lighting, sample_field
from unalike.comparison.pair_statistics import measure_pair
from unalike.comparison.preset import Sensitivity, choose_sensitivity
from unalike.comparison.registration import Registration, import_opencv
from unalike.comparison.visibility import hidden_contrast
from unalike.errors import SpecError, closest

MAX_TOLERANCE = 32
# Gray levels beyond the range that count by default, and as a multiple of the images' own noise.
CONTRAST, NOISE_FACTOR = 40.0, 5.0
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
        sensitivity: What was chosen for this pair.
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
    sensitivity: Sensitivity
    compared: float
    hidden: float
    lighting: LightingCorrection


def compute_pixel_difference(
    reference_HWC: np.ndarray, image_HWC: np.ndarray, registration: Registration, *, preset: str = "auto",
    tolerance: int | None = None, contrast: float | None = None, min_area: int | None = None, lighting: str = "local",
    ignored_HW1: np.ndarray | None = None, advance: Callable[[int], object] | None = None,
) -> PixelDifference:  # fmt: skip
    """Compare an image with the reference that it is aligned to.

    Args:
        reference_HWC: uint8, 1 or 3 channels.
        image_HWC: uint8, as many channels.
        registration: How the image is aligned to the reference.
        preset: Kind of images; ``auto`` chooses among photographs, print and scans.
        tolerance: Largest edge displacement, in image pixels, that counts as no difference; 0 to 32; measured if unset.
        contrast: Least difference in gray levels, the preset's if unset; raised to five times the images' noise.
        min_area: Fewest pixels of a region, the preset's if unset.
        lighting: What lighting may change: ``local``, ``global`` or ``none``.
        ignored_HW1: uint8 mask of the reference, above 0 where differences are ignored.
        advance: Called with 1 after each of ``count_tiles`` tiles.

    Raises:
        SpecError: A setting is out of range.
    """
    if lighting not in LIGHTING:
        raise SpecError(f"lighting {lighting!r}", expected=", ".join(LIGHTING), remedy=closest(lighting, LIGHTING))
    if tolerance is not None and not 0 <= tolerance <= MAX_TOLERANCE:
        raise SpecError(f"tolerance {tolerance}", expected=f"0 to {MAX_TOLERANCE} pixels")
    shape = image_HWC.shape[:2]
    correction = fit_lighting(reference_HWC, image_HWC, registration, lighting)
    statistics = None if preset == "screen" else measure_pair(reference_HWC, image_HWC, registration, correction)
    sensitivity = choose_sensitivity(preset, statistics, tolerance, contrast, min_area)
    noise = 0.0 if statistics is None else statistics.noise
    threshold = min(250.0, max(sensitivity.contrast, NOISE_FACTOR * noise))
    pool = -(-max(shape) // MAP_SIDE)
    rows, columns = (-(-side // pool) for side in shape)
    heat = np.zeros((rows, columns), np.uint8)
    reach = np.zeros((rows, columns), bool)
    count = np.zeros((rows, columns), np.uint16)
    sign = np.zeros((rows, columns), np.int32)
    compared_count, ignored_count, hidden_count = 0, 0, 0
    least_visible = threshold / hidden_contrast(sensitivity.contrast, CONTRAST)
    reach_px = sensitivity.tolerance
    for window in iterate_tiles(shape, pool):
        ignore_mask = warp_ignored(ignored_HW1, registration, shape, _widen(window, shape, reach_px))
        maps, valid = _compare_tile(
            reference_HWC, image_HWC, registration, correction, window, sensitivity, threshold, ignore_mask
        )
        compared_count += int(valid.sum())
        hidden_count += int((valid & _find_hidden(correction, window, shape, least_visible)).sum())
        ignored_count += int(_inner(ignore_mask, window, shape, reach_px).sum())
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
    return PixelDifference(
        heat, reach, count, sign, pool, threshold, sensitivity, compared_share, hidden_share, correction
    )


def iterate_tiles(shape: tuple[int, ...], pool: int = 1) -> Iterator[Window]:
    """Yield windows (left, top, right, bottom) that cover an image, their edges at multiples of ``pool``."""
    step = TILE // pool * pool
    for top in range(0, shape[0], step):
        for left in range(0, shape[1], step):
            yield left, top, min(left + step, shape[1]), min(top + step, shape[0])


def count_tiles(shape: tuple[int, ...]) -> int:
    """Return the number of tiles that ``compute_pixel_difference`` compares in an image of ``shape``."""
    return sum(1 for _ in iterate_tiles(shape, -(-max(shape) // MAP_SIDE)))


def compute_excess(
    a_HWC: np.ndarray, b_HWC: np.ndarray, tolerance: int, *, thickness: int = 0, edge_share: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Compute how far each image leaves the other's range within ``tolerance`` pixels.

    Args:
        a_HWC: uint8, 1 or 3 channels.
        b_HWC: uint8, of the same shape.
        tolerance: In pixels.
        thickness: Differences of brightness that contain a disk of so many pixels count whatever the range; 0 for none.
        edge_share: A difference of brightness must be at least this share of the range of both images within ``tolerance``.

    Returns:
        The largest excess over brightness, color and both directions, uint8 (H, W), and the signed change b - a there,
        int16 (H, W); of color its sign alone. Swapping the images changes the sign of the change and nothing else.
    """
    largest = np.zeros(a_HWC.shape[:2], np.uint8)
    change = np.zeros(a_HWC.shape[:2], np.int16)
    for channel, (a, b) in enumerate(_luma_chroma_planes(a_HWC, b_HWC)):
        excess, signed_excess = (
            _compute_plane_excess(a, b, tolerance + COLOR_SLACK)
            if channel
            else _compute_plane_excess(a, b, tolerance, thickness, edge_share)
        )
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


def _compute_plane_excess(
    a_HW: np.ndarray, b_HW: np.ndarray, tolerance: int, thickness: int = 0, edge_share: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    cv2 = import_opencv()
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * tolerance + 1,) * 2)
    up = np.maximum(cv2.subtract(b_HW, cv2.dilate(a_HW, disk)), cv2.subtract(cv2.erode(b_HW, disk), a_HW))
    down = np.maximum(cv2.subtract(cv2.erode(a_HW, disk), b_HW), cv2.subtract(a_HW, cv2.dilate(b_HW, disk)))
    if thickness:
        # An edge that is displaced by d pixels leaves a strip d pixels thick, which an opening removes.
        up = np.maximum(up, _open(cv2.subtract(b_HW, a_HW), thickness))
        down = np.maximum(down, _open(cv2.subtract(a_HW, b_HW), thickness))
    excess = np.maximum(up, down)
    if edge_share:
        square = np.ones((2 * tolerance + 1,) * 2, np.uint8)
        highest, lowest = cv2.dilate(np.maximum(a_HW, b_HW), square), cv2.erode(np.minimum(a_HW, b_HW), square)
        excess[excess < edge_share * (highest - lowest)] = 0
    return excess, np.where(up >= down, up.astype(np.int16), -down.astype(np.int16))


def _open(image_HW: np.ndarray, diameter: int) -> np.ndarray:
    """Keep what contains a disk; ``cv2.MORPH_OPEN`` would move it where the diameter is even."""
    cv2 = import_opencv()
    disk, center = _make_disk(diameter), diameter // 2
    eroded = cv2.erode(image_HW, disk, anchor=(center, center))
    other_center = diameter - 1 - center
    result: np.ndarray = cv2.dilate(eroded, disk, anchor=(other_center, other_center))
    return result


def _make_disk(diameter: int) -> np.ndarray:
    """Pixels whose centers lie in a disk, uint8 (diameter, diameter)."""
    y, x = np.mgrid[:diameter, :diameter] - (diameter - 1) / 2
    disk: np.ndarray = (x * x + y * y <= (diameter / 2) ** 2).astype(np.uint8)
    return disk


def _compute_excesses(
    a_HWC: np.ndarray, b_HWC: np.ndarray, sensitivity: Sensitivity, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the excess, the excess with a tolerance one pixel smaller, and the signed change of the first."""
    if sensitivity.is_exact:
        a_HW3, b_HW3 = (np.broadcast_to(image, (*image.shape[:2], 3)) for image in (a_HWC, b_HWC))
        distance, change = measure_color_distance(a_HW3, b_HW3)
        distance[find_antialiased(a_HW3, b_HW3, distance > threshold)] = 0
        # Rounded up, so that what exceeds the threshold still does.
        excess = np.minimum(np.ceil(distance), 255).astype(np.uint8)
        excess[distance <= threshold] = 0
        return excess, excess, change
    tolerance, thickness, share = sensitivity.tolerance, sensitivity.thickness, sensitivity.edge_share
    beyond, change = compute_excess(a_HWC, b_HWC, tolerance, thickness=thickness, edge_share=share)
    if tolerance == 0:
        return beyond, beyond, change
    near, _ = compute_excess(a_HWC, b_HWC, tolerance - 1, thickness=max(0, thickness - 1), edge_share=share)
    return beyond, np.maximum(near, beyond), change


def _compare_tile(
    reference_HWC: np.ndarray, image_HWC: np.ndarray, registration: Registration, correction: LightingCorrection,
    window: Window, sensitivity: Sensitivity, threshold: float, ignore_mask: np.ndarray,
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:  # fmt: skip
    """Return ((excess, whether a pixel belongs to a difference, signed change) of a window, which pixels were compared)."""
    cv2 = import_opencv()
    shape, tolerance = image_HWC.shape[:2], sensitivity.tolerance
    wide = _widen(window, shape, tolerance)
    warped, inside = warp_window(reference_HWC, registration, shape, wide)
    a = correction.apply(warped, wide, shape)
    b = image_HWC[wide[1] : wide[3], wide[0] : wide[2]]
    # Beyond the reference's edge its last pixels are repeated: no valid range to compare with. What is ignored may be in the
    # range of pixels beside it.
    inside = inside & ~ignore_mask
    border = (2 * tolerance + 5,) * 2
    valid = inside if inside.all() else cv2.erode(inside.astype(np.uint8), np.ones(border, np.uint8)).astype(bool)
    beyond, near, change = _compute_excesses(a, b, sensitivity, threshold)
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
