"""Tiling of images for inspection: resize to a common scale, even the brightness, cut into overlapping tiles.

Images of one kind of part come in many sizes, up to a hundred megapixels. One scale for all of them keeps a scratch as wide
as it is in the normal images, and tiles keep the memory bounded. Images of parts in a fixture may be resized as a whole.

Shape letters: H x W an image or a tile, C = 3 channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from PIL import Image

from unalike.data.decoding import Decoding
from unalike.errors import SpecError

MAX_SIDE = 1 << 16
FIT_MODES = ("scale", "whole")
LIGHT_MODES = ("as-is", "even")
# Neighboring tiles share at least this many pixels, more than the zero padding at a tile's border reaches into the feature
# maps of strides 8 and 16, most of the time.
OVERLAP = 32
# The gray level to which light mode "even" brings the median of an image.
TARGET_MEDIAN = 100.0


@dataclass(frozen=True)
class ImageTile:
    """One tile of a scaled image.

    Attributes:
        pixels_HWC: uint8 RGB of the network's input size.
        top, left: Where the tile begins in the scaled image, in pixels.
        height, width: The part of the tile that shows the image; the rest is its reflection.
    """

    pixels_HWC: np.ndarray
    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Tiling:
    """How images are resized and cut into tiles.

    Attributes:
        height, width: Input size of the network, that is of a tile, in pixels.
        fit: ``scale`` multiplies the sides of every image by ``scale`` and cuts tiles; ``whole`` resizes every image to
            the network's input size, whatever its aspect ratio.
        scale: Factor of ``fit="scale"``, above 0 and at most 8.
        light: ``as-is`` leaves the brightness; ``even`` multiplies an image so that its median becomes ``TARGET_MEDIAN``.
        decoding: How image files become 8-bit RGB.

    Raises:
        SpecError: An unknown mode, or a scale out of range.
    """

    height: int
    width: int
    fit: str = "scale"
    scale: float = 1.0
    light: str = "as-is"
    decoding: Decoding = field(default_factory=Decoding)

    def __post_init__(self) -> None:
        if self.fit not in FIT_MODES:
            raise SpecError(f"fit {self.fit!r}", expected=" or ".join(FIT_MODES))
        if self.light not in LIGHT_MODES:
            raise SpecError(f"light {self.light!r}", expected=" or ".join(LIGHT_MODES))
        if not (0 < self.height < MAX_SIDE and 0 < self.width < MAX_SIDE):
            raise SpecError(f"tiles of {self.height} x {self.width}", expected=f"sides of 1 to {MAX_SIDE - 1} pixels")
        if not 0 < self.scale <= 8:
            raise SpecError(f"scale {self.scale}", expected="above 0, at most 8")

    def scaled_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of an image of ``size`` after ``transform``."""
        if self.fit == "whole":
            return self.height, self.width
        return max(1, round(size[0] * self.scale)), max(1, round(size[1] * self.scale))

    def transform(self, image: Image.Image) -> Image.Image:
        """Resize an RGB image and adjust its brightness."""
        height, width = self.scaled_size((image.height, image.width))
        scaled = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3.0)
        if self.light == "as-is":
            return scaled
        gray = np.asarray(scaled.convert("L").reduce(max(1, min(scaled.size) // 512)))
        gain = TARGET_MEDIAN / max(1.0, float(np.median(gray)))
        return scaled.point([min(255, round(level * gain)) for level in range(256)] * 3)

    def tiles(self, image: Image.Image, stride: int = 8) -> Iterator[ImageTile]:
        """Cut an RGB image into evenly spread tiles.

        Args:
            image: The image before ``transform``.
            stride: Stride of the finest feature map; tiles begin at multiples of it.
        """
        scaled = self.transform(image)
        for top in tile_starts(scaled.height, self.height, stride):
            for left in tile_starts(scaled.width, self.width, stride):
                right, bottom = min(left + self.width, scaled.width), min(top + self.height, scaled.height)
                crop_HWC = np.asarray(scaled.crop((left, top, right, bottom)))
                height, width = crop_HWC.shape[:2]
                yield ImageTile(pad_by_reflection(crop_HWC, (self.height, self.width)), top, left, height, width)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for files and JSON."""
        values = asdict(self)
        values["decoding"] = self.decoding.to_dict()
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Tiling:
        """The inverse of ``to_dict``; without a decoding, version 1. Other keys are ignored."""
        own_values = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        return cls(**{**own_values, "decoding": Decoding.from_dict(values.get("decoding"))})


def tile_starts(length: int, tile: int, stride: int) -> list[int]:
    """Where the tiles along one side begin: the first at 0, the last so that the end is covered.

    Args:
        length: Length of the side of the image, in pixels.
        tile: Length of the side of a tile, in pixels.
        stride: All starts are multiples of it, so that the patches of all tiles lie on one grid.
    """
    if length <= tile:
        return [0]
    step = max(stride, tile - min(OVERLAP, tile // 4))
    count = -(-(length - tile) // step) + 1
    return sorted({-(-round((length - tile) * number / (count - 1)) // stride) * stride for number in range(count)})


def pad_by_reflection(pixels_HWC: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Reflect an image to the right and below until it has ``size`` (height, width), also where that is many times its own."""
    for axis, target in ((0, size[0]), (1, size[1])):
        length = pixels_HWC.shape[axis]
        if length < target:
            back = np.arange(length - 2, 0, -1)
            period = np.concatenate([np.arange(length), back]) if length > 1 else np.zeros(1, int)
            pixels_HWC = np.take(pixels_HWC, period[np.arange(target) % len(period)], axis)
    return np.ascontiguousarray(pixels_HWC)


def choose_fit(sizes: list[tuple[int, int]], network: tuple[int, int]) -> str:
    """Choose the fit mode for images of these sizes (height, width).

    Returns:
        ``whole`` where all images have one aspect ratio (within 2 %) that is near that of the ``network``'s input, else
        ``scale``.
    """
    aspects = np.array([height / width for height, width in sizes])
    median = float(np.median(aspects))
    ratio = median / (network[0] / network[1])
    return "whole" if np.abs(aspects / median - 1).max() <= 0.02 and 2 / 3 <= ratio <= 1.5 else "scale"


def choose_scale(sizes: list[tuple[int, int]], network: tuple[int, int]) -> float:
    """Choose the scale at which the area of the median image fills a tile, at most 1."""
    area = float(np.median([height * width for height, width in sizes]))
    return float(min(1.0, round(np.sqrt(network[0] * network[1] / area), 3)))
