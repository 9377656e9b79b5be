"""Ignored regions of images that are all framed alike: clocks, serial numbers, labels; a mask, boxes, or both.

Shapes: H, W of the image that the regions belong to.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unalike.data.masks import read_mask
from unalike.errors import DataError

Boxes = Sequence[Sequence[int]]


def find_ignored(size: tuple[int, int], mask: str | Path | None, boxes: Boxes | None) -> np.ndarray | None:
    """Find the ignored pixels of an image.

    Args:
        size: (H, W) of the image.
        mask: Image of that size whose marked pixels are ignored, as ``read_mask`` reads it.
        boxes: (left, top, right, bottom) in pixels; right and bottom are the first pixels outside.

    Returns:
        bool (H, W), True where ignored; None where neither a mask nor a box is given.

    Raises:
        UnreadableImage: The mask cannot be read.
        DataError: The mask has another size or marks nothing; a box is empty or reaches beyond the image.
    """
    if mask is None and not boxes:
        return None
    height, width = size
    ignored_HW = np.zeros(size, bool) if mask is None else read_mask(mask, size, max_marked=1.0).copy()
    for left, top, right, bottom in boxes or ():
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise DataError(f"the ignored box {left},{top},{right},{bottom}",
                            expected=f"left < right <= {width} and top < bottom <= {height}, the image's sides")  # fmt: skip
        ignored_HW[top:bottom, left:right] = True
    return ignored_HW
