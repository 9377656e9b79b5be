"""Localization of an asset in an image: the affine pose at which their edges correlate best.

Edges are compared rather than colors, since background and lighting are unknown. First the asset's edge map is searched in
a small copy of the image over sizes, rotations and aspect ratios (normalized cross-correlation); then the best poses are
refined by ECC (Evangelidis and Psarakis, "Parametric image alignment using enhanced correlation coefficient maximization",
PAMI 2008). The refined pose may be stretched or sheared, so that a distorted copy is found too; ``AffinePose.distortion``
measures it.

Shapes: H, W of an edge map; a pose is a 2 x 3 matrix from (x, y, 1) of the asset's layer to (x, y) of the image.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from unalike.comparison.registration import import_opencv
from unalike.verification.asset import Asset

# Longer sides in pixels: of the image in the coarse search, and of the asset in the refinement.
COARSE_SIDE, FINE_SIDE = 56, 128
# Sizes of the coarse search: the asset's longer side as a share of the image's.
SIZES = tuple(float(s) for s in np.geomspace(0.28, 1.02, 13))
# Rotations (degrees) and aspect ratios of the coarse search.
ROTATIONS = (-9.0, 0.0, 9.0)
ASPECTS = (0.85, 1.0, 1.18)
# How many coarse poses are refined: the first number until one correlates well, the second until one correlates fairly.
MAX_REFINED, GOOD_CORRELATION, FAIR_CORRELATION = (4, 12), 0.93, 0.75
# Margin around the asset, as a share of its longer side, in which additions beside it are looked for.
MARGIN = 0.12
# A pose whose distortion reaches this (log of the ratio of axes: a factor of two) is rejected.
MAX_DISTORTION = 0.7
# Gradient, in gray levels per pixel, at which an edge's strength saturates.
EDGE_GRADIENT = 22.0
# Largest share of a coarse map's side by which poses may lie outside the image; poses closer than this many pixels are
# neighbors, of which the best is kept.
COARSE_PADDING, MIN_POSE_DISTANCE = 5, 5


@dataclass(frozen=True, eq=False)
class AffinePose:
    """Pose of an asset in an image.

    Attributes:
        matrix_23: From (x, y, 1) of the asset's layer to (x, y) of the image.
        correlation: Correlation of the edge maps at this pose, -1 to 1.
    """

    matrix_23: np.ndarray
    correlation: float

    @property
    def scale(self) -> float:
        """Image pixels per pixel of the layer."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix_23[:, :2]))))

    @property
    def distortion(self) -> float:
        """Logarithm of the ratio of the longest to the shortest axis; 0 for a similarity transform."""
        axes = np.linalg.svd(self.matrix_23[:, :2], compute_uv=False)
        return float(np.log(axes[0] / max(axes[1], 1e-9)))

    @property
    def rotation(self) -> float:
        """Rotation in degrees, counter-clockwise positive in the displayed image."""
        u, _, v = np.linalg.svd(self.matrix_23[:, :2])
        rotation = u @ v
        return float(-np.degrees(np.arctan2(rotation[1, 0], rotation[0, 0])))


def compute_edges(pixels_HWC: np.ndarray, blur: float = 0.8) -> np.ndarray:
    """Compute the edge strength of each pixel.

    Args:
        pixels_HWC: Any number of channels; the strongest edge counts.
        blur: Standard deviation of the Gaussian blur before the gradient, in pixels.

    Returns:
        float32 (H, W), 0 to 1, saturated so that the edge's contrast hardly matters.
    """
    cv2 = import_opencv()
    blurred = cv2.GaussianBlur(pixels_HWC.astype(np.float32), (0, 0), blur)
    gradient_x = cv2.Sobel(blurred, cv2.CV_32F, 1, 0, scale=1 / 8)
    gradient_y = cv2.Sobel(blurred, cv2.CV_32F, 0, 1, scale=1 / 8)
    gradient = np.sqrt(gradient_x**2 + gradient_y**2)
    strength: np.ndarray = np.tanh((gradient if gradient.ndim == 2 else gradient.max(axis=2)) / EDGE_GRADIENT)
    return strength


def limit_size(pixels: np.ndarray, max_side: float) -> tuple[np.ndarray, float]:
    """Shrink an image so that its longer side is at most ``max_side`` pixels; return it and the factor (at most 1)."""
    scale = min(1.0, max_side / max(pixels.shape[:2]))
    if scale == 1.0:
        return pixels, 1.0
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    cv2 = import_opencv()
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), scale


class AssetTemplate:
    """The edge maps of an asset that localization needs. Keep one per asset: computing it is the costly part."""

    def __init__(self, asset: Asset) -> None:
        self.asset = asset
        cv2 = import_opencv()
        layer, scale = limit_size(asset.layer_HW4, FINE_SIDE)
        edge = round(MARGIN * max(layer.shape[:2]))
        # Premultiplied colors on gray, and opacity: its inner edges and its outline, whatever its background will be.
        padded = cv2.copyMakeBorder(layer, edge, edge, edge, edge, cv2.BORDER_CONSTANT)
        alpha = padded[..., 3:].astype(np.float32) / 255
        bands = np.concatenate([padded[..., :3] * alpha + 127 * (1 - alpha), alpha * 160], axis=2)
        self.bands_HWC = bands.astype(np.float32)
        self.edges_HW = compute_edges(self.bands_HWC)
        # From (x, y, 1) of the padded map to the layer.
        self.to_layer_33 = np.array([[1 / scale, 0, -edge / scale], [0, 1 / scale, -edge / scale], [0, 0, 1]])

    @functools.cached_property
    def coarse_maps(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(edge map, 3 x 3 matrix from the padded fine map to it) of each size, aspect and rotation of the search."""
        longest = max(self.bands_HWC.shape[:2]) / (1 + 2 * MARGIN)
        maps = []
        for size in SIZES:
            scale = size * COARSE_SIDE / longest
            blurred = import_opencv().GaussianBlur(self.bands_HWC, (0, 0), max(0.1, 0.5 / scale - 0.5))
            for aspect in ASPECTS:
                for rotation in ROTATIONS:
                    coarse = _render_coarse(blurred, scale, aspect, np.deg2rad(rotation))
                    if coarse is not None:
                        maps.append(coarse)
        return maps


def _render_coarse(
    bands_HWC: np.ndarray, scale: float, aspect: float, angle: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """Render one map of the coarse search and its matrix; None for one of unsuitable size or without edges."""
    cv2 = import_opencv()
    height, width = bands_HWC.shape[:2]
    stretch = np.diag([aspect**0.5, aspect**-0.5]) * scale
    linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ stretch
    corners = linear @ np.array([[0, width, 0, width], [0, 0, height, height]])
    low, high = corners.min(axis=1), corners.max(axis=1)
    size = np.ceil(high - low).astype(int)
    if (size < 6).any() or (size > COARSE_SIDE * 1.4).any():
        return None
    matrix = np.concatenate([linear, -low[:, None]], axis=1)
    flags = {"flags": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_REPLICATE}
    edges_HW = compute_edges(cv2.warpAffine(bands_HWC, matrix, (int(size[0]), int(size[1])), **flags))
    return (edges_HW, np.vstack([matrix, [0, 0, 1]])) if float(edges_HW.std()) > 1e-3 else None


def locate_asset(template: AssetTemplate, image_HW3: np.ndarray) -> AffinePose | None:
    """Find the asset's best pose in an image.

    Args:
        template: The asset's edge maps.
        image_HW3: uint8 RGB.

    Returns:
        The pose, or None where nothing like the asset is found (in a blank image).
    """
    small, scale = limit_size(image_HW3, COARSE_SIDE)
    edges_HW = compute_edges(small)
    if float(edges_HW.std()) < 1e-3:
        return None
    best: AffinePose | None = None
    for number, coarse in enumerate(_search_coarse(template, edges_HW)):
        enough = GOOD_CORRELATION if number < MAX_REFINED[0] else FAIR_CORRELATION
        if best is not None and best.correlation >= enough:
            break
        start = np.diag([1 / scale, 1 / scale, 1]) @ coarse @ np.linalg.inv(template.to_layer_33)
        pose = _refine_pose(template, image_HW3, start)
        if pose is not None and (best is None or pose.correlation > best.correlation):
            best = pose
    return best


def _search_coarse(template: AssetTemplate, edges_HW: np.ndarray) -> list[np.ndarray]:
    """Return 3 x 3 matrices from the padded fine map to the small image, the best poses that are not neighbors."""
    cv2 = import_opencv()
    pad = COARSE_SIDE // COARSE_PADDING
    padded = cv2.copyMakeBorder(edges_HW, pad, pad, pad, pad, cv2.BORDER_CONSTANT)
    scores: list[tuple[float, np.ndarray]] = []
    for coarse_map, matrix in template.coarse_maps:
        if coarse_map.shape[0] > padded.shape[0] or coarse_map.shape[1] > padded.shape[1]:
            continue
        correlations = cv2.matchTemplate(padded, coarse_map, cv2.TM_CCOEFF_NORMED)
        _, value, _, (x, y) = cv2.minMaxLoc(correlations)
        shift = np.array([[1, 0, x - pad], [0, 1, y - pad], [0, 0, 1]], float)
        scores.append((float(value) if np.isfinite(value) else -1.0, shift @ matrix))
    scores.sort(key=lambda pair: -pair[0])
    poses: list[np.ndarray] = []
    corners = np.array([[0, 1, 0, 1], [0, 0, 1, 1]]) * np.array(template.bands_HWC.shape[1::-1])[:, None]
    kept_corners: list[np.ndarray] = []
    for _, pose in scores:
        pose_corners = pose[:2, :2] @ corners + pose[:2, 2:]
        if all(np.abs(pose_corners - other).max() > MIN_POSE_DISTANCE for other in kept_corners):
            poses.append(pose)
            kept_corners.append(pose_corners)
        if len(poses) == MAX_REFINED[1]:
            break
    return poses


def _refine_pose(template: AssetTemplate, image_HW3: np.ndarray, start_33: np.ndarray) -> AffinePose | None:
    """Refine a pose by ECC at half, then at the full size at which asset and image show the same detail."""
    cv2 = import_opencv()
    matrix = start_33
    detail = float(np.sqrt(abs(np.linalg.det((matrix @ template.to_layer_33)[:2, :2]))))
    for half in (True, False):
        level = float(np.clip(detail, 0.55, 1.0)) * (0.5 if half else 1.0)
        blur = 1.2 if half else 0.8
        bands, factor = limit_size(template.bands_HWC, max(template.bands_HWC.shape[:2]) * level)
        template_edges = compute_edges(bands, blur)
        to_layer = template.to_layer_33 @ np.diag([1 / factor, 1 / factor, 1])
        scale = float(np.sqrt(abs(np.linalg.det((matrix @ to_layer)[:2, :2]))))  # image pixels per pixel of the map
        small, shrink = limit_size(image_HW3, max(image_HW3.shape[:2]) / max(scale, 1.0))
        edge = 8
        image_edges = compute_edges(cv2.copyMakeBorder(small, edge, edge, edge, edge, cv2.BORDER_REPLICATE), blur)
        to_small = np.array([[shrink, 0, edge], [0, shrink, edge], [0, 0, 1]])
        warp = (to_small @ matrix @ to_layer)[:2].astype(np.float32)
        criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4)
        try:
            correlation, warp = cv2.findTransformECC(template_edges, image_edges, warp, cv2.MOTION_AFFINE, criteria, None, 3)  # fmt: skip
        except cv2.error:  # it did not converge from here
            return None
        matrix = np.linalg.inv(to_small) @ np.vstack([warp, [0, 0, 1]]) @ np.linalg.inv(to_layer)
        pose = AffinePose(matrix[:2], float(correlation))
        if not np.isfinite(matrix).all() or pose.distortion >= MAX_DISTORTION:
            return None
    return pose
