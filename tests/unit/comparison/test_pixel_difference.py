"""Differences beyond the tolerance, against a slow oracle; lighting, noise and tiles."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.drawings import as_jpeg, board, shapes
from unalike.comparison import pixel_difference
from unalike.comparison.pixel_difference import (
    compute_excess,
    compute_pixel_difference,
    count_tiles,
    iterate_tiles,
)
from unalike.comparison.regions import find_pixel_regions
from unalike.comparison.registration import Registration
from unalike.errors import SpecError

cv2 = pytest.importorskip("cv2")
IDENTITY = Registration(np.eye(3), 1.0, 1.0, "none")


def slow_excess(a_HW: np.ndarray, b_HW: np.ndarray, tolerance: int) -> np.ndarray:
    """Pixel by pixel: how far b leaves the range of a around it, and a that of b."""
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * tolerance + 1,) * 2).astype(bool)
    height, width = a_HW.shape
    out = np.zeros((height, width), int)
    for y in range(height):
        for x in range(width):
            ranges = []
            for picture in (a_HW, b_HW):
                near = [int(picture[y + j - tolerance, x + i - tolerance])
                        for j, i in zip(*np.nonzero(disk), strict=True)
                        if 0 <= y + j - tolerance < height and 0 <= x + i - tolerance < width]  # fmt: skip
                ranges.append((min(near), max(near)))
            a, b = int(a_HW[y, x]), int(b_HW[y, x])
            (low_a, high_a), (low_b, high_b) = ranges
            out[y, x] = max(b - high_a, low_a - b, a - high_b, low_b - a, 0)
    return out


@pytest.mark.parametrize("tolerance", [0, 1, 3])
def test_excess_is_the_oracle(tolerance: int) -> None:
    draws = np.random.default_rng(0)
    a, b = (cv2.GaussianBlur(draws.integers(0, 256, (24, 30), dtype=np.uint8), (0, 0), 1.5) for _ in range(2))
    found, change = compute_excess(a[..., None], b[..., None], tolerance)
    assert np.array_equal(found, slow_excess(a, b, tolerance)) and found.max() > 0
    back, other = compute_excess(b[..., None], a[..., None], tolerance)
    assert np.array_equal(found, back) and np.array_equal(np.sign(change), -np.sign(other))


def test_edges_may_jitter_and_lines_may_not_vanish() -> None:
    a = np.full((80, 80), 255, np.uint8)
    a[:, 20:40] = 0
    a[:, 60:63] = 0
    b = np.full((80, 80), 255, np.uint8)
    b[:, 23:43] = 0  # moved by three
    b[:, 59:64] = 0  # thicker by two
    assert compute_excess(a[..., None], b[..., None], 3)[0].max() == 0
    b[30:50, 59:64] = 255  # broken
    seen, change = compute_excess(a[..., None], b[..., None], 3)
    rows, columns = np.nonzero(seen)
    assert 55 < columns.min() and columns.max() < 67 and 30 <= rows.min() and rows.max() < 50 and change[40, 61] > 0


def test_tiles_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    a = shapes(1, 300, 410)
    b = as_jpeg(a)
    b[100:115, 120:140] = (255, 0, 0)
    b[190:200, 250:260] = 0
    whole = compute_pixel_difference(a, b, IDENTITY)
    monkeypatch.setattr(pixel_difference, "TILE", 64)
    calls: list[int] = []
    parts = compute_pixel_difference(a, b, IDENTITY, advance=calls.append)
    assert len(calls) == count_tiles((300, 410)) == 5 * 7
    for name in ("heat_hw", "reach_hw", "count_hw", "sign_hw"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name)), name
    monkeypatch.setattr(pixel_difference, "MAP_SIDE", 137)
    pooled = compute_pixel_difference(a, b, IDENTITY)
    assert pooled.pool == 3 and pooled.heat_hw.shape == (100, 137)
    assert pooled.count_hw.sum() == whole.count_hw.sum() and pooled.sign_hw.sum() == whole.sign_hw.sum()
    extents = [find_pixel_regions(found, (300, 410))[0].extent for found in (whole, pooled)]
    assert np.abs(np.subtract(*extents)).max() <= 3


def test_tiles_cover_every_pixel_once() -> None:
    seen = np.zeros((2100, 1500), int)
    for left, top, right, bottom in iterate_tiles((2100, 1500), 3):
        seen[top:bottom, left:right] += 1
        assert left % 3 == 0 and top % 3 == 0
    assert (seen == 1).all()


def test_lighting_is_no_difference_and_color_is() -> None:
    a = shapes(2, 300, 400)
    gain = (0.7 + 0.45 * np.mgrid[0:300, 0:400][1] / 400)[..., None] * np.array([1.04, 1.0, 0.95])
    lit = np.clip(a * gain + 12, 0, 255).astype(np.uint8)
    assert not find_pixel_regions(compute_pixel_difference(a, lit, IDENTITY), (300, 400))
    assert find_pixel_regions(compute_pixel_difference(a, lit, IDENTITY, lighting="none"), (300, 400))
    # A part painted anew at the same brightness.
    a[60:100, 80:140] = (200, 60, 60)
    painted = np.clip(a * gain + 12, 0, 255).astype(np.uint8)
    painted[60:100, 80:140] = (70, 120, 70)
    (region,) = find_pixel_regions(compute_pixel_difference(a, painted, IDENTITY), (300, 400))
    assert np.abs(np.subtract(region.extent, (80, 60, 140, 100))).max() <= 6


def test_jpeg_and_noise_are_no_difference() -> None:
    draws = np.random.default_rng(0)
    for seed in range(3):
        a = shapes(seed, 300, 400)
        noisy = np.clip(a + draws.normal(0, 9, a.shape), 0, 255).astype(np.uint8)
        for b in (as_jpeg(a, 50), noisy, as_jpeg(noisy, 60)):
            assert not find_pixel_regions(compute_pixel_difference(a, b, IDENTITY), (300, 400)), seed


def test_noise_raises_the_threshold() -> None:
    a = board(0)[..., None]
    noise = np.random.default_rng(0).normal(0, 20, a.shape)
    noisy = np.clip(a * 0.6 + 50 + noise, 0, 255).astype(np.uint8)
    quiet, loud = (
        compute_pixel_difference(a, a, IDENTITY),
        compute_pixel_difference((a * 0.6 + 50).astype(np.uint8), noisy, IDENTITY),
    )
    assert quiet.threshold == 40 and loud.threshold > 60 and quiet.heat_hw.max() == 0


def test_what_lies_outside_the_reference_is_not_compared() -> None:
    a = board(1)[..., None]
    shift = Registration(np.array([[1, 0, 80.0], [0, 1, 0], [0, 0, 1]]), 1.0, 0.75, "none")
    b = np.zeros_like(a)
    b[:, :240] = a[:, 80:]
    found = compute_pixel_difference(a, b, shift)
    assert 0.68 < found.compared < 0.75 and not find_pixel_regions(found, (320, 320))
    assert found.heat_hw[:, 240:].max() == 0


def test_bad_settings_are_refused() -> None:
    a = board()[..., None]
    for setting in ({"tolerance": -1}, {"tolerance": 99}, {"lighting": "locale"}):
        with pytest.raises(SpecError):
            compute_pixel_difference(a, a, IDENTITY, **setting)  # type: ignore[arg-type]
