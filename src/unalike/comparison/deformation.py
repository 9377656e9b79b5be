"""Non-rigid registration: a smooth displacement field between two aligned images.

It models what a lens, a scanner's transport or soft material adds to a motion. A coarse grid of displacements is fitted by
Gauss-Newton steps on blurred images (Lucas and Kanade, 1981, one cell per window), with a penalty on the difference of
neighboring cells (Horn and Schunck, 1981), which determines what an edge alone cannot: the displacement along it. A cell is
far larger than a defect, so that the field cannot remove a defect.

Shapes: H, W of the image, Gh, Gw of the grid.
"""

from __future__ import annotations

import numpy as np

from unalike.comparison.registration import Registration, band_pass, correlate, downscale, import_opencv
from unalike.errors import SpecError

# A cell's side as a share of the shorter side, and the most cells along one side: at most 2 x 16 x 16 unknowns.
CELL_SHARE, MAX_CELLS = 0.1, 16
STIFFNESS = 0.3
# (share of the size, blur in pixels) of each step: wide blurs first, so that edges some pixels apart still overlap.
STEPS = ((0.5, 2.0), (0.5, 2.0), (0.5, 1.5), (0.5, 1.0), (1.0, 1.5), (1.0, 1.5))
# Largest displacement, in pixels of the level at which the field is fitted.
MAX_DISPLACEMENT = 8.0
MAX_SIDE = 1280


def fit_deformation(
    reference_HW: np.ndarray, image_HW: np.ndarray, registration: Registration, *, stiffness: float = STIFFNESS
) -> Registration:
    """Add a smooth displacement field to a registration.

    Args:
        reference_HW: Grayscale uint8 image.
        image_HW: Grayscale uint8 image of any size.
        registration: The alignment to start from.
        stiffness: Weight of the smoothness penalty relative to the data.

    Returns:
        The registration with ``flow_GhGw2``; as it was where the field makes the images agree less.
    """
    small_b, to_image = downscale(image_HW, MAX_SIDE)
    matrix = registration.matrix_33 @ to_image
    # The reference at the same scale, so that a pixel of both has the same size.
    factor = max(1.0, registration.scale * to_image[0, 0])
    small_a, to_reference = downscale(reference_HW, max(8, round(max(reference_HW.shape) / factor)))
    inner = np.linalg.inv(to_reference) @ matrix
    flow = _fit_flow(small_a, small_b, inner, stiffness)
    band_a, band_b = band_pass(small_a), band_pass(small_b)
    quality_before, _ = correlate(band_a, band_b, inner)
    quality_after = _correlate_with_flow(band_a, band_b, inner, flow)
    if quality_after < quality_before:
        return registration
    scale = np.array([to_image[0, 0], to_image[1, 1]], np.float32)
    return Registration(registration.matrix_33, max(registration.quality, quality_after), registration.overlap,
                        registration.method, flow * scale)  # fmt: skip


def map_coordinates(
    matrix_33: np.ndarray,
    flow_GhGw2: np.ndarray | None,
    shape: tuple[int, ...],
    window: tuple[int, int, int, int] | None = None,
) -> np.ndarray:
    """Map the pixels of an image to coordinates in the reference.

    Args:
        matrix_33: From pixels of the image to pixels of the reference.
        flow_GhGw2: Displacement field over the whole image, or None.
        shape: (H, W) of the whole image, which the grid of the field spans.
        window: (left, top, right, bottom) of the pixels to map; the whole image if unset.

    Returns:
        float32 (h, w, 2) of (x, y).
    """
    cv2 = import_opencv()
    height, width = shape
    left, top, right, bottom = window or (0, 0, width, height)
    x_HW = np.broadcast_to(np.arange(left, right, dtype=np.float32)[None], (bottom - top, right - left))
    y_HW = np.broadcast_to(np.arange(top, bottom, dtype=np.float32)[:, None], (bottom - top, right - left))
    if flow_GhGw2 is not None:
        rows, columns = flow_GhGw2.shape[:2]
        # Cell centers as INTER_AREA, which averaged over the cells, places them.
        grid_x, grid_y = (x_HW + 0.5) * (columns / width) - 0.5, (y_HW + 0.5) * (rows / height) - 0.5
        shift = cv2.remap(flow_GhGw2, grid_x, grid_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        x_HW, y_HW = x_HW + shift[..., 0], y_HW + shift[..., 1]
    # Python floats keep float32 arrays in float32.
    (m00, m01, m02), (m10, m11, m12), (m20, m21, _) = (matrix_33 / matrix_33[2, 2]).tolist()
    coordinates = np.empty((bottom - top, right - left, 2), np.float32)
    coordinates[..., 0] = m00 * x_HW + m01 * y_HW + m02
    coordinates[..., 1] = m10 * x_HW + m11 * y_HW + m12
    if m20 or m21:
        coordinates /= (m20 * x_HW + m21 * y_HW + 1.0)[..., None]
    return coordinates


def warp_window(
    reference_HWC: np.ndarray, registration: Registration, shape: tuple[int, ...], window: tuple[int, int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Warp the part of the reference that lies in a window of the image; only that part of it is read.

    Args:
        reference_HWC: uint8.
        registration: How the image is aligned to the reference.
        shape: (H, W) of the whole image.
        window: (left, top, right, bottom) in the image.

    Returns:
        The warped reference, uint8 (h, w, C), and the bool mask (h, w) of where it has pixels.

    Raises:
        SpecError: The window covers more of the reference than OpenCV can address.
    """
    cv2 = import_opencv()
    coordinates = map_coordinates(registration.matrix_33, registration.flow_GhGw2, shape, window)
    height, width = reference_HWC.shape[:2]
    x, y = coordinates[..., 0], coordinates[..., 1]
    # A tolerance of half a pixel: the outermost row of a perfectly aligned image is still compared.
    inside = (x > -0.6) & (y > -0.6) & (x < width - 0.4) & (y < height - 0.4)
    if not inside.any():
        return np.zeros((*coordinates.shape[:2], *reference_HWC.shape[2:]), np.uint8), inside
    left, top = max(0, int(x[inside].min()) - 2), max(0, int(y[inside].min()) - 2)
    right, bottom = min(width, int(x[inside].max()) + 3), min(height, int(y[inside].max()) + 3)
    coordinates -= np.array([left, top], np.float32)
    source = np.ascontiguousarray(reference_HWC[top:bottom, left:right])
    if max(source.shape[:2]) > 32000:  # cv2.remap uses 16-bit coordinates
        raise SpecError("a tile of the image covers more than 32,000 pixels of the reference", remedy="compare smaller images")  # fmt: skip
    warped = cv2.remap(source, coordinates, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return warped.reshape(*coordinates.shape[:2], *reference_HWC.shape[2:]), inside


def warp_ignored(
    ignored_HW1: np.ndarray | None,
    registration: Registration,
    shape: tuple[int, ...],
    window: tuple[int, int, int, int],
) -> np.ndarray:
    """Return the bool mask (h, w) of the pixels of a window of the image that are ignored in the reference.

    Args:
        ignored_HW1: uint8 mask of the reference, above 0 where ignored; None for nothing.
        registration: How the image is aligned to the reference.
        shape: (H, W) of the whole image.
        window: (left, top, right, bottom) in the image.
    """
    left, top, right, bottom = window
    if ignored_HW1 is None:
        return np.zeros((bottom - top, right - left), bool)
    warped, inside = warp_window(ignored_HW1, registration, shape, window)
    mask: np.ndarray = (warped[..., 0] > 0) & inside
    return mask


def _grid_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    cell = max(24.0, min(shape) * CELL_SHARE, max(shape) / MAX_CELLS)
    return max(2, round(shape[0] / cell)), max(2, round(shape[1] / cell))


def _fit_flow(small_a: np.ndarray, small_b: np.ndarray, inner_33: np.ndarray, stiffness: float) -> np.ndarray:
    rows, columns = _grid_shape(small_b.shape)
    laplacian = _grid_laplacian(rows, columns)
    flow = np.zeros((rows, columns, 2), np.float32)
    for share, blur in STEPS:
        a, to_a = downscale(small_a, round(max(small_a.shape) * share))
        b, to_b = downscale(small_b, round(max(small_b.shape) * share))
        scale = np.array([to_b[0, 0], to_b[1, 1]], np.float32)
        step = _gauss_newton_step(
            a, b, np.linalg.inv(to_a) @ inner_33 @ to_b, flow / scale, blur, stiffness * laplacian
        )
        flow = np.clip(flow + np.clip(step, -3, 3) * scale, -MAX_DISPLACEMENT, MAX_DISPLACEMENT).astype(np.float32)
    return flow


def _gauss_newton_step(
    a_HW: np.ndarray,
    b_HW: np.ndarray,
    matrix_33: np.ndarray,
    flow_GhGw2: np.ndarray,
    blur: float,
    laplacian: np.ndarray,
) -> np.ndarray:
    """Compute the update of the flow, in pixels of the images, (Gh, Gw, 2)."""
    cv2 = import_opencv()
    rows, columns = flow_GhGw2.shape[:2]
    coordinates = map_coordinates(matrix_33, flow_GhGw2, b_HW.shape)
    warped = cv2.remap(a_HW, coordinates, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    a, b = (cv2.GaussianBlur(m.astype(np.float32), (0, 0), blur) for m in (warped, b_HW))
    a = _match_brightness(a, b)
    mean = (a + b) / 2
    gradient_x, gradient_y = (cv2.Sobel(mean, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1)))
    residual = b - a
    # A residual larger than a displacement of 1.5 pixels explains is likely a defect: it counts less (Cauchy weights).
    inside = _inside(coordinates, a_HW.shape)
    weight = inside / (1 + (residual / (1.5 * cv2.magnitude(gradient_x, gradient_y) + 10)) ** 2)
    products = (
        gradient_x * gradient_x, gradient_x * gradient_y, gradient_y * gradient_y,
        gradient_x * residual, gradient_y * residual,
    )  # fmt: skip
    xx, xy, yy, rx, ry = (
        cv2.resize(product * weight, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float64).ravel()
        for product in products
    )
    strength = float((xx + yy).mean()) / 2
    if strength <= 0:
        return np.zeros_like(flow_GhGw2)
    smoothness = strength * laplacian
    system = np.block([[np.diag(xx) + smoothness, np.diag(xy)], [np.diag(xy), np.diag(yy) + smoothness]])
    system[np.diag_indices(2 * rows * columns)] += 1e-4 * strength
    penalty_x, penalty_y = (smoothness @ flow_GhGw2[..., axis].ravel() for axis in (0, 1))
    step: np.ndarray = np.linalg.solve(system, np.concatenate([rx - penalty_x, ry - penalty_y]))
    return step.reshape(2, rows, columns).transpose(1, 2, 0)


def _inside(coordinates_HW2: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Which coordinates (x, y) lie in an image of ``shape``; bool (H, W)."""
    x, y = coordinates_HW2[..., 0], coordinates_HW2[..., 1]
    inside: np.ndarray = (x >= 0) & (y >= 0) & (x <= shape[1] - 1) & (y <= shape[0] - 1)
    return inside


def _match_brightness(a_HW: np.ndarray, b_HW: np.ndarray) -> np.ndarray:
    """Return ``a`` with the mean and standard deviation of ``b``, so that residuals are differences of structure."""
    spread = float(a_HW.std())
    gain = float(np.clip(b_HW.std() / spread, 0.2, 5.0)) if spread > 1e-3 else 1.0
    result: np.ndarray = (a_HW - a_HW.mean()) * gain + b_HW.mean()
    return result


def _grid_laplacian(rows: int, columns: int) -> np.ndarray:
    """The graph Laplacian of the grid: its quadratic form is the sum of squared differences of neighbors."""
    index = np.arange(rows * columns).reshape(rows, columns)
    laplacian = np.zeros((rows * columns,) * 2)
    for first, second in ((index[:, :-1], index[:, 1:]), (index[:-1], index[1:])):
        i, j = first.ravel(), second.ravel()
        np.add.at(laplacian, (i, i), 1)
        np.add.at(laplacian, (j, j), 1)
        np.add.at(laplacian, (i, j), -1)
        np.add.at(laplacian, (j, i), -1)
    return laplacian


def _correlate_with_flow(band_a: np.ndarray, band_b: np.ndarray, inner_33: np.ndarray, flow: np.ndarray) -> float:
    """As ``correlate``, with a displacement field."""
    cv2 = import_opencv()
    coordinates = map_coordinates(inner_33, flow, band_b.shape)
    warped = cv2.remap(band_a, coordinates, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = _inside(coordinates, band_a.shape)
    a, b = warped[inside], band_b[inside]
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (np.sqrt((a * a).sum() * (b * b).sum()) + 1e-12))
