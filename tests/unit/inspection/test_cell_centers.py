"""Places of the cells of feature maps, measured on networks whose cells lie where it is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from unalike.engines.metadata import MapFacts
from unalike.inspection.cell_centers import measure_cell_centers


class Windows:
    """An engine whose cell k is the mean of the pixels around its center, y or x, in each direction."""

    input_size, batch = (96, 80), 5

    def __init__(self, stride, center, reach):
        self.stride, self.center, self.reach = stride, center, reach
        self.map_facts = (MapFacts("windows", stride, 3, 96 // stride, 80 // stride),)

    def maps(self, images_BHWC):
        images = images_BHWC.astype(np.float64)
        for axis, center in ((1, self.center[0]), (2, self.center[1])):
            means = []
            for cell in range(images.shape[axis] // self.stride):
                low = int(self.stride * cell + center - self.reach)
                rows = np.clip(np.arange(low, low + 2 * self.reach), 0, images.shape[axis] - 1)
                means.append(images.take(rows, axis).mean(axis, keepdims=True))
            images = np.concatenate(means, axis)
        return [images.transpose(0, 3, 1, 2).astype(np.float32)]


@pytest.mark.parametrize("center", [(8, 8), (0, 4), (-3, 14)])
def test_the_centers_of_windows_are_found(center):
    ((y, x),) = measure_cell_centers(Windows(16, center, 16))
    assert abs(y - center[0]) <= 1.5 and abs(x - center[1]) <= 1.5


def same(stride):
    """Padding on both sides puts cell k at pixel stride k, whose center is half a pixel on."""
    return torch.nn.Conv2d(3, 4, 5, stride, 2)


def test_the_padding_of_a_convolution_moves_its_cells():
    torch.manual_seed(0)
    network = same(8)

    def maps(images_BHWC):
        with torch.inference_mode():
            images = torch.from_numpy(images_BHWC.astype(np.float32) / 255).permute(0, 3, 1, 2)
            wide = torch.nn.functional.conv2d(
                images, torch.ones(3, 1, 7, 7) / 49, padding=3, groups=3
            )  # so that no dot is missed
            return [network(wide).numpy()]

    facts = (MapFacts("low", 8, 4, 8, 8),)
    engine = SimpleNamespace(input_size=(64, 64), batch=8, map_facts=facts, maps=maps)
    ((y, x),) = measure_cell_centers(engine)
    assert abs(y - 0.5) <= 1 and abs(x - 0.5) <= 1  # and not at 4, the middle of a plain grid's cell


def test_a_map_that_does_not_answer_lies_on_a_plain_grid():
    facts = (MapFacts("dead", 8, 4, 8, 8), MapFacts("last row", 4, 1, 16, 16))

    def maps(images_BHWC):
        count = len(images_BHWC)
        last = np.zeros((count, 1, 16, 16), np.float32)
        last[:, 0, -1, -1] = images_BHWC.mean((1, 2, 3))
        return [np.ones((count, 4, 8, 8), np.float32), last]

    engine = SimpleNamespace(input_size=(64, 64), batch=3, map_facts=facts, maps=maps)
    assert measure_cell_centers(engine) == ((4.0, 4.0), (2.0, 2.0))
