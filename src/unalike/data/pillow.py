"""Opening of image files by Pillow, without its process-wide settings.

Other code of the process may rely on Pillow's limit of pixels, on its tolerance of truncated files and on the filters of
``warnings``: none of them is changed here, or only while a file is being read.
"""

from __future__ import annotations

import functools
import io
import os
import re
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from unalike.data.completeness import check_complete, is_checked
from unalike.data.foreign_files import PREFIX, describe
from unalike.data.jpeg import START as JPEG_START
from unalike.data.jpeg import load_complete
from unalike.data.member_files import member_content
from unalike.errors import UnreadableImage, missing_extra
from unalike.storage.outside_files import require_file

# Formats that run other programs or interpret code (EPS, PDF, WMF) are left out.
_PLUGINS = {
    "PNG": "PngImagePlugin", "WEBP": "WebPImagePlugin", "BMP": "BmpImagePlugin", "DIB": "BmpImagePlugin",
    "TIFF": "TiffImagePlugin", "GIF": "GifImagePlugin", "PPM": "PpmImagePlugin", "AVIF": "AvifImagePlugin",
}  # fmt: skip
# Brands of ISO media files, which follow "ftyp" at byte 8.
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
_PREFIX = 16  # bytes by which readers know their format
MAX_TILE_PIXELS = 1 << 27  # while an image is read; Pillow refuses tiles of more than twice as many pixels
_HEADER_ERRORS = (SyntaxError, IndexError, TypeError, struct.error)
# Formats known by two bytes or by a number, as other files have them too.
_SHORT_MAGIC = ("BMP", "DIB", "PPM")
Source = str | Path | bytes | bytearray | memoryview | BinaryIO


def open_file(source: Source) -> Image.Image:
    """Open an image file by its header, whatever its name; pixels are not read, and no number of them is refused.

    Args:
        source: A path (also of a member of a tar file that is not unpacked), the file's content, or a binary stream that can be rewound.

    Raises:
        UnidentifiedImageError: Not an image of a known format, or a damaged header.
        UnreadableImage: A file of another kind that is named, or a HEIC image without the extra that reads it.
        Exception: Whatever Pillow raises on damaged headers.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return _open_stream(io.BytesIO(source), "", is_own=True)
    if not isinstance(source, str | Path):
        source.seek(0)
        return _open_stream(source, "", is_own=False)
    content = member_content(source)
    if content is not None:
        return _open_stream(io.BytesIO(content), os.fspath(source), is_own=True)
    require_file(source, error=UnreadableImage)
    return _open_stream(open(source, "rb"), os.fspath(source), is_own=True)


@contextmanager
def opened(source: Source | Image.Image | np.ndarray) -> Iterator[Image.Image]:
    """Open an image of any kind; what was opened here is closed at the end."""
    if isinstance(source, np.ndarray):
        yield Image.fromarray(np.ascontiguousarray(source[..., 0] if source.shape[2:] == (1,) else source))
    elif isinstance(source, Image.Image):
        yield source
    else:
        with open_file(source) as image:
            yield image


def reopen(source: Source | Image.Image | np.ndarray) -> Image.Image:
    """Open an image file once more; of an opened image that is not loaded, the file behind it."""
    if isinstance(source, np.ndarray):
        raise TypeError("an array is no file")
    if not isinstance(source, Image.Image):
        return open_file(source)
    stream = getattr(source, "fp", None)
    if stream is None:
        raise OSError("its file is closed")
    position = stream.tell()
    stream.seek(0)
    content = stream.read()
    stream.seek(position)
    return open_file(content)


def _open_stream(stream: Any, name: str, *, is_own: bool) -> Image.Image:
    try:
        image = _identify(stream, name)
    except BaseException:
        if is_own:
            stream.close()
        raise
    image._exclusive_fp = is_own
    return image


def _identify(stream: Any, name: str) -> ImageFile.ImageFile:
    prefix, damaged = stream.read(_PREFIX), ""
    if not isinstance(prefix, bytes):
        raise UnreadableImage("a stream of text", expected="a binary one", remedy='open(path, "rb")')
    if prefix.startswith(JPEG_START):
        return _open_jpeg(stream, name)
    for format_name, accept, create in _readers():
        if not _accepts(accept, prefix):
            continue
        stream.seek(0)
        try:
            return create(stream, name)
        except _HEADER_ERRORS:
            damaged = damaged or format_name
    if prefix[4:8] == b"ftyp" and prefix[8:12] in _HEIF_BRANDS:
        stream.seek(0)
        return _open_heif(stream)
    stream.seek(0)
    foreign = describe(stream.read(PREFIX))
    if foreign is not None:
        raise UnreadableImage(f"not an image of a known format but {foreign[0]}", remedy=foreign[1])
    if damaged and damaged not in _SHORT_MAGIC:
        raise _damaged_header(damaged)
    raise UnidentifiedImageError("not an image of a known format")


def _accepts(accept: Callable[[bytes], Any], prefix: bytes) -> bool:
    try:
        return accept(prefix) is True  # a text says that this build of Pillow cannot read the format
    except (IndexError, struct.error):  # shorter than any header
        return False


def _open_jpeg(stream: Any, name: str) -> ImageFile.ImageFile:
    from PIL.JpegImagePlugin import JpegImageFile

    stream.seek(0)
    try:
        return JpegImageFile(stream, name)  # of several pictures (MPO) the first
    except _HEADER_ERRORS as error:
        raise _damaged_header("JPEG") from error


def _damaged_header(format_name: str) -> UnidentifiedImageError:
    return UnidentifiedImageError(f"damaged or cut off: the header of this {format_name} file cannot be read")


@functools.cache
def _readers() -> tuple[tuple[str, Callable[[bytes], Any], Callable[..., ImageFile.ImageFile]], ...]:
    """(name, accepts a file's first bytes, opens it) of each format that Pillow registers."""
    import importlib

    readers = []
    for name, module in _PLUGINS.items():
        importlib.import_module(f"PIL.{module}")
        create, accept = Image.OPEN[name]
        readers.append((name, accept or (lambda _: True), create))
    return tuple(readers)


def _open_heif(stream: Any) -> ImageFile.ImageFile:
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        remedy = missing_extra("pillow_heif", "heif").remedy
        raise UnreadableImage("a HEIC image", expected="the package that reads it",
                              remedy=f"{remedy}, or convert the image to JPEG") from error  # fmt: skip
    image: ImageFile.ImageFile = HeifImageFile(stream)
    return image


def load(image: Image.Image) -> None:
    """Read the pixels of an opened image; its file must be complete, as far as this can be seen."""
    from PIL.JpegImagePlugin import JpegImageFile

    if not isinstance(image, ImageFile.ImageFile) or image.fp is None or not _is_pending(image):
        image.load()
        return
    stream: Any = image.fp
    is_jpeg = type(image) is JpegImageFile
    if not is_jpeg and not is_checked(image):
        image.load()
        return
    position = stream.tell()
    stream.seek(0)
    content = stream.read()
    if is_jpeg:
        try:
            load_complete(image, content)
        finally:
            if image._exclusive_fp:
                stream.close()
        return
    check_complete(image, content)
    del content
    stream.seek(position)
    image.load()


def _is_pending(image: ImageFile.ImageFile) -> bool:
    """Whether pixels of an opened file are still to be read; the readers of WebP, AVIF and HEIC have no tiles until then."""
    return bool(image.tile) or image._im is None


# ---- settings of the process ----

_lock = threading.Lock()
_readers_inside = 0
_ignored = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_restore: list[Callable[[], None]] = []


@contextmanager
def local_settings() -> Iterator[None]:
    """While any thread is inside, Pillow's warnings are silent and truncated files are refused.

    Pillow warns about damaged files without naming them, once for each tag; our errors name them.
    """
    global _readers_inside
    with _lock:
        _readers_inside += 1
        if _readers_inside == 1:
            _enter()
    try:
        yield
    finally:
        with _lock:
            _readers_inside -= 1
            if _readers_inside <= 0:
                _leave()


def _leave() -> None:
    global _readers_inside
    _readers_inside = 0
    while _restore:
        _restore.pop()()


def _in_forked_process() -> None:
    """The other threads that were inside do not exist here."""
    global _lock
    _lock = threading.Lock()
    _leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_process)


def _enter() -> None:
    filters: Any = warnings.filters
    filters.insert(0, _ignored)

    def remove() -> None:
        if _ignored in filters:
            filters.remove(_ignored)

    _restore.append(remove)
    if Image.MAX_IMAGE_PIXELS is not None and Image.MAX_IMAGE_PIXELS < MAX_TILE_PIXELS:
        # of a compressed TIFF Pillow compares a tile with its limit while it loads; the image was compared with ours before
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = MAX_TILE_PIXELS
        _restore.append(lambda: setattr(Image, "MAX_IMAGE_PIXELS", before))
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        _restore.append(lambda: setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True))
