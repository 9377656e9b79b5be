"""Antialiased pixels of screenshots are told from changes, against a slow oracle."""

from __future__ import annotations

import numpy as np

from unalike.comparison.antialiasing import YIQ, find_antialiased, measure_color_distance


def slow_antialiased(a: np.ndarray, b: np.ndarray, y: int, x: int) -> bool:
    """One pixel: at most two equal neighbors, a darker and a brighter one, and one of the two is flat in both images."""
    height, width = a.shape[:2]

    def near(y: int, x: int) -> list[tuple[int, int]]:
        return [(j, i) for j in (y - 1, y, y + 1) for i in (x - 1, x, x + 1)
                if (j, i) != (y, x) and 0 <= j < height and 0 <= i < width]  # fmt: skip

    def border(y: int, x: int) -> int:
        return int(y in (0, height - 1) or x in (0, width - 1))

    def flat(image: np.ndarray, y: int, x: int) -> bool:
        return sum(bool((image[p] == image[y, x]).all()) for p in near(y, x)) + border(y, x) >= 3

    light = a @ YIQ[0]
    change = {p: light[p] - light[y, x] for p in near(y, x)}
    if (
        sum(v == 0 for v in change.values()) + border(y, x) > 2
        or min(change.values()) >= 0
        or max(change.values()) <= 0
    ):
        return False
    ends = [min(change, key=change.__getitem__), max(change, key=change.__getitem__)]
    return any(flat(a, *p) and flat(b, *p) for p in ends)


def test_antialiased_pixels_are_those_of_the_oracle() -> None:
    draws = np.random.default_rng(0)
    a = np.full((24, 30, 3), 250, np.uint8)
    for n in range(30):
        edge = round(4 + n * 0.5)
        a[edge:, n] = 20
        a[edge - 1, n] = 60 + 3 * n
    b = a.copy()
    b[:, 5] = 90
    for n in range(30):
        b[round(4 + n * 0.5) - 1, n] = draws.integers(30, 240)
    candidates = (a != b).any(axis=2)
    result = find_antialiased(a, b, candidates)
    for y, x in zip(*np.nonzero(candidates), strict=True):
        assert result[y, x] == (slow_antialiased(a, b, y, x) or slow_antialiased(b, a, y, x)), (y, x)
    assert result.any() and not result[~candidates].any() and not result[candidates].all()


def test_colors_lie_apart_as_black_and_white_do() -> None:
    black, white, red = (np.full((2, 3, 3), color, np.uint8) for color in ((0, 0, 0), (255, 255, 255), (255, 0, 0)))
    distance, change = measure_color_distance(black, white)
    assert np.allclose(distance, 255, atol=0.1) and (change == 255).all()
    assert measure_color_distance(red, red)[0].max() == 0 and measure_color_distance(red, black)[0].min() > 70


def test_no_candidates() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    assert not find_antialiased(image, image, np.zeros((4, 4), bool)).any()
