"""Regions of image files: the box of one object in an image, named ``path#x,y,width,height``.

Such a name stands wherever the path of an image may stand: in image sets, results, manifests, galleries and caches. Boxes are
whole pixels of the upright image, from its left upper corner; what lies outside of the image is cut off.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from unalike.data.member_files import open_image_file
from unalike.errors import DataError, UnreadableImage

if TYPE_CHECKING:
    from PIL import Image

_NAME = re.compile(r"(.+)#(\d{1,7}),(\d{1,7}),(\d{1,7}),(\d{1,7})", re.DOTALL)
_MAX_COORDINATE = 10**7 - 1


class Box(NamedTuple):
    """A box in pixels; ``x`` and ``y`` are its left upper corner."""

    x: int
    y: int
    width: int
    height: int


def split_region(path: str | Path) -> tuple[str, Box | None]:
    """Split the name of a region into the path of its file and its box; any other path has no box."""
    text = os.fspath(path)
    match = _NAME.fullmatch(text) if "#" in text else None
    if match is None or os.path.lexists(text):  # a file may have such a name
        return text, None
    return match[1], Box(*(int(number) for number in match.groups()[1:]))


def image_file(path: str | Path) -> str:
    """The path of the file that an image, or the region of one, lies in."""
    return split_region(path)[0]


def region_name(path: str | Path, box: Box) -> Path:
    """The name of a region."""
    return Path(f"{os.fspath(path)}#{','.join(map(str, box))}")


def crop_region(image: Image.Image, box: Box, name: str | Path) -> Image.Image:
    """Cut a box out of an upright image. Raises UnreadableImage, which names the region, where the box lies outside of it."""
    width, height = clip_box(box, image.width, image.height, name)
    return image.crop((box.x, box.y, box.x + width, box.y + height))


def clip_box(box: Box, width: int, height: int, name: str | Path) -> tuple[int, int]:
    """The (width, height) of the part of a box that lies inside of an image of this size. Raises UnreadableImage."""
    if box.x >= width or box.y >= height:
        raise UnreadableImage(
            f"{name}: its box lies outside of the image of {width} x {height} pixels",
            expected="x, y, width, height in pixels of the upright image",
        )
    return min(box.width, width - box.x), min(box.height, height - box.y)


class ContentDigests:
    """Digests of image files; a file of several regions is read once. Threads may share one."""

    def __init__(self) -> None:
        self._files: dict[str, hashlib.blake2b | None] = {}

    def __call__(self, path: str | Path) -> bytes | None:
        """Digest of an image file's content and, for a region, its box; None for a file that cannot be read."""
        file, box = split_region(path)
        if box is None:
            digest = _digest_file(file)
            return None if digest is None else digest.digest()
        if file not in self._files:
            self._files[file] = _digest_file(file)
        file_digest = self._files[file]
        if file_digest is None:
            return None
        digest = file_digest.copy()
        digest.update(repr(tuple(box)).encode())
        return digest.digest()


def _digest_file(file: str) -> hashlib.blake2b | None:
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open_image_file(file) as stream:
            hashlib.file_digest(stream, lambda: digest)
    except (OSError, DataError):
        return None
    return digest


def group_by_file(paths: Sequence[str | Path], largest: int) -> list[list[int]]:
    """Group the indices of regions of one file, in order of the first of each; every other path is alone.

    Args:
        paths: Images and regions of images.
        largest: Most regions of a group; a file of more has several groups.
    """
    groups: list[list[int]] = []
    of_file: dict[str, list[int]] = {}
    for index, path in enumerate(paths):
        file, box = split_region(path)
        group = of_file.get(file) if box is not None else None
        if group is None or len(group) >= largest:
            group = []
            groups.append(group)
            if box is not None:
                of_file[file] = group
        group.append(index)
    return groups


Numbers = tuple[float, float, float, float]


def parse_box(cells: Sequence[str], to_sizes: Callable[[Numbers], Numbers] | None = None) -> Box | None:
    """Parse the four cells of a box, in pixels, rounded; four empty cells are the whole image (None).

    Args:
        cells: x, y, width and height, or what ``to_sizes`` makes them of.
        to_sizes: Makes (x, y, width, height) of the four numbers (``data.box_columns``).

    Raises:
        ValueError: Not four numbers, or a box without area; the text says what is wrong.
    """
    if not any(cells):
        return None
    if not all(cells):
        raise ValueError("some of its four cells are empty")
    if any("_" in cell for cell in cells):
        raise ValueError("a number with an underscore")
    numbers = [float(cell.replace(",", ".")) for cell in cells]  # a decimal comma, in a table with semicolons
    if not all(math.isfinite(number) and abs(number) <= _MAX_COORDINATE for number in numbers):
        raise ValueError("a number that is no pixel")
    first, second, third, fourth = numbers
    if max(map(abs, numbers)) <= 1 and not all(number.is_integer() for number in numbers):
        raise ValueError("fractions of the image, not pixels")
    x, y, width, height = to_sizes((first, second, third, fourth)) if to_sizes else (first, second, third, fourth)
    left, top, right, bottom = (max(0, round(side)) for side in (x, y, x + width, y + height))
    if right <= left or bottom <= top:
        raise ValueError("no area inside of the image")
    return Box(left, top, right - left, bottom - top)
