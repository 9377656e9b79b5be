"""Augmented views of an image, which stand for a second photograph of the same thing; seeded, without torch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

# Ranges of what differs between two photographs of one thing: part of the frame, angle (degrees), brightness, contrast,
# blur (radius as a share of the shorter side).
CROP_AREA, ANGLE, LIGHT, BLUR = (0.6, 1.0), 12.0, (0.7, 1.3), 0.008


def augmented_views(image_HWC: np.ndarray, count: int, seed: int) -> Iterator[np.ndarray]:
    """Yield augmented views.

    Args:
        image_HWC: uint8 RGB.
        count: number of views.
        seed: of the draws; one seed gives the same views of an image, whatever else is drawn.

    Yields:
        uint8 RGB, of the crop's size.
    """
    source = Image.fromarray(image_HWC)
    ground = tuple(int(value) for value in np.median(_edge_pixels(image_HWC), axis=0))
    rng = np.random.default_rng(seed)
    for _ in range(count):
        view = source.rotate(rng.uniform(-ANGLE, ANGLE), Image.Resampling.BILINEAR, fillcolor=ground)
        side = rng.uniform(*CROP_AREA) ** 0.5
        width, height = (max(1, round(length * side)) for length in source.size)
        left, top = (int(rng.integers(0, rest + 1)) for rest in (source.width - width, source.height - height))
        view = view.crop((left, top, left + width, top + height))
        view = ImageEnhance.Brightness(view).enhance(rng.uniform(*LIGHT))
        view = ImageEnhance.Contrast(view).enhance(rng.uniform(*LIGHT))
        view = view.filter(ImageFilter.GaussianBlur(rng.uniform(0, BLUR) * min(view.size)))
        yield np.asarray(view)


def _edge_pixels(image_HWC: np.ndarray) -> np.ndarray:
    """The pixels of the image's border, (count, 3)."""
    return np.concatenate([image_HWC[0], image_HWC[-1], image_HWC[:, 0], image_HWC[:, -1]])
