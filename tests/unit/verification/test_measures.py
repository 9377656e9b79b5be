"""Measures: a missing part, heavier strokes, the refined pose, and assets with a plain or without a background."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.support.marks import draw_busy_background, draw_scene, mark, wordmark
from unalike.verification.asset import Asset, open_asset, spread_colors
from unalike.verification.asset_template import AssetTemplate
from unalike.verification.benign import render_benign
from unalike.verification.localization import locate_asset
from unalike.verification.measures import MEASURES, AssetDifference, find_color_groups, measure_difference
from unalike.verification.tampering import tamper

pytest.importorskip("cv2")


def measure(template: AssetTemplate, image_HW3: np.ndarray) -> AssetDifference:
    """Locate and measure an asset that is in the image."""
    pose = locate_asset(template, image_HW3)
    assert pose is not None
    return measure_difference(template, image_HW3, pose)


def test_a_missing_part_is_measured() -> None:
    asset = mark(2)
    tampered = tamper(asset, "part-missing", np.random.default_rng(8))
    template = AssetTemplate(asset)
    missing, clean = (
        measure(template, render_benign(asset, np.random.default_rng(6), layer_HW4=layer).image_HW3)
        for layer in (tampered.layer_HW4, asset.layer_HW4)
    )
    assert missing.measures["parts"] > 0.4 > 4 * clean.measures["parts"]
    assert set(MEASURES) < set(missing.measures)


def test_heavier_strokes_are_an_imbalance_and_blur_is_not() -> None:
    """Strokes thicker by about a pixel: ``parts`` tolerates them as displaced edges, ``balance`` does not."""
    asset = mark(2)
    template = AssetTemplate(asset)
    heavier = np.array(Image.fromarray(asset.layer_HW4).filter(ImageFilter.MaxFilter(3)))
    heavier[..., :3] = spread_colors(asset.color_HW3.astype(np.float32), asset.alpha_HW > 0.5)
    balance = {}
    for name, layer, blur in (("clean", asset.layer_HW4, 0), ("blurred", asset.layer_HW4, 1.2), ("heavy", heavier, 0)):
        image = Image.fromarray(render_benign(asset, np.random.default_rng(6), layer_HW4=layer).image_HW3)
        pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(blur)))
        balance[name] = measure(template, pixels).measures["balance"]
    assert balance["heavy"] > 2 * max(balance["clean"], balance["blurred"])


@pytest.mark.parametrize("seed", range(4))
def test_the_pose_is_refined_to_a_fraction_of_a_pixel(seed: int) -> None:
    asset = mark(seed)
    rendered = render_benign(asset, np.random.default_rng(seed), kinds=("scale", "rotation", "background"))
    pose = measure(AssetTemplate(asset), rendered.image_HW3).pose
    height, width = asset.size
    corners = np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
    # A located pose maps pixel centers, a rendered one pixel corners: they differ by half a pixel on both sides.
    shift = 0.5 * pose.scale - 0.5
    assert np.abs(pose.matrix_23 @ corners - rendered.pose_23 @ corners - shift).max() < 0.5


def test_an_asset_on_a_plain_background() -> None:
    plate = open_asset(mark(3).composite(), "plate")
    assert plate.background == "plain"
    image = render_benign(plate, np.random.default_rng(2)).image_HW3
    assert measure(AssetTemplate(plate), image).measures["parts"] < 0.2


def test_an_asset_without_background() -> None:
    """A photograph, alone and on a background."""
    rng = np.random.default_rng(3)
    coarse = Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8))
    photo = np.asarray(coarse.resize((240, 180), Image.Resampling.BICUBIC))
    asset = open_asset(photo, "photo")
    assert asset.background == "none"
    template = AssetTemplate(asset)
    altered = photo.copy()
    altered[60:85, 100:130] = 255 - altered[60:85, 100:130]
    for pixels, differs in ((photo, False), (altered, True)):
        layer = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
        scene = render_benign(asset, np.random.default_rng(4), layer_HW4=layer).image_HW3
        for image in (pixels, scene):
            measures = measure(template, image).measures
            assert (measures["parts"] > 0.4) == differs, measures
            assert measures["distortion"] < 0.02


# Bounds between harmless changes and alterations, near the limits that calibration finds.
BOUNDS = {"distortion": 0.03, "colour": 5.0, "parts": 0.2, "balance": 0.25}


def exceeded(asset: Asset, image_HW3: np.ndarray) -> set[str]:
    """The measures beyond their bounds."""
    measures = measure(AssetTemplate(asset), image_HW3).measures
    return {name for name, bound in BOUNDS.items() if measures[name] > bound}


def compressed(image_HW3: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image_HW3).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def test_a_wide_word_under_harmless_changes() -> None:
    asset = wordmark()
    image = draw_scene(asset)
    busy = draw_scene(asset, draw_busy_background(3))
    scenes = {
        "untouched": image,
        "jpeg 30": compressed(image, 30),
        "rotated": draw_scene(asset, rotation=-5),
        "half brightness": (image * 0.5).astype(np.uint8),
        "busy": busy,
        "busy, jpeg 50": compressed(busy, 50),
    }
    assert {name: exceeded(asset, scene) for name, scene in scenes.items()} == {name: set() for name in scenes}


@pytest.mark.parametrize("background", [None, 3])
def test_alterations_of_a_wide_word(background: int | None) -> None:
    asset = wordmark("Marenova")
    ground = None if background is None else draw_busy_background(background)
    assert exceeded(asset, draw_scene(wordmark("Marinova"), ground)) & {"parts", "balance"}
    tinted = asset.layer_HW4.copy()
    tinted[..., :3] = (80, 55, 165)  # a CIEDE2000 difference of 11, at the same lightness
    assert exceeded(asset, draw_scene(Asset("tinted", tinted), ground)) == {"colour"}
    mirrored = Asset("mirrored", np.ascontiguousarray(asset.layer_HW4[:, ::-1]))
    assert exceeded(asset, draw_scene(mirrored, ground)) == {"distortion"}


def test_ink_added_on_a_busy_background() -> None:
    asset = wordmark()
    ground = draw_busy_background(3)
    ground[242:256, 280:340] = (10, 70, 160)
    assert "parts" in exceeded(asset, draw_scene(asset, ground))


def test_a_recolored_part_is_a_group_of_its_own() -> None:
    layer = np.zeros((60, 200, 4), np.uint8)
    layer[10:50, 10:90] = (200, 20, 30, 255)
    layer[10:50, 110:190] = (20, 60, 180, 255)
    first, second = find_color_groups(layer[..., :3].astype(np.float32), layer[..., 3] > 0)
    assert first.sum() == second.sum() == 3200 and not (first & second).any()
