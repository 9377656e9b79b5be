"""ISO media files (AVIF, HEIC): where in the file the coded pictures lie.

Such a file is a sequence of boxes: size (4 bytes), kind (4), content. ``meta`` holds ``iinf``, the kind of each item, and
``iloc``, its place (ISO/IEC 14496-12, sections 8.11.3 and 8.11.6).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator

_PICTURES = frozenset((b"av01", b"hvc1"))
MAX_EXTENTS = 10_000  # a picture of 200 million pixels has some 800 tiles
_IN_FILE = 0  # of an item's places: the file, not ``idat`` or another item


def coded_extents(content: bytes) -> list[tuple[int, int]]:
    """(start, end) of the data of coded pictures in a file, in order and joined where they overlap; none where the boxes are
    not understood."""
    try:
        for kind, start, end in _boxes(content, 0, len(content)):
            if kind == b"meta":
                parts = {name: content[first:last] for name, first, last in _boxes(content, start + 4, end)}
                pictures = {item for item, name in _item_kinds(parts[b"iinf"]) if name in _PICTURES}
                return _join(place for item, place in _places(parts[b"iloc"]) if item in pictures)
    except (LookupError, struct.error):
        pass
    return []


def _join(places: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in sorted(places):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    return joined


def _boxes(content: bytes, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end of its content) of each box between two positions."""
    while position + 8 <= end:
        size, kind = struct.unpack_from(">I4s", content, position)
        header = 8
        if size == 1:
            size, header = struct.unpack_from(">Q", content, position + 8)[0], 16
        last = end if size == 0 else position + size
        if last < position + header:
            return
        yield kind, position + header, min(last, end)
        position = last


def _item_kinds(content: bytes) -> Iterator[tuple[int, bytes]]:
    for kind, start, _ in _boxes(content, 6 if content[0] == 0 else 8, len(content)):
        if kind == b"infe" and content[start] in (2, 3):
            item, _protection, name = struct.unpack_from(
                ">HH4s" if content[start] == 2 else ">IH4s", content, start + 4
            )
            yield item, name


def _places(content: bytes) -> Iterator[tuple[int, tuple[int, int]]]:
    stream = io.BytesIO(content)

    def number(size: int) -> int:
        data = stream.read(size)
        if len(data) < size:
            raise struct.error("a box that ends early")
        return int.from_bytes(data, "big")

    extents = 0
    version = number(1)
    number(3)  # flags
    sizes = number(2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    for _ in range(number(4 if version == 2 else 2)):
        item = number(4 if version == 2 else 2)
        method = number(2) & 15 if version else _IN_FILE
        number(2)  # data reference
        base = number(base_size)
        for _ in range(number(2)):
            extents += 1
            if extents > MAX_EXTENTS:  # a forged file can ask for 65,535 in a few bytes
                raise struct.error("too many extents")
            number(index_size if version else 0)
            start = base + number(offset_size)
            length = number(length_size)
            if method == _IN_FILE:
                yield item, (start, start + length)
