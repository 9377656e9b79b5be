"""Decoding of images: any supported format to upright 8-bit RGB. All images of users are opened here.

A ``Decoding`` (``data.decoding``) says how other pixel formats become 8-bit RGB. Of an animation or a file of several
pages the first is taken.

Shape letters: H, W are height and width of the upright image.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from unalike.data import pillow
from unalike.data.decoding import Decoding
from unalike.data.deep_pixels import is_deep
from unalike.data.member_files import file_size
from unalike.data.pixel_conversion import to_rgb, to_rgba
from unalike.data.regions import clip_box, crop_region, split_region
from unalike.errors import DataError, UnreadableImage

# How a caller may give an image: a file's path or content, a binary stream, an opened PIL image, or an array of shape (H, W),
# (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA, uint8 or uint16.
ImageInput = str | Path | bytes | bytearray | memoryview | BinaryIO | Image.Image | np.ndarray

_CONTENT = (bytes, bytearray, memoryview)

HEIF_SUFFIXES = frozenset((".heic", ".heif", ".hif"))
IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif")
    + (".ppm", ".pgm", ".pbm", ".pnm", ".avif", *sorted(HEIF_SUFFIXES))
)
MAX_PIXELS = 200_000_000
# The rule for images of which no set is known.
DEFAULT = Decoding()

_ORIENTATION_TAG = 0x0112
# The file that a thread decoded last, in ``decoded_once``.
_latest = threading.local()
_EXIF_ERRORS = (OSError, EOFError, SyntaxError, struct.error, ValueError, TypeError, LookupError, AttributeError)
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(
    image: ImageInput, *, decoding: Decoding = DEFAULT, min_size: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:  # fmt: skip
    """Decode an image.

    Args:
        image: A file's path or content, a stream, an opened image or an array (``ImageInput``).
        decoding: The rule for pixel formats other than 8-bit RGB.
        min_size: (height, width): a JPEG file may be decoded at 1/2, 1/4 or 1/8 of its size as long as both sides stay at
            least this large. Other formats are always decoded in full.
        max_pixels: Larger images are refused by their header, before memory is allocated.

    Returns:
        Contiguous uint8 (H, W, 3), RGB, upright.

    Raises:
        UnreadableImage: A file that is missing, too large, or cannot be decoded completely.
        DataError: An array of another shape or type.
    """
    picture = open_image(image, decoding=decoding, min_size=min_size, max_pixels=max_pixels)
    return np.array(picture, dtype=np.uint8, order="C")


def open_image(
    image: ImageInput, *, decoding: Decoding = DEFAULT, min_size: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:  # fmt: skip
    """As ``decode``, but returns a PIL image of mode RGB, loaded, its file closed."""
    return _decode(image, to_rgb, decoding, min_size, max_pixels)


def open_layer(image: ImageInput, *, decoding: Decoding = DEFAULT, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open an image as upright RGBA, its transparency kept; an image without is opaque. Raises as ``decode``."""
    return _decode(image, to_rgba, decoding, None, max_pixels)


@contextmanager
def decoded_once() -> Iterator[None]:
    """A context in which this thread decodes a file once for all of its regions that it reads one after the other.

    The decoded image is kept until another file's region is read, or the context is left.
    """
    outer = getattr(_latest, "file", None)
    _latest.file = {}
    try:
        yield
    finally:
        _latest.file = outer


def _decode_file_of_regions(
    path: str, convert: Callable[[Image.Image, Decoding, Callable[[], Image.Image]], Image.Image], decoding: Decoding,
    max_pixels: int,
) -> Image.Image:  # fmt: skip
    latest: dict[object, Image.Image | UnreadableImage] | None = getattr(_latest, "file", None)
    key = (path, convert, decoding, max_pixels)
    if latest is not None and key in latest:
        result = latest[key]
        if isinstance(result, UnreadableImage):
            raise result
        return result
    try:
        image = _decode(path, convert, decoding, None, max_pixels)
    except UnreadableImage as error:
        if latest is not None:
            latest.clear()
            latest[key] = error
        raise
    if latest is not None:
        latest.clear()
        latest[key] = image
    return image


def image_list(images: ImageInput | Iterable[ImageInput]) -> list[ImageInput]:
    """One image, or several, as a list; an array of four dimensions is several.

    Raises:
        DataError: It is neither.
    """
    if isinstance(images, np.ndarray):
        return [images] if images.ndim < 4 else list(images)
    if is_image(images):
        return [images]  # type: ignore[list-item]
    if isinstance(images, Iterable) and not isinstance(images, Mapping):
        return list(images)  # type: ignore[arg-type]
    raise _no_image(images)


def is_image(image: object) -> bool:
    """Whether this is one image, not several and nothing else."""
    return isinstance(image, (str, Path, *_CONTENT, Image.Image, np.ndarray)) or hasattr(image, "read")


def _no_image(image: object) -> DataError:
    return DataError(
        f"an object of type {type(image).__name__} in place of an image",
        expected="a path, the content of a file, an open binary file, a PIL image or an array uint8 (H, W, 3)",
    )


def upright_size(image: ImageInput) -> tuple[int, int]:
    """Read (height, width) of the upright image; of a file from its header. Raises as ``decode``."""
    if not is_image(image):
        raise _no_image(image)
    if isinstance(image, np.ndarray):
        picture = _from_array(image)
        return picture.height, picture.width
    if isinstance(image, str | Path):
        path, box = split_region(image)
        if box is not None:
            height, width = upright_size(path)
            return clip_box(box, width, height, image)[::-1]
    with ErrorsNamed(image), pillow.local_settings():
        if isinstance(image, Image.Image):
            return _upright_size(image)
        with pillow.open_file(image) as picture:
            return _upright_size(picture)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    return (width, height) if orientation(image) >= 5 else (height, width)


def _decode(
    source: ImageInput, convert: Callable[[Image.Image, Decoding, Callable[[], Image.Image]], Image.Image],
    decoding: Decoding, min_size: tuple[int, int] | None, max_pixels: int,
) -> Image.Image:  # fmt: skip
    if not is_image(source):
        raise _no_image(source)
    if isinstance(source, np.ndarray):
        array = _from_array(source)
        return convert(array, decoding, lambda: array)
    if isinstance(source, str | Path):
        path, box = split_region(source)
        if box is not None:
            return crop_region(_decode_file_of_regions(path, convert, decoding, max_pixels), box, source)
    with ErrorsNamed(source), pillow.local_settings():
        if isinstance(source, Image.Image):
            if is_deep(source) and getattr(source, "tile", None):
                with pillow.reopen(source) as copy:  # reading it would leave its high bytes alone
                    return _convert(copy, convert, decoding, lambda: pillow.reopen(source))
            return _convert(source, convert, decoding, lambda: pillow.reopen(source))
        file: pillow.Source = source
        with pillow.open_file(file) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise UnreadableImage(
                    f"{name_of(source)}: {width} x {height} pixels",
                    expected=f"at most {max_pixels}",
                    remedy="make the image smaller; commands with a section dataset take dataset.max_pixels",
                )
            if min_size is not None:
                _draft(image, min_size)
            return _convert(image, convert, decoding, lambda: pillow.reopen(file))


def _convert(
    image: Image.Image, convert: Callable[[Image.Image, Decoding, Callable[[], Image.Image]], Image.Image],
    decoding: Decoding, reopen: Callable[[], Image.Image],
) -> Image.Image:  # fmt: skip
    """Load, convert and turn an opened image."""
    if decoding.version == 1 or not is_deep(image):
        pillow.load(image)
    converted = convert(image, decoding, reopen)
    transpose = _TRANSPOSE.get(orientation(image))  # Pillow turns TIFF itself while loading it
    return converted.transpose(transpose) if transpose is not None else converted


def _from_array(pixels: np.ndarray) -> Image.Image:
    """An image of an array. Raises DataError for one of another shape or type."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    shape_is_right = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    type_is_right = pixels.dtype == np.uint8 or (pixels.dtype == np.uint16 and pixels.ndim == 2)
    if not type_is_right or not shape_is_right or 0 in pixels.shape:
        raise DataError(
            f"an array {pixels.dtype} of shape {pixels.shape}",
            expected="uint8 of shape (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA, or uint16 of shape (H, W)",
        )
    return Image.fromarray(np.ascontiguousarray(pixels))


def orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 where there is none."""
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except _EXIF_ERRORS:  # a damaged EXIF block says nothing against the pixels
        return 1


def _draft(image: Image.Image, min_size: tuple[int, int]) -> None:
    """Let libjpeg decode at a lower resolution, no lower than ``min_size`` (of the upright image)."""
    if image.format != "JPEG":
        return
    height, width = max(1, min_size[0]), max(1, min_size[1])
    if orientation(image) >= 5:  # 5 to 8 swap the sides
        height, width = width, height
    image.draft(None, (width, height))


# ---- errors ----


def name_of(image: ImageInput) -> str:
    """What messages call an image: its path, or what kind of thing it is."""
    if isinstance(image, str | Path):
        return str(image)
    if isinstance(image, np.ndarray):
        return "an array"
    if isinstance(image, Image.Image):
        return str(getattr(image, "filename", "") or "an opened image")
    return "image bytes" if isinstance(image, _CONTENT) else str(getattr(image, "name", "image bytes"))


class ErrorsNamed:
    """A context that turns whatever Pillow raises on damaged files (struct.error, KeyError, ...) into an UnreadableImage with the name."""

    def __init__(self, image: ImageInput) -> None:
        self._image = image

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None or isinstance(error, MemoryError) or not isinstance(error, Exception):
            return
        name = name_of(self._image)
        if isinstance(error, UnreadableImage):
            if error.found.startswith(name):
                return
            raise UnreadableImage(f"{name}: {error.found}", expected=error.expected, remedy=error.remedy) from error
        if isinstance(error, DataError):
            return
        if _is_path(self._image):
            raise UnreadableImage(
                f"{name}: the name of a file as bytes", expected="its content, or the name as text"
            ) from error
        raise UnreadableImage(f"{name}: {'an empty file' if _is_empty(self._image) else _reason(error)}") from error


def _is_empty(image: ImageInput) -> bool:
    if isinstance(image, str | Path):
        with contextlib.suppress(OSError):
            return file_size(image) == 0
    return isinstance(image, _CONTENT) and not image


def _is_path(image: ImageInput) -> bool:
    return isinstance(image, bytes) and 0 < len(image) < 4096 and b"\0" not in image and os.path.exists(image)


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "not permitted to read it"
    if isinstance(error, struct.error | IndexError | EOFError):
        return "damaged: its data end early"
    if isinstance(error, LookupError | TypeError | AttributeError):
        return f"damaged ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no detail'})"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
