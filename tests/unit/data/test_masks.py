"""Masks as people and tools write them: white or coloured, labels, transparent grounds, 16 bit, JPEG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from unalike.data.masks import read_mask
from unalike.errors import DataError

SIZE = (40, 60)
REGION_HW = np.zeros(SIZE, np.bool_)
REGION_HW[8:20, 10:30] = True


def binary(value: int, dtype: type = np.uint8) -> Image.Image:
    return Image.fromarray(np.where(REGION_HW, value, 0).astype(dtype))


def on_transparent(colour: tuple[int, int, int], ground: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    pixels = np.zeros((*SIZE, 4), np.uint8)
    pixels[..., :3] = np.where(REGION_HW[..., None], colour, ground)
    pixels[..., 3] = np.where(REGION_HW, 255, 0)
    return Image.fromarray(pixels)


def palette() -> Image.Image:
    """As of PASCAL VOC: the first class is (128, 0, 0), whose luminance is 38."""
    image = Image.fromarray(REGION_HW.astype(np.uint8))
    image = image.convert("P")
    image.putpalette([0, 0, 0, 128, 0, 0])
    return image


def opaque_both() -> Image.Image:
    """The region white, the part black, and beyond the part transparent."""
    pixels = np.zeros((*SIZE, 4), np.uint8)
    pixels[2:38, 2:58, 3] = 255
    pixels[REGION_HW] = 255
    return Image.fromarray(pixels)


MASKS = {
    "0 and 255": binary(255), "0 and 1": binary(1), "label 3": binary(3), "1 bit": binary(255).convert("1"),
    "16 bit, 0 and 1": binary(1, np.uint16), "16 bit": binary(65535, np.uint16), "32 bit": binary(7, np.int32),
    "red": Image.merge("RGB", [binary(255), binary(0), binary(0)]), "dark blue": Image.merge("RGB", [binary(0)] * 2 + [binary(90)]),
    "palette": palette(), "white on transparent": on_transparent((255, 255, 255)), "black on transparent": on_transparent((0, 0, 0)),
    "red on transparent black": on_transparent((255, 0, 0), (0, 0, 0)), "white on black, beyond transparent": opaque_both(),
    "gray and alpha": on_transparent((255, 255, 255)).convert("LA"), "opaque alpha": binary(255).convert("RGBA"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MASKS)
def test_the_region_is_marked(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("mask.tif" if "32" in kind else "mask.png")
    MASKS[kind].save(path)
    assert (read_mask(path, SIZE) == REGION_HW).all()


def test_a_jpeg_and_soft_edges_are_cut_at_half(tmp_path: Path) -> None:
    binary(255).save(tmp_path / "mask.jpg", quality=60)
    assert (read_mask(tmp_path / "mask.jpg", SIZE) != REGION_HW).mean() < 0.02
    large = Image.new("L", (600, 400))
    ImageDraw.Draw(large).ellipse((100, 80, 299, 199), fill=200)
    large.resize((SIZE[1], SIZE[0]), Image.Resampling.BOX).save(tmp_path / "soft.png")
    inside_HW = np.asarray(large.resize((SIZE[1], SIZE[0]), Image.Resampling.NEAREST)) > 0
    assert (read_mask(tmp_path / "soft.png", SIZE) != inside_HW).mean() < 0.01


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.fromarray(np.where(REGION_HW, 0, 255).astype(np.uint8)), "marks 90%.*invert"),
        (Image.new("L", (60, 40)), "marks no pixel"),
        (Image.new("L", (61, 40), 255), "40 x 61; expected 40 x 60"),
    ],
)
def test_a_mask_that_cannot_be_meant_is_refused(tmp_path: Path, image: Image.Image, message: str) -> None:
    image.save(tmp_path / "mask.png")
    with pytest.raises(DataError, match=message) as caught:
        read_mask(tmp_path / "mask.png", SIZE)
    assert "mask.png" in str(caught.value)
