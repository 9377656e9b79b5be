"""Images -> patch vectors: the trunk's maps on one grid, each patch with its neighbourhood, tile by tile.

Shape letters: T tiles, C channels of a map, F width of a patch vector (the channels of all maps), h x w the grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from unalike.data.tiling import Sight, Tile
from unalike.engines.protocol import MapEngine
from unalike.metrics.maps import local_mean, resized

# PatchCore's neighbourhood: each patch is the mean of 3 x 3 cells of its map.
NEIGHBOURHOOD = 3


@dataclass(frozen=True)
class TilePatches:
    """``vectors_hwF`` of one tile's part of the image; its first patch stands at row ``top``, column ``left`` of the grid."""

    vectors_hwF: np.ndarray
    top: int
    left: int


class Patcher:
    """``engine`` gives maps; ``sight`` says how it is shown images. The grid is that of the finest map."""

    def __init__(self, engine: MapEngine, sight: Sight) -> None:
        self.engine, self.sight = engine, sight
        self.stride = min(fact.stride for fact in engine.map_facts)
        self.width = sum(fact.channels for fact in engine.map_facts)

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of the patches of an image of ``size``."""
        height, width = self.sight.scaled_size(size)
        return -(-height // self.stride), -(-width // self.stride)

    def __call__(self, picture: Image.Image) -> Iterator[TilePatches]:
        """The patches of a picture (RGB), a tile after the other; at most a batch of tiles is in memory."""
        waiting: list[Tile] = []
        for tile in self.sight.tiles(picture, self.stride):
            waiting.append(tile)
            if len(waiting) >= min(8, self.engine.batch):
                yield from self.of(waiting)
                waiting = []
        if waiting:
            yield from self.of(waiting)

    def of(self, tiles: list[Tile]) -> Iterator[TilePatches]:
        """The patches of tiles, in one pass through the network."""
        maps = self.engine.maps(np.stack([tile.pixels_HWC for tile in tiles]))
        finest: Any = min(self.engine.map_facts, key=lambda fact: fact.stride)
        for number, tile in enumerate(tiles):
            parts = [resized(local_mean(found[number], NEIGHBOURHOOD), (finest.height, finest.width)) for found in maps]
            height, width = -(-tile.height // self.stride), -(-tile.width // self.stride)
            stacked_Fhw = np.concatenate(parts)[:, :height, :width]
            yield TilePatches(
                np.ascontiguousarray(stacked_Fhw.transpose(1, 2, 0)), tile.top // self.stride, tile.left // self.stride
            )
