"""What is compared of an image: all of it or a box, in pixels of the original."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unalike.data.decode import DEFAULT
from unalike.data.regions import Box
from unalike.errors import DataError, UnreadableImage
from unalike.verification.compared_image import MAX_SIDE, check_box, read_compared

pytest.importorskip("cv2")


def position_of_red(pixels_HW3: np.ndarray) -> np.ndarray:
    """Mean (x, y) of the red pixels."""
    rows, columns = np.nonzero((pixels_HW3[..., 0] > 150) & (pixels_HW3[..., 1] < 100))
    return np.array([columns.mean(), rows.mean()])


@pytest.mark.parametrize("size", [(300, 400), (2400, 3200)])
@pytest.mark.parametrize("box", [None, Box(60, 120, 200, 80)])
def test_pixels_are_mapped_to_the_original(size: tuple[int, int], box: Box | None, tmp_path: Path) -> None:
    factor = size[0] // 300
    image = np.full((*size, 3), 220, np.uint8)
    image[140 * factor : 160 * factor, 100 * factor : 120 * factor] = (220, 20, 20)
    Image.fromarray(image).save(tmp_path / "image.jpg", quality=95)
    box = None if box is None else Box(*(number * factor for number in box))
    for source in (image, tmp_path / "image.jpg"):
        compared = read_compared(source, DEFAULT, box)
        assert compared.size == size and max(compared.pixels_HW3.shape[:2]) <= MAX_SIDE
        x, y, _ = compared.to_original_33 @ [*position_of_red(compared.pixels_HW3), 1.0]
        assert np.abs(np.array([x, y]) / factor - [109.5, 149.5]).max() < 1


def test_a_box_shows_more_detail_of_a_large_image() -> None:
    image = np.zeros((3000, 4000, 3), np.uint8)
    assert read_compared(image, DEFAULT).scale == pytest.approx(4000 / MAX_SIDE)
    part = read_compared(image, DEFAULT, Box(1000, 1000, 500, 200))
    assert part.scale == 1.0 and part.pixels_HW3.shape == (400, 700, 3)


def test_a_box_ends_at_the_image() -> None:
    part = read_compared(np.zeros((200, 300, 3), np.uint8), DEFAULT, Box(250, 150, 100, 100))
    assert part.pixels_HW3.shape == (60, 60, 3)


def test_wrong_boxes_are_refused() -> None:
    for box in ((1, 2, 3), (0, 0, 0, 5), (-1, 0, 5, 5), (0, 0, 1.5, 5), "0,0,5,5"):
        with pytest.raises(DataError):
            check_box(box)  # type: ignore[arg-type]
    image = np.zeros((200, 300, 3), np.uint8)
    with pytest.raises(UnreadableImage, match="outside of the image of 300 x 200"):
        read_compared(image, DEFAULT, check_box((300, 0, 50, 50)))
    with pytest.raises(UnreadableImage, match="a box of 7 x 7 pixels"):
        read_compared(image, DEFAULT, check_box((100, 100, 5, 5)))
