"""Images of more than 8 bits a channel: reading all their bits, and scaling them to 8.

Pillow keeps gray of 16 bits, 32 bits and floating point, but of 16-bit colors it reads the high byte alone. Its unpackers for
the other byte order read the low byte.

Shape letters: H, W of an image, C channels (1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from unalike.data import pillow

FULL_16 = 65535.0
# Raw mode -> the one that reads the low byte of each value.
_LOW_BYTE = {
    "RGB;16B": "RGB;16L", "RGB;16L": "RGB;16B", "RGB;16N": "RGB;16B",
    "RGBA;16B": "RGBA;16L", "RGBA;16L": "RGBA;16B", "RGBA;16N": "RGBA;16B",
    "RGBX;16B": "RGBX;16L", "RGBX;16L": "RGBX;16B", "RGBX;16N": "RGBX;16B",
}  # fmt: skip
_GRAY_ALPHA = "LA;16B"  # four bytes a pixel, read as four channels
_WHITE_IS_ZERO, _PHOTOMETRIC_TAG = 0, 262
# TIFF tags that name the highest value: MaxSampleValue, SMaxSampleValue, WhiteLevel.
_MAXIMUM_TAGS = (281, 341, 50717)
_BITS_TAG = 258
STRIP_VALUES = 1 << 22  # that are converted at once, as floating point of 8 bytes


def is_deep(image: Image.Image) -> bool:
    """Whether an image has more than 8 bits a channel."""
    return image.mode == "F" or image.mode.startswith("I") or _color_raw_mode(image) is not None


def _color_raw_mode(image: Image.Image) -> str | None:
    """The raw mode of an image file of 16-bit colors that is not loaded yet, else None."""
    tile = getattr(image, "tile", None)
    if not tile or not isinstance(image, ImageFile.ImageFile):
        return None
    arguments = tile[0][3]
    raw_mode = arguments if isinstance(arguments, str) else arguments[0] if arguments else None
    return raw_mode if raw_mode in _LOW_BYTE or raw_mode == _GRAY_ALPHA else None


def read_values(image: Image.Image, reopen: Callable[[], Image.Image]) -> np.ndarray:
    """Read a deep image.

    Args:
        image: The image. A file of 16-bit colors is not loaded, before and after.
        reopen: Opens that file again.

    Returns:
        uint16 (H, W, C), or int32 or float32 (H, W, 1).
    """
    raw_mode = _color_raw_mode(image)
    if raw_mode is None:
        values: np.ndarray = gray_values(image)[..., None]
        if image.mode.startswith("I;16"):
            values = values.astype(np.uint16)
            if _photometric(image) == _WHITE_IS_ZERO:
                values = np.uint16(65535) - values
        return values
    if raw_mode == _GRAY_ALPHA:
        bytes_HW4 = _load_as(reopen(), "RGBA").astype(np.uint16)
        values = bytes_HW4[..., 0::2] << 8 | bytes_HW4[..., 1::2]
        return values
    high_HWC = _load_as(reopen(), raw_mode).astype(np.uint16)
    values = high_HWC << 8 | _load_as(reopen(), _LOW_BYTE[raw_mode])
    return values[..., :3] if raw_mode.startswith("RGBX") else values


def gray_values(image: Image.Image) -> np.ndarray:
    """The values (H, W) of a gray image, read in strips: all at once Pillow would copy them twice."""
    pillow.load(image)
    width, height = image.size
    rows = max(1, STRIP_VALUES // width)
    strips = (np.asarray(image.crop((0, top, width, min(top + rows, height)))) for top in range(0, height, rows))
    first = next(strips)
    values: np.ndarray = np.empty((height, width), first.dtype)
    values[: len(first)] = first
    for number, strip in enumerate(strips, 1):
        values[number * rows : number * rows + len(strip)] = strip
    return values


def _load_as(image: Image.Image, raw_mode: str) -> np.ndarray:
    """The bytes of an image file by a raw mode of the same width; the file is closed."""
    assert isinstance(image, ImageFile.ImageFile)
    tiles = []
    for tile in image.tile:
        arguments: Any = tile[3]
        new_arguments = raw_mode if isinstance(arguments, str) else (raw_mode, *arguments[1:])
        tiles.append(ImageFile._Tile(tile[0], tile[1], tile[2], new_arguments))
    image.tile = tiles
    with image:
        pillow.load(image)
        return np.asarray(image)


def _photometric(image: Image.Image) -> int | None:
    tags = getattr(image, "tag_v2", None)
    value = None if tags is None else tags.get(_PHOTOMETRIC_TAG)
    return value if isinstance(value, int) else None


def stated_maximum(image: Image.Image) -> float | None:
    """The highest value by the tags of a TIFF file, or None."""
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return None
    for tag in (*_MAXIMUM_TAGS, _BITS_TAG):
        value = tags.get(tag)
        values = [float(v) for v in (value if isinstance(value, tuple) else (value,)) if isinstance(v, int | float)]
        highest = max(values, default=0.0)
        if tag == _BITS_TAG:
            return 2.0**highest - 1 if 8 < highest < 16 else None
        if highest > 0:
            return highest
    return None


def format_range_of(values_HWC: np.ndarray) -> tuple[float, float]:
    """The range of the number format, for images of which no range is known: a constant one, whatever their content."""
    return (0.0, 1.0) if np.issubdtype(values_HWC.dtype, np.floating) else (0.0, FULL_16)


def scale_to_8_bits(values_HWC: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Scale values so that ``limits`` become 0 and 255; what lies outside is cut off. NaN becomes 0. uint8."""
    low, high = limits
    scaled: np.ndarray = np.empty(values_HWC.shape, np.uint8)
    # by a table: a tenth of the time
    table = _scale(np.arange(65536), low, high) if values_HWC.dtype == np.uint16 else None
    rows = max(1, STRIP_VALUES // max(1, math.prod(values_HWC.shape[1:])))
    for top in range(0, len(values_HWC), rows):
        strip = values_HWC[top : top + rows]
        scaled[top : top + rows] = table[strip] if table is not None else _scale(strip, low, high)
    return scaled


def _scale(values: np.ndarray, low: float, high: float) -> np.ndarray:
    finite = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    with np.errstate(over="ignore", invalid="ignore"):  # a range near that of float64, as in damaged files
        scaled = np.nan_to_num((finite - low) * (255.0 / (high - low)))
    return np.clip(scaled + 0.5, 0, 255).astype(np.uint8)
