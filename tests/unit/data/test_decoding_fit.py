"""Ground and range are chosen once for a set: no drawing vanishes, no gray levels are lost, frames of a series stay equal."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from unalike.data.decode import decode
from unalike.data.decoding import Decoding
from unalike.data.decoding_fit import choose_ground, fit_decoding


def drawing(path: Path, color: tuple[int, int, int], shape: int = 0, alpha: int = 255) -> Path:
    image = Image.new("RGBA", (96, 96), (*color, 0))
    draw = ImageDraw.Draw(image)
    boxes = [(10, 10, 50, 80), (40, 20, 90, 60), (5, 60, 90, 90), (30, 30, 60, 60)]
    draw.ellipse(boxes[shape], fill=(*color, alpha))
    image.save(path)
    return path


@pytest.mark.parametrize(
    ("colors", "ground"),
    [
        ([(0, 0, 0), (200, 30, 30)], "white"),
        ([(255, 255, 255)], "black"),
        ([(250, 250, 245), (255, 240, 255)], "black"),
        ([(255, 255, 255), (0, 0, 0)], "gray"),
        ([(255, 255, 255), (0, 0, 0), (128, 128, 128)], "#404040"),
        ([(255, 255, 255), (0, 0, 0), (128, 128, 128), (64, 64, 64), (192, 192, 192)], "gray"),
    ],
)
def test_ground_is_the_first_on_which_no_drawing_vanishes(
    tmp_path: Path, colors: list[tuple[int, int, int]], ground: str, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [drawing(tmp_path / f"{n}.png", color) for n, color in enumerate(colors)]
    Image.new("RGB", (32, 32)).save(tmp_path / "plain.png")
    decoding = fit_decoding([*paths, tmp_path / "plain.png"])
    assert decoding == Decoding.from_options(ground, None)
    assert f"of {len(paths) + 1} images: {len(paths)} transparent, laid over {ground}" in capsys.readouterr().err


def test_drawings_differ_after_decoding(tmp_path: Path) -> None:
    paths = [drawing(tmp_path / f"{n}.png", (255, 255, 255), n) for n in range(4)]
    decoding = fit_decoding(paths)
    images = [decode(path, decoding=decoding) for path in paths]
    assert all(image.std() > 30 for image in images)
    assert len({image.tobytes() for image in images}) == 4


def test_faint_drawings_and_arrays_and_opened_images(tmp_path: Path) -> None:
    assert fit_decoding([drawing(tmp_path / "a.png", (255, 255, 255), alpha=20)]).ground == (0, 0, 0)
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[8:20, 8:20] = 255
    assert fit_decoding([pixels]).ground == fit_decoding([Image.fromarray(pixels)]).ground == (0, 0, 0)


def test_opaque_and_empty_images_choose_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGBA", (32, 32), (255, 255, 255, 255)).save(tmp_path / "opaque.png")
    Image.new("RGBA", (32, 32), (255, 255, 255, 0)).save(tmp_path / "empty.png")
    Image.new("RGB", (32, 32)).save(tmp_path / "plain.jpg")
    assert fit_decoding(sorted(tmp_path.iterdir())) == Decoding()
    assert fit_decoding([tmp_path / "absent.png", b"nothing", np.zeros((2, 2, 7), np.uint8)]) == Decoding()
    assert not capsys.readouterr().err


def test_a_rule_that_says_them_stays(tmp_path: Path) -> None:
    path = drawing(tmp_path / "a.png", (255, 255, 255))
    assert fit_decoding([path], Decoding.from_options("white", None)).ground == (255, 255, 255)
    assert fit_decoding([path], Decoding(1)) == Decoding(1)


def test_choice_takes_the_worst_drawing() -> None:
    assert choose_ground(np.array([[1.0, 0.4, 1, 1, 1], [0.49, 1, 1, 1, 1]])) == (128, 128, 128)


# ---- range ----


def save(path: Path, values: np.ndarray) -> Path:
    Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize(
    ("top", "expected"), [(200, 255), (900, 1023), (4095, 4095), (16000, 16383), (65535, 65535)]
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_range_of_the_camera(tmp_path: Path, top: int, expected: int, suffix: str) -> None:
    values = np.linspace(0, top, 64 * 48).astype(np.uint16).reshape(48, 64)
    dark = save(tmp_path / f"dark.{suffix}", values // 4)
    bright = save(tmp_path / f"bright.{suffix}", values)
    decoding = fit_decoding([dark, bright])
    assert decoding.range == (0, expected)
    wanted = np.floor(values / expected * 255 + 0.5)
    assert np.array_equal(decode(bright, decoding=decoding)[:, :, 0], wanted)
    assert decode(dark, decoding=decoding).max() == pytest.approx(wanted.max() / 4, abs=1)  # as dark as it was


def test_values_in_a_narrow_band_are_stretched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = (22000 + np.arange(40 * 50) % 1000).astype(np.uint16).reshape(40, 50)
    path = save(tmp_path / "thermal.tif", values)
    decoding = fit_decoding([path])
    assert decoding.range is not None and decoding.range[0] < 22000 and decoding.range[1] > 23000
    assert len(np.unique(decode(path, decoding=decoding))) > 100
    assert "1 of more than 8 bits, read by the range 21" in capsys.readouterr().err


def test_hot_pixels_do_not_count_and_stated_maxima_do(tmp_path: Path) -> None:
    values = (np.arange(300 * 400) % 1000).astype(np.uint16).reshape(300, 400)
    hot = values.copy()
    hot[5, 5] = hot[200, 7] = 65535
    assert fit_decoding([save(tmp_path / "hot.tif", hot)]).range == (0, 1023)
    Image.fromarray(values).save(tmp_path / "stated.tif", tiffinfo={281: 4095})
    assert fit_decoding([tmp_path / "stated.tif"]).range == (0, 4095)


def test_floating_point_and_32_bits_have_one_range(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 48 * 32, dtype=np.float32).reshape(32, 48)
    dim = save(tmp_path / "dim.tif", ramp * np.float32(0.4))
    full = save(tmp_path / "full.tif", ramp)
    assert fit_decoding([dim, full]).range == (0, 1)
    assert fit_decoding([dim]).range == (0, 1)
    assert fit_decoding([save(tmp_path / "byte.tif", ramp * 255)]).range == (0, 255)
    signed = fit_decoding([save(tmp_path / "signed.tif", ramp * 10 - 5)]).range
    assert signed is not None and signed[0] < -4.9 and signed[1] > 4.9
    wide = save(tmp_path / "wide.tif", np.array([[0, 2**29, 2**30 - 1]] * 4, np.int32))
    assert fit_decoding([wide]).range == (0, 2**30 - 1)
    for decoding in (fit_decoding([dim, full]),):
        assert decode(dim, decoding=decoding).max() == pytest.approx(102, abs=1)


def test_constant_images_have_a_range(tmp_path: Path) -> None:
    for value in (0, 7, 65535):
        low, high = fit_decoding([save(tmp_path / "a.tif", np.full((8, 8), value, np.uint16))]).range or (1, 0)
        assert low < high


def test_images_that_were_not_looked_at_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    paths = [drawing(tmp_path / f"{n}.png", (255, 255, 255)) for n in range(4)]
    for number in range(600):
        (tmp_path / f"link{number}.png").symlink_to(tmp_path / "plain.png")
        paths.append(tmp_path / f"link{number}.png")
    assert fit_decoding(paths, stop=lambda done, total: False).ground == (0, 0, 0)
    assert "headers" not in capsys.readouterr().err
    fit_decoding(paths, stop=lambda done, total: done >= 256)
    assert "headers of 256 of 604 images" in capsys.readouterr().err


def test_a_named_pipe_among_the_images_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    white = drawing(tmp_path / "a.png", (255, 255, 255), alpha=20)
    assert fit_decoding([tmp_path / "pipe.png", white]).ground == (0, 0, 0)
