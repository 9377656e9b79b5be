"""Conversion of opened images by a rule: what version 1 did, and what stays as it is."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from unalike.data.decoding import Decoding
from unalike.data.pixel_conversion import has_alpha, to_rgb, to_rgba


def never() -> Image.Image:
    raise AssertionError("opened again")


def noise(channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (12, 16, channels), np.uint8)


@pytest.mark.parametrize("version", [1, 2])
def test_plain_rgb_is_passed_on(version: int) -> None:
    image = Image.fromarray(noise())
    assert to_rgb(image, Decoding(version), never) is image


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "LAB"])
def test_modes_without_choices_are_the_same_in_both_versions(mode: str) -> None:
    image = Image.fromarray(noise())
    if mode == "LAB":
        image = Image.merge("LAB", image.split())
    image = image.convert(mode) if mode != "LAB" else image
    first, second = (np.asarray(to_rgb(image, Decoding(version), never)) for version in (1, 2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency(mode: str) -> None:
    pixels = noise(4)
    image = Image.fromarray(pixels).convert(mode)
    assert has_alpha(image)
    white = np.asarray(to_rgb(image, Decoding(ground=(255, 255, 255)), never))
    assert np.array_equal(white, np.asarray(to_rgb(image, Decoding(1), never)))
    layer = np.asarray(to_rgba(image, Decoding(), never))
    assert np.array_equal(layer, np.asarray(image.convert("RGBA")))
    opaque = np.asarray(to_rgba(Image.fromarray(noise()), Decoding(), never))
    assert (opaque[..., 3] == 255).all()


def test_version_1_chose_a_range_for_each_image() -> None:
    old = Decoding(1)
    for top in (1.0, 255.0, 65535.0):
        values = np.linspace(0, top, 64, dtype=np.float32).reshape(8, 8)
        assert np.asarray(to_rgb(Image.fromarray(values), old, never)).max() == 255
    dark = Image.fromarray(np.full((4, 4), 4095, np.uint16))
    assert np.asarray(to_rgb(dark, old, never)).max() == 16
