"""Damaged files of each format are refused, and whole ones of every kind are not."""

from __future__ import annotations

import io
import zlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from unalike.data import completeness
from unalike.data.decode import decode, open_image
from unalike.errors import UnreadableImage

WAVES = 100 + 60 * np.sin(np.linspace(0, 20, 300)) * np.cos(np.linspace(0, 15, 200))[:, None]
PIXELS = (WAVES[..., None] + np.random.default_rng(0).integers(0, 40, (200, 300, 3))).astype(np.uint8)
PICTURE = Image.fromarray(PIXELS)
GRAY16 = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)
FORMATS: dict[str, tuple[Image.Image, dict[str, Any]]] = {
    "PNG": (PICTURE, {}), "PNG 16": (GRAY16, {}), "PNG palette": (PICTURE.quantize(16), {}), "WEBP": (PICTURE, {}),
    "WEBP lossless": (PICTURE, {"lossless": True}), "WEBP alpha": (PICTURE.convert("RGBA"), {}), "AVIF": (PICTURE, {}), "GIF": (PICTURE, {}),
    "TIFF deflate": (PICTURE, {"compression": "tiff_deflate"}), "TIFF deflate 16": (GRAY16, {"compression": "tiff_adobe_deflate"}),
    "TIFF jpeg": (PICTURE, {"compression": "jpeg"}), "TIFF lzw": (PICTURE, {"compression": "tiff_lzw"}), "JPEG": (PICTURE, {}),
}  # fmt: skip


def _encode(image: Image.Image, name: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, name.split()[0], **options)
    return out.getvalue()


@pytest.mark.parametrize("name", FORMATS)
def test_zero_bytes_in_place_of_the_second_half_are_refused(name: str) -> None:
    image, options = FORMATS[name]
    content = _encode(image, name, **options)
    decode(content)
    half = len(content) // 2
    for damaged in (content[:half] + bytes(len(content) - half), content[:half]):
        with pytest.raises(UnreadableImage, match=r"^image bytes: "):
            decode(damaged)
        try:
            opened = Image.open(io.BytesIO(damaged))
        except OSError:
            continue  # Pillow refuses it when it is opened
        with opened, pytest.raises(UnreadableImage):
            open_image(opened)


@pytest.mark.parametrize("name", ["PNG", "PNG 16", "PNG palette", "TIFF deflate", "TIFF deflate 16"])
def test_one_flipped_bit_of_the_pixels_is_seen_where_the_format_has_a_checksum(name: str) -> None:
    image, options = FORMATS[name]
    content = _encode(image, name, **options)
    random = np.random.default_rng(1)
    for place in random.integers(len(content) // 4, len(content) * 3 // 4, 30):
        damaged = bytearray(content)
        damaged[place] ^= 1 << random.integers(8)
        with pytest.raises(UnreadableImage):
            decode(bytes(damaged))


@pytest.mark.parametrize("options", [{"compression": "tiff_deflate"}, {"compression": "jpeg"}])
def test_strips_of_a_tiff_file_that_are_damaged(options: dict[str, str]) -> None:
    content = _encode(PICTURE, "TIFF", **options)
    with Image.open(io.BytesIO(content)) as image:
        end = image.tag_v2[273][-1] + image.tag_v2[279][-1]  # type: ignore[attr-defined]
    with pytest.raises(UnreadableImage):
        decode(content[: end - 60] + bytes(60) + content[end:])


def test_zero_bytes_within_avif_are_refused() -> None:
    content = _encode(PICTURE, "AVIF")
    middle = len(content) // 2
    with pytest.raises(UnreadableImage, match="zero bytes stand in place of image data"):
        decode(content[:middle] + bytes(64) + content[middle + 64 :])


@pytest.mark.parametrize(
    "options", [{}, {"quality": 10, "method": 0}, {"lossless": True}, {"lossless": True, "quality": 0, "method": 0}]
)
def test_webp_with_flat_areas_is_whole(options: dict[str, Any]) -> None:
    ends_in_zeros = 0
    for height in (64, 700):
        pixels = np.zeros((height, 600, 3), np.uint8)
        for top in (0, height // 8, height // 2):  # noise above, a flat area below
            pixels[:top] = np.random.default_rng(0).integers(0, 256, (top, 600, 3))
            content = _encode(Image.fromarray(pixels), "WEBP", **options)
            ends_in_zeros += content.endswith(bytes(32))
            assert decode(content).shape == pixels.shape
    assert ends_in_zeros or options.get("method") != 0  # else this test tries nothing


def test_of_an_animation_the_first_picture_must_be_whole() -> None:
    for name in ("PNG", "WEBP"):
        content = _encode(PICTURE, name, save_all=True, append_images=[PICTURE.rotate(180)])
        decode(content[:-50] + bytes(50))
        with pytest.raises(UnreadableImage):
            decode(content[: len(content) // 4] + bytes(len(content) - len(content) // 4))


def test_a_png_file_without_an_end_or_with_something_behind_it_is_whole() -> None:
    content = _encode(PICTURE, "PNG")
    assert (decode(content + b"more") == PIXELS).all() and (decode(content[:-12]) == PIXELS).all()


@pytest.mark.skipif(not features.check("avif"), reason="this build of Pillow reads no AVIF")
def test_exif_may_hold_zero_bytes() -> None:
    exif = Image.Exif()
    exif[0x927C] = bytes(500)  # maker note
    assert decode(_encode(PICTURE, "AVIF", exif=exif.tobytes())).shape == PIXELS.shape


class _CountingReader:
    """A decompressor that counts the bytes it is given."""

    total = 0

    def __init__(self) -> None:
        self._reader = zlib.decompressobj()

    def decompress(self, data: bytes, limit: int) -> bytes:
        _CountingReader.total += len(data)
        return self._reader.decompress(data, limit)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


def test_a_strip_of_many_megabytes_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8))
    content = _encode(picture, "TIFF", compression="tiff_deflate", tiffinfo={278: 1500})
    monkeypatch.setattr(completeness, "zlib", SimpleNamespace(decompressobj=_CountingReader, error=zlib.error))
    decode(content)
    assert 0.9 * len(content) < _CountingReader.total < 1.5 * len(content)


class _Stream(io.BytesIO):
    largest = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.largest = max(self.largest, len(data))
        return data


@pytest.mark.parametrize(("name", "share"), [("BMP", 0.5), ("PPM", 0.5), ("PNG", 1.0)])
def test_what_is_not_checked_is_not_read_as_a_whole(name: str, share: float) -> None:
    content = _encode(Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 900, 3), dtype=np.uint8)), name)
    stream = _Stream(content)
    decode(stream)
    assert (stream.largest == len(content)) if share == 1 else stream.largest < share * len(content)
