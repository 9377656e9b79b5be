"""Sets of regions that are kept under a name: boxes over pictures of one frame, in which differences are ignored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unalike.errors import closest
from unalike.serve.problems import Problem
from unalike.serve.store import Store

KIND = "regions"
Box = tuple[int, int, int, int]


def find_set(store: Store, name: str) -> dict[str, Any]:
    """The content of a set: ``boxes``, and ``frame``, the (H, W) that they belong to. Raises Problem (404)."""
    content = store.settings.get(KIND, name)
    if content is None:
        raise Problem(
            404, "no-regions", f"no set of regions {name[:100]!r}", remedy=closest(name, list(store.settings.all(KIND)))
        )
    return content


def scale_boxes(content: Mapping[str, Any], size: Sequence[int]) -> list[Box]:
    """The boxes of a set in a picture of another size, which shows the same frame.

    Args:
        content: of the set.
        size: (H, W) of the picture.

    Returns:
        Boxes (left, top, right, bottom) in its pixels, which cover all that the set's cover.
    """
    (height, width), (own_height, own_width) = size, content["frame"]
    boxes = []
    for left, top, right, bottom in content["boxes"]:
        boxes.append(
            (
                left * width // own_width,
                top * height // own_height,
                -(-right * width // own_width),
                -(-bottom * height // own_height),
            )
        )
    return boxes
