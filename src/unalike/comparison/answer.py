"""The answer of a comparison: same, different or incomplete, with the reasons; and the limits of an alignment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from unalike.comparison.coverage import Coverage
from unalike.comparison.registration import Registration
from unalike.comparison.visibility import NOTHING_HIDDEN, HiddenShare

Answer = Literal["same", "different", "incomplete"]
# A hidden part below this share is not named.
MIN_HIDDEN_SHARE = 0.005


@dataclass(frozen=True)
class PoseLimits:
    """How far an alignment may move an image before that counts as a difference.

    Attributes:
        rotation: Degrees.
        scale: Factor by which the image may be larger or smaller.
        shift: Share of the reference's diagonal.
    """

    rotation: float = 15.0
    scale: float = 1.5
    shift: float = 0.15


def find_pose_reasons(
    registration: Registration, reference_shape: tuple[int, ...], image_shape: tuple[int, ...], limits: PoseLimits
) -> list[str]:
    """Say in what an alignment exceeds the limits.

    Args:
        registration: How the image is aligned to the reference.
        reference_shape: (H, W) of the reference.
        image_shape: (H, W) of the image.
        limits: What is allowed.
    """
    jacobian = _jacobian(registration.matrix_33, ((image_shape[1] - 1) / 2, (image_shape[0] - 1) / 2))
    reasons = []
    rotation = measure_rotation(jacobian)
    if abs(rotation) > limits.rotation:
        reasons.append(f"the image is rotated by {abs(rotation):.0f} degrees (limit {limits.rotation:g})")
    scale, stretch = _measure_scale(jacobian, reference_shape, image_shape)
    if not 1 / limits.scale <= scale <= limits.scale:
        word = "smaller" if scale > 1 else "larger"
        reasons.append(f"what it shows is {max(scale, 1 / scale):.2f} times {word} than in the reference "
                       f"(limit {limits.scale:g})")  # fmt: skip
    elif stretch > limits.scale:
        reasons.append(f"what it shows is stretched {stretch:.2f} times in one direction (limit {limits.scale:g})")
    shift = _measure_shift(registration.matrix_33, reference_shape, image_shape)
    if shift > limits.shift:
        reasons.append(f"what it shows is shifted by {shift:.0%} of the diagonal (limit {limits.shift:.0%})")
    return reasons


def find_coverage_reasons(coverage: Coverage, min_compared: float) -> list[str]:
    """Say of which image more than ``1 - min_compared`` was added or cut off; corners of a rotation do not count."""
    limit = 1 - min_compared
    return [
        f"{frame.outside:.0%} of the {name} have no counterpart in the {other} (limit {limit:.0%})"
        for name, other, frame in (
            ("reference", "image", coverage.reference),
            ("image", "reference", coverage.image),
        )
        if frame.outside > limit + 1e-9
    ]


def decide(
    region_count: int, differences: Sequence[str], coverage: Coverage, min_compared: float,
    hidden: HiddenShare = NOTHING_HIDDEN
) -> tuple[Answer, tuple[str, ...]]:  # fmt: skip
    """Decide the answer of a comparison.

    Args:
        region_count: Number of regions that differ.
        differences: What else counts as a difference, in words.
        coverage: Coverage of both images.
        min_compared: Least share of both images that must have been compared to call them the same.
        hidden: Part of the image whose differences cannot be seen; it does not count as compared.

    Returns:
        The answer and its reasons; without a reason the images are the same.
    """
    if region_count:
        differences = [f"{region_count} region{'s' if region_count > 1 else ''} differ{'' if region_count > 1 else 's'}", *differences]  # fmt: skip
    if differences:
        return "different", tuple(differences)
    compared_share = max(0.0, coverage.least - hidden.share)
    if compared_share < min_compared - 1e-9:
        return "incomplete", (
            f"nothing differs, but only {compared_share:.0%} could be compared ({min_compared:.0%} needed)",
            *([f"{hidden.share:.0%} of the image {hidden.reason}"] if hidden.share >= MIN_HIDDEN_SHARE else []),
        )
    return "same", ()


def measure_rotation(jacobian_22: np.ndarray) -> float:
    """Return the rotation nearest to a 2 x 2 matrix, in degrees, -180 to 180; of a mirrored one without the reflection."""
    if np.linalg.det(jacobian_22) < 0:
        jacobian_22 = jacobian_22 @ np.diag([-1.0, 1.0])
    left, _, right = np.linalg.svd(jacobian_22)
    rotation = left @ right
    return float(np.degrees(np.arctan2(rotation[1, 0], rotation[0, 0])))


def _measure_scale(
    jacobian_22: np.ndarray, reference_shape: tuple[int, ...], image_shape: tuple[int, ...]
) -> tuple[float, float]:
    """Return the scale along the axis that is scaled most, in pixels or relative to the frames, whichever is nearer to 1.

    Another resolution of the same view is no change of scale, nor is a crop at the same resolution. The second value is the
    ratio of the scales of the two axes, 1 or more.
    """
    factors = np.linalg.svd(jacobian_22, compute_uv=False)
    frames = float(np.sqrt(reference_shape[0] * reference_shape[1] / (image_shape[0] * image_shape[1])))
    by_frame = [max(factors / unit, key=lambda factor: abs(np.log(factor))) for unit in (1.0, frames)]
    return float(min(by_frame, key=lambda factor: abs(np.log(factor)))), float(factors[0] / factors[1])


def _measure_shift(matrix_33: np.ndarray, reference_shape: tuple[int, ...], image_shape: tuple[int, ...]) -> float:
    """Return the least displacement of the corners and the center, as a share of the reference's diagonal.

    A crop or an extension that keeps a corner does not shift; nor does a rotation about the center.
    """
    (height, width), (rows, columns) = reference_shape[:2], image_shape[:2]
    shares = np.array([[0, 0], [1, 0], [0, 1], [1, 1], [0.5, 0.5]])
    points = np.column_stack([shares * (columns, rows) - 0.5, np.ones(len(shares))]) @ matrix_33.T
    shift = points[:, :2] / points[:, 2:] - (shares * (width, height) - 0.5)
    return float(np.hypot(*shift.T).min() / np.hypot(height, width))


def _jacobian(matrix_33: np.ndarray, point: tuple[float, float]) -> np.ndarray:
    """The derivative of a homography at a point (x, y)."""
    x, y, depth = matrix_33 @ np.array([*point, 1.0])
    jacobian: np.ndarray = (matrix_33[:2, :2] - np.outer([x / depth, y / depth], matrix_33[2, :2])) / depth
    return jacobian
