"""Small smooth bends between two aligned pictures: what a lens, a scanner's transport or soft material adds to a motion.

A coarse grid of shifts is fitted by Gauss-Newton steps on blurred pictures (Lucas and Kanade, 1981, one cell a window),
with a penalty on the difference of neighbouring cells (Horn and Schunck, 1981) that settles what an edge alone cannot say:
the shift along it. A cell is far larger than a defect, so a defect cannot be bent away. Shapes: H, W of the image, Gh, Gw
of the grid.
"""

from __future__ import annotations

import numpy as np

from unalike.comparison.registration import Registration, agreement, band_passed, opencv, shrunk

# A cell's side as a share of the shorter side, and the most cells along one side: twice (2 x 16 x 16) unknowns are solved.
CELL_SHARE, MOST_CELLS = 0.1, 16
STIFFNESS = 0.3
# (share of the size, blur in pixels of it) of each step: wide first, so that edges some pixels apart still see each other.
STEPS = ((0.5, 2.0), (0.5, 2.0), (0.5, 1.5), (0.5, 1.0), (1.0, 1.5), (1.0, 1.5))
# Shifts stay within this many pixels of the level at which they are fitted.
LIMIT = 8.0
SIDE = 1280


def bend(
    reference_HW: np.ndarray, image_HW: np.ndarray, found: Registration, *, stiffness: float = STIFFNESS
) -> Registration:
    """``found`` with a smooth field of shifts added; as it was where the field makes the pictures agree less.

    Grey uint8 pictures. The field is in image pixels (``Registration.flow_GhGw2``).
    """
    small_b, up_b = shrunk(image_HW, SIDE)
    matrix = found.matrix_33 @ up_b
    # The reference at the same scale, so that a pixel of both means the same.
    factor = max(1.0, found.scale * up_b[0, 0])
    small_a, up_a = shrunk(reference_HW, max(8, round(max(reference_HW.shape) / factor)))
    inner = np.linalg.inv(up_a) @ matrix
    flow = _fitted(small_a, small_b, inner, stiffness)
    fine_a, fine_b = band_passed(small_a), band_passed(small_b)
    straight, _ = agreement(fine_a, fine_b, inner)
    bent = _agreement_bent(fine_a, fine_b, inner, flow)
    if bent < straight:
        return found
    scale = np.array([up_b[0, 0], up_b[1, 1]], np.float32)
    return Registration(found.matrix_33, max(found.quality, bent), found.overlap, found.method, flow * scale)


def coordinates(
    matrix_33: np.ndarray,
    flow_GhGw2: np.ndarray | None,
    shape: tuple[int, int],
    window: tuple[int, int, int, int] | None = None,
) -> np.ndarray:
    """Where the image's pixels lie in the reference, float32 (h, w, 2) of (x, y), for a ``window`` (left, top, right, bottom).

    ``shape`` is the whole image's (H, W): the flow's grid spans it.
    """
    cv2 = opencv()
    height, width = shape
    left, top, right, bottom = window or (0, 0, width, height)
    x_HW = np.broadcast_to(np.arange(left, right, dtype=np.float32)[None], (bottom - top, right - left))
    y_HW = np.broadcast_to(np.arange(top, bottom, dtype=np.float32)[:, None], (bottom - top, right - left))
    if flow_GhGw2 is not None:
        rows, columns = flow_GhGw2.shape[:2]
        # A cell's centre is where INTER_AREA, which gathered it, has it.
        grid_x, grid_y = (x_HW + 0.5) * (columns / width) - 0.5, (y_HW + 0.5) * (rows / height) - 0.5
        shift = cv2.remap(flow_GhGw2, grid_x, grid_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        x_HW, y_HW = x_HW + shift[..., 0], y_HW + shift[..., 1]
    # Python's floats leave float32 arrays what they are.
    (m00, m01, m02), (m10, m11, m12), (m20, m21, _) = (matrix_33 / matrix_33[2, 2]).tolist()
    place = np.empty((bottom - top, right - left, 2), np.float32)
    place[..., 0] = m00 * x_HW + m01 * y_HW + m02
    place[..., 1] = m10 * x_HW + m11 * y_HW + m12
    if m20 or m21:
        place /= (m20 * x_HW + m21 * y_HW + 1.0)[..., None]
    return place


def _grid(shape: tuple[int, ...]) -> tuple[int, int]:
    cell = max(24.0, min(shape) * CELL_SHARE, max(shape) / MOST_CELLS)
    return max(2, round(shape[0] / cell)), max(2, round(shape[1] / cell))


def _fitted(small_a: np.ndarray, small_b: np.ndarray, inner_33: np.ndarray, stiffness: float) -> np.ndarray:
    rows, columns = _grid(small_b.shape)
    springs = _springs(rows, columns)
    flow = np.zeros((rows, columns, 2), np.float32)
    for share, blur in STEPS:
        a, up_a = shrunk(small_a, round(max(small_a.shape) * share))
        b, up_b = shrunk(small_b, round(max(small_b.shape) * share))
        scale = np.array([up_b[0, 0], up_b[1, 1]], np.float32)
        step = _step(a, b, np.linalg.inv(up_a) @ inner_33 @ up_b, flow / scale, blur, stiffness * springs)
        flow = np.clip(flow + np.clip(step, -3, 3) * scale, -LIMIT, LIMIT).astype(np.float32)
    return flow


def _step(
    a_HW: np.ndarray, b_HW: np.ndarray, matrix_33: np.ndarray, flow_GhGw2: np.ndarray, blur: float, springs: np.ndarray
) -> np.ndarray:
    """One Gauss-Newton step: what is to be added to the flow, in the pictures' pixels, (Gh, Gw, 2)."""
    cv2 = opencv()
    rows, columns = flow_GhGw2.shape[:2]
    place = coordinates(matrix_33, flow_GhGw2, b_HW.shape)  # type: ignore[arg-type]
    seen = cv2.remap(a_HW, place, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    a, b = (cv2.GaussianBlur(m.astype(np.float32), (0, 0), blur) for m in (seen, b_HW))
    a, b = _equally_lit(a, b)
    mean = (a + b) / 2
    slope_x, slope_y = (cv2.Sobel(mean, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1)))
    gap = b - a
    # A gap beyond what a shift of 1.5 pixels explains is rather a defect: it counts less (Cauchy weights).
    weight = _inside(place, a_HW.shape) / (1 + (gap / (1.5 * cv2.magnitude(slope_x, slope_y) + 10)) ** 2)
    xx, xy, yy, rx, ry = (
        cv2.resize(product * weight, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float64).ravel()
        for product in (slope_x * slope_x, slope_x * slope_y, slope_y * slope_y, slope_x * gap, slope_y * gap)
    )
    pull = float((xx + yy).mean()) / 2
    if pull <= 0:
        return np.zeros_like(flow_GhGw2)
    tension = pull * springs
    system = np.block([[np.diag(xx) + tension, np.diag(xy)], [np.diag(xy), np.diag(yy) + tension]])
    system[np.diag_indices(2 * rows * columns)] += 1e-4 * pull
    held = [tension @ flow_GhGw2[..., axis].ravel() for axis in (0, 1)]
    step: np.ndarray = np.linalg.solve(system, np.concatenate([rx - held[0], ry - held[1]]))
    return step.reshape(2, rows, columns).transpose(1, 2, 0)


def _inside(place_HW2: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Which places lie in a picture of ``shape``."""
    x, y = place_HW2[..., 0], place_HW2[..., 1]
    inside: np.ndarray = (x >= 0) & (y >= 0) & (x <= shape[1] - 1) & (y <= shape[0] - 1)
    return inside


def _equally_lit(a_HW: np.ndarray, b_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``a`` brought to the mean and spread of ``b``: gaps are then differences of structure."""
    spread = float(a_HW.std())
    gain = float(np.clip(b_HW.std() / spread, 0.2, 5.0)) if spread > 1e-3 else 1.0
    return (a_HW - a_HW.mean()) * gain + b_HW.mean(), b_HW


def _springs(rows: int, columns: int) -> np.ndarray:
    """The graph Laplacian of the grid: its quadratic form is the sum of squared differences of neighbours."""
    place = np.arange(rows * columns).reshape(rows, columns)
    springs = np.zeros((rows * columns,) * 2)
    for one, other in ((place[:, :-1], place[:, 1:]), (place[:-1], place[1:])):
        i, j = one.ravel(), other.ravel()
        np.add.at(springs, (i, i), 1)
        np.add.at(springs, (j, j), 1)
        np.add.at(springs, (i, j), -1)
        np.add.at(springs, (j, i), -1)
    return springs


def _agreement_bent(fine_a: np.ndarray, fine_b: np.ndarray, inner_33: np.ndarray, flow: np.ndarray) -> float:
    """As ``agreement``, with the flow."""
    cv2 = opencv()
    place = coordinates(inner_33, flow, fine_b.shape)  # type: ignore[arg-type]
    seen = cv2.remap(fine_a, place, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = _inside(place, fine_a.shape)
    a, b = seen[inside], fine_b[inside]
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (np.sqrt((a * a).sum() * (b * b).sum()) + 1e-12))
