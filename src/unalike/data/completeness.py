"""Image files other than JPEG: damage that their decoders do not report.

- PNG: each chunk has a CRC-32, which Pillow does not compare while it reads pixels.
- TIFF: strips and tiles compressed by Deflate have an Adler-32, which libtiff does not reach; those of JPEG end with a marker.
- AVIF and HEIC have no checksums, but their arithmetic coding writes no long run of zero bytes, which is what interrupted
  downloads and restored disks leave.
- WebP has no checksums, and flat areas can be zero bytes. Where image data end in them, the decoder must need them, which is
  tried by decoding without the last ones.

Not seen: other damage inside the data of WebP, AVIF and HEIC that their decoders accept (in lossless WebP also zero bytes, if
by chance the rest of the picture takes as many), and any of formats that store pixels as they are (BMP, PNM, uncompressed TIFF).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from unalike.data.media_boxes import coded_extents

_PNG_START = b"\x89PNG\r\n\x1a\n"
# Longest run of zero bytes in data of AVIF and HEIC (6 in files of Pillow), and at the end of those of other formats.
MAX_ZEROS = 32
# A decoder of WebP reads this many bytes more than it needs, at most.
_READ_AHEAD = 8
_WEBP_DATA = (b"VP8 ", b"VP8L")
_COMPRESSION, _DEFLATE, _JPEG = 259, (8, 32946), 7
_OFFSETS, _SIZES = (273, 324), (279, 325)  # of strips, of tiles
_PIECE, _UNPACKED_PIECE = 1 << 16, 1 << 20  # bytes of a strip that are read and unpacked at once
_FORMATS = ("PNG", "WEBP", "AVIF", "HEIF")
_ZEROS = "incomplete: zero bytes stand in place of image data"


class IncompleteImage(OSError):
    """The data of an image file are damaged or not complete."""


def is_checked(image: Image.Image) -> bool:
    """Whether ``check_complete`` looks at an opened file; of others, such as uncompressed pixels, the content is not needed."""
    if image.format == "TIFF":
        return _compression(image) in (*_DEFLATE, _JPEG)
    return image.format in _FORMATS


def check_complete(image: Image.Image, content: bytes) -> None:
    """Check an image file that is opened and not loaded.

    Args:
        image: The opened file, for which ``is_checked`` is true.
        content: Its content.

    Raises:
        IncompleteImage: Its data are damaged.
    """
    if image.format == "PNG":
        _check_png(content)
    elif image.format == "TIFF":
        _check_tiff(image, content)
    elif image.format == "WEBP":
        _check_webp(content)
    else:
        for start, end in coded_extents(content):
            if content.find(bytes(MAX_ZEROS), start, end) >= 0:
                raise IncompleteImage(_ZEROS)


def _check_png(content: bytes) -> None:
    """Compare the CRC of chunks up to the last of the pixels. What is missing at the end is left to the decoder."""
    view, position, has_pixels = memoryview(content), len(_PNG_START), False
    while position + 12 <= len(content):
        size = int.from_bytes(view[position : position + 4], "big")
        kind, end = content[position + 4 : position + 8], position + 8 + size
        if end + 4 > len(content) or (has_pixels and kind != b"IDAT"):
            return  # of an animation only the first picture is read
        has_pixels |= kind == b"IDAT"
        is_critical = not kind[0] & 0x20  # by its first letter
        if is_critical and zlib.crc32(view[position + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise IncompleteImage(
                f"damaged: the checksum of chunk {kind.decode('latin-1')!r} at byte {position} is wrong"
            )
        position = end + 4


def _check_tiff(image: Image.Image, content: bytes) -> None:
    limit = 16 * image.width * image.height  # bytes: four channels of 32 bits
    for start, end in _strips(image):
        if _compression(image) == _JPEG:
            if not content[start:end].rstrip(b"\0").endswith(b"\xff\xd9"):
                raise IncompleteImage(f"incomplete: the JPEG data at byte {start} have no end")
        elif not _inflates(memoryview(content)[start:end], limit):
            raise IncompleteImage(f"damaged: the checksum of the image data at byte {start} is wrong")


def _compression(image: Image.Image) -> int | None:
    value: int | None = image.tag_v2.get(_COMPRESSION)  # type: ignore[attr-defined]
    return value


def _strips(image: Image.Image) -> Iterator[tuple[int, int]]:
    tags = image.tag_v2  # type: ignore[attr-defined]
    for offsets, sizes in zip(_OFFSETS, _SIZES, strict=True):
        if offsets in tags and sizes in tags:
            for start, size in zip(tags[offsets], tags[sizes], strict=False):
                yield start, start + size


def _inflates(data: memoryview, limit: int) -> bool:
    """Whether data of Deflate can be read to their checksum; beyond ``limit`` bytes nobody looks."""
    reader, size = zlib.decompressobj(), 0
    try:
        for start in range(0, len(data), _PIECE):
            rest = bytes(data[start : start + _PIECE])
            while rest and not reader.eof and size <= limit:
                size += len(reader.decompress(rest, _UNPACKED_PIECE))
                rest = reader.unconsumed_tail
            if reader.eof or size > limit:
                return True
    except zlib.error:
        return False
    return False


def _check_webp(content: bytes) -> None:
    position = 12
    while position + 8 <= len(content):
        kind, size = content[position : position + 4], struct.unpack_from("<I", content, position + 4)[0]
        start, end = position + 8, position + 8 + size
        if kind == b"ANMF":  # a picture of an animation, of which the first is read: 16 bytes, then chunks
            position = start + 16
            continue
        if kind in _WEBP_DATA:
            data = content[start:end]
            if data.endswith(bytes(MAX_ZEROS)) and _is_webp(kind, data[: -2 * _READ_AHEAD]):
                raise IncompleteImage(_ZEROS)
            return
        position = end + (size & 1)


def _is_webp(kind: bytes, data: bytes) -> bool:
    """Whether a WebP image can be decoded from these data."""
    chunk = kind + struct.pack("<I", len(data)) + data + bytes(len(data) & 1)
    file = io.BytesIO(b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk)
    try:
        with Image.open(file, formats=("WEBP",)) as image:
            image.load()
    except (OSError, ValueError, SyntaxError):
        return False
    return True
