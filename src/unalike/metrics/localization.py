"""How well a heat map finds what a mask shows: pixel AUROC and PRO.

PRO (Bergmann et al., "Uninformed Students", CVPR 2020): the mean share of each defect's pixels above a threshold, against
the share of good pixels above it, integrated from 0 to ``LIMIT`` of the latter and divided by it. So a small defect counts
as much as a large one.

Shape letters: N pixels of all images together, R defects (connected parts of masks).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from unalike.errors import UnalikeError
from unalike.metrics.maps import components
from unalike.metrics.roc import auroc

LIMIT = 0.3


def _checked(heats: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> None:
    if len(heats) != len(masks):
        raise UnalikeError(f"{len(heats)} heat maps and {len(masks)} masks", expected="as many each")
    for heat, mask in zip(heats, masks, strict=True):
        if heat.shape != mask.shape:
            raise UnalikeError(f"a heat map of {heat.shape} and a mask of {mask.shape}", expected="one size")


def pixel_auroc(heats: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> float:
    """The probability (0..1) that a defective pixel is hotter than a good one, over all images; NaN without either."""
    _checked(heats, masks)
    if not heats:
        return math.nan
    hot = np.concatenate([heat[mask] for heat, mask in zip(heats, masks, strict=True)])
    cold = np.concatenate([heat[~mask] for heat, mask in zip(heats, masks, strict=True)])
    return auroc(hot, cold)


def region_overlap(heats: Sequence[np.ndarray], masks: Sequence[np.ndarray], limit: float = LIMIT) -> float:
    """PRO, 0..1; NaN where no mask shows anything or no pixel is good.

    Every value of a heat map is tried as the threshold; between two of them the curve is a straight line, so that equal
    values are never divided.
    """
    _checked(heats, masks)
    parts, cold = [], []
    for heat, mask in zip(heats, masks, strict=True):
        labels, count = components(mask)
        parts += [np.asarray(heat[labels == number], np.float64) for number in range(1, count + 1)]
        cold.append(heat[~mask])
    good_N = np.concatenate(cold) if cold else np.empty(0)
    if not parts or not len(good_N):
        return math.nan
    values, weights = [good_N.astype(np.float64)], [np.zeros(len(good_N))]
    for part in parts:
        values.append(part)
        weights.append(np.full(len(part), 1 / (len(part) * len(parts))))
    value_N, weight_N = np.concatenate(values), np.concatenate(weights)
    false_N = np.zeros(len(value_N))
    false_N[: len(good_N)] = 1 / len(good_N)
    order = np.argsort(-value_N, kind="stable")
    last = np.append(np.flatnonzero(np.diff(value_N[order])), len(value_N) - 1)  # of each run of equal values
    x = np.concatenate([[0.0], np.cumsum(false_N[order])[last]])
    y = np.concatenate([[0.0], np.cumsum(weight_N[order])[last]])
    inside = x <= limit
    end = float(np.interp(limit, x, y)) if not inside.all() else float(y[-1])
    x, y = np.append(x[inside], limit), np.append(y[inside], end)
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) / limit)
