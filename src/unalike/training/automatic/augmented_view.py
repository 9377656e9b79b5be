"""An image as training would vary it, cut to the evaluation view's size: what an engine is asked about without labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from unalike.data.decode import MAX_PIXELS, decode
from unalike.data.training.augment import Augmentation
from unalike.data.training.pixel_cache import downscale
from unalike.data.view import View

# What changes from picture to picture of one thing: how much of it is seen, from which side, in which light.
CROP_SCALE, COLOUR = (0.4, 1.0), {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.02}
KEPT_RATIO = 1.5  # of the view's size: an image's shorter side before it is cropped


class VariedView:
    """``view(path)`` gives one uint8 (H, W, 3) view of a file, drawn from the seed and the file's place in ``paths``."""

    def __init__(self, paths: Sequence[Path], view: View, seed: int) -> None:
        self.place = {path: i for i, path in enumerate(paths)}
        self.side = int(KEPT_RATIO * max(view.height, view.width))
        self.augmentation = Augmentation(view.height, view.width, crop_scale=CROP_SCALE, colour=COLOUR, mean=(0, 0, 0),
                                         std=(1, 1, 1), seed=seed)  # fmt: skip

    def __call__(self, path: str | Path, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
        place = self.place[Path(path)]
        pixels = downscale(decode(path, min_size=(self.side, self.side), max_pixels=max_pixels), self.side)
        cropped = torch.from_numpy(self.augmentation.crop(pixels, 0, place))[None]
        coloured = self.augmentation.finish(cropped, 0, np.array([place]))[0]
        return (coloured.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
