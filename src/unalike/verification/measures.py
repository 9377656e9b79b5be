"""Measures of how an image differs from an asset at a known pose: edges, distortion, color, parts, balance.

The image is warped into the asset's frame at a size at which both show the same detail, and what the frame should show is
predicted (``expected_image.py``). The pose is refined on that prediction to about a tenth of a pixel, and two differences
are measured:

- ``parts``: where a pixel lies outside the range of expected values within a pixel of it;
- ``balance``: where the signed difference, blurred, does not cancel. Blur, JPEG and an edge that is slightly displaced do
  cancel; a stroke that is thicker by half a pixel does not.

Shapes: H, W of the frame (the asset with a margin).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unalike.comparison.registration import import_opencv
from unalike.verification.asset_template import AssetTemplate, asset_size
from unalike.verification.color_difference import ciede2000, srgb_to_lab
from unalike.verification.expected_image import CHROMA_BLUR, ExpectedImage, dilate_alpha, erode_alpha, predict_image
from unalike.verification.localization import MAX_DISTORTION, AffinePose
from unalike.verification.searched_image import channel_max, compute_edges, limit_size

# Bounds of the asset's size (square root of its area) in the frame, and of its longer side, in pixels.
MAX_SIZE, MIN_SIZE, MAX_SIDE = 192, 40, 448
# Margin of the frame, in which additions beside the asset are looked for: a share of its longer side, at most of its size.
FRAME_MARGIN, MAX_FRAME_MARGIN = 0.12, 0.3
# Gray levels of difference that JPEG and noise leave anywhere.
NOISE_FLOOR = 10.0
# Side of the windows over which ``parts`` averages, as a share of the asset's size.
WINDOW_SHARE = 0.045
# A pixel's difference counts up to this share of the contrast in a window's mean; one above the second share belongs to
# the ``area`` that differs.
MAX_HEAT, AREA_HEAT = 1.5, 0.25
# Standard deviation of the blur of ``balance``, as a share of the size, and in pixels at least.
BALANCE_SHARE, MIN_BALANCE_BLUR = 0.018, 0.8
# What benign transformations leave of the blurred difference: multiples of the blurred image's gradient and curvature, and
# gray levels.
GRADIENT_ALLOWANCE, CURVATURE_ALLOWANCE, LEVEL_ALLOWANCE = 0.25, 0.25, 6.0
# Colors within so many gray levels form a group; groups below the share of the ink are left out, and the largest are compared.
GROUP_REACH, MIN_GROUP_SHARE, MAX_GROUPS = 36.0, 0.06, 5
# Busy background within so many gray levels of one of the ink's colors may be added ink, from a share of the ink's area on.
ADDED_REACH, MIN_ADDED = 16.0, 0.015
# Blur, standard deviation in pixels, of the edges that are correlated, and the width in pixels of the rim around the ink.
EDGE_BLUR, EDGE_RIM = 1.0, 2
# Refinement steps on the expected image, and the largest change of a step (in units of the frame).
REFINEMENT_STEPS, MAX_STEP = 3, 2.0
# Keys of the measures in set files and results.
MEASURES = ("edges", "distortion", "colour", "parts", "balance")


@dataclass(frozen=True, eq=False)
class AssetDifference:
    """Differences between an asset and an image at one pose.

    Attributes:
        pose: The refined pose.
        measures: ``edges``: 1 - correlation of the edges of the expected and the observed image, 0 to 2. ``distortion``: see ``AffinePose``; the largest for a
            mirror image and for a rotated one. ``colour``: the largest CIEDE2000 difference of a group of the ink's
            colors beyond lighting. As shares of the contrast: ``parts``, the largest mean difference of a window;
            ``balance``, the largest surplus or lack. ``area``: share of the asset that differs. ``hidden``: share of the
            asset that lies outside the image. ``busy``: share of the background that is busy.
        heat_HW: float32, difference of each pixel of the frame as a share of the contrast.
        observed_HW3: uint8, the image in the frame.
        expected_HW3: uint8, what it was compared with.
        frame_to_image_23: From (x, y, 1) of the frame to (x, y) of the image.
        size: Size of the asset in the frame (the square root of its area), in pixels.
    """

    pose: AffinePose
    measures: dict[str, float]
    heat_HW: np.ndarray
    observed_HW3: np.ndarray
    expected_HW3: np.ndarray
    frame_to_image_23: np.ndarray
    size: float


def measure_difference(template: AssetTemplate, image_HW3: np.ndarray, pose: AffinePose) -> AssetDifference:
    """Measure how an image (uint8 RGB) differs from the asset at its pose."""
    asset = template.asset
    natural = asset_size(*asset.size)
    largest = min(MAX_SIZE, MAX_SIDE * natural / max(asset.size))
    size = float(np.clip(pose.scale * natural, min(MIN_SIZE, largest), largest))
    layer, frame_to_layer = _frame_layer(template, size)
    opaque = asset.background == "none"
    to_image = np.vstack([pose.matrix_23, [0, 0, 1]]) @ frame_to_layer
    image_in_frame, inside = _warp_to_frame(image_HW3, to_image, layer.shape[:2])
    initial = predict_image(layer, image_in_frame, inside, opaque)
    for _ in range(REFINEMENT_STEPS):
        step = _refinement_step(initial, image_in_frame, inside)
        if step is None:
            break
        to_image = to_image @ step
        image_in_frame, inside = _warp_to_frame(image_HW3, to_image, layer.shape[:2])
    prediction = predict_image(layer, image_in_frame, inside, opaque)
    pose = AffinePose((to_image @ np.linalg.inv(frame_to_layer))[:2], pose.correlation)
    valid_HW = inside & prediction.predictable_HW
    if opaque:
        valid_HW &= ~(erode_alpha(prediction.alpha_HW, 2) < 0.5)
    heat = _compute_heat(prediction, image_in_frame, valid_HW)
    heat[find_added_ink(prediction, image_in_frame, layer)] = 1.0
    alpha, free = prediction.alpha_HW, inside & (prediction.alpha_HW < 0.03)
    busy = float(prediction.busy_HW.sum() / max(1, int(free.sum())))
    measures = {
        "edges": 1.0 - _correlate_edges(prediction, image_in_frame, inside),
        "distortion": MAX_DISTORTION if pose.is_turned else pose.distortion,
        "colour": _color_difference(prediction, image_in_frame, layer),
        "parts": float(window_mean(heat, size).max()),
        "balance": _imbalance(image_in_frame, prediction.image_HW3, valid_HW, size) / prediction.contrast,
        "area": float((heat > AREA_HEAT).sum() / max(1.0, float((alpha > 0.5).sum()))),
        "hidden": float((alpha * ~inside).sum() / max(1.0, float(alpha.sum()))),
        "busy": busy,
    }
    expected_HW3 = np.clip(prediction.image_HW3, 0, 255).astype(np.uint8)
    return AssetDifference(pose, measures, heat, image_in_frame.astype(np.uint8), expected_HW3, to_image[:2], size)


def window_side(size: float) -> int:
    """Side in pixels, odd, of the windows for an asset of this size in the frame."""
    return max(2, round(WINDOW_SHARE * size)) | 1


def window_mean(heat_HW: np.ndarray, size: float) -> np.ndarray:
    """Average a heat map over windows; ``size`` is the asset's in the frame, in pixels."""
    cv2 = import_opencv()
    window = window_side(size)
    mean: np.ndarray = cv2.blur(np.minimum(heat_HW, MAX_HEAT), (window, window), borderType=cv2.BORDER_CONSTANT)
    return mean


def _frame_layer(template: AssetTemplate, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the layer in a frame where its size is ``size``, and the 3 x 3 matrix from the frame to the layer."""
    cv2 = import_opencv()
    natural = template.asset.size
    layer, scale = limit_size(template.asset.layer_HW4, size * max(natural) / asset_size(*natural))
    edge = max(3, round(min(FRAME_MARGIN * max(layer.shape[:2]), MAX_FRAME_MARGIN * size)))
    layer = cv2.copyMakeBorder(layer, edge, edge, edge, edge, cv2.BORDER_CONSTANT)
    offset = (0.5 - edge) / scale - 0.5
    return layer, np.array([[1 / scale, 0, offset], [0, 1 / scale, offset], [0, 0, 1]])


def _correlate_edges(prediction: ExpectedImage, image_HW3: np.ndarray, inside: np.ndarray) -> float:
    """Correlation of the edges of the expected and the observed image, in the ink and its rim: what lies beyond is background."""
    near = inside & (dilate_alpha(prediction.alpha_HW, EDGE_RIM) > 0.03)
    if not near.any():
        return -1.0
    first, second = (compute_edges(image, EDGE_BLUR)[near] for image in (prediction.image_HW3, image_HW3))
    first, second = first - first.mean(), second - second.mean()
    norm = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / norm if norm > 1e-6 else -1.0


def _compute_heat(prediction: ExpectedImage, image_HW3: np.ndarray, valid_HW: np.ndarray) -> np.ndarray:
    """Difference beyond the range of expected values within a pixel, as a share of the contrast."""
    cv2 = import_opencv()
    near = np.ones((3, 3), np.uint8)
    low, high = cv2.erode(prediction.image_HW3, near), cv2.dilate(prediction.image_HW3, near)
    excess = channel_max(np.maximum(np.maximum(low - image_HW3, image_HW3 - high), 0))
    noise = NOISE_FLOOR + 2.0 * prediction.background_noise
    heat: np.ndarray = np.where(valid_HW, np.maximum(excess - noise, 0) / prediction.contrast, 0).astype(np.float32)
    return heat


def _color_difference(prediction: ExpectedImage, image_HW3: np.ndarray, layer_HW4: np.ndarray) -> float:
    """The largest CIEDE2000 difference of a color group's mean from its own color, under the asset's lighting.

    In thin strokes ink is mixed with background, and JPEG mixes their hues: whichever of the pure color, the expected image,
    and the expected image with blurred hues explains more counts.
    """
    if not prediction.ink_HW.any():
        return 100.0
    cv2 = import_opencv()
    brightness = prediction.image_HW3.mean(axis=2, keepdims=True)
    blurred = cv2.GaussianBlur(prediction.image_HW3 - brightness, (0, 0), CHROMA_BLUR) + brightness
    own = layer_HW4[..., :3].astype(np.float32)
    image_colors, *predictions = (
        prediction.lighting.remove(image) for image in (image_HW3, prediction.image_HW3, blurred)
    )
    largest = 0.0
    for group in find_color_groups(own, prediction.ink_HW):
        means = srgb_to_lab(np.stack([image[group].mean(axis=0) for image in (own, *predictions)]))
        largest = max(largest, float(ciede2000(srgb_to_lab(image_colors[group].mean(axis=0)), means).min()))
    return largest


def find_added_ink(prediction: ExpectedImage, image_HW3: np.ndarray, layer_HW4: np.ndarray) -> np.ndarray:
    """Find busy background that has a color of the ink and ends within the frame: it may be added; bool (H, W)."""
    ink_HW = np.zeros_like(prediction.busy_HW)
    if not prediction.busy_HW.any() or not prediction.ink_HW.any():
        return ink_HW
    cv2 = import_opencv()
    own = layer_HW4[..., :3].astype(np.float32)
    ink_colors = prediction.lighting.apply(own)
    for group in find_color_groups(own, prediction.ink_HW):
        ink_HW |= channel_max(np.abs(image_HW3 - ink_colors[group].mean(axis=0))) < ADDED_REACH
    near = np.ones((3, 3), np.uint8)
    opening = cv2.morphologyEx((ink_HW & prediction.busy_HW).astype(np.uint8), cv2.MORPH_OPEN, near)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opening, connectivity=8)
    border = np.concatenate([labels[:2].ravel(), labels[-2:].ravel(), labels[:, :2].ravel(), labels[:, -2:].ravel()])
    small = np.flatnonzero(stats[:count, cv2.CC_STAT_AREA] < MIN_ADDED * (prediction.alpha_HW > 0.5).sum())
    result: np.ndarray = (opening > 0) & ~np.isin(labels, np.union1d(border, small))
    return result


def find_color_groups(color_HW3: np.ndarray, ink_HW: np.ndarray) -> list[np.ndarray]:
    """Split ink into groups of similar color, the largest share of the rest first; bool masks (H, W)."""
    rest, total = ink_HW.copy(), int(ink_HW.sum())
    groups: list[np.ndarray] = []
    for _ in range(2 * MAX_GROUPS):
        if rest.sum() < MIN_GROUP_SHARE * total or len(groups) == MAX_GROUPS:
            break
        colors = color_HW3[rest]
        median = colors[np.abs(colors - np.median(colors, axis=0)).max(axis=1).argmin()]  # a color that occurs
        group = rest & (channel_max(np.abs(color_HW3 - median)) <= GROUP_REACH)
        rest &= ~group
        if group.sum() >= MIN_GROUP_SHARE * total:
            groups.append(group)
    return groups or [ink_HW]


def _refinement_step(prediction: ExpectedImage, image_HW3: np.ndarray, inside: np.ndarray) -> np.ndarray | None:
    """Return the 3 x 3 matrix of the frame that aligns ``image_HW3`` better, or None where too few edges are visible.

    One Gauss-Newton step for an affine motion, on edges alone; pixels that differ more than most count less.
    """
    height, width = inside.shape
    gradient_x, gradient_y = _gradients(prediction.image_HW3)
    edges = (
        inside
        & ~prediction.busy_HW
        & (channel_max(np.abs(gradient_x) + np.abs(gradient_y)) > 0.02 * prediction.contrast)
    )
    if edges.sum() < 30:
        return None
    rows, columns = np.nonzero(edges)
    stride = max(1, len(rows) // 6000)
    rows, columns = rows[::stride], columns[::stride]
    positions = np.stack([columns / width - 0.5, rows / height - 0.5, np.ones(len(rows))], axis=1)[:, None, :]
    along_x, along_y = gradient_x[rows, columns], gradient_y[rows, columns]
    residual = (image_HW3 - prediction.image_HW3)[rows, columns]
    terms = np.concatenate([along_x[..., None] * positions, along_y[..., None] * positions], axis=2).reshape(-1, 6)
    share = np.abs(residual).max(axis=1) / prediction.contrast
    weight = np.repeat(1 / (1 + (share / (2 * max(1.5 * float(np.median(share)), 0.03))) ** 2), 3)[:, None]
    square = (terms * weight).T @ terms
    solution = np.linalg.solve(
        square + np.eye(6) * 1e-3 * np.trace(square) / 6, (terms * weight).T @ residual.reshape(-1)
    )
    motion_x, motion_y = np.clip(solution, -MAX_STEP, MAX_STEP).reshape(2, 3)
    # image(x) is prediction(x + motion(x)): what lies at x belongs to x - motion(x).
    step = np.eye(3)
    for row, (x, y, constant) in enumerate((motion_x, motion_y)):
        step[row] -= (x / width, y / height, constant - 0.5 * (x + y))
    return step if np.isfinite(step).all() else None


def _gradients(image_HW3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gray levels per pixel along x and along y."""
    cv2 = import_opencv()
    gradient_x, gradient_y = (cv2.Scharr(image_HW3, cv2.CV_32F, *axis, scale=1 / 32) for axis in ((1, 0), (0, 1)))
    return gradient_x, gradient_y


def _imbalance(image_HW3: np.ndarray, prediction_HW3: np.ndarray, valid_HW: np.ndarray, size: float) -> float:
    """The largest blurred signed difference beyond what benign transformations leave, in gray levels."""
    cv2 = import_opencv()
    blur = max(BALANCE_SHARE * size, MIN_BALANCE_BLUR)
    difference = np.abs(cv2.GaussianBlur((image_HW3 - prediction_HW3) * valid_HW[..., None], (0, 0), blur))
    blurred = cv2.GaussianBlur(prediction_HW3, (0, 0), blur)
    gradient_x, gradient_y = _gradients(blurred)
    curvature = np.abs(cv2.Laplacian(blurred, cv2.CV_32F))
    allowance_gradient = GRADIENT_ALLOWANCE * np.hypot(gradient_x, gradient_y)
    remaining = difference - allowance_gradient - CURVATURE_ALLOWANCE * curvature - LEVEL_ALLOWANCE
    return float(np.maximum(remaining, 0).max())


def _warp_to_frame(image_HW3: np.ndarray, to_image: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Warp the image into the frame, antialiased; return float32 (H, W, 3) and which pixels lie inside the image."""
    cv2 = import_opencv()
    scale = float(np.sqrt(abs(np.linalg.det(to_image[:2, :2]))))
    small, shrink = limit_size(image_HW3, max(image_HW3.shape[:2]) / max(scale, 1.0))
    # Pixel centers: x of the small copy is (x + 0.5) * shrink - 0.5.
    to_small = np.array([[shrink, 0, (shrink - 1) / 2], [0, shrink, (shrink - 1) / 2], [0, 0, 1]])
    matrix = (to_small @ to_image)[:2]
    size_xy = (size[1], size[0])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    frame_HW3 = cv2.warpAffine(small, matrix, size_xy, flags=flags, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    ones = np.ones(small.shape[:2], np.uint8)
    inside = cv2.warpAffine(ones, matrix, size_xy, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
    return frame_HW3, inside > 0
