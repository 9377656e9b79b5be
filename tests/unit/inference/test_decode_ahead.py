"""Decoding ahead: order, bounded memory, errors of single images."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from unalike.errors import DataError, UnreadableImage
from unalike.inference.decode_ahead import decode_ahead


def image(number: int) -> np.ndarray:
    return np.full((2, 2, 3), number, np.uint8)


def test_images_come_in_order_and_unreadable_ones_as_their_errors() -> None:
    def read(number: int) -> np.ndarray:
        if number == 3:
            raise UnreadableImage("three: damaged")
        return image(number)

    pairs = list(decode_ahead(([0, 1], [2], [3, 4], [5]), read, workers=3, ahead=2))
    assert [item for item, _ in pairs] == list(range(6))
    assert [int(result[0, 0, 0]) for item, result in pairs if item != 3] == [0, 1, 2, 4, 5]  # type: ignore[index]
    assert isinstance(pairs[3][1], UnreadableImage)


def test_items_are_drawn_as_they_are_needed() -> None:
    drawn = 0

    def groups() -> Iterator[list[int]]:
        nonlocal drawn
        for number in range(1000):
            drawn = number + 1
            yield [number]

    images = decode_ahead(groups(), image, workers=2, ahead=8)
    for _ in range(5):
        next(images)
    assert drawn <= 5 + 8
    images.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_another_error_ends_it() -> None:
    def read(number: int) -> np.ndarray:
        raise DataError("the store cannot be reached")

    with pytest.raises(DataError, match="store"):
        list(decode_ahead(([0], [1]), read, workers=2, ahead=4))
