"""Resampling of the images of a pair: to the scale of the coarser one, and to the size of previews.

Shapes: H, W of an image, C channels (1 or 3).
"""

from __future__ import annotations

import numpy as np

from unalike.comparison.deformation import warp_window
from unalike.comparison.lighting import LightingCorrection
from unalike.comparison.registration import Registration, import_opencv, scale_matrix
from unalike.comparison.result import PREVIEW_SIDE

# The image is resampled to the reference's scale, or the reference to the image's, from this ratio on.
RESAMPLE_RATIO = 1.2


def resample_to_coarser(
    reference_HWC: np.ndarray, image_HWC: np.ndarray, registration: Registration
) -> tuple[np.ndarray, np.ndarray, Registration, float]:
    """Resample both images to the scale of the coarser one.

    Returns:
        The reference, the image, their registration, and how many pixels of the original image a pixel now covers.
    """
    matrix, flow, scale = registration.matrix_33, registration.flow_GhGw2, 1.0
    if registration.scale > RESAMPLE_RATIO:  # the reference is finer
        height, width = (max(8, round(side / registration.scale)) for side in reference_HWC.shape[:2])
        matrix = np.linalg.inv(scale_matrix(reference_HWC.shape[1] / width, reference_HWC.shape[0] / height)) @ matrix
        reference_HWC = _resize(reference_HWC, height, width)
    elif registration.scale < 1 / RESAMPLE_RATIO:  # the image is finer
        height, width = (max(8, round(side * registration.scale)) for side in image_HWC.shape[:2])
        scale = image_HWC.shape[1] / width
        matrix = matrix @ scale_matrix(image_HWC.shape[1] / width, image_HWC.shape[0] / height)
        image_HWC = _resize(image_HWC, height, width)
        flow = None if flow is None else flow / np.float32(scale)
    resampled = Registration(matrix, registration.quality, registration.overlap, registration.method, flow)
    return reference_HWC, image_HWC, resampled, scale


def make_previews(
    reference_HWC: np.ndarray,
    image_HWC: np.ndarray,
    registration: Registration,
    lighting: LightingCorrection | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the image and the aligned reference in its lighting, uint8 RGB, at most ``PREVIEW_SIDE`` a side."""
    height, width = image_HWC.shape[:2]
    factor = max(1.0, max(height, width) / PREVIEW_SIDE)
    small_h, small_w = max(1, round(height / factor)), max(1, round(width / factor))
    small = _resize(image_HWC, small_h, small_w)
    a_h, a_w = (max(1, round(side / factor)) for side in reference_HWC.shape[:2])
    small_reference = _resize(reference_HWC, a_h, a_w)
    to_reference = scale_matrix(reference_HWC.shape[1] / a_w, reference_HWC.shape[0] / a_h)
    to_image = scale_matrix(width / small_w, height / small_h)
    flow = None if registration.flow_GhGw2 is None else registration.flow_GhGw2 / np.float32(factor)
    matrix = np.linalg.inv(to_reference) @ registration.matrix_33 @ to_image
    window, shape = (0, 0, small_w, small_h), (small_h, small_w)
    warped, inside = warp_window(small_reference, Registration(matrix, 0.0, 1.0, "", flow), shape, window)
    if lighting is not None:
        warped = lighting.apply(warped, window, shape)
    warped = np.where(inside[..., None], warped, small).astype(np.uint8)
    return np.broadcast_to(small, (*shape, 3)).copy(), np.broadcast_to(warped, (*shape, 3)).copy()


def shrink(pixels_HWC: np.ndarray) -> np.ndarray:
    """The image at the size of a preview, uint8 RGB."""
    height, width = pixels_HWC.shape[:2]
    factor = max(1.0, max(height, width) / PREVIEW_SIDE)
    small = _resize(pixels_HWC, max(1, round(height / factor)), max(1, round(width / factor)))
    return np.broadcast_to(small, (*small.shape[:2], 3)).copy()


def fit_mask(ignored_HW: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray | None:
    """The mask of the reference as uint8 (H, W, 1), at the size at which the reference is compared."""
    if ignored_HW is None:
        return None
    return _resize(ignored_HW.astype(np.uint8) * 255, shape[0], shape[1])


def _resize(pixels_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    cv2 = import_opencv()
    resized: np.ndarray = cv2.resize(pixels_HWC, (width, height), interpolation=cv2.INTER_AREA)
    return resized.reshape(height, width, -1)
