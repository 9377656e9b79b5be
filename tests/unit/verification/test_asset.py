"""Assets from files and arrays: their background is separated, names are unique, blanks are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.marks import mark
from unalike.errors import DataError, UnreadableImage
from unalike.verification.asset import box_mean, open_asset, open_assets, spread_colors


def test_transparency_is_kept_and_the_layer_is_cropped(tmp_path: Path) -> None:
    pixels = np.zeros((60, 80, 4), np.uint8)
    pixels[10:30, 20:60] = (200, 10, 20, 255)
    Image.fromarray(pixels).save(tmp_path / "logo.png")
    asset = open_asset(tmp_path / "logo.png")
    assert (asset.name, asset.size, asset.background) == ("logo", (20, 40), "transparent")
    assert (asset.color_HW3 == (200, 10, 20)).all() and (asset.alpha_HW == 1).all()


def test_a_plain_background_becomes_transparent() -> None:
    pixels = np.full((60, 80, 3), (250, 245, 240), np.uint8)
    pixels[20:40, 30:70] = (10, 60, 200)
    asset = open_asset(pixels, "plate")
    assert asset.background == "plain" and asset.background_color == (250, 245, 240) and asset.size == (20, 40)
    assert np.abs(asset.composite(margin=0.0).astype(int) - (10, 60, 200)).max() <= 1


def test_an_asset_without_background_fills_its_rectangle() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    asset = open_asset(pixels, "photo")
    assert asset.background == "none" and asset.size == (40, 50) and (asset.composite() == pixels).all()


def test_assets_that_show_nothing_are_refused(tmp_path: Path) -> None:
    for blank in (np.full((30, 30, 3), 255, np.uint8), np.zeros((30, 30, 4), np.uint8)):
        with pytest.raises(DataError, match="blank: the asset shows nothing"):
            open_asset(blank, "blank")
    with pytest.raises(DataError, match="uint8 of shape"):
        open_asset(np.zeros((4, 4, 2), np.uint8))
    (tmp_path / "no.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImage):
        open_asset(tmp_path / "no.png")


def test_names_come_from_files_or_the_caller(tmp_path: Path) -> None:
    for name in ("one.png", "two.png", "two.jpg"):
        Image.fromarray(mark(1).composite()).save(tmp_path / name)
    assert [asset.name for asset in open_assets(tmp_path)] == ["one", "two.jpg", "two.png"]
    assert [asset.name for asset in open_assets([mark(1), mark(2)], ["a", "b"])] == ["a", "b"]
    assert [asset.name for asset in open_assets([mark(1).composite(), mark(2)])] == ["asset 0", "mark 2"]
    with pytest.raises(DataError, match="two assets are named 'a'"):
        open_assets([mark(1), mark(2)], ["a", "a"])
    with pytest.raises(DataError, match="2 assets and 1 names"):
        open_assets([mark(1), mark(2)], ["a"])
    with pytest.raises(DataError, match="no assets"):
        open_assets([])


def test_box_mean_equals_the_slow_one() -> None:
    values = np.random.default_rng(1).random((9, 7))
    padded = np.pad(values, 2, mode="edge")
    slow = [[padded[y : y + 5, x : x + 5].mean() for x in range(7)] for y in range(9)]
    assert np.allclose(box_mean(values, 2), slow)


def test_colors_spread_from_known_pixels_alone() -> None:
    colors = np.zeros((5, 5, 3), np.float32)
    known = np.zeros((5, 5), bool)
    colors[2, 2], known[2, 2] = (90, 60, 30), True
    filled = spread_colors(colors, known, reach=1)
    assert np.allclose(filled[1:4, 1:4], (90, 60, 30)) and (filled[0] == 0).all()


@pytest.mark.parametrize("name", [None, float("nan"), b"a", ["a"], 1.5, " ", "\u200b"], ids=repr)
def test_names_of_assets_are_names(name: object) -> None:
    with pytest.raises(DataError, match="a class name"):
        open_assets([mark(0)], [name])  # type: ignore[list-item]


@pytest.mark.parametrize("assets", [None, 5, {}, b"x"], ids=repr)
def test_what_is_no_list_of_assets(assets: object) -> None:
    with pytest.raises(DataError, match="assets: .*; expected a list"):
        open_assets(assets)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="names: .*; expected a list"):
        open_assets([mark(0), mark(1)], "ab")
