"""Where the coded pictures of AVIF files lie."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from unalike.data.media_boxes import coded_extents


def _avif(mode: str, exif: bytes = b"") -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, len(mode)), dtype=np.uint8)
    Image.fromarray(pixels, mode).save(out, "AVIF", exif=exif)
    return out.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_data_of_colors_and_transparency(mode: str) -> None:
    content = _avif(mode)
    extents = coded_extents(content)
    assert len(extents) == 1 and max(end for _, end in extents) == len(content)
    assert all(content.index(b"mdat") < start < end for start, end in extents)


def test_exif_is_none_of_them() -> None:
    exif = Image.Exif()
    exif[0x010E] = "description" * 50
    content = _avif("RGB", exif.tobytes())
    place = content.index(b"description")
    assert not any(start <= place < end for start, end in coded_extents(content))


def test_what_is_not_understood_has_none() -> None:
    content = _avif("RGB")
    for end in range(0, len(content), 7):
        coded_extents(content[:end])
    random = np.random.default_rng(1)
    for _ in range(300):
        damaged = bytearray(content)
        for place in random.integers(0, 400, 4):
            damaged[place] = random.integers(256)
        coded_extents(bytes(damaged))
    assert coded_extents(b"") == coded_extents(bytes(100)) == []


def _box(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind + content


def _file(items: int, extents: bytes, sizes: int = 0) -> bytes:
    """A file of one picture, ``items`` times at places that ``extents`` tells."""
    kinds = bytes(4) + (1).to_bytes(2, "big") + _box(b"infe", bytes((2, 0, 0, 0, 0, 1, 0, 0)) + b"av01")
    places = bytes(4) + sizes.to_bytes(2, "big") + items.to_bytes(2, "big") + (bytes((0, 1, 0, 0)) + extents) * items
    return _box(b"ftyp", b"avif") + _box(b"meta", bytes(4) + _box(b"iinf", kinds) + _box(b"iloc", places))


def test_forged_numbers_of_extents_take_no_time() -> None:
    assert coded_extents(_file(60_000, b"\xff\xff")) == []
    overlapping = b"".join(n.to_bytes(2, "big") + (999).to_bytes(2, "big") for n in range(500))
    assert coded_extents(_file(1, (500).to_bytes(2, "big") + overlapping, 0x2200)) == [(0, 499 + 999)]
