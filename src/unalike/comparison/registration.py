"""Image registration: the matrix that maps pixels of one image to pixels of another that shows the same thing.

A registration maps a pixel (x, y) of the *image* to a pixel of the *reference*: a 3 x 3 matrix, and optionally a smooth
displacement field on top of it (``deformation.py``). The methods, cheapest first:

- the identity (or a scaling, when the sizes differ), refined by ECC (Evangelidis and Psarakis, TPAMI 2008);
- phase correlation for a translation (Kuglin and Hines, 1975), refined by ECC;
- SIFT features and a homography by MAGSAC++ (Barath et al., CVPR 2020) for rotated, scaled, tilted or cropped images;
- none of them, but both images as they lie, where at least one is blank, or both show few things on a plain ground.

The quality of a registration is the correlation of the band-passed images over their overlap, -1 to 1. It does not depend
on lighting, and two images of different things stay below ``MIN_QUALITY``.

Shapes: H, W height and width of an image; Gh, Gw grid of the displacement field. Arrays are grayscale, uint8 or float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from unalike.errors import NotComparable, SpecError, closest, missing_extra
from unalike.spec.compare import Alignment

# Below this quality the images are taken to show different things, or not to overlap; see docs/experiments/comparison.md,
# 2026-11-26.
MIN_QUALITY = 0.35
# From this quality on, no costlier method is tried.
GOOD_QUALITY = 0.75
# Below this quality, or with displacements of more than LARGE_BEND pixels left, a perspective is looked for: aligned boards
# have 0.92 and 3 pixels (docs/experiments/comparison.md, 2026-11-29).
RIGID_QUALITY, LARGE_BEND = 0.9, 4.0
# At least this share of the image's area must lie on the reference.
MIN_OVERLAP = 0.25
# Longer side, in pixels, at which the matrix is estimated; a coarser level before it widens the range of ECC.
MAX_SIDE, COARSE_SIDE = 640, 200
MIN_INLIERS = 12
MIN_IMAGE_SIDE = 8
# A pixel is plain where gray levels, blurred, change by at most PLAIN_RANGE within PLAIN_SIDE pixels. An image is blank from
# BLANK_SHARE of plain pixels on, and shows things on a plain ground from PLAIN_SHARE on.
PLAIN_RANGE, PLAIN_SIDE, PLAIN_BLUR = 16, 9, 2.0
BLANK_SHARE, PLAIN_SHARE = 0.97, 0.75
IN_PLACE = "in place"
RIGID_METHODS = ("ecc", "phase correlation")
ALIGN: tuple[str, ...] = get_args(Alignment)


def import_opencv() -> Any:
    """Import ``cv2``.

    Raises:
        MissingExtra: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise missing_extra("opencv-python-headless", "vision", "comparing images") from error
    return cv2


@dataclass(frozen=True)
class Registration:
    """How an image is aligned to a reference.

    Attributes:
        matrix_33: Maps homogeneous pixels (x, y, 1) of the image to pixels of the reference.
        quality: Correlation of the band-passed images over their overlap, -1 to 1; NaN where it was not measured.
        overlap: Share of the image's area that lies on the reference, 0 to 1.
        method: The method that found it, such as ``ecc`` or ``features``.
        flow_GhGw2: Displacement (x, y) of each grid cell in image pixels, applied before the matrix and interpolated
            bilinearly between cell centers; None for no displacement.
    """

    matrix_33: np.ndarray
    quality: float
    overlap: float
    method: str
    flow_GhGw2: np.ndarray | None = None

    @property
    def scale(self) -> float:
        """Reference pixels per image pixel."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix_33[:2, :2] / self.matrix_33[2, 2]))))

    @property
    def largest_bend(self) -> float:
        """Largest displacement along one axis, in image pixels; 0 without a displacement field."""
        return 0.0 if self.flow_GhGw2 is None else float(np.abs(self.flow_GhGw2).max())

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; the rotation in degrees, the shift in reference pixels."""
        m = self.matrix_33 / self.matrix_33[2, 2]
        return {
            "method": self.method, "quality": round(self.quality, 4) if self.quality == self.quality else None, "overlap": round(self.overlap, 4),
            "shift": [round(float(m[0, 2]), 3), round(float(m[1, 2]), 3)],
            "rotation": round(float(np.degrees(np.arctan2(m[1, 0], m[0, 0]))), 3),
            "scale": round(self.scale, 5), "mirrored": bool(np.linalg.det(m[:2, :2]) < 0),
            "matrix": [[round(float(v), 8) for v in row] for row in m],
            "largest_bend": round(self.largest_bend, 3),
        }  # fmt: skip


# ---- images ----


def scale_matrix(factor_x: float, factor_y: float | None = None) -> np.ndarray:
    """Return the 3 x 3 matrix from a pixel of an image to the pixel of the same image ``factor`` times as large.

    Pixel centers have integer coordinates, so the corner of the image is at -0.5.
    """
    fx, fy = factor_x, factor_x if factor_y is None else factor_y
    return np.array([[fx, 0, fx / 2 - 0.5], [0, fy, fy / 2 - 0.5], [0, 0, 1]])


def downscale(image_HWC: np.ndarray, max_side: int) -> tuple[np.ndarray, np.ndarray]:
    """Shrink an image so that its longer side is at most ``max_side`` pixels.

    Returns:
        The image, and the 3 x 3 matrix from its pixels to those of the full image.
    """
    cv2 = import_opencv()
    height, width = image_HWC.shape[:2]
    factor = max_side / max(height, width)
    if factor >= 1:
        return image_HWC, np.eye(3)
    small = cv2.resize(image_HWC, (max(1, round(width * factor)), max(1, round(height * factor))), interpolation=cv2.INTER_AREA)  # fmt: skip
    return small, scale_matrix(width / small.shape[1], height / small.shape[0])


def band_pass(gray_HW: np.ndarray) -> np.ndarray:
    """Remove lighting and keep structure: a difference of Gaussians divided by its local strength; float32 (H, W)."""
    cv2 = import_opencv()
    gray = gray_HW.astype(np.float32)
    wide = max(4.0, max(gray.shape) / 40)
    band: np.ndarray = cv2.GaussianBlur(gray, (0, 0), 1.2) - _blur_wide(gray, wide)
    # Noise in empty areas is not amplified: the strength has a floor of a few gray levels and of the image's own mean.
    strength = _blur_wide(band * band, 2 * wide)
    normalized: np.ndarray = band / np.sqrt(strength + strength.mean() + 4.0)
    return normalized


def _blur_wide(image_HW: np.ndarray, sigma: float) -> np.ndarray:
    """Apply a wide Gaussian blur at a quarter of the size, where nothing that the blur keeps is lost."""
    cv2 = import_opencv()
    height, width = image_HW.shape
    small = cv2.resize(image_HW, (-(-width // 4), -(-height // 4)), interpolation=cv2.INTER_AREA)
    blurred: np.ndarray = cv2.resize(cv2.GaussianBlur(small, (0, 0), sigma / 4), (width, height))
    return blurred


def warp_to_image(
    reference: np.ndarray, matrix_33: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Warp the reference into the frame of an image of ``shape`` (H, W).

    Returns:
        The warped reference, and the uint8 mask (H, W) of where it has pixels: 1 or 0.
    """
    cv2 = import_opencv()
    height, width = shape
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(reference, matrix_33, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    ones = np.ones(reference.shape[:2], np.uint8)
    mask = cv2.warpPerspective(ones, matrix_33, (width, height), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
    return warped, mask


def correlate(reference_HW: np.ndarray, image_HW: np.ndarray, matrix_33: np.ndarray) -> tuple[float, float]:
    """Measure how well two band-passed images agree under a matrix.

    Returns:
        The correlation over their overlap (-1 to 1; 0 where fewer than 64 pixels overlap), and the overlap as a share of
        the image's area.
    """
    warped, mask = warp_to_image(reference_HW, matrix_33, image_HW.shape)
    inside = mask.astype(bool)
    overlap = float(inside.mean())
    if inside.sum() < 64:
        return 0.0, overlap
    a, b = warped[inside], image_HW[inside]
    a, b = a - a.mean(), b - b.mean()
    length = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return (float((a * b).sum()) / length if length > 0 else 0.0), overlap


# ---- registration ----


def register(
    reference_HW: np.ndarray,
    image_HW: np.ndarray,
    *,
    align: str = "auto",
    mirror: bool = False,
    min_quality: float = MIN_QUALITY,
) -> Registration:
    """Find the matrix that aligns an image to a reference, without a displacement field.

    Args:
        reference_HW: Grayscale uint8 image.
        image_HW: Grayscale uint8 image of any size.
        align: ``auto``; ``none`` (no alignment but for the size); or the motion model: ``shift``, ``rigid``, ``affine``,
            ``homography``.
        mirror: Whether a mirrored copy of the reference is accepted.
        min_quality: Least quality of a registration. Below it, images of few things on a plain ground are left as they lie
            (method ``in place``), and others are refused.

    Raises:
        NotComparable: The images are too small, or do not fit each other.
        SpecError: ``align`` is unknown.
        MissingExtra: OpenCV is not installed.
    """
    if align not in ALIGN:
        raise SpecError(f"align {align!r}", expected=", ".join(ALIGN), remedy=closest(align, ALIGN))
    check_size(reference_HW, image_HW)
    has_structure = min(float(reference_HW.std()), float(image_HW.std())) >= 1.0
    best = _find_best(reference_HW, image_HW, align, mirror, min_quality) if has_structure else None
    if best is not None and best.quality >= min_quality:
        return best
    plain_shares = float(find_plain(reference_HW).mean()), float(find_plain(image_HW).mean())
    if not has_structure or max(plain_shares) >= BLANK_SHARE or min(plain_shares) >= PLAIN_SHARE:
        return Registration(start_matrix(reference_HW.shape, image_HW.shape), float("nan"), 1.0, IN_PLACE)
    figure = "no registration was found" if best is None else f"quality {best.quality:.2f}"
    raise NotComparable(f"the images cannot be aligned ({figure})",
                        expected=f"two images of the same thing, quality {min_quality} or more",
                        remedy="if they are aligned already, compare with --align none")  # fmt: skip


def _find_best(
    reference_HW: np.ndarray, image_HW: np.ndarray, align: str, mirror: bool, min_quality: float
) -> Registration | None:
    """Return the registration of the highest quality, or the first that is good; None where no overlap is large enough."""
    small_a, to_reference = downscale(reference_HW, MAX_SIDE)
    small_b, to_image = downscale(image_HW, MAX_SIDE)
    band_a, band_b = band_pass(small_a), band_pass(small_b)
    best: Registration | None = None
    for method, matrix in _candidate_matrices(small_a, small_b, band_a, band_b, align):
        quality, overlap = correlate(band_a, band_b, matrix)
        if overlap >= MIN_OVERLAP and (best is None or quality > best.quality):
            best = Registration(to_reference @ matrix @ np.linalg.inv(to_image), quality, overlap, method)
        if best is not None and best.quality >= GOOD_QUALITY:
            break
    if (best is None or best.quality < GOOD_QUALITY) and align in ("auto", "homography"):
        best = _register_mirrored(reference_HW, image_HW, best, mirror, min_quality)
    return best


def refine_perspective(reference_HW: np.ndarray, image_HW: np.ndarray, registration: Registration) -> Registration:
    """Find a homography that aligns the images better than a rigid motion; the registration as it was if there is none.

    Args:
        reference_HW: Grayscale uint8 image.
        image_HW: Grayscale uint8 image of any size.
        registration: The alignment to start from, without a displacement field.
    """
    small_a, to_reference = downscale(reference_HW, MAX_SIDE)
    small_b, to_image = downscale(image_HW, MAX_SIDE)
    band_a, band_b = band_pass(small_a), band_pass(small_b)
    start = np.linalg.inv(to_reference) @ registration.matrix_33 @ to_image
    best = registration
    for method, matrix in [(registration.method, start), *_match_features(small_a, small_b)]:
        refinement = _refine_ecc(band_a, band_b, matrix, "homography")
        quality, overlap = correlate(band_a, band_b, refinement)
        if quality > best.quality and overlap >= MIN_OVERLAP and _is_plausible(refinement, small_b.shape):
            best = Registration(to_reference @ refinement @ np.linalg.inv(to_image), quality, overlap, method)
    return best


def find_plain(gray_HW: np.ndarray) -> np.ndarray:
    """Find the plain pixels of a grayscale image: without edges, whatever its noise and the slope of its lighting.

    Returns:
        bool map, at most ``MAX_SIDE`` a side.
    """
    cv2 = import_opencv()
    small, _ = downscale(gray_HW, MAX_SIDE)
    blurred = cv2.GaussianBlur(small, (0, 0), PLAIN_BLUR)
    window = np.ones((PLAIN_SIDE, PLAIN_SIDE), np.uint8)
    plain: np.ndarray = cv2.subtract(cv2.dilate(blurred, window), cv2.erode(blurred, window)) <= PLAIN_RANGE
    return plain


def start_matrix(reference_shape: tuple[int, ...], image_shape: tuple[int, ...]) -> np.ndarray:
    """Return the matrix of images that lie on each other: scaled to one size, or corner on corner if their aspects differ."""
    fx, fy = reference_shape[1] / image_shape[1], reference_shape[0] / image_shape[0]
    # Aspects may differ by a trim.
    return scale_matrix(fx, fy) if abs(fx / fy - 1) < 0.03 else np.eye(3)


def check_size(reference_HW: np.ndarray, image_HW: np.ndarray) -> None:
    """Raise NotComparable for an image that is smaller than ``MIN_IMAGE_SIDE``."""
    for name, image in (("the reference", reference_HW), ("the image", image_HW)):
        if min(image.shape) < MIN_IMAGE_SIDE:
            raise NotComparable(f"{name} has {image.shape[1]} x {image.shape[0]} pixels",
                                expected=f"{MIN_IMAGE_SIDE} x {MIN_IMAGE_SIDE} or more")  # fmt: skip


def _register_mirrored(
    reference_HW: np.ndarray, image_HW: np.ndarray, best: Registration | None, mirror: bool, min_quality: float
) -> Registration | None:
    """Register the mirrored reference and return that where it fits clearly better than ``best``.

    Raises NotComparable where it does and ``mirror`` is not set.
    """
    mirror_HW = np.ascontiguousarray(reference_HW[:, ::-1])
    small_a, to_reference = downscale(mirror_HW, MAX_SIDE)
    small_b, to_image = downscale(image_HW, MAX_SIDE)
    band_a, band_b = band_pass(small_a), band_pass(small_b)
    for method, matrix in [("ecc", np.eye(3)), *_match_features(small_a, small_b)]:
        refinement = _refine_ecc(band_a, band_b, matrix, "rigid" if method == "ecc" else "homography")
        quality, overlap = correlate(band_a, band_b, refinement)
        if overlap < MIN_OVERLAP or quality < max(min_quality, (best.quality if best else 0) + 0.1):
            continue
        if not mirror:
            raise NotComparable(f"the image is a mirrored copy of the reference (quality {quality:.2f} when mirrored)",
                                remedy="compare with --mirror if that is meant")  # fmt: skip
        unflip = np.array([[-1.0, 0, mirror_HW.shape[1] - 1], [0, 1, 0], [0, 0, 1]])
        matrix_33 = unflip @ to_reference @ refinement @ np.linalg.inv(to_image)
        best = Registration(matrix_33, quality, overlap, f"mirrored {method}")
    return best


def _candidate_matrices(
    small_a: np.ndarray, small_b: np.ndarray, band_a: np.ndarray, band_b: np.ndarray, align: str
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (method, matrix from the small image to the small reference), the cheapest first."""
    (height_a, width_a), (height_b, width_b) = small_a.shape, small_b.shape
    identity = start_matrix(small_a.shape, small_b.shape)
    if align == "none":
        yield "none", identity
        return
    motion = "rigid" if align == "auto" else align
    yield "ecc", _refine_ecc(band_a, band_b, identity, motion)
    if (height_a, width_a) == (height_b, width_b):
        cv2 = import_opencv()
        window = cv2.createHanningWindow((width_a, height_a), cv2.CV_32F)
        (dx, dy), _ = cv2.phaseCorrelate(band_b, band_a, window)
        shift = np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1.0]])
        yield "phase correlation", _refine_ecc(band_a, band_b, shift, motion)
    if align in ("auto", "homography", "affine"):
        for method, matrix in _match_features(small_a, small_b):
            yield method, _refine_ecc(band_a, band_b, matrix, "affine" if align == "affine" else "homography")


def _refine_ecc(band_a: np.ndarray, band_b: np.ndarray, start_33: np.ndarray, motion: str) -> np.ndarray:
    """Refine a matrix by ECC, coarse to fine; a level that does not converge or improve keeps the matrix as it is."""
    cv2 = import_opencv()
    models = {"shift": cv2.MOTION_TRANSLATION, "rigid": cv2.MOTION_EUCLIDEAN, "affine": cv2.MOTION_AFFINE,
              "homography": cv2.MOTION_HOMOGRAPHY}  # fmt: skip
    matrix = start_33
    # The coarse level would only cost a homography found from features some of its accuracy.
    for side in (MAX_SIDE,) if motion in ("affine", "homography") else (COARSE_SIDE, MAX_SIDE):
        a, to_a = downscale(band_a, side)
        b, to_b = downscale(band_b, side)
        inner = np.linalg.inv(to_a) @ matrix @ to_b
        if motion in ("shift", "rigid") and not _is_rigid(inner):
            continue  # images of different sizes: a rigid motion cannot start there
        start = (inner / inner[2, 2])[: 3 if motion == "homography" else 2].astype(np.float32)
        try:
            _, warp = cv2.findTransformECC(b, a, start, models[motion], (3, 40, 1e-4), None, 5)
        except cv2.error:  # it did not converge, or the images no longer overlap
            continue
        full = np.vstack([warp, [0, 0, 1]]) if motion != "homography" else warp
        matrix_33 = to_a @ full.astype(np.float64) @ np.linalg.inv(to_b)
        if (
            np.isfinite(matrix_33).all()
            and correlate(band_a, band_b, matrix_33)[0] >= correlate(band_a, band_b, matrix)[0]
        ):
            matrix = matrix_33
    return matrix


def _is_rigid(matrix_33: np.ndarray) -> bool:
    inner = matrix_33[:2, :2]
    return bool(np.allclose(inner @ inner.T, np.eye(2), atol=1e-3))


def _match_features(small_a: np.ndarray, small_b: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Estimate a homography from matched SIFT features; empty where too few agree on a plausible one."""
    cv2 = import_opencv()
    sift = cv2.SIFT_create(nfeatures=3000, contrastThreshold=0.02)
    points_a, descriptors_a = sift.detectAndCompute(small_a, None)
    points_b, descriptors_b = sift.detectAndCompute(small_b, None)
    if descriptors_a is None or descriptors_b is None or min(len(points_a), len(points_b)) < MIN_INLIERS:
        return []
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(descriptors_b, descriptors_a, k=2)
    # Lowe's ratio test.
    matches = [near[0] for near in pairs if len(near) == 2 and near[0].distance < 0.8 * near[1].distance]
    if len(matches) < MIN_INLIERS:
        return []
    source = np.array([points_b[match.queryIdx].pt for match in matches], np.float32)
    target = np.array([points_a[match.trainIdx].pt for match in matches], np.float32)
    cv2.setRNGSeed(0)
    matrix, inliers = cv2.findHomography(source, target, cv2.USAC_MAGSAC, 2.0, maxIters=5000, confidence=0.999)
    if matrix is None or int(inliers.sum()) < MIN_INLIERS or not _is_plausible(matrix, small_b.shape):
        return []
    return [("features", matrix)]


def _is_plausible(matrix_33: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether no horizon crosses the image, its orientation is kept, and sizes change at most eightfold."""
    height, width = shape[:2]
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1.0]]) @ matrix_33.T
    if (corners[:, 2] * corners[0, 2] <= 0).any():
        return False
    x, y = corners[:, 0] / corners[:, 2], corners[:, 1] / corners[:, 2]
    sides = np.roll(x, -1) - x, np.roll(y, -1) - y
    cross = sides[0] * np.roll(sides[1], -1) - sides[1] * np.roll(sides[0], -1)
    area = 0.5 * float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())
    return bool((cross > 0).all()) and 1 / 64 < area / (height * width) < 64
