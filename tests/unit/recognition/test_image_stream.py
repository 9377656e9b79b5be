"""Streams of images: one image in place of several is refused, and batches are taken when they are needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from unalike.errors import DataError
from unalike.recognition.image_stream import image_batches, several_images


@pytest.mark.parametrize("images", ["a.png", b"content", np.zeros((4, 4, 3), np.uint8), {"a": "b"}, 5, None])
def test_what_is_not_several_images_is_refused(images: Any) -> None:
    with pytest.raises(DataError, match="images"):
        several_images(images)


def test_batches_are_taken_when_they_are_needed() -> None:
    taken = []

    def stream() -> Any:
        for number in range(5):
            taken.append(number)
            yield f"{number}.png"

    batches = image_batches(several_images(stream()), 2)
    assert next(batches) == ["0.png", "1.png"] and taken == [0, 1]
    assert list(batches) == [["2.png", "3.png"], ["4.png"]]
    assert len(list(image_batches(several_images(np.zeros((3, 4, 4, 3), np.uint8)), 2))) == 2
