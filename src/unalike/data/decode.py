"""Decoding of image files: any supported format to upright 8-bit RGB. All image files are opened here.

How other pixel formats become 8-bit RGB:
- transparency (RGBA, LA, palettes with a transparent color) is composited over white, the usual background of cut-outs;
- 16-bit gray is scaled by its full range (65535 -> 255), not by its content, so that equal values stay equal;
- 32-bit integers are scaled by the 16-bit range when they fit in it, else by the full positive range;
- floating point is scaled by 1, 255 or 65535, the smallest of these that holds it, else stretched to its own range;
- of an animation or a file of several pages the first is taken.

Shape letters: H, W are height and width of the upright image.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

# The readers of FORMATS are imported here; Image.open would import all that Pillow has, some 40 modules, to find one of them.
from PIL import (
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    ImageFile,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    PpmImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from unalike.data.regions import clip_box, crop_region, split_region
from unalike.errors import UnreadableImage
from unalike.storage.outside_files import require_file

# How a caller may give an image: a file's path, a PIL image, or a uint8 array of shape (H, W), (H, W, 3) or (H, W, 4).
ImageInput = str | Path | Image.Image | np.ndarray

# Formats that run other programs or interpret code (EPS, PDF, WMF) are left out.
IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif")
    + (".ppm", ".pgm", ".pbm", ".pnm")
)
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM")  # MPO is opened as JPEG
MAX_PIXELS = 200_000_000

# Pillow warns about damaged files without naming them, once for each tag; our errors name them.
warnings.filterwarnings("ignore", module=r"PIL\.")

_ORIENTATION_TAG = 0x0112
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
    path: str | Path | bytes, *, min_size: tuple[int, int] | None = None, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Decode an image file.

    Args:
        path: A file's path or its content.
        min_size: (height, width): a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as both sides stay at least
            this large. Other formats are always decoded in full.
        max_pixels: Larger images are refused by their header, before memory is allocated.

    Returns:
        Contiguous uint8 (H, W, 3), RGB, upright.

    Raises:
        UnreadableImage: A file that is missing, too large, or cannot be decoded completely.
    """
    return np.array(open_image(path, min_size=min_size, max_pixels=max_pixels), dtype=np.uint8, order="C")


def open_image(
    path: str | Path | bytes, *, min_size: tuple[int, int] | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """As ``decode``, but returns a PIL image of mode RGB, loaded, its file closed."""
    return _decode(path, upright_rgb, min_size, max_pixels)


def upright_size(path: str | Path | bytes) -> tuple[int, int]:
    """Read (height, width) of the upright image from its header. Raises UnreadableImage."""
    if isinstance(path, str | Path):
        file, box = split_region(path)
        if box is not None:
            height, width = upright_size(file)
            return clip_box(box, width, height, path)[::-1]
        require_file(file, error=UnreadableImage)
    name = "image bytes" if isinstance(path, bytes) else str(path)
    try:
        with Image.open(io.BytesIO(path) if isinstance(path, bytes) else path, formats=FORMATS) as image:
            width, height = image.size
            return (width, height) if _orientation(image) >= 5 else (height, width)
    except Exception as error:  # as in _decode
        raise UnreadableImage(f"{name}: {_reason(error)}") from error


def open_layer(path: str | Path | bytes | Image.Image, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open an image as upright RGBA, its transparency kept; an image without is opaque. Raises UnreadableImage."""
    if isinstance(path, Image.Image):
        return _upright_rgba(path)
    return _decode(path, _upright_rgba, None, max_pixels)


def _decode(
    path: str | Path | bytes, convert: Callable[[Image.Image], Image.Image], min_size: tuple[int, int] | None,
    max_pixels: int,
) -> Image.Image:  # fmt: skip
    if isinstance(path, str | Path):
        file, box = split_region(path)
        if box is not None:
            return crop_region(_decode(file, convert, None, max_pixels), box, path)
        require_file(file, error=UnreadableImage)
    _set_pillow_limits(max_pixels)
    name = "image bytes" if isinstance(path, bytes) else str(path)
    source = io.BytesIO(path) if isinstance(path, bytes) else path
    try:
        with Image.open(source, formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise UnreadableImage(
                    f"{name}: {width} x {height} pixels",
                    expected=f"at most {max_pixels}",
                    remedy="raise dataset.max_pixels if the image is not damaged",
                )
            if min_size is not None:
                _draft(image, min_size)
            image.load()
            return convert(image)
    except (UnreadableImage, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files: struct.error, KeyError, ...
        raise UnreadableImage(f"{name}: {_reason(error)}") from error


def _upright_rgba(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        transpose = _TRANSPOSE.get(_orientation(image))
        layer = image.convert("RGBA")
        return layer.transpose(transpose) if transpose is not None else layer
    return upright_rgb(image).convert("RGBA")


def upright_rgb(image: Image.Image) -> Image.Image:
    """Convert an opened image to mode RGB and apply its EXIF orientation, by the rules at the top of this module."""
    transpose = _TRANSPOSE.get(_orientation(image))
    image = to_rgb(image)
    return image.transpose(transpose) if transpose is not None else image


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB, by the rules at the top of this module; its EXIF orientation is not applied."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F" or image.mode == "I" or image.mode.startswith("I;"):
        return Image.fromarray(_to_uint8(np.asarray(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        background = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(background, layer).convert("RGB")
    return image.convert("RGB")


def _to_uint8(pixels_HW: np.ndarray) -> np.ndarray:
    """Scale gray pixels of 16 or 32 bits or floating point to uint8."""
    pixels = pixels_HW.astype(np.float64)
    pixels[~np.isfinite(pixels)] = 0
    low, high = float(pixels.min(initial=0)), float(pixels.max(initial=0))
    if np.issubdtype(pixels_HW.dtype, np.integer):
        top = 65535.0 if high <= 65535 else 2147483647.0
        pixels *= 255.0 / top
    elif low < 0 or high > 65535:
        pixels = (pixels - low) * (255.0 / (high - low))
    else:
        top = next(t for t in (1.0, 255.0, 65535.0) if high <= t)
        pixels *= 255.0 / top
    return np.clip(pixels + 0.5, 0, 255).astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except _EXIF_ERRORS:  # a damaged EXIF block says nothing against the pixels
        return 1


def _draft(image: Image.Image, min_size: tuple[int, int]) -> None:
    """Let libjpeg decode at a lower resolution, no lower than ``min_size`` (of the upright image)."""
    if not hasattr(image, "draft") or image.format not in ("JPEG", "MPO"):
        return
    height, width = max(1, min_size[0]), max(1, min_size[1])
    if _orientation(image) >= 5:  # 5 to 8 swap the sides
        height, width = width, height
    image.draft(None, (width, height))


def _set_pillow_limits(max_pixels: int) -> None:
    """Set Pillow's process-wide switches, which other libraries may have changed: truncated images must not pass."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    if Image.MAX_IMAGE_PIXELS is not None and Image.MAX_IMAGE_PIXELS < max_pixels:
        Image.MAX_IMAGE_PIXELS = max_pixels


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "not permitted to read it"
    if isinstance(error, Image.DecompressionBombError):
        return "too many pixels (see dataset.max_pixels)"
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
