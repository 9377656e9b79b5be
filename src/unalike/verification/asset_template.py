"""Templates of an asset for localization: edge maps for correlation, keypoints for matching, both mirrored too.

Shapes: H, W of an edge map; matrices map (x, y, 1).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from unalike.comparison.registration import import_opencv
from unalike.verification.asset import Asset
from unalike.verification.searched_image import compute_edges, detect_keypoints, limit_size

# Sizes in pixels of the asset in the refinement and of the image in the coarse search: the square root of the asset's area,
# and the longer side for a square asset. Wide assets get more, up to the second number.
FINE_SIZE, COARSE_SIDE = (128, 320), (56, 96)
# Sizes of the coarse search: the asset's longer side as a share of the image's.
SIZES = tuple(float(s) for s in np.geomspace(0.28, 1.02, 13))
# Rotations (degrees) and aspect ratios of the coarse search.
ROTATIONS = (-9.0, 0.0, 9.0)
ASPECTS = (0.85, 1.0, 1.18)
# Margin around the asset, as a share of its longer side (at most this share of its size times two), in which additions
# beside it are looked for.
MARGIN = 0.12
# Width of the band around the ink in which edges are compared, as a share of the asset's size.
SUPPORT_SHARE = 0.07
# Size (square root of the area) and longest side at which keypoints are detected, and the gray levels around the asset: one
# that differs from the ink by less than the contrast shows nothing.
KEYPOINT_SIZE, KEYPOINT_MAX_SIDE, KEYPOINT_GRAYS, KEYPOINT_CONTRAST = 160, 480, (255, 0, 128), 40


def asset_size(height: float, width: float) -> float:
    """The size of a drawing: the square root of its area, so that a wide one counts as large as its letters allow."""
    return float(np.sqrt(height * width))


@dataclass(frozen=True, eq=False)
class CoarseMap:
    """An edge map of the coarse search, the matrix from the template's fine map to it, and its change of aspect ratio."""

    edges_HW: np.ndarray
    matrix_33: np.ndarray
    aspect: float

    def mirrored(self, axis: int) -> CoarseMap:
        """Return the map of the mirrored asset: upside down (axis 0) or left to right (1)."""
        flip = np.eye(3)
        row = 1 - axis
        flip[row, row], flip[row, 2] = -1.0, self.edges_HW.shape[axis] - 1.0
        return CoarseMap(np.ascontiguousarray(np.flip(self.edges_HW, axis)), flip @ self.matrix_33, self.aspect)


class AssetTemplate:
    """The edge maps and keypoints of an asset. Keep one per asset: computing them is costly."""

    def __init__(self, asset: Asset) -> None:
        self.asset = asset
        cv2 = import_opencv()
        size = asset_size(*asset.size)
        longest = min(max(asset.size) * FINE_SIZE[0] / size, FINE_SIZE[1])
        layer, scale = limit_size(asset.layer_HW4, longest)
        edge = round(MARGIN * asset_size(*layer.shape[:2]))
        # Premultiplied colors on gray, and opacity: its inner edges and its outline, whatever its background will be.
        padded = cv2.copyMakeBorder(layer, edge, edge, edge, edge, cv2.BORDER_CONSTANT)
        alpha = padded[..., 3:].astype(np.float32) / 255
        bands = np.concatenate([padded[..., :3] * alpha + 127 * (1 - alpha), alpha * 160], axis=2)
        self.bands_HWC = bands.astype(np.float32)
        # From (x, y, 1) of the padded map to the layer.
        self.to_layer_33 = np.array([[1 / scale, 0, -edge / scale], [0, 1 / scale, -edge / scale], [0, 0, 1]])
        reach = max(3, round(SUPPORT_SHARE * asset_size(*layer.shape[:2])))
        ink = (padded[..., 3] > 25).astype(np.uint8)
        # Where edges are compared: the ink and a band around it. What lies beyond is ground, and may show anything.
        self.support_HW = cv2.dilate(ink, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1)))
        self.coarse_side = round(min(COARSE_SIDE[0] * (max(asset.size) / min(asset.size)) ** 0.5, COARSE_SIDE[1]))

    @functools.cached_property
    def coarse_maps(self) -> list[CoarseMap]:
        """The maps of each size, aspect and rotation of the search."""
        longest = max(self.asset.size) / self.to_layer_33[0, 0]
        maps = []
        for size in SIZES:
            scale = size * self.coarse_side / longest
            blurred = import_opencv().GaussianBlur(self.bands_HWC, (0, 0), max(0.1, 0.5 / scale - 0.5))
            for aspect in ASPECTS:
                for rotation in ROTATIONS:
                    coarse = _render_coarse(blurred, scale, aspect, np.deg2rad(rotation), self.coarse_side)
                    if coarse is not None:
                        maps.append(coarse)
        return maps

    @functools.cached_property
    def keypoints(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Keypoints on each ground on which the asset is visible: (x, y) of the layer, (N, 2), and descriptors."""
        return self._detect(mirrored=False)

    @functools.cached_property
    def mirrored_keypoints(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The same of the mirrored asset, still with (x, y) of the layer."""
        return self._detect(mirrored=True)

    def _detect(self, mirrored: bool) -> list[tuple[np.ndarray, np.ndarray]]:
        cv2 = import_opencv()
        layer = self.asset.layer_HW4[:, ::-1] if mirrored else self.asset.layer_HW4
        height, width = self.asset.size
        scale = min(KEYPOINT_SIZE / asset_size(height, width), KEYPOINT_MAX_SIDE / max(height, width))
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        resized = cv2.resize(layer, (max(8, round(width * scale)), max(8, round(height * scale))), interpolation=method)
        factor = np.array([width / resized.shape[1], height / resized.shape[0]])
        alpha, color = resized[..., 3:].astype(np.float32) / 255, resized[..., :3].astype(np.float32)
        ink = float(np.median(self.asset.color_HW3[self.asset.alpha_HW > 0.5].mean(axis=1)))
        opaque = self.asset.background == "none"
        edge, keypoints = 16, []
        for gray in KEYPOINT_GRAYS[:1] if opaque else KEYPOINT_GRAYS:
            if abs(gray - ink) < KEYPOINT_CONTRAST and not opaque:
                continue
            picture = (color * alpha + gray * (1 - alpha) + 0.5).astype(np.uint8)
            picture = cv2.copyMakeBorder(picture, edge, edge, edge, edge, cv2.BORDER_CONSTANT, value=(gray, gray, gray))
            points_N2, descriptors = detect_keypoints(picture)
            points_N2 = (points_N2 - edge) * factor
            if mirrored:
                points_N2[:, 0] = width - 1 - points_N2[:, 0]
            keypoints.append((points_N2, descriptors))
        return keypoints


def _render_coarse(
    bands_HWC: np.ndarray, scale: float, aspect: float, angle: float, coarse_side: int
) -> CoarseMap | None:
    """Render one map of the coarse search; None for one of unsuitable size or without edges."""
    cv2 = import_opencv()
    height, width = bands_HWC.shape[:2]
    stretch = np.diag([aspect**0.5, aspect**-0.5]) * scale
    linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ stretch
    corners = linear @ np.array([[0, width, 0, width], [0, 0, height, height]])
    low, high = corners.min(axis=1), corners.max(axis=1)
    size = np.ceil(high - low).astype(int)
    if (size < 6).any() or (size > coarse_side * 1.4).any():
        return None
    matrix = np.concatenate([linear, -low[:, None]], axis=1)
    flags = {"flags": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_REPLICATE}
    edges_HW = compute_edges(cv2.warpAffine(bands_HWC, matrix, (int(size[0]), int(size[1])), **flags))
    return CoarseMap(edges_HW, np.vstack([matrix, [0, 0, 1]]), aspect) if float(edges_HW.std()) > 1e-3 else None
