"""Ground truth of inspected images, and metrics against it: image and pixel AUROC, PRO, rates.

Shape letters: H x W an image or a mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unalike import progress
from unalike.data.masks import read_mask
from unalike.errors import DataError
from unalike.inspection.few_shot import find_mask
from unalike.inspection.normal_images import list_images
from unalike.inspection.result import DEFECTIVE, Inspection
from unalike.metrics.intervals import mean_interval
from unalike.metrics.localization import per_region_overlap, pixel_auroc
from unalike.metrics.roc import auroc

# Pixels that localization is measured on, all images together; above it maps and masks are halved until they fit.
MAX_PIXELS_MEASURED = 20_000_000


@dataclass(frozen=True)
class GroundTruth:
    """What is known about inspected images.

    Attributes:
        good: Name of the folders with normal images; images in other folders are defective.
        masks: Folder of masks: ``FOLDER/NAME.png`` or ``FOLDER/NAME_mask.png`` for ``FOLDER/NAME.*``, white where
            defective. It may be the folder of the images.
    """

    good: str = "good"
    masks: Path | None = None

    def is_good(self, path: str) -> bool:
        """Whether the image is in a folder of normal images."""
        return Path(path).parent.name == self.good

    def mask_of(self, path: str) -> Path | None:
        """The image's mask, if there is one."""
        return find_mask(path, self.masks)


def list_test_images(sources: Sequence[str | Path], truth: GroundTruth | None = None) -> list[str]:
    """List the images of files and folders, without files that are the mask of another image."""
    paths = [str(path) for source in sources for path in list_images(source)]
    if truth is None or truth.masks is None:
        return paths
    masks = {str(mask.resolve()) for path in paths if (mask := truth.mask_of(path)) is not None}
    return [path for path in paths if str(Path(path).resolve()) not in masks]


def compute_metrics(inspections: Sequence[Inspection], truth: GroundTruth) -> dict[str, Any]:
    """Compute metrics of inspections against the ground truth.

    Defective images without a mask count for the image metrics only.

    Returns:
        Number of images, image AUROC (also by kind of defect, the name of the folder); at the threshold, the rates of
        false alarms and of detected defects with 95 % intervals; with masks, pixel AUROC and PRO.

    Raises:
        DataError: No normal or no defective image.
    """
    good = [inspection for inspection in inspections if truth.is_good(inspection.source)]
    defective = [inspection for inspection in inspections if not truth.is_good(inspection.source)]
    if not good or not defective:
        raise DataError(
            f"{len(good)} good and {len(defective)} defective images",
            expected=f"some of both: good ones in a folder {truth.good!r}", remedy="name it with --good",
        )  # fmt: skip
    kinds = sorted({Path(inspection.source).parent.name for inspection in defective})
    metrics: dict[str, Any] = {
        "good": len(good), "defects": len(defective), "image_auroc": _image_auroc(defective, good),
        "by_kind": {
            kind: _image_auroc([one for one in defective if Path(one.source).parent.name == kind], good) for kind in kinds
        },
    }  # fmt: skip
    if not math.isnan(inspections[0].threshold):
        metrics["false_alarms"] = _defective_rate(good)
        metrics["found"] = _defective_rate(defective)
    return metrics | _localization(good, defective, truth)


def _image_auroc(defective: Sequence[Inspection], good: Sequence[Inspection]) -> float:
    return auroc(np.array([one.score for one in defective]), np.array([one.score for one in good]))


def _defective_rate(inspections: Sequence[Inspection]) -> dict[str, float | bool | None]:
    return mean_interval(np.array([one.decision == DEFECTIVE for one in inspections])).to_dict()


def _localization(good: Sequence[Inspection], defective: Sequence[Inspection], truth: GroundTruth) -> dict[str, Any]:
    """Pixel AUROC and PRO over the normal images and the defective ones that have a mask; empty without masks."""
    masked = [(inspection, mask) for inspection in defective if (mask := truth.mask_of(inspection.source)) is not None]
    if truth.masks is None:
        return {}
    if not masked:
        raise DataError(
            f"no mask in {truth.masks} for any of {len(defective)} defective images, such as {defective[0].source}",
            expected="FOLDER/NAME.png or FOLDER/NAME_mask.png for FOLDER/NAME.*",
            remedy="or leave --truth out: without masks the image figures are computed alone",
        )
    if len(masked) < len(defective):
        progress.say(
            f"masks of {len(masked)} of {len(defective)} defective images: the others count for the image figures alone"
        )
    pixels = sum(one.size[0] * one.size[1] for one in [*good, *(one for one, _ in masked)])
    step = 1
    while pixels / step**2 > MAX_PIXELS_MEASURED:
        step *= 2
    maps, masks = [], []
    for inspection, path in [*((one, None) for one in good), *masked]:
        size = (max(1, inspection.size[0] // step), max(1, inspection.size[1] // step))
        maps.append(inspection.anomaly_map(size).astype(np.float32))
        masks.append(np.zeros(size, np.bool_) if path is None else _resize(read_mask(path, inspection.size), size))
    return {"masks": len(masked), "pixel_auroc": pixel_auroc(maps, masks), "pro": per_region_overlap(maps, masks)}


def _resize(mask_HW: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    image = Image.fromarray(mask_HW).resize((size[1], size[0]), Image.Resampling.NEAREST)
    return np.asarray(image, np.bool_)
