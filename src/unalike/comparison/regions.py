"""From maps of differences to boxes with scores. Shapes: h, w of the maps."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unalike.comparison.pixel_difference import Difference
from unalike.comparison.registration import opencv

# So many pixels beyond the tolerance make a region: about what a 3 x 4 speck has.
MIN_AREA = 12
# Parts that lie within this many pixels of each other are one region: a scratch is seldom drawn in one piece.
JOIN = 5
# What differs by less belongs to a region within this many pixels of what differs beyond the tolerance.
NEAR = 8
# A box leaves this share of the shorter side (and at least 4 pixels) around what differs, so that a person sees what it
# lies on: 10 pixels of a picture of 640.
MARGIN_SHARE, LEAST_MARGIN = 1 / 64, 4


@dataclass(frozen=True)
class Region:
    """One difference, in pixels of the image.

    ``box`` (left, top, right, bottom; right and bottom are the first pixel outside) leaves a margin around ``extent``,
    which encloses what differs. ``area``: pixels that differ beyond the tolerance; ``score``: that area as a multiple of
    the smallest that counts, 1 or more; ``contrast``: the largest difference beyond the range that may be, in grey levels
    (0..255); ``change``: whether the image is brighter or darker there. Of ``level`` features: ``contrast`` is the largest
    distance of features (1 - cosine, 0..2) and ``score`` that as a multiple of the threshold.
    """

    box: tuple[int, int, int, int]
    extent: tuple[int, int, int, int]
    score: float
    area: int
    contrast: float
    change: str
    level: str = "pixels"

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


def find_regions(
    found: Difference, shape: tuple[int, int], *, min_area: int = MIN_AREA, margin: int | None = None, join: int = JOIN,
    scale: float = 1.0,
) -> list[Region]:  # fmt: skip
    """The regions of a comparison, the highest score first.

    ``shape`` (H, W) is the image's; ``scale`` its pixels for one pixel of the comparison, where that was made at a smaller
    size. ``margin`` in image pixels; left out, a share of the shorter side.
    """
    cv2 = opencv()
    if margin is None:
        margin = max(LEAST_MARGIN, round(min(shape) * MARGIN_SHARE))
    gap = max(1, round(join / found.pool)) | 1
    near = np.ones((2 * max(1, round(NEAR / found.pool)) + 1,) * 2, np.uint8)
    reach_hw = found.reach_hw & (cv2.dilate((found.count_hw > 0).astype(np.uint8), near) > 0)
    grown = cv2.dilate(reach_hw.astype(np.uint8), np.ones((gap, gap), np.uint8))
    total, labels_hw, stats, _ = cv2.connectedComponentsWithStats(grown, connectivity=8)
    areas = np.bincount(labels_hw.ravel(), weights=found.count_hw.ravel(), minlength=total)
    regions = []
    for label in range(1, total):
        if areas[label] < min_area:
            continue
        x, y, width, height = (int(v) for v in stats[label, :4])
        window = np.s_[y : y + height, x : x + width]
        mine = labels_hw[window] == label
        rows, columns = np.nonzero(mine & reach_hw[window])
        unit = found.pool * scale
        extent = clipped((x + columns.min()) * unit, (y + rows.min()) * unit, (x + columns.max() + 1) * unit,
                          (y + rows.max() + 1) * unit, shape)  # fmt: skip
        left, top, right, bottom = extent
        area = round(float(areas[label]) * scale * scale)
        change = "brighter" if int(found.sign_hw[window][mine].sum()) > 0 else "darker"
        regions.append(
            Region(
                clipped(left - margin, top - margin, right + margin, bottom + margin, shape), extent,
                round(float(areas[label]) / min_area, 2), area, int(found.heat_hw[window][mine].max()), change,
            )
        )  # fmt: skip
    return sorted(regions, key=lambda region: (-region.score, region.box))


def clipped(left: float, top: float, right: float, bottom: float, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box in whole pixels, cut at the edges of an image of ``shape`` (H, W)."""
    height, width = shape
    return (max(0, round(left)), max(0, round(top)), min(width, round(right)), min(height, round(bottom)))
