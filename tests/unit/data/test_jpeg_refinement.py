"""A progressive JPEG whose last scan is cut is found by its pixels; complete ones are not suspected."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from unalike.data.decode import decode
from unalike.data.jpeg import END, read_layout
from unalike.data.jpeg_refinement import last_scan_is_cut
from unalike.errors import UnreadableImage


def photograph(mode: str = "RGB", seed: int = 3) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(40, 216, (16, 20, 3), np.uint8)
    return Image.fromarray(coarse).resize((203, 165), Image.Resampling.BICUBIC).convert(mode)


def encode(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", progressive=True, **options)
    return stream.getvalue()


def judge(content: bytes) -> bool:
    image, layout = JpegImagePlugin.JpegImageFile(io.BytesIO(content)), read_layout(content)
    assert layout is not None
    image.load()
    return last_scan_is_cut(image, layout)


def cut(content: bytes, share: float) -> bytes:
    layout = read_layout(content)
    assert layout is not None
    start, end = layout.scans[-1]
    return content[: start + int(share * (end - start))] + END


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    ("quality", "share"), [(40, 0.8), (75, 0.1), (75, 0.8), (88, 0.5), (88, 0.8), (95, 0.1), (95, 0.5)]
)
def test_a_cut_last_scan_is_refused(quality: int, share: float, mode: str) -> None:
    content = encode(photograph(mode), quality=quality)
    assert decode(content).shape == (165, 203, 3)
    with pytest.raises(UnreadableImage, match="its last scan ends before the image does"):
        decode(cut(content, share))


def test_half_of_the_first_scans_is_refused() -> None:
    content = encode(photograph(), quality=88)
    layout = read_layout(content)
    assert layout is not None
    for start, end in layout.scans:
        with pytest.raises(UnreadableImage):
            decode(content[: (start + end) // 2] + END)


def test_complete_files_are_not_suspected() -> None:
    rng = np.random.default_rng(0)
    block = Image.fromarray(rng.integers(40, 216, (8, 8, 3), np.uint8))
    tiles, blank = Image.new("RGB", (160, 160)), photograph()
    for place in range(400):
        tiles.paste(block, (8 * (place % 20), 8 * (place // 20)))
    blank.paste((200, 200, 200), (0, 40, 203, 165))
    noise = Image.fromarray(rng.integers(0, 256, (120, 120, 3), np.uint8))
    for image in (tiles, blank, noise, photograph(), Image.linear_gradient("L"), Image.new("RGB", (300, 200), "navy")):
        for quality in (30, 75, 90, 95):
            for subsampling in (0, 2):
                assert not judge(encode(image.convert("RGB"), quality=quality, subsampling=subsampling))
                assert not judge(encode(image.convert("L"), quality=quality))


@pytest.mark.parametrize(("first", "second"), [(50, 75), (80, 90), (75, 75)])
def test_steps_of_half_the_size_make_even_values_without_damage(first: int, second: int) -> None:
    for mode in ("RGB", "L"):
        once = Image.open(io.BytesIO(encode(photograph(mode), quality=first)))
        content = encode(once, quality=second)
        assert not judge(content)
        assert judge(cut(content, 0.1)), "its scan cannot hold a bit for each value"


def test_what_cannot_be_seen_is_not_claimed() -> None:
    content = cut(encode(photograph(), quality=75), 0.5)
    image, layout = JpegImagePlugin.JpegImageFile(io.BytesIO(content)), read_layout(content)
    assert layout is not None and judge(content)
    image.draft(None, (50, 40))
    image.load()
    assert not last_scan_is_cut(image, layout)
    assert not judge(cut(encode(photograph("CMYK"), quality=75), 0.5))
    black_and_white = Image.effect_noise((200, 160), 90).point(lambda value: 255 * (value > 128))
    assert not judge(cut(encode(black_and_white, quality=75), 0.5))
