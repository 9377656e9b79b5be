"""Group pixels that differ into regions: boxes with scores, from the maps of a pixel comparison.

Shapes: h, w of the maps; H, W of the image.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unalike.comparison.pixel_difference import PixelDifference
from unalike.comparison.registration import import_opencv

# Fewest pixels beyond the tolerance that make a region: those of a speck of 3 x 4 pixels.
MIN_AREA = 12
# Parts within this many pixels of each other are one region: a scratch is seldom in one piece.
JOIN_DISTANCE = 5
# Smaller differences belong to a region within this many pixels of what differs beyond the tolerance.
NEAR_DISTANCE = 8
# Margin of a box as a share of the shorter side, and in pixels at least, so that a person sees the surroundings: 10 pixels
# in an image of 640.
MARGIN_SHARE, MIN_MARGIN = 1 / 64, 4
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class DifferenceRegion:
    """One difference, in pixels of the image.

    Attributes:
        box: (left, top, right, bottom) with a margin; right and bottom are the first pixel outside.
        extent: The box without the margin.
        score: Of pixels, ``area`` as a multiple of the smallest area that counts; of features, ``contrast`` as a multiple
            of the threshold; 1 or more.
        area: Number of pixels that differ beyond the tolerance; of features, the area of the cells.
        contrast: Of pixels, the largest difference beyond the tolerated range in gray levels (0 to 255); of features, the
            largest distance (1 - cosine, 0 to 2).
        change: ``brighter`` or ``darker`` than the reference; of features ``other features``.
        level: ``pixels`` or ``features``.
    """

    box: Box
    extent: Box
    score: float
    area: int
    contrast: float
    change: str
    level: str = "pixels"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def find_pixel_regions(
    difference: PixelDifference, shape: tuple[int, int], *, min_area: int = MIN_AREA, margin: int | None = None,
    join: int = JOIN_DISTANCE, scale: float = 1.0,
) -> list[DifferenceRegion]:  # fmt: skip
    """Find the regions whose pixels differ, the highest score first.

    Args:
        difference: The maps of the comparison.
        shape: (H, W) of the image.
        min_area: Fewest pixels of a region, at the size of the comparison.
        margin: Image pixels around a region's box; a share of the shorter side if unset.
        join: Parts within this many pixels of each other are one region.
        scale: Image pixels per pixel of the comparison, which may run at a smaller size.
    """
    cv2 = import_opencv()
    if margin is None:
        margin = default_margin(shape)
    gap = max(1, round(join / difference.pool)) | 1
    near = np.ones((2 * max(1, round(NEAR_DISTANCE / difference.pool)) + 1,) * 2, np.uint8)
    reach_hw = difference.reach_hw & (cv2.dilate((difference.count_hw > 0).astype(np.uint8), near) > 0)
    dilated = cv2.dilate(reach_hw.astype(np.uint8), np.ones((gap, gap), np.uint8))
    total, labels_hw, stats, _ = cv2.connectedComponentsWithStats(dilated, connectivity=8)
    areas = np.bincount(labels_hw.ravel(), weights=difference.count_hw.ravel(), minlength=total)
    regions = []
    for label in range(1, total):
        if areas[label] < min_area:
            continue
        x, y, width, height = (int(v) for v in stats[label, :4])
        window = np.s_[y : y + height, x : x + width]
        inside = labels_hw[window] == label
        rows, columns = np.nonzero(inside & reach_hw[window])
        unit = difference.pool * scale
        extent = clip_box((x + columns.min()) * unit, (y + rows.min()) * unit, (x + columns.max() + 1) * unit,
                          (y + rows.max() + 1) * unit, shape)  # fmt: skip
        left, top, right, bottom = extent
        regions.append(
            DifferenceRegion(
                box=clip_box(left - margin, top - margin, right + margin, bottom + margin, shape),
                extent=extent,
                score=round(float(areas[label]) / min_area, 2),
                area=round(float(areas[label]) * scale * scale),
                contrast=int(difference.heat_hw[window][inside].max()),
                change="brighter" if int(difference.sign_hw[window][inside].sum()) > 0 else "darker",
            )
        )
    return sorted(regions, key=lambda region: (-region.score, region.box))


def default_margin(shape: tuple[int, int]) -> int:
    """Return the margin of a box, in pixels, in an image of ``shape`` (H, W)."""
    return max(MIN_MARGIN, round(min(shape) * MARGIN_SHARE))


def clip_box(left: float, top: float, right: float, bottom: float, shape: tuple[int, int]) -> Box:
    """Round a box to whole pixels and clip it to an image of ``shape`` (H, W)."""
    height, width = shape
    return (max(0, round(left)), max(0, round(top)), min(width, round(right)), min(height, round(bottom)))
