"""How an inspected image is shown to a network: brought to a common scale, cut into tiles, its light evened out or not.

Images of one kind of part come in many sizes, and of a hundred megapixels at times: the same scale for all keeps a scratch
as wide as it was among the good ones, and tiles keep the memory bounded. Parts in a fixture may be shown whole.

Shape letters: H x W the image, T tiles, h x w a grid of patches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from PIL import Image

from unalike.errors import SpecError

FITS = ("scale", "whole")
LIGHTS = ("as-is", "even")
# Neighbouring tiles share at least this many pixels: beyond what the zeros at a tile's border reach into the maps of
# strides 8 and 16, most of the time.
OVERLAP = 32
# The grey level that "even" brings the median of an image to.
MIDDLE = 100.0


@dataclass(frozen=True)
class Tile:
    """``pixels_HWC`` (uint8, the network's size) begins at (``top``, ``left``) of the scaled image; ``height`` x ``width`` of
    it are the image, the rest its reflection."""

    pixels_HWC: np.ndarray
    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Sight:
    """``height`` x ``width`` is the network's size.

    ``fit``: ``scale`` brings every image to ``scale`` times its size and cuts tiles; ``whole`` resizes every image to the
    network's size, whatever its aspect. ``light``: ``even`` multiplies an image so that its median becomes MIDDLE.
    """

    height: int
    width: int
    fit: str = "scale"
    scale: float = 1.0
    light: str = "as-is"

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise SpecError(f"fit {self.fit!r}", expected=" or ".join(FITS))
        if self.light not in LIGHTS:
            raise SpecError(f"light {self.light!r}", expected=" or ".join(LIGHTS))
        if not 0 < self.scale <= 8:
            raise SpecError(f"scale {self.scale}", expected="above 0, at most 8")

    def scaled_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) at which an image of ``size`` is looked at."""
        if self.fit == "whole":
            return self.height, self.width
        return max(1, round(size[0] * self.scale)), max(1, round(size[1] * self.scale))

    def scaled(self, picture: Image.Image) -> Image.Image:
        """The whole picture (RGB) as it is looked at, its light as settled."""
        height, width = self.scaled_size((picture.height, picture.width))
        seen = picture.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3.0)
        if self.light == "as-is":
            return seen
        grey = np.asarray(seen.convert("L").reduce(max(1, min(seen.size) // 512)))
        gain = MIDDLE / max(1.0, float(np.median(grey)))
        return seen.point([min(255, round(level * gain)) for level in range(256)] * 3)

    def tiles(self, picture: Image.Image, stride: int = 8) -> Iterator[Tile]:
        """The tiles of a picture (RGB), evenly spread over it; they begin at multiples of ``stride``."""
        seen = self.scaled(picture)
        for top in starts(seen.height, self.height, stride):
            for left in starts(seen.width, self.width, stride):
                part = np.asarray(seen.crop((left, top, min(left + self.width, seen.width),
                                             min(top + self.height, seen.height))))  # fmt: skip
                height, width = part.shape[:2]
                yield Tile(filled(part, (self.height, self.width)), top, left, height, width)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; ``Sight(**values)`` gives the same back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Sight:
        """What ``to_dict`` gave."""
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})


def starts(length: int, tile: int, stride: int) -> list[int]:
    """Where tiles begin along one side: the first at 0, the last so that the end is covered.

    All are multiples of ``stride``, so that the patches of all tiles lie on one grid.
    """
    if length <= tile:
        return [0]
    step = max(stride, tile - min(OVERLAP, tile // 4))
    count = -(-(length - tile) // step) + 1
    return sorted({-(-round((length - tile) * number / (count - 1)) // stride) * stride for number in range(count)})


def filled(part_HWC: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The part, reflected to the right and below until it has ``size``."""
    for axis, wanted in ((0, size[0]), (1, size[1])):
        have = part_HWC.shape[axis]
        if have < wanted:
            period = np.concatenate([np.arange(have), np.arange(have - 2, 0, -1)]) if have > 1 else np.zeros(1, int)
            part_HWC = np.take(part_HWC, period[np.arange(wanted) % len(period)], axis)
    return np.ascontiguousarray(part_HWC)


def settle_fit(sizes: list[tuple[int, int]], network: tuple[int, int]) -> str:
    """``whole`` where all good images (H, W) have one aspect (within 2 %) and it is near the network's, else ``scale``."""
    aspects = np.array([height / width for height, width in sizes])
    middle = float(np.median(aspects))
    ratio = middle / (network[0] / network[1])
    return "whole" if np.abs(aspects / middle - 1).max() <= 0.02 and 2 / 3 <= ratio <= 1.5 else "scale"


def settle_scale(sizes: list[tuple[int, int]], network: tuple[int, int]) -> float:
    """The scale at which the median image's area fills a tile, at most 1."""
    area = float(np.median([height * width for height, width in sizes]))
    return float(min(1.0, round(np.sqrt(network[0] * network[1] / area), 3)))
