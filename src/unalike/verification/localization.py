"""Localization of an asset in an image: the affine pose at which their edges correlate best.

Edges are compared rather than colors, since background and lighting are unknown, and only in the asset's ink and a band
around it, since the background may be a photograph. Poses are proposed by matching keypoints (SIFT with RANSAC: drawings of
several parts, such as words, on any background, at any rotation) and by searching the asset's edge map in a small copy of the
image over sizes, rotations and aspect ratios (normalized cross-correlation: simple drawings). The best are refined by ECC
(Evangelidis and Psarakis, "Parametric image alignment using enhanced correlation coefficient maximization", PAMI 2008). The
refined pose may be stretched, sheared or mirrored, so that a distorted copy is found too.

Shapes: H, W of an edge map; a pose is a 2 x 3 matrix from (x, y, 1) of the asset's layer to (x, y) of the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from unalike.comparison.registration import import_opencv
from unalike.verification.asset_template import AssetTemplate, CoarseMap
from unalike.verification.searched_image import SearchedImage, compute_edges, limit_size

# How many coarse poses are refined: the first number until one correlates well, the second until one correlates fairly.
MAX_REFINED, GOOD_CORRELATION, FAIR_CORRELATION = (4, 10), 0.93, 0.75
# A pose that correlates less than this at half size is not refined at full size.
HALF_CORRELATION = 0.25
# Mirror images are searched where the best pose correlates less than this; one must correlate better by the margin.
MIRROR_BELOW, MIRROR_MARGIN, MAX_MIRRORED = 0.85, 0.06, 4
# Rotation in degrees from which an image is no longer a benign one; of a symmetric mark, a pose that is not turned is preferred
# to one that is turned or mirrored and correlates better by no more than the margin.
MAX_ROTATION, TURN_MARGIN, UPRIGHT_ANGLES = 15.0, 0.03, (0.0, -9.0, 9.0)
# A pose whose distortion reaches this (log of the ratio of axes: a factor of two) is rejected.
MAX_DISTORTION = 0.7
# Most steps of ECC at each size, and the margin around a pose in which it may move, as a share of the longer side.
ECC_STEPS, REFINED_MARGIN = 30, 0.2
# Largest share of a coarse map's side by which poses may lie outside the image; poses closer than this share of the side are
# neighbors, of which the best is kept.
COARSE_PADDING, POSE_DISTANCE = 5, 0.09
# Keypoints match where the nearest descriptor is closer than this share of the second nearest (loose: letters repeat).
MATCH_RATIO = 0.9
# Largest distance of a matched keypoint from its place, as a share of the image's longer side, and the least number.
MATCH_DISTANCE, MIN_MATCHES, RANSAC_TRIALS = 0.008, 4, 3000
# Least share of the image's longer side that an asset found by keypoints fills.
MIN_SHARE = 0.15


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
    def is_mirrored(self) -> bool:
        """Whether the image shows a mirror image."""
        return bool(np.linalg.det(self.matrix_23[:, :2]) < 0)

    @property
    def distortion(self) -> float:
        """Logarithm of the ratio of the longest to the shortest axis; 0 for a similarity transform."""
        axes = np.linalg.svd(self.matrix_23[:, :2], compute_uv=False)
        return float(np.log(max(axes[0], 1e-9) / max(axes[1], 1e-9)))

    @property
    def rotation(self) -> float:
        """Rotation in degrees, counter-clockwise positive in the displayed image; of a mirror image, after mirroring."""
        u, _, v = np.linalg.svd(self.matrix_23[:, :2])
        rotation = u @ v
        if self.is_mirrored:
            rotation = rotation @ np.diag([-1.0, 1.0])
        return float(-np.degrees(np.arctan2(rotation[1, 0], rotation[0, 0])))

    @property
    def is_turned(self) -> bool:
        """Whether it is a mirror image, or rotated by more than ``MAX_ROTATION``."""
        return self.is_mirrored or abs(self.rotation) > MAX_ROTATION


def locate_asset(template: AssetTemplate, image: np.ndarray | SearchedImage) -> AffinePose | None:
    """Find the asset's best pose in an image.

    Args:
        template: The asset's edge maps and keypoints.
        image: uint8 RGB (H, W, 3), or one in which other assets were searched already.

    Returns:
        The pose, or None where nothing like the asset is found (in a blank image).
    """
    search_image = image if isinstance(image, SearchedImage) else SearchedImage(image)
    edges_HW, _ = search_image.edges(template.coarse_side)
    if float(edges_HW.std()) < 1e-3:
        return None
    best: AffinePose | None = None
    for number, start_33 in enumerate(_propose(template, search_image)):
        enough = GOOD_CORRELATION if number < MAX_REFINED[0] else FAIR_CORRELATION
        if best is not None and best.correlation >= enough:
            break
        best = _better(best, _refine_pose(template, search_image, start_33))
    if best is not None and best.is_turned:
        for start_33 in _turn_upright(template, best):
            best = _better(best, _refine_pose(template, search_image, start_33))
    if best is not None and best.correlation >= MIRROR_BELOW:
        return best
    mirrored: AffinePose | None = None
    for start_33 in _propose_mirrored(template, search_image):
        mirrored = _better(mirrored, _refine_pose(template, search_image, start_33))
        if mirrored is not None and mirrored.correlation >= MIRROR_BELOW:
            break
    if mirrored is not None and (best is None or mirrored.correlation > best.correlation + MIRROR_MARGIN):
        return mirrored
    return best


def _better(first: AffinePose | None, second: AffinePose | None) -> AffinePose | None:
    if first is None or second is None:
        return second if first is None else first
    if first.is_turned != second.is_turned:
        turned, upright = (first, second) if first.is_turned else (second, first)
        return turned if turned.correlation > upright.correlation + TURN_MARGIN else upright
    return second if second.correlation > first.correlation else first


def _propose(template: AssetTemplate, search_image: SearchedImage) -> Iterator[np.ndarray]:
    """Yield 3 x 3 matrices from the layer to the image: the best of the coarse search, by keypoints, then the others."""
    poses = _search_coarse(template, template.coarse_maps, search_image)
    yield from poses[:1]  # before the keypoints, which take longer to detect
    matches, _ = match_keypoints(template, search_image)
    if matches is not None:
        yield matches
    yield from poses[1:]


def _turn_upright(template: AssetTemplate, pose: AffinePose) -> Iterator[np.ndarray]:
    """Yield poses of the same center and scale that are not rotated by much: a symmetric mark shows the same at both."""
    height, width = template.asset.size
    middle = np.array([width, height]) / 2
    center = pose.matrix_23 @ [*middle, 1.0]
    for angle in np.deg2rad(UPRIGHT_ANGLES):
        linear = pose.scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        yield np.vstack([np.column_stack([linear, center - linear @ middle]), [0, 0, 1]])


def _propose_mirrored(template: AssetTemplate, search_image: SearchedImage) -> Iterator[np.ndarray]:
    """The same for mirror images, unstretched ones in the coarse search."""
    matches, _ = match_keypoints(template, search_image, mirrored=True)
    if matches is not None:
        yield matches
    maps = [coarse.mirrored(axis) for coarse in template.coarse_maps if coarse.aspect == 1.0 for axis in (0, 1)]
    yield from _search_coarse(template, maps, search_image)[:MAX_MIRRORED]


def match_keypoints(
    template: AssetTemplate, search_image: SearchedImage, mirrored: bool = False
) -> tuple[np.ndarray | None, int]:
    """Find the similarity transform that most matched keypoints agree with.

    Args:
        template: The asset; of its keypoints on several grounds, those with the most agreeing matches count.
        search_image: The image.
        mirrored: Whether the image shows a mirror image.

    Returns:
        The matrix (3 x 3) from the layer to the image, None for too few matches; and the number of matches that agree.
    """
    cv2 = import_opencv()
    points_N2, descriptors = search_image.keypoints
    if len(points_N2) < MIN_MATCHES:
        return None, 0
    distance = MATCH_DISTANCE * max(search_image.image_HW3.shape[:2])
    smallest = MIN_SHARE * max(search_image.image_HW3.shape[:2]) / max(template.asset.size)
    flip = np.eye(3)
    if mirrored:
        flip[0, 0], flip[0, 2] = -1.0, template.asset.size[1] - 1.0
    best, most = None, MIN_MATCHES - 1
    for own_N2, own_descriptors in template.mirrored_keypoints if mirrored else template.keypoints:
        if len(own_N2) < MIN_MATCHES:
            continue
        matches = cv2.BFMatcher(cv2.NORM_L2).knnMatch(own_descriptors, descriptors, k=2)
        pairs = [(m[0].queryIdx, m[0].trainIdx) for m in matches if m[0].distance < MATCH_RATIO * m[1].distance]
        if len(pairs) <= most:
            continue
        own, other = np.array(pairs).T
        source, target = own_N2[own] @ flip[:2, :2].T + flip[:2, 2], points_N2[other]
        matrix, agreeing = _fit_similarity(source, target, distance, smallest)
        if matrix is not None and agreeing > most:
            best, most = np.vstack([matrix, [0, 0, 1]]) @ flip, agreeing
    return best, most if best is not None else 0


def _fit_similarity(
    source_N2: np.ndarray, target_N2: np.ndarray, distance: float, smallest: float
) -> tuple[np.ndarray | None, int]:
    """Fit a similarity transform (2 x 3) by RANSAC; its scale is at least ``smallest``. Return it and how many agree."""
    cv2 = import_opencv()
    for _ in range(3):
        if len(source_N2) < MIN_MATCHES:
            break
        matrix, agree = cv2.estimateAffinePartial2D(
            source_N2, target_N2, method=cv2.RANSAC, ransacReprojThreshold=distance, maxIters=RANSAC_TRIALS
        )
        if matrix is None or not np.isfinite(matrix).all():
            break
        if np.hypot(matrix[0, 0], matrix[1, 0]) >= smallest:
            return matrix, int(agree.sum())
        # A drawing that shrinks to a point agrees with whatever is there: without these matches, again.
        inliers = agree.ravel() == 0
        source_N2, target_N2 = source_N2[inliers], target_N2[inliers]
    return None, 0


def _search_coarse(template: AssetTemplate, maps: list[CoarseMap], search_image: SearchedImage) -> list[np.ndarray]:
    """Return 3 x 3 matrices from the layer to the image, the best poses that are not neighbors."""
    cv2 = import_opencv()
    edges_HW, scale = search_image.edges(template.coarse_side)
    pad = template.coarse_side // COARSE_PADDING
    padded = cv2.copyMakeBorder(edges_HW, pad, pad, pad, pad, cv2.BORDER_CONSTANT)
    scores: list[tuple[float, np.ndarray]] = []
    for coarse in maps:
        if coarse.edges_HW.shape[0] > padded.shape[0] or coarse.edges_HW.shape[1] > padded.shape[1]:
            continue
        correlations = cv2.matchTemplate(padded, coarse.edges_HW, cv2.TM_CCOEFF_NORMED)
        _, value, _, (x, y) = cv2.minMaxLoc(correlations)
        shift = np.array([[1, 0, x - pad], [0, 1, y - pad], [0, 0, 1]], float)
        scores.append((float(value) if np.isfinite(value) else -1.0, shift @ coarse.matrix_33))
    scores.sort(key=lambda pair: -pair[0])
    poses: list[np.ndarray] = []
    corners = np.array([[0, 1, 0, 1], [0, 0, 1, 1]]) * np.array(template.bands_HWC.shape[1::-1])[:, None]
    kept_corners: list[np.ndarray] = []
    for _, pose in scores:
        pose_corners = pose[:2, :2] @ corners + pose[:2, 2:]
        if all(np.abs(pose_corners - other).max() > POSE_DISTANCE * template.coarse_side for other in kept_corners):
            poses.append(np.diag([1 / scale, 1 / scale, 1]) @ pose @ np.linalg.inv(template.to_layer_33))
            kept_corners.append(pose_corners)
        if len(poses) == MAX_REFINED[1]:
            break
    return poses


def _refine_pose(template: AssetTemplate, search_image: SearchedImage, start_33: np.ndarray) -> AffinePose | None:
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
        small, shrink = search_image.resized(1 / max(scale, 1.0))
        to_small = np.diag([shrink, shrink, 1.0])
        low, high = _reached_box(to_small @ matrix @ to_layer, template_edges.shape, small.shape)
        if (high - low < 8).any():
            return None
        small, edge = small[low[1] : high[1], low[0] : high[0]], 8
        image_edges = compute_edges(cv2.copyMakeBorder(small, edge, edge, edge, edge, cv2.BORDER_REPLICATE), blur)
        to_small = np.array([[shrink, 0, edge - low[0]], [0, shrink, edge - low[1]], [0, 0, 1]])
        warp = (to_small @ matrix @ to_layer)[:2].astype(np.float32)
        support = cv2.resize(template.support_HW, template_edges.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        correlation, warp = _align_edges(template_edges, image_edges, warp, support)
        matrix = np.linalg.inv(to_small) @ np.vstack([warp, [0, 0, 1]]) @ np.linalg.inv(to_layer)
        pose = AffinePose(matrix[:2], correlation)
        if not np.isfinite(matrix).all() or pose.scale < 1e-3 or pose.distortion >= MAX_DISTORTION:
            return None
        if half and correlation < HALF_CORRELATION:
            break
    return pose


def _reached_box(
    matrix_33: np.ndarray, size: tuple[int, ...], within: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest (x, y) of an image of ``within`` (H, W) that a map of ``size`` may reach: itself and a margin."""
    height, width = size[:2]
    corners = matrix_33[:2, :2] @ [[0, width, 0, width], [0, 0, height, height]] + matrix_33[:2, 2:]
    margin = REFINED_MARGIN * max(height, width) + 4
    low, high = np.floor(corners.min(axis=1) - margin), np.ceil(corners.max(axis=1) + margin)
    bounds = np.array(within[1::-1])
    return np.clip(low, 0, bounds).astype(int), np.clip(high, 0, bounds).astype(int)


def _align_edges(
    template_HW: np.ndarray, image_HW: np.ndarray, start_23: np.ndarray, support_HW: np.ndarray
) -> tuple[float, np.ndarray]:
    """Align an edge map by ECC and return the correlation on its support, and the warp from it to the image.

    All of the map first, which is robust where a part is missing; where that does not correlate fairly, the support alone,
    since what lies beyond may be a photograph. The start is kept if neither correlates better.
    """
    cv2 = import_opencv()
    best = _supported_correlation(template_HW, image_HW, start_23, support_HW), start_23
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, ECC_STEPS, 1e-4)
    for masked in (False, True):
        if masked and best[0] >= FAIR_CORRELATION:
            break
        mask = cv2.warpAffine(support_HW, best[1], image_HW.shape[1::-1], flags=cv2.INTER_NEAREST) if masked else None
        try:
            _, warp = cv2.findTransformECC(template_HW, image_HW, best[1].copy(), cv2.MOTION_AFFINE, criteria, mask, 3)
        except cv2.error:  # it did not converge from here
            continue
        if np.isfinite(warp).all():
            correlation = _supported_correlation(template_HW, image_HW, warp, support_HW)
            best = max(best, (correlation, warp), key=lambda pair: pair[0])
    return best


def _supported_correlation(
    template_HW: np.ndarray, image_HW: np.ndarray, warp_23: np.ndarray, support_HW: np.ndarray
) -> float:
    """Correlation of two edge maps on the template's support; -1 without edges there."""
    cv2 = import_opencv()
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(image_HW, warp_23, template_HW.shape[1::-1], flags=flags)
    mask_HW = support_HW > 0
    first, second = template_HW[mask_HW], warped[mask_HW]
    first, second = first - first.mean(), second - second.mean()
    norm = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / norm if norm > 1e-6 else -1.0
