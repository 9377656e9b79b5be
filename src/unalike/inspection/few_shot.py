"""Few-shot update of an anomaly model from a few defective images: which directions separate defects.

The update is kept only where it helps: the model is updated with one half of the defective images and scored on the other
half, and the other way round, each beside normal images that the model was not fitted to.

Shape letters: N patches, F their width, P values of a position, h x w a grid of patches, D defective images, I normal
images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unalike import progress
from unalike.data.decode import ImageInput
from unalike.data.masks import read_mask
from unalike.inspection.anomaly_map import anomaly_maps
from unalike.inspection.anomaly_model import AnomalyModel
from unalike.inspection.normal_images import ReadableImages
from unalike.inspection.patch_features import PatchExtractor, patch_positions
from unalike.metrics.roc import auroc

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".jpg", ".jpeg")
# Share of an image's patches, the most anomalous ones, that are taken for the defect where there is no mask.
TOP_SHARE = 0.01
# A patch is defective where the mask covers more than this share of it.
MASK_SHARE = 0.25
# Fewer defective images cannot be split into two halves, one to update with and one to score.
MIN_IMAGES = 4


@dataclass(frozen=True)
class DefectPatches:
    """Patches of real defects.

    Attributes:
        vectors_NF: float32 patch vectors.
        positions_NP: Their positions.
        image_N: Number of the defective image that each comes from.
    """

    vectors_NF: np.ndarray
    positions_NP: np.ndarray
    image_N: np.ndarray

    def half(self, number: int) -> DefectPatches:
        """The patches of every other image: 0 the even ones, 1 the odd ones."""
        chosen_N = self.image_N % 2 == number
        return DefectPatches(self.vectors_NF[chosen_N], self.positions_NP[chosen_N], self.image_N[chosen_N])


@dataclass(frozen=True)
class FewShotUpdate:
    """What changes an anomaly model so that it separates defects like those given.

    Attributes:
        normal_FF: ``AnomalyModel.residual_moment`` of normal patches by models that were not fitted to them.
        defect_FF: The same of patches of real defects.
        defect_NF: Those patches' vectors.
    """

    normal_FF: np.ndarray
    defect_FF: np.ndarray
    defect_NF: np.ndarray

    def apply(self, model: AnomalyModel) -> AnomalyModel:
        """The updated model; ``model`` stays as it is."""
        return model.updated(self.normal_FF, self.defect_FF, len(self.defect_NF))


def fit_few_shot(model: AnomalyModel, defects: DefectPatches, normal_FF: np.ndarray) -> FewShotUpdate:
    """Fit an update to patches of defects.

    Args:
        model: The model of all normal images.
        defects: Patches of real defects.
        normal_FF: The residual moment of normal patches, see ``FewShotUpdate``.
    """
    return FewShotUpdate(normal_FF, model.residual_moment(defects.vectors_NF, defects.positions_NP), defects.vectors_NF)


def update_helps(normal_IJ: np.ndarray, defect_DJ: np.ndarray) -> tuple[bool, float, float]:
    """Decide whether a few-shot update is kept.

    Args:
        normal_IJ, defect_DJ: Scores of normal and of defective images by three models: the plain one, the one updated with
            the even defective images, the one updated with the odd ones.

    Returns:
        (whether it is kept, AUROC without, AUROC with it on the defective images that it was not fitted to).
    """
    plain = auroc(defect_DJ[:, 0], normal_IJ[:, 0])
    even, odd = defect_DJ[0::2], defect_DJ[1::2]
    by_even, by_odd = auroc(odd[:, 1], normal_IJ[:, 1]), auroc(even[:, 2], normal_IJ[:, 2])
    updated_score = (by_even * len(odd) + by_odd * len(even)) / len(defect_DJ)
    return updated_score > plain, plain, updated_score


# ---- defective images and their masks ----


def find_mask(image: ImageInput, masks: Path | None) -> Path | None:
    """Find the mask of an image file.

    Args:
        image: ``FOLDER/NAME.*``; an image that is not a file has no mask.
        masks: A folder; the mask is ``FOLDER/NAME_mask.png``, ``FOLDER/NAME.png``, ``NAME_mask.png`` or ``NAME.png`` in it,
            or such a file with another of ``MASK_SUFFIXES``.
    """
    if masks is None or not isinstance(image, str | Path):
        return None
    path = Path(image)
    stems = (f"{path.stem}_mask", path.stem)
    candidates = [
        folder / f"{stem}{suffix}" for folder in (masks / path.parent.name, masks) for stem in stems for suffix in MASK_SUFFIXES
    ]  # fmt: skip
    beside = path.parent.resolve()
    for mask in candidates:
        # Beside the image, NAME.jpg and NAME.png could each be the mask of the other: there the mask is the PNG.
        is_other = mask.stem == path.stem and mask.suffix != ".png" and mask.parent.resolve() == beside
        if mask.is_file() and not is_other and mask.resolve() != path.resolve():
            return mask
    return None


def defect_patches(
    defects: Sequence[ImageInput], masks: Path | None, extractor: PatchExtractor, model: AnomalyModel, smooth: float
) -> DefectPatches:
    """Collect the patches under the masks of defective images; of an image without a mask, its most anomalous ones."""
    vectors, positions, owners = [], [], []
    images = ReadableImages(defects, decoding=extractor.tiling.decoding)
    mask_paths = [find_mask(image, masks) for image in defects]
    with progress.progress("collecting patches of defects", len(images)) as advance:
        for number, image in images:
            advance(1)
            size = (image.height, image.width)
            grid = extractor.grid_size(size)
            path = mask_paths[images.index_of(number)]
            if path is None:
                (maps,) = anomaly_maps(image, extractor, [model], smooth)
                defective_hw = maps.score_hw >= np.quantile(maps.score_hw, 1 - TOP_SHARE)
            else:
                defective_hw = extractor.sample_mask(read_mask(path, size)) > MASK_SHARE
            for tile in extractor(image):
                height, width = tile.vectors_hwF.shape[:2]
                chosen_hw = np.zeros((height, width), np.bool_)
                window_hw = defective_hw[tile.top : tile.top + height, tile.left : tile.left + width]
                chosen_hw[: window_hw.shape[0], : window_hw.shape[1]] = window_hw
                position_hwP = patch_positions(tile.top, tile.left, (height, width), grid, extractor.stride)
                vectors.append(tile.vectors_hwF[chosen_hw])
                positions.append(position_hwP[chosen_hw])
                owners.append(np.full(int(chosen_hw.sum()), number))
    return DefectPatches(np.concatenate(vectors), np.concatenate(positions), np.concatenate(owners))
