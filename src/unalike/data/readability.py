"""Which images of a set cannot be decoded: all are read, or within a time limit as many as it allows, drawn at random."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unalike.data.decode import MAX_PIXELS, open_image
from unalike.data.notices import Notices
from unalike.errors import UnreadableImage
from unalike.progress import progress


def find_unreadable(
    paths: Sequence[Path], notices: Notices, *, seconds: float, max_pixels: int = MAX_PIXELS, seed: int = 0
) -> tuple[int, int]:
    """Decode images and add a notice for each that cannot be.

    Args:
        paths: The images.
        notices: Receives them, as ``unreadable``, in the order of ``paths``.
        seconds: Time limit; images that are left then are not read.
        max_pixels: Larger images count as unreadable.
        seed: Of the order in which they are read.

    Returns:
        Number of images that were read, and of those among them that cannot be decoded.
    """
    order_N = np.random.default_rng(seed).permutation(len(paths))
    reasons: dict[int, str] = {}
    limit, count = time.monotonic() + seconds, 0
    with progress("reading images", len(paths)) as advance:
        for index in order_N.tolist():
            if time.monotonic() > limit:
                break
            try:
                open_image(paths[index], min_size=(1, 1), max_pixels=max_pixels)
            except UnreadableImage as error:
                reasons[index] = str(error)
            count += 1
            advance()
    for index in sorted(reasons):
        notices.add("unreadable", paths[index], reasons[index])
    return count, len(reasons)
