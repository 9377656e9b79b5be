"""CIELAB and CIEDE2000 equal published values."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.verification.color_difference import ciede2000, srgb_to_lab

# Pairs of Sharma, Wu and Dalal (2005), table 1: hues on both sides of 0 and 180 degrees, near blue, and neutral.
PUBLISHED = [
    ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
    ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0000),
    ((50, 0, 0), (50, -1, 2), 2.3669),
    ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
    ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
    ((50, 2.5, 0), (73, 25, -18), 27.1492),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ((90.8027, -2.0831, 1.4410), (91.1528, -1.6435, 0.0447), 1.4441),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
]


def test_the_published_differences() -> None:
    first, second, expected = (np.array(column) for column in zip(*PUBLISHED, strict=True))
    assert np.allclose(ciede2000(first, second), expected, atol=1e-4)
    assert np.allclose(ciede2000(second, first), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("color", "lab"),
    [((255, 255, 255), (100, 0, 0)), ((255, 0, 0), (53.24, 80.09, 67.20)), ((0, 0, 255), (32.30, 79.19, -107.86)),
     ((10, 10, 10), (2.74, 0, 0))],
)  # fmt: skip
def test_lab_of_srgb(color: tuple[int, ...], lab: tuple[float, ...]) -> None:
    assert np.allclose(srgb_to_lab(np.array(color)), lab, atol=0.02)
