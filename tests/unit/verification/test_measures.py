"""Measures: a missing part, heavier strokes, the refined pose, and assets with a plain or without a background."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.support.marks import mark
from unalike.verification.asset import open_asset, spread_colors
from unalike.verification.asset_template import AssetTemplate
from unalike.verification.benign import render_benign
from unalike.verification.localization import locate_asset
from unalike.verification.measures import MEASURES, AssetDifference, measure_difference
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
