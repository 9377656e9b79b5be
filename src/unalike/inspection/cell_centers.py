"""Where in the image the cells of a network's feature maps lie, measured by the maps' answers to small squares.

Cell k of a map of stride s is usually drawn at pixel s (k + 0.5). The padding of a convolutional network puts it elsewhere, up
to half a cell: with padding on both sides at s k + 0.5, with TensorFlow's at another place for every input size. The networks
in use tell nothing of it, so it is measured.

Shape letters: B images, H x W the input of the network, C channels, h x w a map.
"""

from __future__ import annotations

import numpy as np

from unalike.engines.protocol import MapEngine

GRAY, SEED = 128, 0
# Squares, their side in pixels, and the share of the image's side at its borders that stays free of them, since padding changes
# what is there.
SQUARES, SIDE, MARGIN = 48, 9, 0.25
# Answers below this share of the strongest one are left out of the mean place.
LEAST_ANSWER = 0.1

Center = tuple[float, float]


def measure_cell_centers(engine: MapEngine) -> tuple[Center, ...]:
    """Measure where the cells of each feature map lie.

    Colored squares are drawn on gray, one at a time. The squared change of a map, over its channels, has its center at the
    square; the median over the squares is taken.

    Args:
        engine: Gives the feature maps.

    Returns:
        (y, x) of the center of the first cell of each map, in pixels of the network's input; those of the further cells follow
        in steps of the stride. A map that does not answer, or answers elsewhere than within a cell, is taken to have half
        its stride.
    """
    height, width = engine.input_size
    rng = np.random.default_rng(SEED)
    free = np.array([[height], [width]]) * [MARGIN, 1 - MARGIN]
    places = rng.integers(free[:, 0].astype(int), free[:, 1].astype(int) + 1, (SQUARES, 2)).tolist()
    plain_maps = engine.maps(np.full((1, height, width, 3), GRAY, np.uint8))
    centers: list[list[np.ndarray]] = [[] for _ in plain_maps]
    for start in range(0, SQUARES, engine.batch):
        batch = places[start : start + engine.batch]
        images_BHWC = np.full((len(batch), height, width, 3), GRAY, np.uint8)
        for image_HWC, (y, x) in zip(images_BHWC, batch, strict=True):
            top, left = max(0, y - SIDE // 2), max(0, x - SIDE // 2)
            image_HWC[top : y + SIDE // 2 + 1, left : x + SIDE // 2 + 1] = rng.choice([0, 255], 3)
        for number, maps_BChw in enumerate(engine.maps(images_BHWC)):
            change_Bhw = ((maps_BChw - plain_maps[number]) ** 2).sum(axis=1)
            for place, change_hw in zip(batch, change_Bhw, strict=True):
                if change_hw.max() > 0:
                    offset = np.array(place) + 0.5 - engine.map_facts[number].stride * _mean_place(change_hw)
                    centers[number].append(offset)
    return tuple(_median_center(offsets, fact.stride) for offsets, fact in zip(centers, engine.map_facts, strict=True))


def _mean_place(change_hw: np.ndarray) -> np.ndarray:
    """Row and column of the center of the strongest changes."""
    weight_hw = np.where(change_hw >= LEAST_ANSWER * change_hw.max(), change_hw, 0).astype(np.float64)
    rows, columns = weight_hw.sum(axis=1), weight_hw.sum(axis=0)
    place: np.ndarray = np.array([rows @ np.arange(len(rows)), columns @ np.arange(len(columns))]) / weight_hw.sum()
    return place


def _median_center(offsets: list[np.ndarray], stride: int) -> Center:
    half = stride / 2
    if not offsets:
        return half, half
    y, x = (float(value) for value in np.median(offsets, axis=0))
    return (round(y, 2), round(x, 2)) if max(abs(y - half), abs(x - half)) <= stride else (half, half)
