"""Compare the feature maps of two aligned images: cosine distance per grid cell, and regions above a threshold.

A cell's feature is the mean over a neighborhood of 3 x 3 cells of each map, and its distance is 1 - cosine, averaged over
the maps: texture, noise and shifts by a few pixels average out, a part that was replaced does not. The threshold is set by
the pair itself: a share of the distance between unrelated places of the two images, and a number of robust deviations above
the median distance. So another network, or a pair with parallax, has its own threshold.

Shapes: C channels of a map, h, w the grid of the finest map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unalike.comparison.regions import DifferenceRegion, clip_box, default_margin
from unalike.numerics.maps import connected_components, local_mean, resize_map

NEIGHBORHOOD = 3
# The threshold: at least this share of the distance of unrelated places, at least so many robust deviations above the
# median, and never less than the floor. Chosen on the even pairs of benchmarks/patched_photographs.py
# (docs/experiments/comparison.md, 2026-11-26): of 24 pairs a warp, patches lay 0.87 to 1.5 times the distance of unrelated
# places apart and the rest, warped mildly, 0.75 at most.
SHARE, DEVIATIONS, FLOOR = 0.6, 6.5, 0.3
# Cells from this share of the threshold on belong to a region, if they touch a cell that reaches the threshold.
EXTENT_SHARE = 0.75


@dataclass(frozen=True)
class FeatureDifference:
    """The feature distances of one comparison.

    Attributes:
        heat_hw: float32, the distance of each cell, 0 (equal) to 2; 0 outside the reference.
        known_hw: bool, cells that lie on the reference and were compared.
        cell: Image pixels per cell, (y, x).
        threshold: Distance from which a difference counts.
    """

    heat_hw: np.ndarray
    known_hw: np.ndarray
    cell: tuple[float, float]
    threshold: float


def compute_distances(
    a_maps: Sequence[np.ndarray], b_maps: Sequence[np.ndarray], size: tuple[int, int]
) -> tuple[np.ndarray, float]:
    """Compute the feature distance of two images in every cell.

    Args:
        a_maps: Feature maps of one image, float32 (C, h, w), any h and w.
        b_maps: As many maps of the other, of the same shapes.
        size: Grid (h, w) of the result.

    Returns:
        The distances, float32 of ``size``, and the median distance of unrelated places (half the image apart).
    """
    total_hw, far_distance = np.zeros(size, np.float32), 0.0
    for a_Chw, b_Chw in zip(a_maps, b_maps, strict=True):
        a, b = (_normalize(local_mean(maps, NEIGHBORHOOD)) for maps in (a_Chw, b_Chw))
        total_hw += resize_map(_cosine_distance(a, b), size)
        y, x = a.shape[1] // 2, a.shape[2] // 2
        far = [_cosine_distance(a, np.roll(b, shift, (1, 2))) for shift in ((y, x), (y, 0), (0, x))]
        far_distance += float(np.median(far))
    return np.clip(total_hw / len(a_maps), 0, 2).astype(np.float32), far_distance / len(a_maps)


def _normalize(map_Chw: np.ndarray) -> np.ndarray:
    length_hw = np.sqrt(np.einsum("chw,chw->hw", map_Chw, map_Chw))
    unit_Chw: np.ndarray = map_Chw / np.where(length_hw == 0, 1, length_hw)
    return unit_Chw


def _cosine_distance(a_Chw: np.ndarray, b_Chw: np.ndarray) -> np.ndarray:
    """1 - cosine of unit vectors; 0 where both are zero."""
    zero_hw = ~(a_Chw.any(axis=0) | b_Chw.any(axis=0))
    distance_hw: np.ndarray = np.where(zero_hw, 0, 1 - np.einsum("chw,chw->hw", a_Chw, b_Chw))
    return distance_hw


def compute_threshold(
    heat_hw: np.ndarray, known_hw: np.ndarray, far_distance: float, *, share: float = SHARE,
    deviations: float = DEVIATIONS,
    floor: float = FLOOR,
) -> float:  # fmt: skip
    """Compute the distance from which a difference counts in this pair.

    Args:
        heat_hw: Distances.
        known_hw: Which of them are known.
        far_distance: Distance of unrelated places of the two images.
        share: Least threshold as a share of ``far_distance``.
        deviations: Least threshold as robust deviations (1.4826 x MAD) above the median distance.
        floor: Least threshold.
    """
    least = max(floor, share * far_distance)
    values_N = heat_hw[known_hw]
    if not values_N.size:
        return least
    median = float(np.median(values_N))
    return max(least, median + deviations * 1.4826 * float(np.median(np.abs(values_N - median))))


def find_feature_regions(
    difference: FeatureDifference, shape: tuple[int, int], *, margin: int | None = None
) -> list[DifferenceRegion]:
    """Find the regions whose features differ, the highest score first.

    Args:
        difference: The distances.
        shape: (H, W) of the image.
        margin: Pixels around a region's box; a share of the shorter side if unset.
    """
    if margin is None:
        margin = default_margin(shape)
    labels_hw, count = connected_components(difference.heat_hw > EXTENT_SHARE * difference.threshold)
    peaks = np.zeros(count + 1)
    np.maximum.at(peaks, labels_hw.ravel(), difference.heat_hw.ravel())
    regions = []
    for label in range(1, count + 1):
        if peaks[label] <= difference.threshold:
            continue
        rows, columns = np.nonzero(labels_hw == label)
        high, wide = difference.cell
        left, top, right, bottom = extent = clip_box(columns.min() * wide, rows.min() * high, (columns.max() + 1) * wide,
                                                     (rows.max() + 1) * high, shape)  # fmt: skip
        regions.append(
            DifferenceRegion(
                box=clip_box(left - margin, top - margin, right + margin, bottom + margin, shape),
                extent=extent,
                score=round(float(peaks[label]) / difference.threshold, 2),
                area=round(len(rows) * high * wide),
                contrast=round(float(peaks[label]), 3),
                change="other features",
                level="features",
            )
        )
    return sorted(regions, key=lambda region: (-region.score, region.box))
