"""Images as they are sent."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unalike.client.images import by_label, encode_image, image_list
from unalike.errors import DataError


def test_every_kind_of_image_is_sent_as_the_same_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    for given in (tmp_path / "a.png", str(tmp_path / "a.png"), content, io.BytesIO(content), image, pixels):
        name, encoded, _ = encode_image(given)
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(encoded))), pixels), name
    assert encode_image(tmp_path / "a.png")[::2] == ("a.png", "image/png")


def test_gray_arrays_keep_their_shape() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_image(pixels)[1]))), pixels[..., 0])


def test_an_array_of_four_dimensions_is_several_images() -> None:
    assert (
        len(image_list(np.zeros((3, 4, 4, 3), np.uint8))) == 3 and len(image_list(np.zeros((4, 4, 3), np.uint8))) == 1
    )
    assert image_list(b"ab") == [b"ab"] and image_list(("a", "b")) == ["a", "b"]


def test_labels_are_one_for_all_or_one_each() -> None:
    assert by_label("mug", 3) == {"mug": [0, 1, 2]}
    assert by_label(["b", "a", "b"], 3) == {"b": [0, 2], "a": [1]}
    with pytest.raises(DataError, match="3 images and 2 labels"):
        by_label(["a", "b"], 3)
