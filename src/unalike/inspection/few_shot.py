"""What a few defective images teach an inspector: which directions tell, and how many of them are found.

The lesson is kept only where it helps: half of the defective images teach, the other half are scored, and the other way
round, each beside good images that their judge had not seen.

Shape letters: N patches, F their width, P what is known of where they lie, h x w a grid of patches, D defective images, I good images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from unalike import progress
from unalike.data.decode import ImageInput
from unalike.errors import DataError
from unalike.inspection.anomaly_model import Judge
from unalike.inspection.normal_images import Pictures, opened_picture, places
from unalike.inspection.patch_features import Patcher
from unalike.metrics.maps import resized
from unalike.metrics.roc import auroc

# Without a mask: the share of an image's patches, the hottest, that are taken for the defect.
HOTTEST = 0.01
# Fewer defective images than this cannot be split into two that teach and two that are scored.
LEAST_TO_LEARN = 4


@dataclass(frozen=True)
class Lesson:
    """Patches of defects, ``image_N`` says of which image; ``masked`` how many images had a mask."""

    vectors_NF: np.ndarray
    places_NP: np.ndarray
    image_N: np.ndarray
    masked: int

    def half(self, number: int | None) -> tuple[np.ndarray, np.ndarray]:
        """(vectors, places) of the images of one half (0 or 1), or of all."""
        mine_N = np.ones(len(self.image_N), np.bool_) if number is None else self.image_N % 2 == number
        return self.vectors_NF[mine_N], self.places_NP[mine_N]


def mask_beside(picture: ImageInput, masks: Path | None) -> Path | None:
    """The mask of an image file: NAME.png or NAME_mask.png in ``masks`` or in its folder of the image's folder's name."""
    if masks is None or not isinstance(picture, str | Path):
        return None
    image = Path(picture)
    names = (f"{image.stem}_mask.png", f"{image.stem}.png")
    found = [folder / name for folder in (masks / image.parent.name, masks) for name in names]
    return next((path for path in found if path.is_file() and path.resolve() != image.resolve()), None)


def read_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    """bool (H, W): what is defective. Raises DataError for a mask of another size than its image."""
    picture = opened_picture(path).convert("L")
    if (picture.height, picture.width) != size:
        raise DataError(f"the mask {path} is {picture.height} x {picture.width}", expected=f"{size[0]} x {size[1]}")
    mask: np.ndarray = np.asarray(picture) > 127
    return mask


def study(
    defects: Sequence[ImageInput], masks: Path | None, patcher: Patcher, judge: Judge,
    heat: Callable[[Image.Image, Judge], np.ndarray],
) -> Lesson:  # fmt: skip
    """The patches under the masks of defective images; of one without a mask, its hottest."""
    vectors, positions, owners, masked = [], [], [], 0
    held = Pictures(defects)
    names = [mask_beside(picture, masks) for picture in defects]
    with progress.progress("studying defects", len(held)) as advance:
        for number, picture in held:
            advance(1)
            size = (picture.height, picture.width)
            grid = patcher.grid(size)
            path = names[held.index_of(number)]
            if path is None:
                heat_hw = heat(picture, judge)
                chosen_hw = heat_hw >= np.quantile(heat_hw, 1 - HOTTEST)
            else:
                chosen_hw = resized(read_mask(path, size).astype(np.float32), grid) > 0.25
                masked += 1
            for tile in patcher(picture):
                height, width = tile.vectors_hwF.shape[:2]
                inside_hw = np.zeros((height, width), np.bool_)
                part_hw = chosen_hw[tile.top : tile.top + height, tile.left : tile.left + width]
                inside_hw[: part_hw.shape[0], : part_hw.shape[1]] = part_hw
                vectors.append(tile.vectors_hwF[inside_hw])
                positions.append(places(tile.top, tile.left, (height, width), grid, patcher.stride)[inside_hw])
                owners.append(np.full(int(inside_hw.sum()), number))
    return Lesson(np.concatenate(vectors), np.concatenate(positions), np.concatenate(owners), masked)


def helps(good_IJ: np.ndarray, bad_DJ: np.ndarray) -> tuple[bool, float, float]:
    """(whether the lesson is kept, AUROC without, AUROC with).

    Columns are the plain judge, the one taught by the even defective images, the one taught by the odd ones.
    """
    plain = auroc(bad_DJ[:, 0], good_IJ[:, 0])
    even, odd = bad_DJ[0::2], bad_DJ[1::2]
    taught = (auroc(odd[:, 1], good_IJ[:, 1]) * len(odd) + auroc(even[:, 2], good_IJ[:, 2]) * len(even)) / len(bad_DJ)
    return taught > plain, plain, taught
