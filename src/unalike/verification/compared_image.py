"""The part of an image that is compared with assets: all of it, or a box with a margin around it; at a bounded size.

A box says where the mark is, not how large exactly: the margin lets the pose exceed it, and shows what was added beside it.

Shapes: H, W of the compared pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unalike.data.decode import MAX_PIXELS, ImageInput, open_image, upright_size
from unalike.data.decoding import Decoding
from unalike.data.regions import Box, clip_box
from unalike.errors import DataError, UnreadableImage
from unalike.numerics.arguments import check_count, check_list
from unalike.verification.searched_image import limit_size

# Longest side, in pixels, at which images are compared: it bounds memory, and exceeds the size of any asset's frame.
MAX_SIDE = 1024
MIN_SIDE = 16
# Margin around a box, as a share of its longer side.
BOX_MARGIN = 0.2


@dataclass(frozen=True, eq=False)
class ComparedImage:
    """Pixels that are compared, and where they lie in the original image.

    Attributes:
        pixels_HW3: uint8 RGB, at most ``MAX_SIDE`` a side.
        size: (H, W) of the original image.
        to_original_33: From (x, y, 1) of the pixels to (x, y, 1) of the original image.
    """

    pixels_HW3: np.ndarray
    size: tuple[int, int]
    to_original_33: np.ndarray

    @property
    def scale(self) -> float:
        """Pixels of the original image per compared pixel."""
        return float(self.to_original_33[0, 0])


def check_box(box: Sequence[int]) -> Box:
    """Return (x, y, width, height) as a box; raise DataError for anything but whole numbers, of which the sizes are above 0."""
    numbers = check_list("box", box, "a number")
    if len(numbers) != 4:
        raise DataError(f"a box of {len(numbers)} numbers", expected="x, y, width, height in pixels")
    least = zip(
        ("x of the box", "y of the box", "width of the box", "height of the box"), numbers, (0, 0, 1, 1), strict=True
    )
    return Box(*(check_count(name, number, smallest) for name, number, smallest in least))


def read_compared(image: ImageInput, decoding: Decoding, box: Box | None = None) -> ComparedImage:
    """Read what is compared of an image.

    Args:
        image: As in ``data.decode.decode``.
        decoding: How it becomes 8-bit RGB.
        box: Where the mark is, in pixels of the upright image; all of the image if unset.

    Raises:
        UnreadableImage: The image cannot be decoded, it or the box is too small, or the box lies outside of it.
        DataError: An array has another shape or type.
    """
    size = upright_size(image)
    if box is None:
        picture = open_image(image, decoding=decoding, min_size=(MAX_SIDE, MAX_SIDE), max_pixels=MAX_PIXELS)
        corner = np.zeros(2)
        region = (0, 0, picture.width, picture.height)
    else:
        region = _with_margin(box, size)
        detail = min(1.0, MAX_SIDE / max(region[2] - region[0], region[3] - region[1]))
        least = (int(np.ceil(size[0] * detail)), int(np.ceil(size[1] * detail)))
        picture = open_image(image, decoding=decoding, min_size=least, max_pixels=MAX_PIXELS)
        factor = picture.width / size[1]
        left, top, right, bottom = (round(side * factor) for side in region)
        region = (left, top, right, bottom)
        corner = np.array(region[:2]) / factor
    if min(region[2] - region[0], region[3] - region[1]) < MIN_SIDE:
        raise UnreadableImage(
            f"{'an image' if box is None else 'a box'} of {region[2] - region[0]} x {region[3] - region[1]} pixels",
            expected=f"at least {MIN_SIDE} a side",
        )
    pixels, _ = limit_size(np.asarray(picture.crop(region)), MAX_SIDE)
    scale = (region[2] - region[0]) / pixels.shape[1] * size[1] / picture.width
    to_original = np.array([[scale, 0, corner[0]], [0, scale, corner[1]], [0, 0, 1]])
    return ComparedImage(np.ascontiguousarray(pixels), size, to_original)


def _with_margin(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a box with its margin, within an image of this (H, W)."""
    width, height = clip_box(box, size[1], size[0], "an image")
    edge = round(BOX_MARGIN * max(width, height))
    left, top = max(0, box.x - edge), max(0, box.y - edge)
    return left, top, min(size[1], box.x + width + edge), min(size[0], box.y + height + edge)
