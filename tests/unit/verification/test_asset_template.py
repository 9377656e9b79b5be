"""Templates: wide assets get longer maps, mirrored maps and keypoints are those of the mirrored drawing."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.marks import mark, wordmark
from unalike.verification.asset_template import COARSE_SIDE, AssetTemplate, asset_size

pytest.importorskip("cv2")


def test_a_wide_asset_keeps_its_letters() -> None:
    wide, square = AssetTemplate(wordmark()), AssetTemplate(mark(1))
    assert asset_size(2, 8) == 4
    assert wide.coarse_side > COARSE_SIDE[0] + 20 and square.coarse_side < COARSE_SIDE[0] + 10
    # Letters of a word that fills 60 % of an image are at least six pixels high in the coarse search.
    assert any(
        min(coarse.edges_HW.shape) >= 6
        for coarse in wide.coarse_maps
        if coarse.edges_HW.shape[1] < 0.75 * wide.coarse_side
    )


def test_edges_are_compared_around_the_ink_alone() -> None:
    template = AssetTemplate(mark(1))
    alpha = template.bands_HWC[..., 3] / 160
    assert (template.support_HW[alpha > 0.5] == 1).all() and template.support_HW[0].max() == 0


def test_a_mirrored_map_is_that_of_the_mirrored_place() -> None:
    coarse = AssetTemplate(mark(1)).coarse_maps[40]
    for axis in (0, 1):
        mirrored = coarse.mirrored(axis)
        x, y, _ = coarse.matrix_33 @ [60.0, 70.0, 1.0]
        u, v, _ = mirrored.matrix_33 @ [60.0, 70.0, 1.0]
        last = coarse.edges_HW.shape[axis] - 1
        assert (u, v) == pytest.approx((last - x, y) if axis == 1 else (x, last - y))
        assert np.array_equal(mirrored.edges_HW, np.flip(coarse.edges_HW, axis))


def test_mirrored_keypoints_lie_where_the_others_do() -> None:
    template = AssetTemplate(wordmark())
    (direct, _), (mirrored, _) = template.keypoints[0], template.mirrored_keypoints[0]
    nearest = np.abs(direct[:, None] - mirrored[None]).max(axis=2).min(axis=1)
    assert np.median(nearest) < 2  # the same corners, found again in the mirrored drawing
