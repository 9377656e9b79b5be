"""What differs between two aligned pictures as a network sees them: distances of its feature maps, place by place.

A place's features are the mean over a neighbourhood of 3 x 3 cells of each map, and its distance is 1 - cosine, averaged over
the maps: what texture, noise and a few pixels' shift change averages out, a part that is another thing does not.
What counts is set by the pair itself: a share of how far places that have nothing to do with each other lie apart in it, and
so many robust deviations above its median. So another network, or a pair that depth bends, has its own threshold.

Shapes: C channels of a map, h, w the grid of the finest map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unalike.comparison.regions import LEAST_MARGIN, MARGIN_SHARE, Region, clipped
from unalike.metrics.maps import components, local_mean, resized

NEIGHBOURHOOD = 3
# What counts: at least this share of the distance of unrelated places, at least so many robust deviations above the median,
# and never less than the floor. Chosen on the even pairs of benchmarks/patched_photographs.py
# (docs/experiments/comparison.md, 2026-11-26): of 24
# pairs a warp, patches lay 0.87 to 1.5 times the distance of unrelated places apart and the rest, warped mildly, 0.75 at most.
SHARE, DEVIATIONS, FLOOR = 0.6, 6.5, 0.3
# A place belongs to a difference from this share of the threshold on, where it touches one that reaches it.
REACH = 0.75


@dataclass(frozen=True)
class FeatureDifference:
    """``heat_hw``: float32 distance of each place, 0 (the same) to 2; 0 where the reference does not lie.

    ``cell``: image pixels (y, x) a place; ``threshold``: the distance that counts.
    """

    heat_hw: np.ndarray
    known_hw: np.ndarray
    cell: tuple[float, float]
    threshold: float


def distances(
    a_maps: Sequence[np.ndarray], b_maps: Sequence[np.ndarray], size: tuple[int, int]
) -> tuple[np.ndarray, float]:
    """(distance at every place of a grid of ``size``, float32; the median of places half the picture away) of two pictures.

    The maps are float32 (C, h, w), any h and w.
    """
    total_hw, unrelated = np.zeros(size, np.float32), 0.0
    for a_Chw, b_Chw in zip(a_maps, b_maps, strict=True):
        a, b = (_directions(local_mean(found, NEIGHBOURHOOD)) for found in (a_Chw, b_Chw))
        total_hw += resized(_apart(a, b), size)
        y, x = a.shape[1] // 2, a.shape[2] // 2
        far = [_apart(a, np.roll(b, by, (1, 2))) for by in ((y, x), (y, 0), (0, x))]
        unrelated += float(np.median(far))
    return np.clip(total_hw / len(a_maps), 0, 2).astype(np.float32), unrelated / len(a_maps)


def _directions(map_Chw: np.ndarray) -> np.ndarray:
    length_hw = np.sqrt(np.einsum("chw,chw->hw", map_Chw, map_Chw))
    unit_Chw: np.ndarray = map_Chw / np.where(length_hw == 0, 1, length_hw)
    return unit_Chw


def _apart(a_Chw: np.ndarray, b_Chw: np.ndarray) -> np.ndarray:
    """1 - cosine of directions; 0 where a map is silent in both."""
    silent_hw = ~(a_Chw.any(axis=0) | b_Chw.any(axis=0))
    apart_hw: np.ndarray = np.where(silent_hw, 0, 1 - np.einsum("chw,chw->hw", a_Chw, b_Chw))
    return apart_hw


def threshold_of(
    heat_hw: np.ndarray, known_hw: np.ndarray, unrelated: float, *, share: float = SHARE, deviations: float = DEVIATIONS,
    floor: float = FLOOR,
) -> float:  # fmt: skip
    """The distance that counts in this pair, of which unrelated places lie ``unrelated`` apart."""
    least = max(floor, share * unrelated)
    values_N = heat_hw[known_hw]
    if not values_N.size:
        return least
    middle = float(np.median(values_N))
    return max(least, middle + deviations * 1.4826 * float(np.median(np.abs(values_N - middle))))


def find_places(found: FeatureDifference, shape: tuple[int, int], *, margin: int | None = None) -> list[Region]:
    """The regions that differ, the highest score first; ``shape`` (H, W) is the image's, ``margin`` as ``find_regions``."""
    if margin is None:
        margin = max(LEAST_MARGIN, round(min(shape) * MARGIN_SHARE))
    labels_hw, count = components(found.heat_hw > REACH * found.threshold)
    peaks = np.zeros(count + 1)
    np.maximum.at(peaks, labels_hw.ravel(), found.heat_hw.ravel())
    regions = []
    for label in range(1, count + 1):
        if peaks[label] <= found.threshold:
            continue
        rows, columns = np.nonzero(labels_hw == label)
        high, wide = found.cell
        left, top, right, bottom = extent = clipped(columns.min() * wide, rows.min() * high, (columns.max() + 1) * wide,
                                                    (rows.max() + 1) * high, shape)  # fmt: skip
        regions.append(
            Region(
                clipped(left - margin, top - margin, right + margin, bottom + margin, shape), extent,
                round(float(peaks[label]) / found.threshold, 2), round(len(rows) * high * wide),
                round(float(peaks[label]), 3), "other features", "features",
            )
        )  # fmt: skip
    return sorted(regions, key=lambda region: (-region.score, region.box))
