"""Operations on 2-D maps and masks: local means, resizing, Gaussian filter, connected components.

In numpy alone: a deployed recognizer has no scipy.

Shape letters: C channels, h x w a map, H x W an image.
"""

from __future__ import annotations

import numpy as np


def local_mean(map_Chw: np.ndarray, side: int) -> np.ndarray:
    """Average ``side`` x ``side`` cells around each cell (an odd number); beyond the edge the nearest cell repeats. float32."""
    if side == 1:
        return np.asarray(map_Chw, np.float32)
    reach = side // 2
    height, width = map_Chw.shape[-2:]
    wide = np.pad(
        np.asarray(map_Chw, np.float32), [(0, 0)] * (map_Chw.ndim - 2) + [(reach, reach), (reach, reach)], "edge"
    )
    rows = np.zeros((*wide.shape[:-2], height, wide.shape[-1]), np.float32)
    for step in range(side):
        rows += wide[..., step : step + height, :]
    total = np.zeros((*wide.shape[:-2], height, width), np.float32)
    for step in range(side):
        total += rows[..., step : step + width]
    return total / np.float32(side * side)


def resize_map(map_Chw: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize by linear interpolation to ``size`` (H, W), with the centers of cells aligned; the edge repeats outside. float32."""
    out = np.asarray(map_Chw, np.float32)
    for axis, length in ((-2, size[0]), (-1, size[1])):
        have = out.shape[axis]
        if have != length:
            out = _interpolate(out, axis, (np.arange(length) + 0.5) * (have / length) - 0.5)
    return out


def sample_map(map_Chw: np.ndarray, rows_H: np.ndarray, columns_W: np.ndarray) -> np.ndarray:
    """Interpolate a map linearly at these rows and columns.

    Args:
        map_Chw: The map.
        rows_H, columns_W: Places in cells; 0 is the center of the first cell. Beyond the edge the nearest cell repeats.

    Returns:
        float32 (C, H, W).
    """
    return _interpolate(_interpolate(np.asarray(map_Chw, np.float32), -2, rows_H), -1, columns_W)


def _interpolate(map_Chw: np.ndarray, axis: int, places: np.ndarray) -> np.ndarray:
    """The map at ``places`` of one of its last two axes."""
    last = map_Chw.shape[axis] - 1
    places = np.clip(places, 0, last)
    low = np.floor(places).astype(np.int64)
    high = np.minimum(low + 1, last)
    share = (places - low).astype(np.float32)
    share = share[:, None] if axis == -2 else share
    between: np.ndarray = np.take(map_Chw, low, axis) * (1 - share) + np.take(map_Chw, high, axis) * share
    return between


def gaussian_filter(map_hw: np.ndarray, sigma: float) -> np.ndarray:
    """Smooth by a Gaussian of ``sigma`` cells; beyond the edge the kernel is cut off and normalized. float32."""
    out = np.asarray(map_hw, np.float32)
    if sigma <= 0:
        return out
    reach = max(1, round(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2).astype(np.float32)
    for axis in (0, 1):
        length = out.shape[axis]
        total, weight = np.zeros_like(out), np.zeros(length, np.float32)
        for step, share in zip(range(-reach, reach + 1), kernel, strict=True):
            if abs(step) >= length:
                continue
            to, of = slice(max(0, -step), length - max(0, step)), slice(max(0, step), length - max(0, -step))
            if axis == 0:
                total[to] += share * out[of]
            else:
                total[:, to] += share * out[:, of]
            weight[to] += share
        out = total / (weight[:, None] if axis == 0 else weight)
    return out


def connected_components(mask_hw: np.ndarray) -> tuple[np.ndarray, int]:
    """Label the connected components of a mask, 8-connected, as scipy's ``label`` does.

    Returns:
        Labels (h, w), int32: from 1 on in reading order, 0 outside the mask; and the number of components.

    Runs of each row are joined with those of the row above (union-find): the work is per run, not per cell.
    """
    mask_hw = np.asarray(mask_hw, np.bool_)
    height, width = mask_hw.shape
    edges = np.diff(np.pad(mask_hw, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    _, ends = np.nonzero(edges == -1)
    parent = list(range(len(rows)))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    first = np.searchsorted(rows, np.arange(height + 1))
    for row in range(1, height):
        above, here = int(first[row - 1]), int(first[row])
        while above < first[row] and here < first[row + 1]:
            if starts[here] <= ends[above] and starts[above] <= ends[here]:
                a, b = root(above), root(here)
                parent[max(a, b)] = min(a, b)
            if ends[above] < ends[here]:
                above += 1
            else:
                here += 1
    labels_hw = np.zeros((height, width), np.int32)
    numbers: dict[int, int] = {}
    for run in range(len(rows)):
        number = numbers.setdefault(root(run), len(numbers) + 1)
        labels_hw[rows[run], starts[run] : ends[run]] = number
    return labels_hw, len(numbers)
