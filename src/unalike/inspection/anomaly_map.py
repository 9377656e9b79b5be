"""Anomaly maps of images, their scores and the regions above a threshold.

Shape letters: J models, h x w a grid of patches, H x W an image, F width of a patch vector, P values of a position.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from unalike.inspection.anomaly_model import AnomalyModel
from unalike.inspection.patch_features import PatchExtractor, patch_positions
from unalike.numerics.maps import connected_components, gaussian_filter

# At most this many patches make an image's score, so that a small defect counts in a large image too.
MAX_SCORE_PATCHES = 16
MAX_REGIONS = 50


@dataclass(frozen=True)
class AnomalyRegion:
    """A connected region of an anomaly map above the threshold.

    Attributes:
        box: (left, top, right, bottom) in pixels of the image; right and bottom are the first pixels outside.
        score: The highest value in the region.
        area: Number of pixels above the threshold.
    """

    box: tuple[int, int, int, int]
    score: float
    area: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {"box": list(self.box), "score": self.score, "area": self.area}


def anomaly_maps(
    image: Image.Image, extractor: PatchExtractor, models: Sequence[AnomalyModel], smooth: float
) -> list[np.ndarray]:
    """Compute the anomaly map of an RGB image by each of several models, in one pass through the network.

    Args:
        image: The image.
        extractor: Extracts the patches.
        models: The anomaly models (J).
        smooth: Standard deviation of the Gaussian that smooths the maps, in patches.

    Returns:
        float32 (h, w) for each model: the mean over the tiles where they overlap, smoothed; ignored patches are as normal as
        the most normal one of the others.
    """
    grid = extractor.grid_size((image.height, image.width))
    total_Jhw, count_hw = np.zeros((len(models), *grid), np.float32), np.zeros(grid, np.float32)
    for tile in extractor(image):
        size = tile.vectors_hwF.shape[:2]
        window = np.s_[tile.top : tile.top + size[0], tile.left : tile.left + size[1]]
        positions_hwP = patch_positions(tile.top, tile.left, size, grid, extractor.stride)
        for number, model in enumerate(models):
            total_Jhw[number][window] += model.anomaly_map(tile.vectors_hwF, positions_hwP)
        count_hw[window] += 1
    ignored_hw = extractor.ignored_cells((image.height, image.width))
    if ignored_hw is not None:
        for total_hw in total_Jhw:
            rest = (total_hw / count_hw)[~ignored_hw]
            total_hw[ignored_hw] = count_hw[ignored_hw] * (rest.min() if rest.size else 0)
    return [gaussian_filter(total_hw / count_hw, smooth) for total_hw in total_Jhw]


def image_score(map_hw: np.ndarray, top_share: float) -> float:
    """Score an image by the mean of the highest ``top_share`` of its anomaly map.

    At least one and at most ``MAX_SCORE_PATCHES`` patches count.
    """
    count = int(np.clip(round(top_share * map_hw.size), 1, MAX_SCORE_PATCHES))
    return float(np.partition(map_hw, map_hw.size - count, axis=None)[-count:].mean())


def find_regions(
    map_hw: np.ndarray,
    threshold: float,
    size: tuple[int, int],
    extent: tuple[float, float] = (1.0, 1.0),
    limit: int = MAX_REGIONS,
) -> tuple[AnomalyRegion, ...]:
    """Find the connected regions of an anomaly map above a threshold.

    Args:
        map_hw: The anomaly map.
        threshold: NaN finds no regions.
        size: (H, W) of the image, in pixels.
        extent: How many times the image's height and width the map covers; more than 1 where the last patches reach beyond
            the image.
        limit: Number of regions that are returned at most.

    Returns:
        The regions with the highest scores, the highest first.
    """
    if math.isnan(threshold):
        return ()
    pixels_y, pixels_x = size[0] * extent[0] / map_hw.shape[0], size[1] * extent[1] / map_hw.shape[1]
    labels_hw, count = connected_components(map_hw > threshold)
    regions = []
    for label in range(1, count + 1):
        rows, columns = np.nonzero(labels_hw == label)
        box = (
            math.floor(columns.min() * pixels_x), math.floor(rows.min() * pixels_y),
            min(size[1], math.ceil((columns.max() + 1) * pixels_x)), min(size[0], math.ceil((rows.max() + 1) * pixels_y)),
        )  # fmt: skip
        regions.append(AnomalyRegion(box, float(map_hw[rows, columns].max()), round(len(rows) * pixels_x * pixels_y)))
    return tuple(sorted(regions, key=lambda region: (-region.score, region.box))[:limit])
