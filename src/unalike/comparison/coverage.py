"""Coverage of two aligned images: which part of each the other one shows, and where it does not.

A rotation leaves corners without a counterpart in both frames; these are uncovered, but they are no content that was added
or cut off. So the uncovered area is also measured outside the upright box around the other frame, which corners never leave.

Shapes: H, W of an image; h, w of a small map of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unalike.comparison.regions import Box, clip_box
from unalike.comparison.registration import Registration, import_opencv, scale_matrix

# Longer side, in pixels, of the maps in which coverage is measured.
MAP_SIDE = 640
# Uncovered parts below this share of the image are not listed: rims of a few pixels.
MIN_BOX_SHARE = 0.005


@dataclass(frozen=True)
class FrameCoverage:
    """How much of one image has a counterpart in the other; ignored pixels do not count.

    Attributes:
        share: Share of the image that has a counterpart, 0 to 1; NaN where everything is ignored.
        outside: Share of the image outside the upright box around the other image's frame, 0 to 1.
        uncovered_hw: bool map of the pixels without a counterpart.
        boxes: Boxes around the uncovered parts, in pixels of the image, the largest first.
    """

    share: float
    outside: float
    uncovered_hw: np.ndarray
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class Coverage:
    """Coverage of both images of a comparison."""

    reference: FrameCoverage
    image: FrameCoverage

    @property
    def least(self) -> float:
        """The smaller share of the two; 0 where everything is ignored."""
        return float(np.nan_to_num(min(self.reference.share, self.image.share)))


def measure_coverage(
    registration: Registration,
    reference_shape: tuple[int, ...],
    image_shape: tuple[int, ...],
    ignored_HW: np.ndarray | None = None,
) -> Coverage:
    """Measure the coverage of a reference and the image that is aligned to it; displacement fields are left out.

    Args:
        registration: How the image is aligned to the reference.
        reference_shape: (H, W) of the reference.
        image_shape: (H, W) of the image.
        ignored_HW: bool mask of the pixels of the reference that are ignored.
    """
    to_image = np.linalg.inv(registration.matrix_33)
    return Coverage(
        _measure_frame(to_image, reference_shape, image_shape, ignored_HW, np.eye(3)),
        _measure_frame(registration.matrix_33, image_shape, reference_shape, ignored_HW, registration.matrix_33),
    )


def _measure_frame(
    matrix_33: np.ndarray, shape: tuple[int, ...], other_shape: tuple[int, ...], ignored_HW: np.ndarray | None,
    to_ignored_33: np.ndarray,
) -> FrameCoverage:  # fmt: skip
    """Measure the coverage of an image of ``shape`` by another; ``matrix_33`` maps its pixels to those of the other."""
    cv2 = import_opencv()
    height, width = shape[:2]
    factor = max(1.0, max(height, width) / MAP_SIDE)
    rows, columns = max(1, round(height / factor)), max(1, round(width / factor))
    to_full = scale_matrix(width / columns, height / rows)
    x, y = _map_points(matrix_33 @ to_full, rows, columns)
    # As in warp_window: half a pixel beyond the last centers still belongs to the image.
    slack = 0.6
    overlap = (x > -slack) & (y > -slack) & (x < other_shape[1] - 1 + slack) & (y < other_shape[0] - 1 + slack)
    valid = np.ones((rows, columns), bool)
    if ignored_HW is not None:
        flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        mask = cv2.warpPerspective(ignored_HW.astype(np.uint8), to_ignored_33 @ to_full, (columns, rows), flags=flags)
        valid = mask == 0
    outside = valid & ~overlap
    total = int(valid.sum())
    box_mask = np.zeros((rows, columns), bool)
    if overlap.any():
        filled_rows, filled_columns = np.nonzero(overlap)
        box_mask[filled_rows.min() : filled_rows.max() + 1, filled_columns.min() : filled_columns.max() + 1] = True
    return FrameCoverage(
        share=1 - int(outside.sum()) / total if total else float("nan"),
        outside=int((valid & ~box_mask).sum()) / total if total else 0.0,
        uncovered_hw=outside,
        boxes=_find_boxes(outside, (height, width)),
    )


def _map_points(matrix_33: np.ndarray, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Map the pixels of a grid; points beyond the horizon of the perspective are NaN, which lies in no image."""
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float64)
    points = np.tensordot(matrix_33, np.stack([x, y, np.ones_like(x)]), axes=1)
    front = points[2] * points[2, rows // 2, columns // 2] > 0
    depth = np.where(front, points[2], np.nan)
    return points[0] / depth, points[1] / depth


def _find_boxes(uncovered_hw: np.ndarray, shape: tuple[int, int]) -> tuple[Box, ...]:
    cv2 = import_opencv()
    total, _, stats, _ = cv2.connectedComponentsWithStats(uncovered_hw.astype(np.uint8), connectivity=8)
    scale_x, scale_y = shape[1] / uncovered_hw.shape[1], shape[0] / uncovered_hw.shape[0]
    large = [stats[label] for label in range(1, total) if stats[label, 4] >= MIN_BOX_SHARE * uncovered_hw.size]
    return tuple(
        clip_box(x * scale_x, y * scale_y, (x + width) * scale_x, (y + height) * scale_y, shape)
        for x, y, width, height, _ in sorted(large, key=lambda row: -int(row[4]))
    )
