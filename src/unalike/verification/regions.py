"""Where in the picture it differs: boxes, the one spot that differs most, and pictures of it for people.

Shapes: H, W of a frame (see ``differing``) or a picture.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unalike.comparison.registration import import_opencv
from unalike.verification.asset import Asset
from unalike.verification.measures import WINDOW, Difference

# A pixel counts when it differs by this share of the contrast, a region when its mean-filtered peak does.
COUNTS = 0.25
MOST_BOXES = 12


@dataclass(frozen=True)
class Spot:
    """A region that differs: ``box`` (left, top, right, bottom) in pixels of the picture, right and bottom outside;
    ``score`` its greatest difference in one spot, in shares of the contrast."""

    box: tuple[int, int, int, int]
    score: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def spots_of(found: Difference, shape: tuple[int, int], least: float = 0.0) -> list[Spot]:
    """Regions of the heat as boxes in the picture of ``shape`` (H, W), the strongest first; weaker than ``least`` left out."""
    cv2 = import_opencv()
    window = max(2, round(WINDOW * max(found.heat_HW.shape) / 1.24)) | 1
    mean_HW = cv2.blur(np.minimum(found.heat_HW, 1.5), (window, window), borderType=cv2.BORDER_CONSTANT)
    grown = cv2.dilate((found.heat_HW > COUNTS).astype(np.uint8), np.ones((window, window), np.uint8))
    count, labels_HW, stats, _ = cv2.connectedComponentsWithStats(grown, connectivity=8)
    spots = []
    for label in range(1, count):
        x, y, wide, tall = (int(v) for v in stats[label, :4])
        score = float(mean_HW[labels_HW == label].max())
        if score < max(least, 1e-6):
            continue
        spots.append(Spot(_in_picture(found, (x, y, x + wide, y + tall), shape), round(score, 4)))
    return sorted(spots, key=lambda spot: (-spot.score, spot.box))[:MOST_BOXES]


def peak_of(found: Difference) -> tuple[float, float]:
    """x, y in the frame of the spot that differs most."""
    cv2 = import_opencv()
    window = max(2, round(WINDOW * max(found.heat_HW.shape) / 1.24)) | 1
    mean_HW = cv2.blur(np.minimum(found.heat_HW, 1.5), (window, window), borderType=cv2.BORDER_CONSTANT)
    y, x = np.unravel_index(int(np.argmax(mean_HW)), mean_HW.shape)
    return float(x), float(y)


def outline_of(found: Difference, asset: Asset) -> np.ndarray:
    """The asset's corners in the picture, (4, 2) of x, y."""
    height, width = asset.size
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]], float)
    return corners @ found.place.matrix_23.T


def _in_picture(found: Difference, box: tuple[int, int, int, int], shape: tuple[int, int]) -> tuple[int, int, int, int]:
    left, top, right, bottom = box
    corners = np.array([[left, top, 1], [right, top, 1], [right, bottom, 1], [left, bottom, 1]], float)
    points = corners @ np.asarray(found.to_picture_23).T
    low = np.floor(points.min(axis=0)).clip(0)
    high = np.ceil(points.max(axis=0)).clip(0, [shape[1], shape[0]])
    return int(low[0]), int(low[1]), int(max(high[0], low[0] + 1)), int(max(high[1], low[1] + 1))
