"""Operations on maps against loops, Pillow and a flood fill."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from PIL import Image

from unalike.numerics.maps import connected_components, gaussian_filter, local_mean, resize_map, sample_map

RNG = np.random.default_rng(7)


@pytest.mark.parametrize("shape,side", [((2, 7, 5), 3), ((1, 1, 4), 3), ((3, 6, 6), 5), ((1, 3, 3), 1)])
def test_local_mean_is_the_loop(shape, side):
    values = RNG.normal(size=shape)
    expected = np.empty(shape)
    _, height, width = shape
    for y in range(height):
        for x in range(width):
            rows = np.clip(np.arange(y - side // 2, y + side // 2 + 1), 0, height - 1)
            columns = np.clip(np.arange(x - side // 2, x + side // 2 + 1), 0, width - 1)
            expected[:, y, x] = values[:, rows][:, :, columns].mean((1, 2))
    assert np.allclose(local_mean(values, side), expected, atol=1e-6)


@pytest.mark.parametrize("size", [(10, 14), (3, 4), (5, 7), (1, 1)])
def test_resizing_is_pillows_where_it_enlarges_and_interpolates_between(size):
    values = RNG.random((5, 7)).astype(np.float32)
    found = resize_map(values, size)
    assert found.shape == size
    if size[0] >= 5:  # smaller, Pillow widens its filter
        expected = np.asarray(Image.fromarray(values).resize((size[1], size[0]), Image.Resampling.BILINEAR))
        assert np.allclose(found, expected, atol=1e-5)
    assert values.min() - 1e-6 <= found.min() and found.max() <= values.max() + 1e-6


def test_sampling_is_the_loop():
    values = RNG.normal(size=(2, 5, 7))
    rows, columns = np.array([-3.0, 0, 0.25, 3.5, 4, 9]), np.array([1.75, 6, -0.5])
    found = sample_map(values, rows, columns)
    assert found.shape == (2, 6, 3) and found.dtype == np.float32
    for y, row in enumerate(rows.clip(0, 4)):
        for x, column in enumerate(columns.clip(0, 6)):
            expected = 0
            for i in range(5):
                for j in range(7):
                    expected = expected + values[:, i, j] * max(0, 1 - abs(row - i)) * max(0, 1 - abs(column - j))
            assert np.allclose(found[:, y, x], expected, atol=1e-6)


def test_smoothing_is_the_weighted_mean_and_keeps_a_constant():
    values = RNG.random((6, 9))
    expected = np.empty((6, 9))
    for y in range(6):
        for x in range(9):
            ys, xs = np.mgrid[0:6, 0:9]
            weight = np.exp(-0.5 * ((ys - y) ** 2 + (xs - x) ** 2)) * (abs(ys - y) <= 3) * (abs(xs - x) <= 3)
            expected[y, x] = (weight * values).sum() / weight.sum()
    assert np.allclose(gaussian_filter(values, 1.0), expected, atol=1e-5)
    assert np.allclose(gaussian_filter(np.full((3, 2), 4.0), 5.0), 4) and np.allclose(
        gaussian_filter(values, 0), values
    )


def flooded(mask):
    """The oracle: breadth-first from every cell in reading order."""
    labels, count = np.zeros(mask.shape, int), 0
    for start in zip(*np.nonzero(mask), strict=True):
        if labels[start]:
            continue
        count += 1
        labels[start] = count
        queue = deque([start])
        while queue:
            y, x = queue.popleft()
            for a in range(max(0, y - 1), min(mask.shape[0], y + 2)):
                for b in range(max(0, x - 1), min(mask.shape[1], x + 2)):
                    if mask[a, b] and not labels[a, b]:
                        labels[a, b] = count
                        queue.append((a, b))
    return labels, count


@pytest.mark.parametrize("density", [0.0, 0.2, 0.4, 0.6, 1.0])
def test_components_are_those_of_a_flood(density):
    for shape in ((1, 1), (1, 12), (12, 1), (17, 23)):
        mask = RNG.random(shape) < density
        labels, count = connected_components(mask)
        expected, known = flooded(mask)
        assert count == known and np.array_equal(labels, expected)
