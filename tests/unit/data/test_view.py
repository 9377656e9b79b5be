"""One evaluation view for everything, checked against the plain two-step recipe."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unalike.data.decode import decode
from unalike.data.decoding import Decoding
from unalike.data.view import View
from unalike.errors import DataError, SpecError, UnreadableImage


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 255, (max(2, height // 8), max(2, width // 8), 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def resize_then_cut(pixels: np.ndarray, view: View) -> np.ndarray:
    """The view as one would write it down: resize the whole image, then cut its centre."""
    tall, wide = int(view.height * view.resize_ratio), int(view.width * view.resize_ratio)
    if view.mode == "fit":
        height, width = pixels.shape[:2]
        scale = max(tall / height, wide / width)
        tall, wide = max(tall, round(height * scale)), max(wide, round(width * scale))
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    resized = np.asarray(Image.fromarray(pixels).resize((wide, tall), filters[view.interpolation]))
    top, left = round((tall - view.height) / 2), round((wide - view.width) / 2)
    return resized[top : top + view.height, left : left + view.width]


@pytest.mark.parametrize("mode", ["crop", "fit"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(100, 140), (50, 33), (10, 300), (64, 64), (7, 5), (1, 1), (640, 480)])
@pytest.mark.parametrize("target", [(64, 64), (80, 40), (33, 47)])
def test_equals_resize_then_cut(mode: str, interpolation: str, size: tuple[int, int], target: tuple[int, int]) -> None:
    view = View(*target, mode=mode, interpolation=interpolation)
    pixels = noise(*size)
    difference = np.abs(view(pixels).astype(int) - resize_then_cut(pixels, view))
    assert difference.max() <= 2 and difference.mean() < 0.2  # Pillow keeps boxes in single precision


@pytest.mark.parametrize("mode", ["crop", "fit"])
def test_d19_view_is_height_by_width_at_320_by_160(mode: str, tmp_path: Path) -> None:
    """The upper half red, the lower green, the left column blue: swapped sides would show at once."""
    pixels = np.zeros((640, 320, 3), np.uint8)
    pixels[:320, :, 0] = 255
    pixels[320:, :, 1] = 255
    pixels[:, :80, 2] = 255
    view = View(320, 160, mode=mode)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for shown in (view(pixels), view(tmp_path / "a.png"), view(Image.fromarray(pixels))):
        assert shown.shape == (320, 160, 3) and shown.dtype == np.uint8 and shown.flags.c_contiguous
        assert (shown[:150, :, 0] > 250).all() and (shown[170:, :, 0] < 5).all()
        assert (shown[170:, :, 1] > 250).all() and (shown[:150, :, 1] < 5).all()
        edge = int(np.argmin(shown[0, :, 2] > 128))
        assert edge == pytest.approx(160 * 1.14 / 4 - 160 * 0.07, abs=1.5)
    assert view.resized == (364, 182) and view.min_decode_size == (728, 364)


def test_d19_fit_keeps_the_aspect_and_crop_does_not() -> None:
    y, x = np.mgrid[0:120, 0:240]
    disc = (((y - 60) ** 2 + (x - 120) ** 2) < 40**2).astype(np.uint8)[:, :, None] * np.full(3, 255, np.uint8)
    for mode, is_round in (("fit", True), ("crop", False)):
        shown = View(64, 64, mode=mode)(disc)[:, :, 0] > 128
        tall, wide = np.ptp(np.flatnonzero(shown.any(1))), np.ptp(np.flatnonzero(shown.any(0)))
        assert (abs(int(tall) - int(wide)) <= 2) is is_round


def test_tao_sizes_round_down() -> None:
    assert View(224, 224).resized == (255, 255)
    assert View(224, 224, resize_ratio=1).resized == (224, 224)


@pytest.mark.parametrize("suffix, options", [("png", {}), ("jpg", {"quality": 90}), ("webp", {})])
def test_file_and_decoded_array_show_the_same(tmp_path: Path, suffix: str, options: dict) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise(120, 150)).save(path, **options)
    view = View(32, 48)
    assert np.array_equal(view(path), view(decode(path)))
    assert np.array_equal(view(str(path)), view(path.read_bytes()))


def test_shrinking_a_large_jpeg_while_decoding_hardly_shows(tmp_path: Path) -> None:
    photograph = noise(900, 1200).astype(int) + np.random.default_rng(1).integers(-20, 20, (900, 1200, 3))
    Image.fromarray(photograph.clip(0, 255).astype(np.uint8)).save(tmp_path / "a.jpg", quality=92)
    view = View(64, 64)
    assert decode(tmp_path / "a.jpg", min_size=view.min_decode_size).shape[0] == 225
    difference = np.abs(view(tmp_path / "a.jpg").astype(int) - view(decode(tmp_path / "a.jpg")))
    assert difference.mean() < 1 and difference.max() <= 8


def test_rotation_counts_for_pil_images_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(40, 60)).save(tmp_path / "a.png", exif=exif)
    view = View(32, 32)
    with Image.open(tmp_path / "a.png") as opened:
        assert np.array_equal(view(opened), view(tmp_path / "a.png"))


def test_arrays_grey_and_with_alpha() -> None:
    view, grey = View(16, 16), noise(40, 40)[:, :, 0]
    assert np.array_equal(view(grey), view(np.stack([grey] * 3, -1)))
    clear = np.dstack([noise(40, 40), np.zeros((40, 40), np.uint8)])
    assert (view(clear) == 128).all()
    assert (replace(view, decoding=Decoding(1))(clear) == 255).all()
    flipped = noise(40, 40)[:, ::-1]  # not contiguous
    assert np.array_equal(view(flipped), view(flipped.copy()))


@pytest.mark.parametrize(
    "shape, kind", [((4, 4, 3), np.float32), ((3, 4), np.int64), ((4, 4, 2), np.uint8), ((0, 4, 3), np.uint8)]
)
def test_other_arrays_are_refused(shape: tuple, kind: type) -> None:
    with pytest.raises(DataError, match="uint8"):
        View(8, 8)(np.zeros(shape, kind))


def test_max_pixels_and_unreadable_files(tmp_path: Path) -> None:
    Image.fromarray(noise(40, 40)).save(tmp_path / "a.png")
    with pytest.raises(UnreadableImage, match="max_pixels"):
        View(8, 8)(tmp_path / "a.png", max_pixels=100)
    (tmp_path / "b.png").write_bytes(b"nothing")
    with pytest.raises(UnreadableImage, match="b.png"):
        View(8, 8)(tmp_path / "b.png")


def test_goes_through_metadata_unchanged() -> None:
    for decoding in (Decoding(), Decoding(2, (0, 0, 0), (0, 4095)), Decoding(1)):
        view = View(320, 160, resize_ratio=1.2, mode="fit", interpolation="bicubic", decoding=decoding)
        assert View.from_dict(json.loads(json.dumps(view.to_dict()))) == view
    assert View.from_dict({"height": 8, "width": 9}) == View(8, 9, decoding=Decoding(1))
    assert set(View(8, 9, decoding=Decoding(1)).to_dict()) == {
        "height",
        "width",
        "resize_ratio",
        "mode",
        "interpolation",
    }


@pytest.mark.parametrize(
    "values", [{}, {"height": 8}, {"height": 8, "width": 8, "colour": 1}, {"height": 8, "width": 8, "mode": "cut"}]
)
def test_metadata_of_something_else_is_refused(values: dict) -> None:
    with pytest.raises(SpecError):
        View.from_dict(values)


@pytest.mark.parametrize(
    "wrong", [{"mode": "corp"}, {"interpolation": "nearest"}, {"resize_ratio": 0.9}, {"height": 0}]
)
def test_faulty_settings(wrong: dict) -> None:
    with pytest.raises(SpecError):
        View(**{"height": 8, "width": 8, **wrong})
