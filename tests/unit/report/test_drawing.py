from dataclasses import dataclass

import numpy as np
import pytest

from unalike.report.drawing import BOX_COLOR, blend_images, draw_boxes, draw_heat


@dataclass
class Region:
    box: tuple[int, int, int, int]
    score: float


@pytest.mark.parametrize("top", [0, 40])
def test_boxes_are_scaled_to_the_image_and_leave_the_original_alone(top):
    image = np.full((100, 200, 3), 255, np.uint8)
    drawn = np.asarray(draw_boxes(image, [Region((20, top, 60, top + 40), 3.0)], (200, 400)))
    assert (image == 255).all() and drawn.shape == image.shape
    assert tuple(drawn[top // 2 + 10, 10]) == BOX_COLOR and tuple(drawn[top // 2 + 10, 29]) == BOX_COLOR
    assert tuple(drawn[top // 2 + 10, 20]) == (255, 255, 255), "the inside stays visible"


def test_a_blend_is_gray_where_images_agree():
    reference, image = np.full((2, 3, 3), 200, np.uint8), np.full((2, 3, 3), 200, np.uint8)
    image[0, 0] = 0  # darker in the image: blue
    reference[1, 2] = 0  # darker in the reference: orange
    blend = blend_images(reference, image)
    assert blend[0, 0].tolist() == [0, 100, 200] and blend[1, 2].tolist() == [200, 100, 0]
    assert blend[0, 1].tolist() == [200, 200, 200]


def test_heat_is_clear_at_zero_and_red_at_twice_the_threshold():
    image = np.full((8, 8, 3), 100, np.uint8)
    heat = np.zeros((2, 2), np.float32)
    heat[0, 0] = 2.0
    drawn = np.asarray(draw_heat(heat, image, 1.0))
    assert drawn[7, 7].tolist() == [160, 160, 160]
    red, green, blue = drawn[0, 0].tolist()
    assert red > 200 and green < 40 and blue < 40
