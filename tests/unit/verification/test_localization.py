"""Localization finds the pose at which an asset was rendered, and the distortion of a stretched copy."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.support.marks import draw_busy_background, draw_scene, mark, render_mark, wordmark
from unalike.verification.asset import Asset, open_asset
from unalike.verification.asset_template import AssetTemplate
from unalike.verification.benign import render_benign
from unalike.verification.localization import locate_asset
from unalike.verification.tampering import tamper

pytest.importorskip("cv2")


@pytest.mark.parametrize("seed", range(4))
def test_the_rendered_pose_is_found(seed: int) -> None:
    asset = mark(seed)
    rendered = render_benign(asset, np.random.default_rng(seed))
    pose = locate_asset(AssetTemplate(asset), rendered.image_HW3)
    assert pose is not None
    height, width = asset.size
    corners = np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
    error = np.abs(pose.matrix_23 @ corners - rendered.pose_23 @ corners).max()
    assert error < 0.02 * max(height, width) * pose.scale + 0.7
    assert pose.distortion < 0.02
    rotation = -np.degrees(np.arctan2(rendered.pose_23[1, 0], rendered.pose_23[0, 0]))
    assert pose.rotation == pytest.approx(rotation, abs=1)


def test_a_stretch_is_the_distortion_of_the_pose() -> None:
    asset = mark(1)
    tampered = tamper(asset, "stretched", np.random.default_rng(4))
    pose = locate_asset(AssetTemplate(asset), render_mark(1, 3, tampered.layer_HW4))
    ratio = np.divide(*tampered.layer_HW4.shape[:2]) / np.divide(*asset.size)
    assert pose is not None and pose.distortion == pytest.approx(abs(np.log(ratio)), abs=0.02)


def test_an_image_without_edges_has_no_pose() -> None:
    assert locate_asset(AssetTemplate(mark(0)), np.full((80, 90, 3), 200, np.uint8)) is None


@pytest.mark.parametrize("background", [None, 1, 2])
def test_a_wide_word_is_found_on_any_background(background: int | None) -> None:
    asset = wordmark()
    ground = None if background is None else draw_busy_background(background)
    pose = locate_asset(AssetTemplate(asset), draw_scene(asset, ground, rotation=5))
    assert pose is not None and not pose.is_mirrored
    assert pose.scale == pytest.approx(360 / asset.size[1], rel=0.01) and pose.rotation == pytest.approx(5, abs=0.3)
    middle = pose.matrix_23 @ [asset.size[1] / 2, asset.size[0] / 2, 1]
    assert np.abs(middle - [300, 200]).max() < 1.5


@pytest.mark.parametrize("background", [None, 1])
@pytest.mark.parametrize("asset", [wordmark(), mark(2)], ids=["word", "mark"])
def test_a_mirror_image_is_found_as_such(asset: Asset, background: int | None) -> None:
    mirrored = Asset("mirrored", np.ascontiguousarray(asset.layer_HW4[:, ::-1]))
    ground = None if background is None else draw_busy_background(background)
    pose = locate_asset(AssetTemplate(asset), draw_scene(mirrored, ground, share=0.5))
    assert pose is not None and pose.is_mirrored and pose.rotation == pytest.approx(0, abs=1)


def rosette(count: int) -> Asset:
    """Blades around a center: the same drawing after a turn by 360 / ``count`` degrees."""
    layer = Image.new("RGBA", (240, 240))
    draw = ImageDraw.Draw(layer)
    for number in range(count):
        angle = 2 * np.pi * number / count
        along, across = np.array([np.sin(angle), -np.cos(angle)]), np.array([np.cos(angle), np.sin(angle)])
        corners = [
            along * 30 - across * 14,
            along * 105 - across * 24,
            along * 100 + across * 40,
            along * 30 + across * 14,
        ]
        draw.polygon([tuple(120 + corner) for corner in corners], fill=(20, 90, 160, 255))
    return open_asset(layer, "rosette")


@pytest.mark.parametrize(("count", "rotation"), [(2, -3), (2, 4), (3, -6), (3, 4), (5, -6), (5, 4)])
def test_a_symmetric_mark_is_not_turned(count: int, rotation: int) -> None:
    """It is found at any of its symmetries; the one that is hardly rotated is meant."""
    asset = rosette(count)
    share = 0.4 * asset.size[1] / max(asset.size)
    pose = locate_asset(AssetTemplate(asset), draw_scene(asset, rotation=rotation, share=share))
    assert pose is not None and not pose.is_turned and pose.rotation == pytest.approx(rotation, abs=1)


def test_a_turned_mark_is_turned() -> None:
    asset = mark(1)
    pose = locate_asset(AssetTemplate(asset), draw_scene(asset, rotation=40, share=0.4))
    assert pose is not None and pose.is_turned and pose.rotation == pytest.approx(40, abs=1)
