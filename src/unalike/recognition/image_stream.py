"""Streams of images that a caller gives: several and not one, taken a batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from unalike.data.decode import ImageInput, is_image
from unalike.errors import DataError
from unalike.numerics.arguments import describe


def several_images(images: Any) -> Iterable[ImageInput]:
    """Images that are iterated over. Raises DataError for one image in place of several, and for anything else."""
    is_one = is_image(images) and not (isinstance(images, np.ndarray) and images.ndim == 4)
    if is_one or isinstance(images, Mapping) or not isinstance(images, Iterable):
        raise DataError(f"images: {describe(images)}", expected="images: paths, contents of files, arrays or opened pictures",
                        remedy="put one image in a list: [image]" if is_one else "")  # fmt: skip
    return images


def image_batches(images: Iterable[ImageInput], size: int) -> Iterator[list[ImageInput]]:
    """Images in lists of ``size``, and the rest; they are taken from the iterable when their list is."""
    stream = iter(images)
    while batch := list(islice(stream, size)):
        yield batch
