"""Pixel AUROC and PRO against slow ways and scikit-learn."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from tests.unit.numerics.test_maps import flooded
from unalike.errors import UnalikeError
from unalike.metrics.localization import per_region_overlap, pixel_auroc


def slow_pro(heats, masks, limit):
    values = np.unique(np.concatenate([heat.ravel() for heat in heats]))[::-1]
    regions = [(heat, flooded(mask)) for heat, mask in zip(heats, masks, strict=True)]
    cold = np.concatenate([heat[~mask] for heat, mask in zip(heats, masks, strict=True)])
    points = [(0.0, 0.0)]
    for value in values:
        shares = [np.mean(heat[labels == r] >= value) for heat, (labels, n) in regions for r in range(1, n + 1)]
        points.append((float(np.mean(cold >= value)), float(np.mean(shares))))
    total = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 >= limit:
            break
        if x1 > limit:
            x1, y1 = limit, y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        total += (x1 - x0) * (y0 + y1) / 2
    return total / limit


@pytest.mark.parametrize("seed", range(4))
def test_pro_and_pixel_auroc_equal_the_slow_ways(seed):
    draws = np.random.default_rng(seed)
    masks = [draws.random((12, 10)) < 0.15 for _ in range(3)] + [np.zeros((12, 10), bool)]
    heats = [np.round(draws.random((12, 10)) + 0.5 * mask, 1) for mask in masks]  # with ties
    assert per_region_overlap(heats, masks) == pytest.approx(slow_pro(heats, masks, 0.3))
    assert per_region_overlap(heats, masks, 1.0) == pytest.approx(slow_pro(heats, masks, 1.0))
    sklearn = pytest.importorskip("sklearn.metrics")
    known = sklearn.roc_auc_score(
        np.concatenate([m.ravel() for m in masks]), np.concatenate([h.ravel() for h in heats])
    )
    assert pixel_auroc(heats, masks) == pytest.approx(known)


def test_pro_of_the_perfect_the_useless_and_the_empty():
    mask = np.zeros((8, 8), bool)
    mask[1:3, 1:3] = mask[5, 5] = True
    assert per_region_overlap([mask.astype(float)], [mask]) == pytest.approx(1)
    assert per_region_overlap([np.zeros((8, 8))], [mask]) == pytest.approx(0.15)  # one straight line
    assert math.isnan(per_region_overlap([mask * 1.0], [~mask | True])) and math.isnan(pixel_auroc([], []))
    with pytest.raises(UnalikeError, match="one size"):
        pixel_auroc([np.zeros((2, 2))], [mask])
