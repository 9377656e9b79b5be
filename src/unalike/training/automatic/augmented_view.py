"""Augmented views of images at the evaluation view's size: queries of an evaluation without labels.

Shape letters: H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from unalike.data.batches.augment import Augmentation
from unalike.data.batches.pixel_cache import downscale
from unalike.data.decode import MAX_PIXELS, decode
from unalike.data.view import View

# What differs between pictures of one object: how much of it is visible, the side it is seen from, the light.
CROP_SCALE, COLOR = (0.4, 1.0), {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.02}
DOWNSCALE_RATIO = 1.5  # the shorter side before cropping, relative to the view's longer side


class AugmentedView:
    """A view like ``data.view.View`` that crops, mirrors and recolors; its draws depend on seed and index alone.

    Args:
        paths: the files; a file's index in them enters its draws.
        view: gives the size (H, W).
        seed: seed of the draws.
    """

    def __init__(self, paths: Sequence[Path], view: View, seed: int) -> None:
        self.index = {path: i for i, path in enumerate(paths)}
        self.side = int(DOWNSCALE_RATIO * max(view.height, view.width))
        self.decoding = view.decoding
        self.augmentation = Augmentation(view.height, view.width, crop_scale=CROP_SCALE, color=COLOR, mean=(0, 0, 0),
                                         std=(1, 1, 1), seed=seed)  # fmt: skip

    def __call__(self, path: str | Path, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
        """Read a file of ``paths`` and return its uint8 (H, W, 3) view."""
        index = self.index[Path(path)]
        size = (self.side, self.side)
        pixels = decode(path, decoding=self.decoding, min_size=size, max_pixels=max_pixels)
        pixels = downscale(pixels, self.side)
        crop = torch.from_numpy(self.augmentation.crop(pixels, 0, index))[None]
        result = self.augmentation.augment_batch(crop, 0, np.array([index]))[0]
        return (result.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
