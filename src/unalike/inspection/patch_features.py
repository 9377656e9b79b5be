"""Patch features: the feature maps of a trunk's middle stages on one grid, as one vector a patch, tile by tile.

Shape letters: T tiles, C channels of a map, F width of a patch vector (the channels of all maps), h x w a grid of patches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from unalike.data.tiling import ImageTile, Tiling
from unalike.engines.protocol import MapEngine
from unalike.inspection.cell_centers import Center
from unalike.numerics.maps import local_mean, resize_map, sample_map

# PatchCore's neighborhood: a patch is the mean of 3 x 3 cells of its map.
NEIGHBORHOOD = 3
MAX_BATCH = 8


@dataclass(frozen=True)
class TilePatches:
    """The patches of one tile.

    Attributes:
        vectors_hwF: float32 patch vectors of the part of the tile that shows the image.
        top, left: Row and column of the first patch in the grid of the image.
    """

    vectors_hwF: np.ndarray
    top: int
    left: int


class PatchExtractor:
    """Extracts patch vectors from images. The grid of patches is that of the finest feature map.

    Args:
        engine: Gives the feature maps.
        tiling: How images are resized and cut into tiles.
        ignored_HW: bool mask of the frame that all images share, at any resolution: True where anomalies are ignored.
        centers: Where the first cell of each map lies (``cell_centers``). None, for inspectors of earlier versions: half a
            stride from the corner, and maps of several strides are stretched over one another.

    Attributes:
        shift: How far down and to the right of the cells of a plain grid the patches lie, in cells.
    """

    def __init__(
        self,
        engine: MapEngine,
        tiling: Tiling,
        ignored_HW: np.ndarray | None = None,
        centers: Sequence[Center] | None = None,
    ) -> None:
        self.engine, self.tiling, self.ignored_HW = engine, tiling, ignored_HW
        self.centers = None if centers is None else tuple(centers)
        self.finest = min(engine.map_facts, key=lambda fact: fact.stride)
        self.stride = self.finest.stride
        self.shift: Center = (0.0, 0.0)
        if self.centers is not None:
            self._finest_center = self.centers[engine.map_facts.index(self.finest)]
            self.shift = (self._finest_center[0] / self.stride - 0.5, self._finest_center[1] / self.stride - 0.5)
        self.width = sum(fact.channels for fact in engine.map_facts)

    def grid_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of the grid of patches of an image of ``size`` (H, W)."""
        height, width = self.tiling.scaled_size(size)
        return -(-height // self.stride), -(-width // self.stride)

    def ignored_cells(self, size: tuple[int, int]) -> np.ndarray | None:
        """The patches of an image of ``size`` (H, W) that touch an ignored region, bool (h, w); None without regions."""
        if self.ignored_HW is None:
            return None
        cells_hw = np.zeros(self.grid_size(size), np.bool_)
        places = []
        for pixels, side, whole, shift, cells in zip(
            np.nonzero(self.ignored_HW), self.tiling.scaled_size(size), self.ignored_HW.shape, self.shift,
            cells_hw.shape, strict=True,
        ):  # fmt: skip
            place = np.floor((pixels + 0.5) * (side / whole) / self.stride - shift)
            places.append(place.clip(0, cells - 1).astype(np.int64))
        cells_hw[places[0], places[1]] = True
        return cells_hw

    def __call__(self, image: Image.Image) -> Iterator[TilePatches]:
        """Extract the patches of an RGB image, tile by tile; at most a batch of tiles is in memory."""
        batch: list[ImageTile] = []
        for tile in self.tiling.tiles(image, self.stride):
            batch.append(tile)
            if len(batch) >= min(MAX_BATCH, self.engine.batch):
                yield from self.extract(batch)
                batch = []
        if batch:
            yield from self.extract(batch)

    def extract(self, tiles: list[ImageTile]) -> Iterator[TilePatches]:
        """Extract the patches of tiles, in one pass through the network."""
        maps = self.engine.maps(np.stack([tile.pixels_HWC for tile in tiles]))
        size = (self.finest.height, self.finest.width)
        for number, tile in enumerate(tiles):
            means = [local_mean(map_TChw[number], NEIGHBORHOOD) for map_TChw in maps]
            if self.centers is None:
                maps_Fhw = np.concatenate([resize_map(mean_Chw, size) for mean_Chw in means])
            else:
                maps_Fhw = np.concatenate([self._at_finest(mean_Chw, map_) for map_, mean_Chw in enumerate(means)])
            height, width = -(-tile.height // self.stride), -(-tile.width // self.stride)
            vectors_hwF = np.ascontiguousarray(maps_Fhw[:, :height, :width].transpose(1, 2, 0))
            yield TilePatches(vectors_hwF, tile.top // self.stride, tile.left // self.stride)

    def _at_finest(self, map_Chw: np.ndarray, number: int) -> np.ndarray:
        """Map ``number`` where the cells of the finest map lie."""
        fact = self.engine.map_facts[number]
        if fact is self.finest:
            return map_Chw
        assert self.centers is not None
        rows, columns = (
            (self.stride * np.arange(length) + finest - own) / fact.stride
            for length, finest, own in zip(
                (self.finest.height, self.finest.width), self._finest_center, self.centers[number], strict=True
            )
        )
        return sample_map(map_Chw, rows, columns)

    def sample_mask(self, mask_HW: np.ndarray) -> np.ndarray:
        """Share of a mask of an image at the center of each patch, interpolated; float32 (h, w)."""
        grid = self.grid_size(mask_HW.shape)
        if self.centers is None:
            return resize_map(mask_HW, grid)
        places = [
            (np.arange(cells) + 0.5 + shift) * self.stride * (whole / side) - 0.5
            for cells, shift, whole, side in zip(
                grid,
                self.shift,
                mask_HW.shape,
                self.tiling.scaled_size(mask_HW.shape),
                strict=True,
            )
        ]
        return sample_map(mask_HW, *places)


def patch_positions(top: int, left: int, size: tuple[int, int], grid: tuple[int, int], stride: int) -> np.ndarray:
    """Positions of the patches of a tile in the grid of their image.

    Args:
        top, left: Row and column of the tile's first patch.
        size: (h, w) of the tile's patches.
        grid: (h, w) of the image's patches.
        stride: Pixels a patch.

    Returns:
        float32 (h, w, 6): row and column of each patch's center (0..1 of the grid's longer side), then its distances in
        pixels from the upper, lower, left and right border of the image.
    """
    rows_h1, columns_1w = np.arange(top, top + size[0])[:, None] + 0.5, np.arange(left, left + size[1])[None] + 0.5
    border_distances = (rows_h1, grid[0] - rows_h1, columns_1w, grid[1] - columns_1w)
    values = (rows_h1 / max(grid), columns_1w / max(grid), *(cells * stride for cells in border_distances))
    return np.stack(np.broadcast_arrays(*values), axis=-1).astype(np.float32)
