"""Where the pixels of one image lie in another: registration of two pictures of the same thing.

A registration maps a pixel (x, y) of the *image* to a pixel of the *reference*: a 3 x 3 matrix, found by whichever way
explains the pair best, and a smooth field of small shifts on top (``deformation.py``). The ways, cheapest first:

- as it lies (the same size, or the same picture at another size), refined by ECC (Evangelidis and Psarakis, TPAMI 2008);
- phase correlation for a plain shift (Kuglin and Hines, 1975), refined likewise;
- SIFT features and a homography by MAGSAC++ (Barath et al., CVPR 2020) for turned, scaled, tilted or cropped pictures.

Quality is the correlation of the band-passed pictures over their overlap (-1..1): lighting does not enter it, and two pictures
that show different things stay below ``FLOOR``. Shapes: H, W of an image; arrays are grey, uint8 or float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from unalike.errors import NotComparable, SpecError, closest, missing_extra

# Below this the pictures are taken to show different things, or not to overlap; see docs/experiments/comparison.md,
# 2026-11-26.
FLOOR = 0.35
# From here on no costlier way is tried.
GOOD = 0.75
# Of the image's area at least this share must lie on the reference.
MIN_OVERLAP = 0.25
# Longer side, in pixels, at which the matrix is sought; a coarse level before it widens what ECC can catch.
SIDE, COARSE_SIDE = 640, 200
MIN_INLIERS = 12
ALIGN = ("auto", "none", "shift", "rigid", "affine", "homography")


def opencv() -> Any:
    """The module ``cv2``; MissingExtra where it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise missing_extra("opencv-python-headless", "vision", "comparing images") from error
    return cv2


@dataclass(frozen=True)
class Registration:
    """How the image lies on the reference.

    ``matrix_33`` maps homogeneous pixels (x, y, 1) of the image to pixels of the reference; before it, ``flow_GhGw2`` (or
    None) moves each pixel a little, in image pixels, bilinear between the centres of its cells. ``quality`` -1..1, ``overlap`` 0..1 of
    the image's area; ``method`` says which way found it.
    """

    matrix_33: np.ndarray
    quality: float
    overlap: float
    method: str
    flow_GhGw2: np.ndarray | None = None

    @property
    def scale(self) -> float:
        """Reference pixels an image pixel."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix_33[:2, :2] / self.matrix_33[2, 2]))))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        m = self.matrix_33 / self.matrix_33[2, 2]
        return {
            "method": self.method, "quality": round(self.quality, 4) if self.quality == self.quality else None, "overlap": round(self.overlap, 4),
            "shift": [round(float(m[0, 2]), 3), round(float(m[1, 2]), 3)],
            "rotation": round(float(np.degrees(np.arctan2(m[1, 0], m[0, 0]))), 3),
            "scale": round(self.scale, 5), "mirrored": bool(np.linalg.det(m[:2, :2]) < 0),
            "matrix": [[round(float(v), 8) for v in row] for row in m],
            "largest_bend": 0.0 if self.flow_GhGw2 is None else round(float(np.abs(self.flow_GhGw2).max()), 3),
        }  # fmt: skip


def scaling(factor_x: float, factor_y: float | None = None) -> np.ndarray:
    """The matrix that takes a pixel of a picture to the pixel of the same picture ``factor`` times as large.

    Pixel centres lie at whole numbers, so the corner of the picture is at -0.5.
    """
    fx, fy = factor_x, factor_x if factor_y is None else factor_y
    return np.array([[fx, 0, fx / 2 - 0.5], [0, fy, fy / 2 - 0.5], [0, 0, 1]])


def shrunk(grey_HW: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """(the picture with its longer side at most ``side``, the matrix from its pixels to the full one's)."""
    cv2 = opencv()
    height, width = grey_HW.shape[:2]
    factor = side / max(height, width)
    if factor >= 1:
        return grey_HW, np.eye(3)
    small = cv2.resize(grey_HW, (max(1, round(width * factor)), max(1, round(height * factor))), interpolation=cv2.INTER_AREA)  # fmt: skip
    return small, scaling(width / small.shape[1], height / small.shape[0])


def band_passed(grey_HW: np.ndarray) -> np.ndarray:
    """Structure without lighting: the difference of two Gaussians, divided by its local strength; float32."""
    cv2 = opencv()
    grey = grey_HW.astype(np.float32)
    wide = max(4.0, max(grey.shape) / 40)
    band = cv2.GaussianBlur(grey, (0, 0), 1.2) - _widely_blurred(grey, wide)
    # Where nothing is, nothing is amplified: the strength has a floor of a few grey levels and of the picture's own mean.
    strength = _widely_blurred(band * band, 2 * wide)
    return band / np.sqrt(strength + strength.mean() + 4.0)


def _widely_blurred(picture_HW: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian blur of many pixels, done on a quarter of the size: it leaves nothing that would be lost."""
    cv2 = opencv()
    height, width = picture_HW.shape
    small = cv2.resize(picture_HW, (-(-width // 4), -(-height // 4)), interpolation=cv2.INTER_AREA)
    blurred: np.ndarray = cv2.resize(cv2.GaussianBlur(small, (0, 0), sigma / 4), (width, height))
    return blurred


def warped(reference: np.ndarray, matrix_33: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(the reference seen in the image's frame, uint8 mask (H, W) of where it has pixels: 1 or 0)."""
    cv2 = opencv()
    height, width = shape
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    seen = cv2.warpPerspective(reference, matrix_33, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    whole = np.ones(reference.shape[:2], np.uint8)
    mask = cv2.warpPerspective(whole, matrix_33, (width, height), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
    return seen, mask


def agreement(reference_HW: np.ndarray, image_HW: np.ndarray, matrix_33: np.ndarray) -> tuple[float, float]:
    """(correlation of two band-passed pictures over their overlap, overlap as a share of the image's area)."""
    seen, mask = warped(reference_HW, matrix_33, image_HW.shape)
    inside = mask.astype(bool)
    share = float(inside.mean())
    if inside.sum() < 64:
        return 0.0, share
    a, b = seen[inside], image_HW[inside]
    a, b = a - a.mean(), b - b.mean()
    length = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return (float((a * b).sum()) / length if length > 0 else 0.0), share


def register(
    reference_HW: np.ndarray, image_HW: np.ndarray, *, align: str = "auto", mirror: bool = False, floor: float = FLOOR
) -> Registration:
    """Find how ``image`` lies on ``reference`` (grey pictures of any two sizes); without the smooth field of shifts.

    ``align``: auto, none (as it lies), or the motion that is allowed: shift, rigid, affine, homography. ``mirror`` admits
    a mirrored copy. Raises NotComparable when the pictures do not fit each other, MissingExtra without OpenCV.
    """
    if align not in ALIGN:
        raise SpecError(f"align {align!r}", expected=", ".join(ALIGN), remedy=closest(align, ALIGN))
    _check_structure(reference_HW, image_HW)
    small_a, up_a = shrunk(reference_HW, SIDE)
    small_b, up_b = shrunk(image_HW, SIDE)
    fine_a, fine_b = band_passed(small_a), band_passed(small_b)
    best: Registration | None = None
    for method, matrix in _candidates(small_a, small_b, fine_a, fine_b, align):
        quality, share = agreement(fine_a, fine_b, matrix)
        if share >= MIN_OVERLAP and (best is None or quality > best.quality):
            best = Registration(up_a @ matrix @ np.linalg.inv(up_b), quality, share, method)
        if best is not None and best.quality >= GOOD:
            break
    if (best is None or best.quality < GOOD) and align in ("auto", "homography"):
        best = _tried_mirrored(reference_HW, image_HW, best, mirror, floor)
    if best is None or best.quality < floor:
        figure = "no fit was found" if best is None else f"quality {best.quality:.2f}"
        raise NotComparable(f"the images cannot be aligned ({figure})", expected=f"two views of the same thing, quality {floor} or more",
                            remedy="if they lie as they should, compare with --align none")  # fmt: skip
    return best


def check_size(reference_HW: np.ndarray, image_HW: np.ndarray) -> None:
    """NotComparable for a picture that is too small to show anything."""
    for name, image in (("the reference", reference_HW), ("the image", image_HW)):
        if min(image.shape) < 8:
            raise NotComparable(f"{name} has {image.shape[1]} x {image.shape[0]} pixels", expected="8 x 8 or more")


def _check_structure(reference_HW: np.ndarray, image_HW: np.ndarray) -> None:
    check_size(reference_HW, image_HW)
    for name, image in (("the reference", reference_HW), ("the image", image_HW)):
        if float(image.std()) < 1.0:
            raise NotComparable(f"{name} is blank: nothing in it can be aligned", remedy="compare with --align none")


def _tried_mirrored(
    reference_HW: np.ndarray, image_HW: np.ndarray, best: Registration | None, mirror: bool, floor: float
) -> Registration | None:
    """What a mirrored reference gives, where that fits clearly better; refused unless it was asked for."""
    flipped = np.ascontiguousarray(reference_HW[:, ::-1])
    small_a, up_a = shrunk(flipped, SIDE)
    small_b, up_b = shrunk(image_HW, SIDE)
    fine_a, fine_b = band_passed(small_a), band_passed(small_b)
    for method, matrix in [("ecc", np.eye(3)), *_by_features(small_a, small_b)]:
        refined = _by_ecc(fine_a, fine_b, matrix, "rigid" if method == "ecc" else "homography")
        quality, share = agreement(fine_a, fine_b, refined)
        if share < MIN_OVERLAP or quality < max(floor, (best.quality if best else 0) + 0.1):
            continue
        if not mirror:
            raise NotComparable(f"the image is a mirrored copy of the reference (quality {quality:.2f} when mirrored)",
                                remedy="compare with --mirror if that is meant")  # fmt: skip
        back = np.array([[-1.0, 0, flipped.shape[1] - 1], [0, 1, 0], [0, 0, 1]])
        best = Registration(back @ up_a @ refined @ np.linalg.inv(up_b), quality, share, f"mirrored {method}")
    return best


def _candidates(
    small_a: np.ndarray, small_b: np.ndarray, fine_a: np.ndarray, fine_b: np.ndarray, align: str
) -> Iterator[tuple[str, np.ndarray]]:
    """(method, matrix from the small image to the small reference), the likeliest and cheapest first."""
    (height_a, width_a), (height_b, width_b) = small_a.shape, small_b.shape
    # The same picture at another size; where the shapes differ by more than a trim, equal scale from the corner.
    fx, fy = width_a / width_b, height_a / height_b
    lying = scaling(fx, fy) if abs(fx / fy - 1) < 0.03 else np.eye(3)
    if align == "none":
        yield "none", lying
        return
    motion = "rigid" if align == "auto" else align
    yield "ecc", _by_ecc(fine_a, fine_b, lying, motion)
    if (height_a, width_a) == (height_b, width_b):
        cv2 = opencv()
        window = cv2.createHanningWindow((width_a, height_a), cv2.CV_32F)
        (dx, dy), _ = cv2.phaseCorrelate(fine_b, fine_a, window)
        yield "phase correlation", _by_ecc(fine_a, fine_b, np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1.0]]), motion)
    if align in ("auto", "homography", "affine"):
        for method, matrix in _by_features(small_a, small_b):
            yield method, _by_ecc(fine_a, fine_b, matrix, "affine" if align == "affine" else "homography")


def _by_ecc(fine_a: np.ndarray, fine_b: np.ndarray, start_33: np.ndarray, motion: str) -> np.ndarray:
    """``start_33`` improved by ECC, coarse to fine; where it does not converge, what there was before."""
    cv2 = opencv()
    kinds = {"shift": cv2.MOTION_TRANSLATION, "rigid": cv2.MOTION_EUCLIDEAN, "affine": cv2.MOTION_AFFINE,
             "homography": cv2.MOTION_HOMOGRAPHY}  # fmt: skip
    matrix = start_33
    # The coarse level of a homography found from features would only lose accuracy.
    for side in (SIDE,) if motion in ("affine", "homography") else (COARSE_SIDE, SIDE):
        a, up_a = shrunk(fine_a, side)
        b, up_b = shrunk(fine_b, side)
        inner = np.linalg.inv(up_a) @ matrix @ up_b
        if motion in ("shift", "rigid") and not _is_rigid(inner):
            continue  # a picture of another size: a rigid motion cannot start there
        start = (inner / inner[2, 2])[: 3 if motion == "homography" else 2].astype(np.float32)
        try:
            _, found = cv2.findTransformECC(b, a, start, kinds[motion], (3, 40, 1e-4), None, 5)
        except cv2.error:  # it did not converge, or the pictures ceased to overlap
            continue
        full = np.vstack([found, [0, 0, 1]]) if motion != "homography" else found
        refined = up_a @ full.astype(np.float64) @ np.linalg.inv(up_b)
        if np.isfinite(refined).all() and agreement(fine_a, fine_b, refined)[0] >= agreement(fine_a, fine_b, matrix)[0]:
            matrix = refined
    return matrix


def _is_rigid(matrix_33: np.ndarray) -> bool:
    inner = matrix_33[:2, :2]
    return bool(np.allclose(inner @ inner.T, np.eye(2), atol=1e-3))


def _by_features(small_a: np.ndarray, small_b: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """A homography from matched SIFT features, if enough of them agree on one that a camera could see."""
    cv2 = opencv()
    sift = cv2.SIFT_create(nfeatures=3000, contrastThreshold=0.02)
    points_a, words_a = sift.detectAndCompute(small_a, None)
    points_b, words_b = sift.detectAndCompute(small_b, None)
    if words_a is None or words_b is None or min(len(points_a), len(points_b)) < MIN_INLIERS:
        return []
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(words_b, words_a, k=2)
    good = [near[0] for near in pairs if len(near) == 2 and near[0].distance < 0.8 * near[1].distance]
    if len(good) < MIN_INLIERS:
        return []
    source = np.array([points_b[match.queryIdx].pt for match in good], np.float32)
    target = np.array([points_a[match.trainIdx].pt for match in good], np.float32)
    cv2.setRNGSeed(0)
    matrix, inliers = cv2.findHomography(source, target, cv2.USAC_MAGSAC, 2.0, maxIters=5000, confidence=0.999)
    if matrix is None or int(inliers.sum()) < MIN_INLIERS or not _is_plausible(matrix, small_b.shape):
        return []
    return [("features", matrix)]


def _is_plausible(matrix_33: np.ndarray, shape: tuple[int, ...]) -> bool:
    """No horizon crosses the image, it keeps its sense of turning, and sizes change at most eightfold."""
    height, width = shape[:2]
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1.0]]) @ matrix_33.T
    if (corners[:, 2] * corners[0, 2] <= 0).any():
        return False
    x, y = corners[:, 0] / corners[:, 2], corners[:, 1] / corners[:, 2]
    turned = np.roll(x, -1) - x, np.roll(y, -1) - y
    bends = turned[0] * np.roll(turned[1], -1) - turned[1] * np.roll(turned[0], -1)
    area = 0.5 * float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())
    return bool((bends > 0).all()) and 1 / 64 < area / (height * width) < 64
