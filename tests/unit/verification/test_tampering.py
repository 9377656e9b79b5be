"""Tampering: each kind changes what it says, visibly; kinds that are not possible on an asset are refused."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.marks import mark
from unalike.errors import DataError, SpecError
from unalike.verification.asset import Asset, box_mean, open_asset
from unalike.verification.tampering import (
    MIN_CHANGED_SHARE,
    MIN_MIRRORED_PART_SHARE,
    TAMPERING,
    compute_changed_share,
    find_parts,
    tamper,
    tamper_randomly,
)


@pytest.mark.parametrize("kind", TAMPERING)
def test_each_kind_changes_its_mask_alone(kind: str) -> None:
    asset = mark(2)
    tampered = tamper(asset, kind, np.random.default_rng(3))
    again = tamper(asset, kind, np.random.default_rng(3))
    assert tampered.kind == kind and np.array_equal(tampered.layer_HW4, again.layer_HW4)
    assert tampered.mask_HW.shape == asset.size and tampered.mask_HW.any()
    if kind == "stretched":
        before, after = (np.divide(*layer.shape[:2]) for layer in (asset.layer_HW4, tampered.layer_HW4))
        assert 1.07 < max(before / after, after / before) < 1.4
    elif kind != "slanted":
        layers = (asset.layer_HW4, tampered.layer_HW4)
        premultiplied = [layer[..., :3] * (layer[..., 3:] / 255.0) for layer in layers]
        alphas = [layer[..., 3:].astype(float) for layer in layers]
        difference = np.concatenate([premultiplied[0] - premultiplied[1], alphas[0] - alphas[1]], axis=2)
        changed = np.abs(difference).max(axis=2) > 60
        # All changes lie in the mask (with its soft edge), and they are as large as required.
        dilated = box_mean(tampered.mask_HW.astype(float), 3) > 0
        assert not (changed & ~dilated).any()
        assert changed.sum() >= 0.5 * MIN_CHANGED_SHARE * (asset.alpha_HW > 0.5).sum()


def test_impossible_kinds_are_refused_or_skipped() -> None:
    disk = np.zeros((64, 64, 4), np.uint8)
    y, x = np.mgrid[0:64, 0:64]
    disk[(y - 32) ** 2 + (x - 32) ** 2 < 900] = (20, 90, 40, 255)
    asset = open_asset(disk, "disk")
    for kind in ("part-moved", "mirrored"):
        with pytest.raises(DataError, match="disk: no visible change"):
            tamper(asset, kind, np.random.default_rng(0))
    assert tamper_randomly(asset, np.random.default_rng(0), ("part-moved", "stretched")).kind == "stretched"
    with pytest.raises(DataError, match="none of"):
        tamper_randomly(asset, np.random.default_rng(0), ("part-moved", "mirrored"))
    with pytest.raises(SpecError, match="kind of tampering"):
        tamper_randomly(asset, np.random.default_rng(0), ("stretch",))


def test_changes_that_are_invisible_in_a_small_image_do_not_count() -> None:
    block = np.zeros((300, 300, 4), np.uint8)
    block[40:260, 40:260] = (20, 90, 40, 255)
    speckled, missing, recolored = block.copy(), block.copy(), block.copy()
    speckled[40:260:8, 40:260:8, 3] = 0  # 1.6 % of the ink, in single pixels
    missing[40:80, 40:80, 3] = 0
    recolored[40:80, 40:80, :3] = (160, 90, 40)
    assert compute_changed_share(block, block) == compute_changed_share(block, speckled) == 0
    for changed in (missing, recolored):
        assert compute_changed_share(block, changed) == pytest.approx(1600 / 220**2, rel=0.35)  # with its soft edge
    for gray in (0, 255):  # black ink vanishes on black, white on white: the other background shows the change
        block[40:260, 40:260, :3] = missing[40:260, 40:260, :3] = gray
        assert compute_changed_share(block, missing) > MIN_CHANGED_SHARE


def test_parts_are_connected_and_of_one_color() -> None:
    layer = np.zeros((40, 60, 4), np.uint8)
    layer[5:35, 5:20] = (200, 0, 0, 255)
    layer[5:35, 20:30] = (0, 0, 200, 255)  # connected, but of another color
    layer[5:35, 40:55] = (200, 0, 0, 255)  # of the same color, but apart
    masks = find_parts(Asset("three", layer))
    assert len(masks) == 3
    assert [int(mask.sum()) for mask in masks] == pytest.approx([450, 450, 300], rel=0.2)


def test_a_part_that_is_its_own_mirror_image_is_not_mirrored() -> None:
    """Diamonds, whose mirror images lie at most a pixel aside."""
    layer = np.zeros((128, 192, 4), np.uint8)
    y, x = np.mgrid[0:128, 0:192]
    for number, (center_x, center_y) in enumerate(((32, 32), (96, 32), (160, 32), (96, 96))):
        layer[np.abs(x - center_x) + np.abs(y - center_y) < 28] = (60, 40 + 60 * number, 140, 255)
    shifted = np.roll(layer, 1, axis=1)
    assert compute_changed_share(layer, shifted) > MIN_CHANGED_SHARE > compute_changed_share(layer, shifted, reach=1)
    asset = Asset("diamonds", layer)
    for seed in range(3):
        try:
            tampered = tamper(asset, "part-mirrored", np.random.default_rng(seed))
        except DataError:
            continue
        assert compute_changed_share(layer, tampered.layer_HW4, reach=1) >= MIN_MIRRORED_PART_SHARE
