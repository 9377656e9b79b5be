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


@dataclass(frozen=True, eq=False)
class AnomalyMaps:
    """The two anomaly maps of an image by one model.

    Attributes:
        score_hw: float32, in units of the local spread: what the image is scored by.
        distance_hw: float32, the plain distances.
    """

    score_hw: np.ndarray
    distance_hw: np.ndarray

    def localize(self, top_share: float) -> np.ndarray:
        """The distances by one factor, so that they give the same ``image_score`` as the scores; float32 (h, w).

        The highest value is at least the score, so that an image above a threshold has a region above it.
        """
        score, own_score = image_score(self.score_hw, top_share), image_score(self.distance_hw, top_share)
        if own_score <= 0:
            return self.score_hw
        map_hw: np.ndarray = self.distance_hw * np.float32(score / own_score)
        highest = np.unravel_index(map_hw.argmax(), map_hw.shape)
        map_hw[highest] = max(map_hw[highest], np.float32(score))
        return map_hw


def anomaly_maps(
    image: Image.Image, extractor: PatchExtractor, models: Sequence[AnomalyModel], smooth: float
) -> list[AnomalyMaps]:
    """Compute the anomaly maps of an RGB image by each of several models, in one pass through the network.

    Args:
        image: The image.
        extractor: Extracts the patches.
        models: The anomaly models (J).
        smooth: Standard deviation of the Gaussian that smooths the maps, in patches.

    Returns:
        The maps of each model: the mean over the tiles where they overlap, smoothed; ignored patches are as normal as the
        most normal one of the others.
    """
    grid = extractor.grid_size((image.height, image.width))
    total_J2hw, count_hw = np.zeros((len(models), 2, *grid), np.float32), np.zeros(grid, np.float32)
    for tile in extractor(image):
        size = tile.vectors_hwF.shape[:2]
        window = np.s_[tile.top : tile.top + size[0], tile.left : tile.left + size[1]]
        positions_hwP = patch_positions(tile.top, tile.left, size, grid, extractor.stride)
        for number, model in enumerate(models):
            for total_hw, map_hw in zip(
                total_J2hw[number], model.anomaly_maps(tile.vectors_hwF, positions_hwP), strict=True
            ):
                total_hw[window] += map_hw
        count_hw[window] += 1
    ignored_hw = extractor.ignored_cells((image.height, image.width))
    if ignored_hw is not None:
        for total_hw in total_J2hw.reshape(-1, *grid):
            rest = (total_hw / count_hw)[~ignored_hw]
            total_hw[ignored_hw] = count_hw[ignored_hw] * (rest.min() if rest.size else 0)
    return [
        AnomalyMaps(*(gaussian_filter(total_hw / count_hw, smooth) for total_hw in total_2hw))
        for total_2hw in total_J2hw
    ]


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
    shift: tuple[float, float] = (0.0, 0.0),
) -> tuple[AnomalyRegion, ...]:
    """Find the connected regions of an anomaly map above a threshold.

    Args:
        map_hw: The anomaly map.
        threshold: NaN finds no regions.
        size: (H, W) of the image, in pixels.
        extent: How many times the image's height and width the map covers; more than 1 where the last patches reach beyond
            the image.
        limit: Number of regions that are returned at most.
        shift: How far down and to the right of their cells the patches lie, in cells.

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
        top, bottom = _pixel_range(rows, pixels_y, size[0], shift[0])
        left, right = _pixel_range(columns, pixels_x, size[1], shift[1])
        box = (left, top, right, bottom)
        regions.append(AnomalyRegion(box, float(map_hw[rows, columns].max()), round(len(rows) * pixels_x * pixels_y)))
    return tuple(sorted(regions, key=lambda region: (-region.score, region.box))[:limit])


def _pixel_range(cells: np.ndarray, pixels: float, length: int, shift: float) -> tuple[int, int]:
    """First pixel of the first of these cells and first pixel after the last one, at least one of them in the image."""
    first, after = math.floor((cells.min() + shift) * pixels), math.ceil((cells.max() + 1 + shift) * pixels)
    return min(max(0, first), length - 1), max(1, min(length, after))
