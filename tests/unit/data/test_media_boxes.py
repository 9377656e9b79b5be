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


@pytest.mark.parametrize(("mode", "number"), [("RGB", 1), ("RGBA", 2)])
def test_one_extent_for_colors_and_one_for_transparency(mode: str, number: int) -> None:
    content = _avif(mode)
    extents = coded_extents(content)
    assert len(extents) == number and max(end for _, end in extents) == len(content)
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
