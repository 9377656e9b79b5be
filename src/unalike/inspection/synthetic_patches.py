"""Patches of normal images with synthetic defects, and the fit of a patch classifier to them.

Shape letters: I images, N patches, F their width, h x w a grid of patches, H x W a tile.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from unalike import progress
from unalike.data.tiling import ImageTile, pad_by_reflection
from unalike.inspection.anomaly_model import AnomalyModel, AnomalyModelConfig
from unalike.inspection.normal_images import PatchSample, ReadableImages
from unalike.inspection.patch_classifier import PatchClassifier
from unalike.inspection.patch_features import PatchExtractor
from unalike.inspection.synthetic_defects import draw_defects

# Defective and intact patches that are sampled from a tile; a patch is defective from this share of its cell on.
DEFECTIVE_PER_TILE, INTACT_PER_TILE, DEFECTIVE_SHARE = 60, 40, 0.25
# Patches of images without synthetic defects that a classifier is fitted to, at most; the defective ones are some 20,000.
MAX_NORMAL_PATCHES = 30_000
# Different tiles of one image, at most.
MAX_TILES = 8
# Patches of real defects are repeated until they are half as many as the synthetic ones, at most this many times.
MAX_REPEATS = 20


@dataclass(frozen=True)
class SyntheticDefects:
    """Patches of tiles with synthetic defects.

    Attributes:
        vectors_NF: float32 patch vectors.
        defective_N: bool, whether each shows a defect.
        image_N: Number of the image that each comes from.
    """

    vectors_NF: np.ndarray
    defective_N: np.ndarray
    image_N: np.ndarray

    def subset(self, chosen_N: np.ndarray) -> SyntheticDefects:
        """The patches at these indices, or where a boolean mask is True."""
        return SyntheticDefects(self.vectors_NF[chosen_N], self.defective_N[chosen_N], self.image_N[chosen_N])

    def fit_classifier(self, normal: PatchSample, seed: int, real_NF: np.ndarray | None = None) -> PatchClassifier:
        """Fit a classifier of defective against normal patches.

        Args:
            normal: Patches of normal images without synthetic defects.
            seed: Seed of the sample of them and of the training.
            real_NF: Patches of real defects, where there are any.
        """
        rng = np.random.default_rng(seed)
        chosen_N = rng.permutation(len(normal.vectors_NF))[:MAX_NORMAL_PATCHES]
        vectors = [self.vectors_NF, normal.vectors_NF[chosen_N]]
        defective = [self.defective_N, np.zeros(len(chosen_N), np.bool_)]
        if real_NF is not None and len(real_NF):
            repeats = int(np.clip(self.defective_N.sum() // (2 * len(real_NF)), 1, MAX_REPEATS))
            vectors.append(np.tile(real_NF, (repeats, 1)))
            defective.append(np.ones(len(vectors[-1]), np.bool_))
        return PatchClassifier.fit(np.concatenate(vectors), np.concatenate(defective), seed)

    def add_classifier(
        self,
        model: AnomalyModel,
        normal: PatchSample,
        among_I: np.ndarray,
        seed: int,
        real_NF: np.ndarray | None = None,
    ) -> AnomalyModel:
        """Add a classifier to an anomaly model.

        Args:
            model: The anomaly model.
            normal: The sample of patches that the model was fitted to.
            among_I: bool, whether each image is one of those that the model was fitted to; synthetic defects on other
                images are left out.
            seed: Seed of the training.
            real_NF: Patches of real defects, where there are any.
        """
        classifier = self.subset(among_I[self.image_N]).fit_classifier(normal, seed, real_NF)
        usual = normal.subset(normal.random_N)
        return model.with_classifier(classifier, usual.vectors_NF, usual.positions_NP)


def synthesize(
    images: ReadableImages, extractor: PatchExtractor, config: AnomalyModelConfig
) -> SyntheticDefects | None:
    """Draw defects on ``config.synthetic_defects`` tiles, the same number of each image, and sample patches of them.

    Memory holds the sample and one tile of an image.

    Returns:
        The patches, or None where the config asks for none.
    """
    rng = np.random.default_rng(config.seed)
    count, total = len(images) - len(images.failures), config.synthetic_defects
    vectors, defective, owners = [], [], []
    other_HWC: np.ndarray | None = None
    if not total:
        return None
    with progress.progress("drawing synthetic defects", count) as advance:
        for number, image in images:
            advance(1)
            copies = (number + 1) * total // count - number * total // count
            if not copies:
                continue
            tiles = sample_tiles(extractor.tiling.tiles(image, extractor.stride), min(copies, MAX_TILES), rng)
            for copy in range(copies):
                tile = tiles[copy % len(tiles)]
                intact_HWC = tile.pixels_HWC[: tile.height, : tile.width]
                drawn_HWC, mask_HW = draw_defects(intact_HWC, intact_HWC if other_HWC is None else other_HWC, rng)
                other_HWC = intact_HWC
                padded_HWC = pad_by_reflection(drawn_HWC, tile.pixels_HWC.shape[:2])
                (patches,) = extractor.extract([replace(tile, pixels_HWC=padded_HWC)])
                tile_NF = patches.vectors_hwF.reshape(-1, extractor.width)
                share_N = cell_shares(mask_HW, extractor.stride, extractor.shift).ravel()
                for eligible_N, limit, is_defective in (
                    (share_N > DEFECTIVE_SHARE, DEFECTIVE_PER_TILE, True),
                    (share_N == 0, INTACT_PER_TILE, False),
                ):
                    rows = rng.permutation(np.flatnonzero(eligible_N))[:limit]
                    vectors.append(tile_NF[rows])
                    defective.append(np.full(len(rows), is_defective))
                    owners.append(np.full(len(rows), number))
    return SyntheticDefects(np.concatenate(vectors), np.concatenate(defective), np.concatenate(owners))


def sample_tiles(tiles: Iterable[ImageTile], count: int, rng: np.random.Generator) -> list[ImageTile]:
    """Sample ``count`` tiles with equal probability, or all where there are no more (reservoir sampling)."""
    sampled: list[ImageTile] = []
    for number, tile in enumerate(tiles):
        if len(sampled) < count:
            sampled.append(tile)
        elif (index := int(rng.integers(number + 1))) < count:
            sampled[index] = tile
    return sampled


def cell_shares(mask_HW: np.ndarray, stride: int, shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Share of each cell of ``stride`` x ``stride`` pixels that the mask covers, float64 (h, w); beyond the edge: 0.

    Args:
        mask_HW: The mask.
        stride: Side of a cell, in pixels.
        shift: How far down and to the right the cells lie, in cells.
    """
    rows, columns = (-(-length // stride) for length in mask_HW.shape)
    before, after = [], []  # pixels by which the mask grows, negative where it is cut
    for cells, length, by in zip((rows, columns), mask_HW.shape, shift, strict=True):
        before.append(-round(by * stride))
        after.append(cells * stride - length - before[-1])
    padded_HW = np.pad(mask_HW, [(max(0, b), max(0, a)) for b, a in zip(before, after, strict=True)])
    top, left = (max(0, -pixels) for pixels in before)
    padded_HW = padded_HW[top : top + rows * stride, left : left + columns * stride]
    share_hw: np.ndarray = padded_HW.reshape(rows, stride, columns, stride).mean(axis=(1, 3))
    return share_hw
