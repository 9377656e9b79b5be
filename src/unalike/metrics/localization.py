"""Metrics of anomaly localization against ground-truth masks: pixel AUROC and PRO (per-region overlap).

PRO (Bergmann et al., "Uninformed Students", CVPR 2020): the mean share of each defect's pixels above a threshold, against
the share of normal pixels above it (false-positive rate), integrated from 0 to ``MAX_FPR`` and divided by it. A small
defect counts as much as a large one.

Shape letters: N pixels of all images together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from unalike.errors import UnalikeError
from unalike.metrics.roc import auroc
from unalike.numerics.maps import connected_components

MAX_FPR = 0.3


def _check_sizes(anomaly_maps: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> None:
    if len(anomaly_maps) != len(masks):
        raise UnalikeError(f"{len(anomaly_maps)} anomaly maps and {len(masks)} masks", expected="as many each")
    for anomaly_map, mask in zip(anomaly_maps, masks, strict=True):
        if anomaly_map.shape != mask.shape:
            raise UnalikeError(f"an anomaly map of {anomaly_map.shape} and a mask of {mask.shape}", expected="one size")


def pixel_auroc(anomaly_maps: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> float:
    """Compute the area under the ROC curve of defective against normal pixels, over all images.

    Args:
        anomaly_maps: Anomaly maps (H, W).
        masks: Boolean masks of the defects (H, W), one for each map.

    Returns:
        0..1; NaN without defective or without normal pixels.
    """
    _check_sizes(anomaly_maps, masks)
    if not anomaly_maps:
        return math.nan
    defective_N = np.concatenate([anomaly_map[mask] for anomaly_map, mask in zip(anomaly_maps, masks, strict=True)])
    normal_N = np.concatenate([anomaly_map[~mask] for anomaly_map, mask in zip(anomaly_maps, masks, strict=True)])
    return auroc(defective_N, normal_N)


def per_region_overlap(
    anomaly_maps: Sequence[np.ndarray], masks: Sequence[np.ndarray], max_fpr: float = MAX_FPR
) -> float:
    """Compute PRO, the area under the per-region-overlap curve up to a false-positive rate.

    Every value of an anomaly map is a threshold; between two of them the curve is a straight line, so that equal values
    are never divided.

    Args:
        anomaly_maps: Anomaly maps (H, W).
        masks: Boolean masks of the defects (H, W), one for each map.
        max_fpr: The false-positive rate of pixels at which the integration ends.

    Returns:
        0..1; NaN without defective or without normal pixels.
    """
    _check_sizes(anomaly_maps, masks)
    regions, normal = [], []
    for anomaly_map, mask in zip(anomaly_maps, masks, strict=True):
        labels, count = connected_components(mask)
        regions += [np.asarray(anomaly_map[labels == number], np.float64) for number in range(1, count + 1)]
        normal.append(anomaly_map[~mask])
    normal_N = np.concatenate(normal) if normal else np.empty(0)
    if not regions or not len(normal_N):
        return math.nan
    values, weights = [normal_N.astype(np.float64)], [np.zeros(len(normal_N))]
    for region in regions:
        values.append(region)
        weights.append(np.full(len(region), 1 / (len(region) * len(regions))))
    value_N, weight_N = np.concatenate(values), np.concatenate(weights)
    false_N = np.zeros(len(value_N))
    false_N[: len(normal_N)] = 1 / len(normal_N)
    order = np.argsort(-value_N, kind="stable")
    last = np.append(np.flatnonzero(np.diff(value_N[order])), len(value_N) - 1)  # of each run of equal values
    x = np.concatenate([[0.0], np.cumsum(false_N[order])[last]])
    y = np.concatenate([[0.0], np.cumsum(weight_N[order])[last]])
    inside = x <= max_fpr
    end = float(np.interp(max_fpr, x, y)) if not inside.all() else float(y[-1])
    x, y = np.append(x[inside], max_fpr), np.append(y[inside], end)
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) / max_fpr)
