"""The verifier's answers: benign and tampered images, other drawings, unusual images, large images."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.marks import VIEW, ThumbnailEngine, draw_busy_background, draw_scene, mark, render_mark
from unalike.errors import DataError, UnreadableImage
from unalike.verification.asset import Asset
from unalike.verification.benign import render_benign
from unalike.verification.compared_image import MAX_SIDE
from unalike.verification.tampering import tamper
from unalike.verification.verifier import Verifier

pytest.importorskip("cv2")


def test_benign_images_are_the_same_and_tampered_ones_are_altered(verifier: Verifier) -> None:
    results = [verifier.verify(render_mark(number, seed)) for number in range(3) for seed in range(2)]
    assert [result.answer for result in results].count("same") >= 5
    assert all(result.asset == f"mark {i // 2}" for i, result in enumerate(results))
    for kind in ("recoloured", "part-recoloured", "stretched", "part-missing", "part-added"):
        tampered = tamper(mark(1), kind, np.random.default_rng(3))
        result = verifier.verify(render_mark(1, 9, tampered.layer_HW4))
        assert (result.answer, result.asset) == ("altered", "mark 1"), kind
        assert result.score < result.threshold and result.reasons
        assert bool(result.regions) or kind == "stretched"
        assert ("stretched" in str(result)) == (kind == "stretched")


def test_the_first_region_is_where_something_was_added(verifier: Verifier) -> None:
    asset = mark(0)
    layer = asset.layer_HW4.copy()
    layer[10:34, 10:34] = (250, 20, 220, 255)
    rendered = render_benign(asset, np.random.default_rng(12), layer_HW4=layer)
    result = verifier.verify(rendered.image_HW3)
    assert result.answer == "altered"
    x, y = rendered.pose_23 @ np.array([22, 22, 1.0])
    left, top, right, bottom = result.regions[0].box
    assert left <= x <= right and top <= y <= bottom


@pytest.mark.slow
def test_other_drawings(verifier: Verifier) -> None:
    other = render_mark(40, 2)
    assert verifier.verify(other).answer in ("not in the set", "different")
    assert verifier.verify(other, claimed="mark 2").answer == "different"
    assert verifier.verify(render_mark(1, 2), claimed="mark 2").answer == "different"
    with pytest.raises(DataError, match="no asset 'mark 22'.*did you mean 'mark 2'"):
        verifier.verify(other, claimed="mark 22")


def test_unusual_images(verifier: Verifier) -> None:
    asset = mark(1)
    image = asset.composite()
    assert verifier.verify(image).answer == "same"  # the asset itself
    assert verifier.verify(Image.fromarray(asset.layer_HW4)).answer == "same"  # with its transparency
    assert verifier.verify(np.full((100, 120, 3), 255, np.uint8)).answer == "not in the set"
    noise = np.random.default_rng(0).integers(0, 255, (150, 150, 3), dtype=np.uint8)
    assert verifier.verify(noise).answer in ("not in the set", "different")
    for rotated in (image[:, ::-1], np.rot90(image), np.rot90(image, 2)):
        assert verifier.verify(np.ascontiguousarray(rotated)).answer != "same"
    gray = np.asarray(Image.fromarray(image).convert("L"))
    assert verifier.verify(gray).answer == "altered"  # without its colors
    assert verifier.verify(gray[..., None]).answer == "altered"
    with pytest.raises(UnreadableImage, match="at least 16 a side"):
        verifier.verify(np.zeros((300, 8, 3), np.uint8))
    with pytest.raises(DataError, match="uint8"):
        verifier.verify(np.zeros((30, 30, 3), np.float32))


def test_a_mark_on_a_busy_background_and_in_poor_light(verifier: Verifier) -> None:
    asset = mark(1)
    busy = draw_scene(asset, draw_busy_background(3), share=0.4)
    dark = (draw_scene(asset, share=0.4) * 0.5).astype(np.uint8)
    assert [verifier.verify(image).answer for image in (busy, dark)] == ["same", "same"]
    assert verifier.verify(draw_busy_background(3).astype(np.uint8)).answer in ("not in the set", "different")


def test_a_mirror_image_is_altered_and_a_mild_recoloring_is_measured(verifier: Verifier) -> None:
    asset = mark(1)
    mirrored = verifier.verify(draw_scene(Asset("m", np.ascontiguousarray(asset.layer_HW4[:, ::-1])), share=0.4))
    assert (mirrored.answer, mirrored.asset) == ("altered", "mark 1") and "mirror image" in str(mirrored)
    assert "mirrored" in mirrored.reasons and "distortion" not in mirrored.reasons
    tinted = tamper(asset, "tinted", np.random.default_rng(1))
    result = verifier.verify(draw_scene(Asset("t", tinted.layer_HW4), share=0.4))
    assert result.difference is not None and result.difference.measures["colour"] > 7  # its rate is lax


def test_results_of_a_large_image_are_in_its_own_pixels(verifier: Verifier, tmp_path: Path) -> None:
    tampered = tamper(mark(0), "part-added", np.random.default_rng(5))
    small = Image.fromarray(render_mark(0, 4, tampered.layer_HW4))
    large = small.resize((small.width * 9, small.height * 9), Image.Resampling.BICUBIC)
    large.save(tmp_path / "large.jpg", quality=90)
    assert max(large.size) > MAX_SIDE
    result = verifier.verify(tmp_path / "large.jpg")
    assert result.answer == "altered" and result.size == (large.height, large.width)
    corner = verifier.verify(small).outline[2]
    assert np.allclose(np.array(result.outline[2]) / 9, corner, atol=0.03 * max(small.size))


def test_a_box_says_where_the_mark_is(verifier: Verifier) -> None:
    """A small mark in a large busy picture, which holds another one too: results are in pixels of the picture."""
    ground = draw_busy_background(3).astype(np.uint8)
    picture = np.tile(ground, (3, 3, 1))
    for number, (x, y) in ((1, (100, 100)), (0, (1100, 700))):
        layer = Image.fromarray(mark(number).layer_HW4)
        canvas = Image.fromarray(picture)
        canvas.paste(layer, (x, y), layer)
        picture = np.asarray(canvas)
    result = verifier.verify(picture, box=(95, 95, 170, 170))
    assert (result.answer, result.asset) == ("same", "mark 1") and result.size == picture.shape[:2]
    assert np.abs(np.array(result.outline[0]) - [100, 100]).max() < 3
    height, width = mark(1).size
    assert np.abs(np.array(result.outline[2]) - [100 + width, 100 + height]).max() < 3
    assert verifier.verify(picture, box=(1095, 695, 170, 170)).asset == "mark 0"
    assert verifier.verify(picture, box=(500, 400, 170, 170)).answer in ("not in the set", "different")
    with pytest.raises(DataError, match="whole number"):
        verifier.verify(picture, box=(0.5, 1, 2, 3))  # type: ignore[arg-type]


def test_a_folder_with_a_blank_asset_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), "white").save(tmp_path / "blank.png")
    with pytest.raises(DataError, match="blank: the asset shows nothing"):
        Verifier.of(tmp_path, ThumbnailEngine(), VIEW)


def test_it_can_be_pickled(verifier: Verifier) -> None:
    copy = pickle.loads(pickle.dumps(verifier))
    image = render_mark(1, 9)
    assert copy.verify(image) == verifier.verify(image)
