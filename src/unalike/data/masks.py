"""Read masks of defective or ignored regions, in the forms in which people and tools write them.

Shape letters: H x W an image, C channels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unalike.data.decode import open_layer, upright_size
from unalike.data.decoding import Decoding
from unalike.data.pillow import open_file
from unalike.errors import DataError

# A mask with more values than this is a drawing with soft edges or a JPEG; with fewer, each value but 0 is a label.
MAX_LABELS = 16
# Above this share the ground was most likely marked instead of the defect.
MAX_MARKED = 0.5
# Of an image that is read for its errors alone.
ANY_RANGE = Decoding(range=(0, 65535))


def read_mask(path: str | Path, size: tuple[int, int], *, max_marked: float = MAX_MARKED) -> np.ndarray:
    """Read the mask of an image.

    Marked are: in an image with transparent pixels the opaque ones (of these the brighter, where they are of black and of
    another color); in an image of few values, such as 0 and 1, 0 and 255, labels 0, 1, 2 or the colors of a palette, all but
    black; in one of many values (soft edges, JPEG) those above half of the brightest. The brightness of a pixel is the
    largest of its channels.

    Args:
        path: An image file.
        size: (H, W) of the image that the mask belongs to.
        max_marked: Largest share of pixels that may be marked; 1 allows any.

    Returns:
        bool (H, W), True where marked.

    Raises:
        UnreadableImage: A file that cannot be decoded.
        DataError: A mask of another size, one that marks nothing, or more than ``max_marked``.
    """
    height, width = upright_size(path)
    if (height, width) != size:
        raise DataError(f"the mask {path} is {height} x {width}", expected=f"{size[0]} x {size[1]}, as its image")
    mask_HW = _marked(path)
    share = float(mask_HW.mean())
    if share == 0:
        raise DataError(f"the mask {path} marks no pixel", expected="the region in white on black, or opaque on transparent",
                        remedy="mark the region, or remove the file")  # fmt: skip
    if share > max_marked:
        raise DataError(
            f"the mask {path} marks {share:.0%} of its image", expected=f"at most {max_marked:.0%}: the region in white on "
            "black, or opaque on transparent", remedy="invert it if it marks the ground",
        )  # fmt: skip
    return mask_HW


def _marked(path: str | Path) -> np.ndarray:
    deep = _deep_pixels(path)
    if deep is not None:
        return _above_ground(deep)
    layer_HWC = np.asarray(open_layer(path))
    value_HW = layer_HWC[..., :3].max(axis=2)
    opaque_HW: np.ndarray = layer_HWC[..., 3] > 127
    if opaque_HW.all():
        return _above_ground(value_HW)
    visible = value_HW[opaque_HW]
    if visible.size and visible.min() == 0 and visible.max() > 0:
        opaque_HW &= _above_ground(np.where(opaque_HW, value_HW, 0))
    return opaque_HW


def _deep_pixels(path: str | Path) -> np.ndarray | None:
    """Pixels of more than 8 bits as they are stored, since labels 0 and 1 would vanish in a conversion; None for others."""
    upright_size(path)  # raises for a file that is no image
    with open_file(path) as image:
        if image.mode not in ("I", "F") and not image.mode.startswith("I;"):
            return None
        open_layer(path, decoding=ANY_RANGE)  # refuses what is too large or damaged
        return np.asarray(image)


def _above_ground(value_HW: np.ndarray) -> np.ndarray:
    values = np.unique(value_HW)
    marked_HW: np.ndarray = value_HW > (0 if len(values) <= MAX_LABELS else values[-1] / 2)
    return marked_HW
