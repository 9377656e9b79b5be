"""Images of a request: encoded as they are, or as PNG, and divided among requests."""

from __future__ import annotations

import io
import mimetypes
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unalike.errors import DataError

IMAGES_PER_REQUEST = 32  # of a longer list; the service limits the images of a request (--max-files)

Part = tuple[str, tuple[str | None, bytes, str]]


def encode_image(image: Any) -> tuple[str, bytes, str]:
    """Name, content and media type of an image.

    Args:
        image: a path, encoded bytes, an open binary file, a PIL image, or an array uint8 (H, W), (H, W, 1) or (H, W, 3).
            Arrays and PIL images are sent as PNG, which loses nothing.

    Raises:
        DataError: the file cannot be read, or it is something else.
    """
    if isinstance(image, str | Path):
        try:
            content = Path(image).read_bytes()
        except OSError as error:
            raise DataError(f"{image} cannot be read: {error.strerror}", expected="an image file") from None
        return Path(image).name, content, mimetypes.guess_type(str(image))[0] or "application/octet-stream"
    if isinstance(image, bytes | bytearray | memoryview):
        return "image", bytes(image), "application/octet-stream"
    if hasattr(image, "read"):
        return Path(str(getattr(image, "name", "image"))).name, image.read(), "application/octet-stream"
    return "image.png", _encode_png(image), "image/png"


def _encode_png(image: Any) -> bytes:
    import numpy as np
    from PIL import Image

    if not isinstance(image, Image.Image):
        array = np.asarray(image)
        if array.ndim == 3 and array.shape[2] == 1:
            array = array[..., 0]
        if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
            raise DataError(
                f"an array of shape {array.shape} and type {array.dtype}",
                expected="uint8 (H, W), (H, W, 1) or (H, W, 3), RGB; or a path, bytes, an open file, a PIL image",
            )
        image = Image.fromarray(array)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def image_list(images: Any) -> list[Any]:
    """One image, or several, as a list; an array of four dimensions is several."""
    if isinstance(images, str | Path | bytes | bytearray | memoryview) or hasattr(images, "read"):
        return [images]
    if hasattr(images, "ndim"):
        return [images] if images.ndim < 4 else list(images)
    return list(images) if isinstance(images, Iterable) else [images]


def image_parts(images: Sequence[Any], name: str = "image") -> list[Part]:
    return [(name, encode_image(image)) for image in images]


def field_parts(values: Mapping[str, Any]) -> list[Part]:
    """Fields of a form, as httpx takes them beside files."""
    return [(name, (None, str(value).encode(), "text/plain")) for name, value in values.items() if value is not None]


def batches(images: Any) -> Iterator[list[Any]]:
    every = image_list(images)
    for start in range(0, len(every), IMAGES_PER_REQUEST):
        yield every[start : start + IMAGES_PER_REQUEST]


def parts_of(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(numbers), IMAGES_PER_REQUEST):
        yield numbers[start : start + IMAGES_PER_REQUEST]


def by_label(labels: str | Sequence[str], count: int) -> dict[str, list[int]]:
    """The images of each class, by their places. Raises DataError where there are not as many labels as images."""
    if isinstance(labels, str):
        return {labels: list(range(count))}
    if len(labels) != count:
        raise DataError(f"{count} images and {len(labels)} labels", expected="as many labels as images")
    numbers: dict[str, list[int]] = {}
    for number, label in enumerate(labels):
        numbers.setdefault(label, []).append(number)
    return numbers
