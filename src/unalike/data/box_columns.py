"""Columns of a table that hold the boxes of objects, by the names that data sets of detection give them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from unalike.data.class_names import plain_name
from unalike.data.regions import Numbers

_PREFIX = re.compile(r"(?:bounding[ _.-]?box|bnd[ _.-]?box|bbox|box|bb|roi|rect)[ _.-]?")


def _sizes(cells: Numbers) -> Numbers:
    return cells


def _corners(cells: Numbers) -> Numbers:
    left, top, right, bottom = cells
    return left, top, right - left, bottom - top


# Names of four columns, as ``_key`` makes them -> how their numbers become x, y, width, height.
_FORMS: dict[tuple[str, str, str, str], Callable[[Numbers], Numbers]] = {
    ("x", "y", "width", "height"): _sizes,
    ("x", "y", "w", "h"): _sizes,
    ("xmin", "ymin", "xmax", "ymax"): _corners,
    ("minx", "miny", "maxx", "maxy"): _corners,
    ("x1", "y1", "x2", "y2"): _corners,
    ("x0", "y0", "x1", "y1"): _corners,
    ("left", "top", "right", "bottom"): _corners,
    ("startx", "starty", "endx", "endy"): _corners,
    ("xtl", "ytl", "xbr", "ybr"): _corners,
    ("tlx", "tly", "brx", "bry"): _corners,
    # behind the corners, beside which width and height are those of the image
    ("left", "top", "width", "height"): _sizes,
    ("xmin", "ymin", "width", "height"): _sizes,
}
_CENTERS = ("xcenter", "ycenter", "centerx", "centery", "xc", "yc", "cx", "cy")
_SIZES = ("width", "height", "w", "h")  # alone those of the image
_PLACES = {key for form in _FORMS for key in form if key not in _SIZES} | set(_CENTERS)
_DIRECTIONS = (("x", "left", "right"), ("y", "top", "bottom"))  # across and down
_WHOLE = ("bbox", "bboxes", "boundingbox", "bndbox")  # one cell with all four numbers, in no agreed order


class BoxColumns(NamedTuple):
    """Four columns that hold a box.

    Attributes:
        names: names of the columns, as the table has them.
        to_sizes: makes (x, y, width, height) of their numbers, in pixels.
    """

    names: tuple[str, str, str, str]
    to_sizes: Callable[[Numbers], Numbers] = _sizes


def _key(name: str) -> str:
    return re.sub(r"[ _.-]", "", name)


def find_box_columns(names: Sequence[str]) -> BoxColumns | None:
    """The four columns of a table that hold boxes; None where no four belong together.

    Recognized are x, y, width, height; x, y, w, h; left, top with width, height or right, bottom; xmin, ymin, xmax, ymax; and
    x1, y1, x2, y2 (or x0, y0, x1, y1): in any case, with or without ``_``, all four with one prefix such as ``bbox_`` or none.
    """
    for columns in _by_prefix(names):
        for form, to_sizes in _FORMS.items():
            is_polygon = form[2] == "x2" and ("x3" in columns or "y3" in columns)
            if all(key in columns for key in form) and not is_polygon:
                first, second, third, fourth = (columns[key] for key in form)
                return BoxColumns((first, second, third, fourth), to_sizes)
    return None


def find_partial_box(names: Sequence[str]) -> tuple[str, ...]:
    """Columns that seem to hold boxes, of a table of which ``find_box_columns`` recognizes none; empty where none do."""
    groups = _by_prefix(names)
    for number, columns in enumerate(groups):
        has_prefix = number < len(groups) - 1
        keys = [key for key in columns if key in _PLACES]
        is_across, is_down = (any(sign in key for key in keys for sign in signs) for signs in _DIRECTIONS)
        if is_across and is_down or has_prefix and keys:
            return tuple(columns[key] for key in columns if key in _PLACES or key in _SIZES)
    return tuple(name for name in names if _key(plain_name(name)) in _WHOLE)


def is_box_column(name: str) -> bool:
    """Whether a column of this name may be one of four that hold boxes, or one that holds all of a box."""
    return any(key in _PLACES or key in _SIZES for columns in _by_prefix([name]) for key in columns) or (
        _key(plain_name(name)) in _WHOLE
    )


def _by_prefix(names: Sequence[str]) -> list[dict[str, str]]:
    """Names by key: one mapping for each prefix of boxes, then that of the names without one."""
    groups: dict[str, dict[str, str]] = {}
    for name in names:
        plain = plain_name(name)
        prefix = _PREFIX.match(plain)
        rest = _key(plain[prefix.end() :]) if prefix else ""
        groups.setdefault(_key(prefix[0]) if prefix and rest else "", {}).setdefault(rest or _key(plain), name)
    without = groups.pop("", {})
    return [*groups.values(), without]
