"""A smooth displacement field is fitted and removes bends, but no defects; coordinates of windows."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.drawings import board, similarity_matrix
from unalike.comparison.deformation import fit_deformation, map_coordinates
from unalike.comparison.registration import register

cv2 = pytest.importorskip("cv2")


def test_a_smooth_bend_is_removed() -> None:
    reference = board(1, 480, 480)
    y, x = np.mgrid[0:480, 0:480].astype(np.float32)
    bent_x, bent_y = x + 3 * np.sin(y / 90), y + 2 * np.cos(x / 110)
    image = cv2.remap(reference, bent_x, bent_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    straight = register(reference, image)
    found = fit_deformation(reference, image, straight)
    place = map_coordinates(found.matrix_33, found.flow_GhGw2, (480, 480))
    # Measured where there is an edge across the direction: along an edge the displacement is unknown.
    steep = np.abs(cv2.Sobel(image, cv2.CV_32F, 1, 0)) > 400
    before = map_coordinates(straight.matrix_33, None, (480, 480))
    errors = [np.abs(p[..., 0] - bent_x)[steep].mean() for p in (before, place)]
    assert errors[1] < 0.7 and errors[0] > 1.3
    assert found.quality >= straight.quality


def test_a_defect_is_not_removed() -> None:
    reference = board(2, 480, 480)
    image = reference.copy()
    image[200:230, 100:110] = 255 - image[200:230, 100:110]
    found = fit_deformation(reference, image, register(reference, image))
    assert found.flow_GhGw2 is None or np.abs(found.flow_GhGw2).max() < 1.0


def test_coordinates_of_a_window_are_those_of_the_whole() -> None:
    flow = np.random.default_rng(0).normal(0, 2, (5, 7, 2)).astype(np.float32)
    matrix = similarity_matrix(10, 1.2, (3, 4), 100, 80) + np.array([[0, 0, 0], [0, 0, 0], [1e-4, 2e-4, 0]])
    whole = map_coordinates(matrix, flow, (80, 100))
    part = map_coordinates(matrix, flow, (80, 100), (20, 10, 60, 50))
    assert np.allclose(whole[10:50, 20:60], part, atol=1e-4)
    # The oracle: one pixel by hand, at the centre of a cell where the flow is that cell's.
    column, row = 3, 2
    x, y = (column + 0.5) * 100 / 7 - 0.5 + flow[row, column, 0], (row + 0.5) * 80 / 5 - 0.5 + flow[row, column, 1]
    u, v, w = matrix @ (x, y, 1)
    near = whole[round((row + 0.5) * 80 / 5 - 0.5), round((column + 0.5) * 100 / 7 - 0.5)]
    assert np.abs(near - (u / w, v / w)).max() < 1.5
