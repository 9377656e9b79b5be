"""Good images with made-up flaws, as patches: what a perceptron learns from which differences are those of a defect.

Shape letters: N patches, F their width, h x w a grid of patches, H x W a tile.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from unalike import progress
from unalike.data.tiling import Tile, filled
from unalike.inspection.anomaly_model import Judge, Recipe
from unalike.inspection.normal_images import Pictures, Sampled
from unalike.inspection.patch_classifier import Perceptron
from unalike.inspection.patch_features import Patcher
from unalike.inspection.synthetic_defects import flawed

# Of a tile: how many of its flawed and of its whole patches are drawn. A patch is flawed from this share of its cell on.
FLAWED, WHOLE, FROM = 60, 40, 0.25
# Good patches that a perceptron learns from, at most; the flawed ones are some 20,000.
MOST_GOOD = 30_000
# Different tiles of one image, at most.
MOST_TILES = 8
# Patches of real defects are repeated until they are half as many as the made-up ones, at most so often.
MOST_REPEATS = 20


@dataclass(frozen=True)
class Flawed:
    """Patches of tiles with made-up flaws, whether each is flawed, and of which image it is."""

    vectors_NF: np.ndarray
    flawed_N: np.ndarray
    image_N: np.ndarray

    def of(self, chosen_N: np.ndarray) -> Flawed:
        """Some of them."""
        return Flawed(self.vectors_NF[chosen_N], self.flawed_N[chosen_N], self.image_N[chosen_N])

    def learn(self, good: Sampled, recipe: Recipe, real_NF: np.ndarray | None = None) -> Perceptron:
        """Tell flawed patches from whole ones; ``real_NF`` are patches of real defects, where there are any."""
        draws = np.random.default_rng(recipe.seed)
        some_N = draws.permutation(len(good.vectors_NF))[:MOST_GOOD]
        parts = [self.vectors_NF, good.vectors_NF[some_N]]
        wrong = [self.flawed_N, np.zeros(len(some_N), np.bool_)]
        if real_NF is not None and len(real_NF):
            repeats = int(np.clip(self.flawed_N.sum() // (2 * len(real_NF)), 1, MOST_REPEATS))
            parts.append(np.tile(real_NF, (repeats, 1)))
            wrong.append(np.ones(len(parts[-1]), np.bool_))
        return Perceptron.learn(np.concatenate(parts), np.concatenate(wrong), recipe.seed)

    def beside(
        self, judge: Judge, good: Sampled, among_I: np.ndarray, recipe: Recipe, real_NF: np.ndarray | None = None
    ) -> Judge:
        """``judge`` with an eye that has learnt from ``good``, the sample that the judge knows, and from flaws on those
        images: ``among_I`` says of every image whether it is one of them."""
        eye = self.of(among_I[self.image_N]).learn(good, recipe, real_NF)
        usual = good.of(good.common_N)
        return judge.with_eye(eye, usual.vectors_NF, usual.places_NP)


def spoil(pictures: Pictures, patcher: Patcher, recipe: Recipe) -> Flawed | None:
    """Patches of ``recipe.flaws`` tiles with made-up flaws, as many from each image; None for no tiles.

    One tile of an image is in memory beside what is drawn.
    """
    draws = np.random.default_rng(recipe.seed)
    count, total = len(pictures) - len(pictures.failures), recipe.flaws
    vectors, wrong, owners = [], [], []
    other_HWC: np.ndarray | None = None
    if not total:
        return None
    with progress.progress("learning from made-up flaws", count) as advance:
        for number, picture in pictures:
            advance(1)
            copies = (number + 1) * total // count - number * total // count
            if not copies:
                continue
            tiles = _some(patcher.sight.tiles(picture, patcher.stride), min(copies, MOST_TILES), draws)
            for copy in range(copies):
                tile = tiles[copy % len(tiles)]
                whole_HWC = tile.pixels_HWC[: tile.height, : tile.width]
                spoilt_HWC, mask_HW = flawed(whole_HWC, whole_HWC if other_HWC is None else other_HWC, draws)
                other_HWC = whole_HWC
                changed = replace(tile, pixels_HWC=filled(spoilt_HWC, tile.pixels_HWC.shape[:2]))
                tile_NF = next(iter(patcher.of([changed]))).vectors_hwF.reshape(-1, patcher.width)
                share_N = cells(mask_HW, patcher.stride).ravel()
                for mine, most, is_flawed in ((share_N > FROM, FLAWED, True), (share_N == 0, WHOLE, False)):
                    drawn = draws.permutation(np.flatnonzero(mine))[:most]
                    vectors.append(tile_NF[drawn])
                    wrong.append(np.full(len(drawn), is_flawed))
                    owners.append(np.full(len(drawn), number))
    return Flawed(np.concatenate(vectors), np.concatenate(wrong), np.concatenate(owners))


def _some(tiles: Iterable[Tile], count: int, draws: np.random.Generator) -> list[Tile]:
    """``count`` tiles, each as likely as any other, or all where there are no more (reservoir sampling)."""
    kept: list[Tile] = []
    for number, tile in enumerate(tiles):
        if len(kept) < count:
            kept.append(tile)
        elif (place := int(draws.integers(number + 1))) < count:
            kept[place] = tile
    return kept


def cells(mask_HW: np.ndarray, stride: int) -> np.ndarray:
    """float64 (h, w): the share of each cell of ``stride`` x ``stride`` pixels that is flawed; beyond the edge nothing is."""
    height, width = mask_HW.shape
    whole_HW = np.pad(mask_HW, ((0, -height % stride), (0, -width % stride)))
    rows, columns = whole_HW.shape[0] // stride, whole_HW.shape[1] // stride
    share_hw: np.ndarray = whole_HW.reshape(rows, stride, columns, stride).mean(axis=(1, 3))
    return share_hw
