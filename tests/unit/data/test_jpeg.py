"""A JPEG of which compressed data are missing is refused, at no price for whole files of any kind."""

from __future__ import annotations

import io
from itertools import product
from typing import Any

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from unalike.data.decode import decode
from unalike.data.jpeg import END, IncompleteJpeg, load_complete, read_layout
from unalike.errors import UnreadableImage


def photograph(height: int = 160, width: int = 200, mode: str = "RGB") -> Image.Image:
    """An image with structure everywhere."""
    coarse = np.random.default_rng(3).integers(0, 255, (height // 10, width // 10, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def drawing(height: int = 160, width: int = 200, mode: str = "RGB") -> Image.Image:
    """A rectangle on white: most blocks are empty, the last ones too."""
    image = Image.new("RGB", (width, height), "white")
    image.paste((200, 30, 40), (20, 20, 90, 90))
    return image.convert(mode)


def encode(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **{"quality": 88, **options})
    return stream.getvalue()


KINDS: dict[str, dict[str, Any]] = {
    "baseline": {}, "optimized": {"optimize": True}, "4:4:4": {"subsampling": 0}, "4:2:2": {"subsampling": 1},
    "low": {"quality": 20}, "restarts": {"restart_marker_blocks": 7}, "rows": {"restart_marker_rows": 1},
    "progressive": {"progressive": True}, "exif": {"exif": b"Exif\0\0" + b"\xff\xd9\xff\xda" * 50},
}  # fmt: skip


@pytest.mark.parametrize(("kind", "mode", "make"), [*product(KINDS, ("RGB", "L", "CMYK"), (photograph, drawing))])
def test_whole_files_are_read_as_pillow_reads_them(kind: str, mode: str, make: Any) -> None:
    content = encode(make(mode=mode), **KINDS[kind])
    for trailing in (b"", b"\0" * 3000, b"after" + END + b"the end" + END, encode(drawing(16, 16))):
        for size in (None, (50, 40)):
            plain = JpegImagePlugin.JpegImageFile(io.BytesIO(content))
            checked = JpegImagePlugin.JpegImageFile(io.BytesIO(content + trailing))
            if size is not None:
                plain.draft(None, size)
                checked.draft(None, size)
            load_complete(checked, content + trailing)
            assert np.array_equal(np.asarray(checked), np.asarray(plain))


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (7, 9), (16, 16), (17, 33)])
def test_the_smallest_files(size: tuple[int, int]) -> None:
    for kind in KINDS.values():
        assert decode(encode(Image.new("RGB", size, (10, 200, 30)), **kind)).shape == (size[1], size[0], 3)


def test_padding_before_the_end_marker_and_a_missing_one_are_no_damage() -> None:
    content = encode(photograph())
    whole = decode(content)
    for end in (b"\0" * 5000 + END, b"\xff" * 7 + END, b"\x12\x34\x56" + END, b""):
        assert np.array_equal(decode(content[:-2] + end), whole)


@pytest.mark.parametrize(("kind", "mode"), [*product(KINDS, ("RGB", "L", "CMYK"))])
def test_half_of_a_scan_is_refused(kind: str, mode: str) -> None:
    content = encode(photograph(mode=mode), **KINDS[kind])
    layout = read_layout(content)
    assert layout is not None
    start = layout.scans[0][0]
    half = start + (len(content) - start) // 2
    for damaged in (content[:half], content[:half] + END, content[:half] + b"\xff\xd9 and more"):
        with pytest.raises(UnreadableImage, match="incomplete"):
            decode(damaged)


@pytest.mark.parametrize(("kind", "mode"), [*product((k for k in KINDS if k != "progressive"), ("RGB", "L", "CMYK"))])
def test_what_is_missing_at_the_end_or_inside_is_refused(kind: str, mode: str) -> None:
    content = encode(photograph(mode=mode), **KINDS[kind])
    layout = read_layout(content)
    assert layout is not None
    start, end = layout.scans[0]
    for damaged in (
        content[: end - 120] + END,
        content[: start + 200] + bytes(400) + content[start + 600 :],
        content[: end - 500] + bytes(500) + END,
    ):
        with pytest.raises(UnreadableImage, match="incomplete|damaged"):
            decode(damaged)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_header_that_claims_more_than_its_data_can_hold(progressive: bool) -> None:
    content = bytearray(encode(photograph(40, 40), progressive=progressive))
    frame = content.find(b"\xff\xc2" if progressive else b"\xff\xc0")
    content[frame + 5 : frame + 9] = (14000).to_bytes(2, "big") * 2
    with pytest.raises(UnreadableImage, match="cannot hold 14000 x 14000"):
        decode(bytes(content))


def test_restart_markers_are_counted() -> None:
    content = encode(photograph(), restart_marker_blocks=7)
    place = content.rfind(b"\xff\xd2")
    with pytest.raises(UnreadableImage, match="restart markers"):
        decode(content[:place] + b"\x55\x55" + content[place + 2 :])


def test_an_opened_image_is_checked_too() -> None:
    content = encode(photograph())
    half = content[: len(content) // 2] + END
    with pytest.raises(UnreadableImage, match="incomplete"):
        decode(Image.open(io.BytesIO(half)))
    assert np.array_equal(decode(Image.open(io.BytesIO(content))), decode(content))


def test_markers_that_are_not_understood_are_left_to_pillow() -> None:
    assert read_layout(b"\xff\xd8 nothing") is None
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(encode(photograph())))
    with pytest.raises(IncompleteJpeg):
        load_complete(image, encode(photograph())[:700])
