"""JPEG files: completeness of their compressed data, which Pillow does not check.

libjpeg fills what is missing with gray and goes on, and Pillow drops its warnings: a file of which half is gone opens if an
end marker was put behind it. Five things are checked, none of which takes a second decoding:

- the data hold the bits that the size in the header needs at least (one for each code of a block);
- a sequential scan ends with its data: the decoder is given all but the last bytes, then these and a few zero bytes, and must
  be ready neither before nor later;
- a sequential scan holds its restart markers, and no run of zero bytes that no encoder writes;
- the scans of a progressive file cover all coefficients of all components to the last bit;
- the last scan of a progressive file ends with the image (``data.jpeg_refinement``, which says where this cannot be seen).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from PIL import ImageFile

from unalike.data.jpeg_refinement import last_scan_is_cut

START = b"\xff\xd8"
END = b"\xff\xd9"
# libjpeg reads ahead by up to eight bytes.
READ_AHEAD = bytes(16)
# Bytes after the last code that do not count as damage: cameras pad their files. Zero bytes and 0xFF are not counted.
SURPLUS_BYTES, SURPLUS_SHARE = 64, 0.05
# Longest run of zero bytes in a sequential scan, where zero bits do not stand for empty blocks: one block takes 24 bytes.
ZERO_RUN = bytes(64)
# The same in a progressive scan of AC coefficients: encoders join empty blocks to runs, so that zero bits are few.
PROGRESSIVE_ZERO_RUN = bytes(256)
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1), (0xC2,)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a segment
_SCAN, _HUFFMAN, _RESTART, _PROFILE, _STOP = 0xDA, 0xC4, 0xDD, 0xE2, 0xD9
# An end marker so near to the file's end is taken for that of the image.
_LAST_BYTES = 64
# In compressed data, 0xFF is followed by 0 or by a restart marker; whatever else is a marker.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_ZEROS = "incomplete: zero bytes stand in place of image data"


class IncompleteJpeg(OSError):
    """The compressed data of a JPEG file are not complete."""


@dataclass
class JpegLayout:
    """What the markers of a JPEG file say.

    Attributes:
        frame: The frame's marker, 0xC0 to 0xCF.
        height, width: In pixels; a height of 0 stands behind the first scan.
        sampling: (horizontal, vertical) sampling factor of each component, by its identifier.
        scans: (start, end) of each scan's data in the file.
        coefficients: (components, first, last, high, low) of each scan: which coefficients it holds, down to which bit.
        restart_interval: In blocks of all components (MCU); 0 without restart markers.
        zeros_are_codes: Whether a run of zero bits can be a run of empty blocks.
        has_profile: Whether there is a color profile.
        has_more: Whether other images follow in the file, by what it says (multi-picture format).
    """

    frame: int = 0
    height: int = 0
    width: int = 0
    sampling: dict[int, tuple[int, int]] = field(default_factory=dict)
    scans: list[tuple[int, int]] = field(default_factory=list)
    coefficients: list[tuple[tuple[int, ...], int, int, int, int]] = field(default_factory=list)
    restart_interval: int = 0
    zeros_are_codes: bool = False
    has_profile: bool = False
    has_more: bool = False
    _first_symbols: dict[int, set[int]] = field(default_factory=lambda: {0: set(), 1: set()})

    @property
    def is_sequential(self) -> bool:
        """Whether one scan holds the blocks of all components, one after the other."""
        return self.frame in _SEQUENTIAL and len(self.scans) == 1 and len(self.coefficients[0][0]) == len(self.sampling)

    def blocks(self) -> int:
        """Number of blocks of 8 x 8 coefficients, at least."""
        widest, highest = (max(factor[axis] for factor in self.sampling.values()) for axis in (0, 1))
        return sum(
            -(-self.width * across // (8 * widest)) * -(-self.height * down // (8 * highest))
            for across, down in self.sampling.values()
        )

    def restarts(self) -> int:
        """Number of restart markers of a sequential scan."""
        if not self.restart_interval:
            return 0
        if len(self.sampling) == 1:
            units = -(-self.width // 8) * -(-self.height // 8)
        else:
            widest, highest = (max(factor[axis] for factor in self.sampling.values()) for axis in (0, 1))
            units = -(-self.width // (8 * widest)) * -(-self.height // (8 * highest))
        return -(-units // self.restart_interval) - 1


def read_layout(content: bytes, *, header_only: bool = False) -> JpegLayout | None:
    """Read the markers of a JPEG file.

    Args:
        content: The file, or its first bytes.
        header_only: Stop before the first scan.

    Returns:
        The layout; None where the markers are not understood, which says nothing about the image.
    """
    layout, position = JpegLayout(), 2
    try:
        while position < len(content):
            if content[position] != 0xFF:
                return layout if header_only or layout.scans else None
            marker = content[position + 1]
            position += 1 if marker == 0xFF else 2
            if marker in _ALONE or marker == 0xFF:
                continue
            if marker == _STOP or (marker == _SCAN and header_only):
                break
            length = int.from_bytes(content[position : position + 2], "big")
            _read_segment(layout, marker, content[position + 2 : position + length])
            position += length
            if marker == _SCAN:
                start, position = position, _scan_end(content, position, layout)
                layout.scans.append((start, position))
    except (IndexError, KeyError, ValueError):
        return layout if header_only else None
    zero, empty = layout._first_symbols[0], layout._first_symbols[1]
    layout.zeros_are_codes = zero <= {0} and all(symbol & 15 == 0 for symbol in empty)
    return layout


def _read_segment(layout: JpegLayout, marker: int, segment: bytes) -> None:
    if marker in _FRAMES:
        layout.frame = marker
        layout.height, layout.width = int.from_bytes(segment[1:3], "big"), int.from_bytes(segment[3:5], "big")
        parts = [segment[6 + 3 * n : 9 + 3 * n] for n in range(segment[5])]
        layout.sampling = {part[0]: (max(1, part[1] >> 4), max(1, part[1] & 15)) for part in parts}
    elif marker == _HUFFMAN:
        position = 0
        while position < len(segment):
            count = sum(segment[position + 1 : position + 17])
            layout._first_symbols[segment[position] >> 4].add(segment[position + 17])
            position += 17 + count
    elif marker == _RESTART:
        layout.restart_interval = int.from_bytes(segment[:2], "big")
    elif marker == _PROFILE:
        layout.has_profile |= segment.startswith(b"ICC_PROFILE\0")
        layout.has_more |= segment.startswith(b"MPF\0")
    elif marker == _SCAN:
        count = segment[0]
        first, last, bits = segment[1 + 2 * count : 4 + 2 * count]
        components = tuple(segment[1 + 2 * n] for n in range(count))
        layout.coefficients.append((components, first, last, bits >> 4, bits & 15))


def _scan_end(content: bytes, start: int, layout: JpegLayout) -> int:
    """The position behind a scan's data."""
    if layout.frame in _SEQUENTIAL and len(layout.coefficients[-1][0]) == len(layout.sampling):
        # Nothing but the end can follow. It is looked for backwards first, which is 1000 times as fast.
        end = -1 if layout.has_more else content.rfind(END, max(start, len(content) - _LAST_BYTES))
        end = content.find(END, start) if end < 0 else end
    else:
        match = _NEXT_MARKER.search(content, start)
        end = match.start() if match else -1
    return len(content) if end < 0 else end


def check_layout(layout: JpegLayout, content: bytes) -> None:
    """Check what the markers tell. Raises IncompleteJpeg."""
    if not layout.scans:
        raise IncompleteJpeg("it holds no image data")
    size = sum(end - start for start, end in layout.scans)
    codes = 2 if layout.frame in _SEQUENTIAL else 1 if layout.frame in _PROGRESSIVE else 0
    if layout.height and 8 * size < codes * layout.blocks():
        raise IncompleteJpeg(
            f"incomplete: {size} bytes of image data cannot hold {layout.width} x {layout.height} pixels"
        )
    if layout.frame in _PROGRESSIVE:
        _check_progression(layout, content)
    elif layout.is_sequential and layout.height:
        start, end = layout.scans[0]
        padded_end = start + len(content[start:end].rstrip(b"\0\xff"))
        if not layout.zeros_are_codes and content.find(ZERO_RUN, start, padded_end) >= 0:
            raise IncompleteJpeg(_ZEROS)
        if layout.restart_interval:
            count = sum(content.count(bytes((0xFF, 0xD0 + number)), start, end) for number in range(8))
            if count < layout.restarts():
                raise IncompleteJpeg(f"incomplete: {count} of {layout.restarts()} restart markers are there")


def _check_progression(layout: JpegLayout, content: bytes) -> None:
    """Raise IncompleteJpeg where no scan brings some coefficient to its last bit, or a scan is zero in part."""
    for (start, end), (_, first, *_) in zip(layout.scans, layout.coefficients, strict=True):
        if first > 0 and content.find(PROGRESSIVE_ZERO_RUN, start, end) >= 0:
            raise IncompleteJpeg(_ZEROS)
    missing = {component: (1 << 64) - 1 for component in layout.sampling}
    for components, first, last, _, low in layout.coefficients:
        if low == 0:
            for component in components:
                missing[component] = missing.get(component, 0) & ~((1 << (last + 1)) - (1 << first))
    if any(missing.values()):
        raise IncompleteJpeg(f"incomplete: {len(layout.scans)} scans, and some are missing")


class ScanReader:
    """Gives a file to libjpeg in pieces, to see that it needs the last one and no more.

    It takes the place of ``fp`` of a Pillow image of format JPEG.

    Args:
        content: The file.
        layout: Its markers; it is sequential.
    """

    def __init__(self, content: bytes, layout: JpegLayout) -> None:
        start, end = layout.scans[0]
        data_end = start + len(content[start:end].rstrip(b"\0\xff"))
        if end - data_end >= len(ZERO_RUN) and not layout.zeros_are_codes:
            end = data_end + 2  # what follows is padding; two bytes, as 0xFF is always followed by 0
        self._content, self._position, self._end = content, 0, end
        surplus = SURPLUS_BYTES + int(SURPLUS_SHARE * (data_end - start))
        self._pause = max(start, data_end - surplus)
        self.needs_all = False

    def seek(self, position: int) -> None:
        """Start anew at a position."""
        self._position = position

    def read(self, _size: int = -1) -> bytes:
        """The next piece, whatever its size."""
        start = self._position
        if start < self._pause:
            self._position = self._pause
            return self._content[start : self._pause]
        if start < self._end:
            self.needs_all = True
            self._position = self._end
            return self._content[start : self._end] + READ_AHEAD
        raise IncompleteJpeg("incomplete: its image data end too early")

    def close(self) -> None:
        """Nothing is open."""


def load_complete(image: ImageFile.ImageFile, content: bytes) -> None:
    """Load an image of format JPEG from its file's content. Raises IncompleteJpeg, and what Pillow raises."""
    layout = read_layout(content)
    if layout is None or not layout.sampling:
        image.load()
        return
    check_layout(layout, content)
    if not layout.is_sequential or not layout.height:
        image.load()
        if layout.frame in _PROGRESSIVE and last_scan_is_cut(image, layout):
            raise IncompleteJpeg("incomplete: its last scan ends before the image does")
        return
    tiles = image.tile
    if _load_in_pieces(image, content, layout):
        return
    start, end = layout.scans[0]
    first_end = content.find(END, start, end)
    if first_end >= 0:  # other images follow
        layout.scans[0] = start, first_end
        check_layout(layout, content)
        image.tile = tiles
        if _load_in_pieces(image, content, layout):
            return
    raise IncompleteJpeg("damaged: a part of its image data cannot be decoded")


def _load_in_pieces(image: ImageFile.ImageFile, content: bytes, layout: JpegLayout) -> bool:
    """Load an image; returns whether the decoder needed all of the scan. Raises where it needed more."""
    reader = ScanReader(content, layout)
    image.fp = reader  # type: ignore[assignment]
    image.load()
    return reader.needs_all
