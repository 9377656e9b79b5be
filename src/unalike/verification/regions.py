"""Regions of an image where it differs from the asset: boxes, the strongest difference, the asset's outline.

Shapes: H, W of the asset's frame (see ``measures.py``), or of an image.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unalike.comparison.registration import import_opencv
from unalike.verification.asset import Asset
from unalike.verification.measures import AREA_HEAT, AssetDifference, window_mean, window_side

MAX_REGIONS = 12
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class AlteredRegion:
    """A region of an image that differs from the asset.

    Attributes:
        box: (left, top, right, bottom) in pixels of the image; right and bottom are the first pixel outside.
        score: Largest mean difference of a window, as a share of the contrast.
    """

    box: Box
    score: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def find_altered_regions(
    difference: AssetDifference, shape: tuple[int, int], min_score: float = 0.0
) -> list[AlteredRegion]:
    """Find the regions that differ, the strongest first.

    Args:
        difference: The differences in the asset's frame.
        shape: (H, W) of the image.
        min_score: Weaker regions are left out.
    """
    cv2 = import_opencv()
    window = window_side(difference.size)
    mean_HW = window_mean(difference.heat_HW, difference.size)
    dilated = cv2.dilate((difference.heat_HW > AREA_HEAT).astype(np.uint8), np.ones((window, window), np.uint8))
    count, labels_HW, stats, _ = cv2.connectedComponentsWithStats(dilated, connectivity=8)
    regions = []
    for label in range(1, count):
        x, y, width, height = (int(v) for v in stats[label, :4])
        score = float(mean_HW[labels_HW == label].max())
        if score < max(min_score, 1e-6):
            continue
        regions.append(AlteredRegion(_to_image_box(difference, (x, y, x + width, y + height), shape), round(score, 4)))
    return sorted(regions, key=lambda region: (-region.score, region.box))[:MAX_REGIONS]


def find_peak(difference: AssetDifference) -> tuple[float, float]:
    """Return (x, y) in the frame of the strongest difference."""
    mean_HW = window_mean(difference.heat_HW, difference.size)
    y, x = np.unravel_index(int(np.argmax(mean_HW)), mean_HW.shape)
    return float(x), float(y)


def project_outline(difference: AssetDifference, asset: Asset) -> np.ndarray:
    """Return the asset's corners in the image, (4, 2) of (x, y)."""
    height, width = asset.size
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]], float)
    outline: np.ndarray = corners @ difference.pose.matrix_23.T
    return outline


def _to_image_box(difference: AssetDifference, box: Box, shape: tuple[int, int]) -> Box:
    """The bounding box in an image of ``shape`` (H, W) of a box in the frame."""
    left, top, right, bottom = box
    corners = np.array([[left, top, 1], [right, top, 1], [right, bottom, 1], [left, bottom, 1]], float)
    points = corners @ np.asarray(difference.frame_to_image_23).T
    low = np.floor(points.min(axis=0)).clip(0)
    high = np.ceil(points.max(axis=0)).clip(0, [shape[1], shape[0]])
    return int(low[0]), int(low[1]), int(max(high[0], low[0] + 1)), int(max(high[1], low[1] + 1))
