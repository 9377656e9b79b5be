"""Every kind of image file becomes upright 8-bit RGB, or an error that names it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from tests.support.mutations import mutations
from unalike.data.decode import IMAGE_SUFFIXES, decode, image_list, open_image, open_layer, upright_size
from unalike.data.decoding import Decoding
from unalike.errors import DataError, UnreadableImage

# what earlier versions did, for files of theirs
OLD = Decoding(1)
WHITE = Decoding(ground=(255, 255, 255))


def picture(height: int = 40, width: int = 60) -> np.ndarray:
    """A smooth image whose corners all differ: red grows to the right, green downwards."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 90)], -1).astype(np.uint8)


def near(a: np.ndarray, b: np.ndarray, tolerance: int) -> bool:
    return a.shape == b.shape and np.abs(a.astype(int) - b.astype(int)).mean() <= tolerance


@pytest.mark.parametrize(
    "suffix, tolerance, options",
    [
        ("jpg", 3, {"quality": 95}),
        ("jpeg", 3, {"quality": 95, "progressive": True}),
        ("png", 0, {}),
        ("webp", 0, {"lossless": True}),
        ("webp", 6, {"quality": 90}),
        ("bmp", 0, {}),
        ("tif", 0, {}),
        ("tiff", 0, {"compression": "tiff_lzw"}),
        ("ppm", 0, {}),
    ],
)
def test_formats(tmp_path: Path, suffix: str, tolerance: int, options: dict) -> None:
    path = tmp_path / f"späte Öse 1.{suffix}"
    Image.fromarray(picture()).save(path, **options)
    pixels = decode(path)
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous and pixels.flags.writeable
    assert near(pixels, picture(), tolerance)
    assert path.suffix in IMAGE_SUFFIXES
    assert np.array_equal(decode(path.read_bytes()), pixels)


def test_content_decides_not_the_suffix(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert np.array_equal(decode(tmp_path / "a.jpg"), picture())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp"])
def test_exif_rotation(tmp_path: Path, orientation: int, suffix: str) -> None:
    """Oracle: the stored pixels are the upright ones put through the inverse of what EXIF's table says."""
    upright = picture()
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, quality=95)
    assert near(decode(path), upright, 5)


def test_damaged_exif_leaves_the_pixels(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff nonsense", quality=95)
    assert near(decode(tmp_path / "a.jpg"), picture(), 3)


def test_grey_and_bilevel(tmp_path: Path) -> None:
    grey = picture()[:, :, 0]
    Image.fromarray(grey).save(tmp_path / "g.png")
    assert np.array_equal(decode(tmp_path / "g.png"), np.stack([grey] * 3, -1))
    Image.fromarray(grey > 100).save(tmp_path / "b.png")
    assert np.array_equal(decode(tmp_path / "b.png")[:, :, 1], (grey > 100) * 255)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_grey_is_scaled_by_its_range(tmp_path: Path, suffix: str) -> None:
    values = np.linspace(0, 65535, 48 * 32).astype(np.uint16).reshape(32, 48)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    wanted = np.floor(values / 65535 * 255 + 0.5).astype(int)
    for channel in range(3):
        assert np.abs(decode(tmp_path / f"a.{suffix}")[:, :, channel].astype(int) - wanted).max() <= 1
    dark = (values // 16).astype(np.uint16)  # 12 bits in a 16-bit file
    Image.fromarray(dark).save(tmp_path / f"dark.{suffix}")
    assert decode(tmp_path / f"dark.{suffix}", decoding=OLD).max() == 16
    assert decode(tmp_path / f"dark.{suffix}", decoding=Decoding(range=(0, 4095))).max() == 255


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0])
def test_floating_point(tmp_path: Path, top: float) -> None:
    ramp = np.linspace(0, 1, 48 * 32).reshape(32, 48)
    values = (ramp * top).astype(np.float32)
    Image.fromarray(values).save(tmp_path / "f.tif")
    for decoding in (OLD, Decoding(range=(0, top))):
        assert np.abs(decode(tmp_path / "f.tif", decoding=decoding)[:, :, 0] - ramp * 255).max() <= 0.51
    values[0, 0] = np.nan
    Image.fromarray(values).save(tmp_path / "nan.tif")
    assert decode(tmp_path / "nan.tif", decoding=decoding)[0, 0, 0] == 0


def test_floating_point_out_of_every_range_is_stretched(tmp_path: Path) -> None:
    Image.fromarray(np.linspace(-5, 5, 64, dtype=np.float32).reshape(8, 8)).save(tmp_path / "f.tif")
    for decoding in (OLD, Decoding(range=(-5, 5))):
        pixels = decode(tmp_path / "f.tif", decoding=decoding)
        assert pixels.min() == 0 and pixels.max() == 255


def test_32_bit_integers(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 32768, 65535]] * 4, np.int32)).save(tmp_path / "small.tif")
    for decoding in (OLD, Decoding()):
        assert decode(tmp_path / "small.tif", decoding=decoding)[0, :, 0].tolist() == [0, 128, 255]
    Image.fromarray(np.array([[0, 2**30, 2**31 - 1]] * 4, np.int32)).save(tmp_path / "large.tif")
    for decoding in (OLD, Decoding(range=(0, 2**31 - 1))):
        assert decode(tmp_path / "large.tif", decoding=decoding)[0, :, 0].tolist() == [0, 128, 255]


def test_cmyk(tmp_path: Path) -> None:
    Image.fromarray(picture()).convert("CMYK").save(tmp_path / "c.jpg", quality=95)
    Image.fromarray(picture()).convert("CMYK").save(tmp_path / "c.tif")
    assert near(decode(tmp_path / "c.jpg"), picture(), 4)
    assert near(decode(tmp_path / "c.tif"), picture(), 1)


def test_transparency_is_laid_over_the_ground(tmp_path: Path) -> None:
    rgba = np.dstack([picture(), np.zeros((40, 60), np.uint8)])
    rgba[:20, :, 3] = 255
    rgba[20:30, :, 3] = 128
    expected = picture().astype(float) * (rgba[:, :, 3:] / 255) + 255 * (1 - rgba[:, :, 3:] / 255)
    for name in ("a.png", "a.webp", "a.tif"):
        Image.fromarray(rgba).save(tmp_path / name, **({"lossless": True, "exact": True} if "webp" in name else {}))
        for decoding in (OLD, WHITE):
            assert np.abs(decode(tmp_path / name, decoding=decoding) - expected).max() <= 1.5
        assert (decode(tmp_path / name, decoding=Decoding(ground=(10, 20, 30)))[30:] == [10, 20, 30]).all()
        assert (decode(tmp_path / name)[30:] == 128).all()  # mid-gray where no set has chosen one
    grey = Image.fromarray(rgba).convert("LA")
    grey.save(tmp_path / "la.png")
    assert (decode(tmp_path / "la.png", decoding=WHITE)[30:] == 255).all()


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    palette = Image.new("P", (32, 32), 0)
    palette.putpalette([200, 10, 10, 10, 200, 10])
    palette.paste(1, (0, 0, 16, 32))
    palette.save(tmp_path / "p.png")
    pixels = decode(tmp_path / "p.png")
    assert pixels[0, 0].tolist() == [10, 200, 10] and pixels[0, 31].tolist() == [200, 10, 10]
    palette.save(tmp_path / "t.png", transparency=0)
    pixels = decode(tmp_path / "t.png", decoding=WHITE)
    assert pixels[0, 0].tolist() == [10, 200, 10] and pixels[0, 31].tolist() == [255, 255, 255]


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_animations_give_their_first_frame(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (32, 24), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    assert (decode(tmp_path / f"a.{suffix}") == [255, 0, 0]).all()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif", "gif"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.9])
def test_d20_truncated_files_are_refused(tmp_path: Path, suffix: str, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (48, 48, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / f"whole.{suffix}")
    whole = (tmp_path / f"whole.{suffix}").read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(UnreadableImage, match=f"cut.{suffix}"):
        decode(cut)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n"]
)
def test_d20_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match="bad.jpg"):
        decode(path)


FORMATS: dict[str, tuple[str, dict[str, object]]] = {
    "JPEG": ("RGB", {}), "JPEG progressive": ("RGB", {"progressive": True}), "JPEG of four colors": ("CMYK", {}), "PNG": ("RGB", {}),
    "PNG transparent": ("LA", {}), "PNG deep": ("I;16", {}), "TIFF": ("RGB", {"compression": "tiff_lzw"}), "TIFF float": ("F", {}),
    "TIFF deep": ("I;16", {"compression": "tiff_adobe_deflate"}), "WEBP": ("RGB", {}), "GIF": ("P", {}), "BMP": ("RGB", {}),
    "AVIF": ("RGB", {}), "PPM": ("L", {}),
}  # fmt: skip


@pytest.mark.parametrize(
    "seeds", [range(40), pytest.param(range(40, 4000), marks=pytest.mark.slow)], ids=["some", "many"]
)
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_d20_damaged_files_are_read_or_refused(kind: str, seeds: range) -> None:
    mode, options = FORMATS[kind]
    noise, out = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8), io.BytesIO()
    deep = noise[..., 0].astype(np.uint16) * 99
    image = Image.fromarray(deep) if mode == "I;16" else Image.fromarray(noise).convert(mode)
    image.save(out, kind.split()[0], **options)
    for seed, content in mutations(out.getvalue(), seeds):
        for read in (decode, open_layer):
            try:
                read(content, max_pixels=10_000)
            except UnreadableImage as error:
                assert "\n" not in str(error) and len(str(error)) < 1500
            except Exception as error:  # noqa: BLE001  named with its seed, so that it can be mended
                pytest.fail(f"seed {seed}: {type(error).__name__}: {error}")


def test_a_library_that_admits_truncated_images_does_not_change_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:700])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(UnreadableImage):
        decode(tmp_path / "a.jpg")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="no such file"):
        decode(tmp_path / "absent.jpg")
    with pytest.raises(UnreadableImage):
        decode(tmp_path)


def test_decompression_bomb_is_refused_from_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")

    def never(*args: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", never)
    with pytest.raises(UnreadableImage, match="bomb.png.*max_pixels"):
        decode(tmp_path / "bomb.png")
    with pytest.raises(UnreadableImage, match="20000 x 20000"):
        decode(tmp_path / "bomb.png", max_pixels=399_999_999)


def test_the_bound_is_inclusive_and_may_exceed_pillows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    Image.fromarray(picture()).save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png", max_pixels=2400).shape == (40, 60, 3)
    with pytest.raises(UnreadableImage):
        decode(tmp_path / "a.png", max_pixels=2399)


@pytest.mark.parametrize("orientation", [1, 6])
def test_min_size_shrinks_jpegs_but_never_below_it(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture(640, 400)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    tall, wide = (640, 400) if orientation == 1 else (400, 640)
    assert decode(tmp_path / "a.jpg").shape == (tall, wide, 3)
    for min_size in [(1, 1), (50, 50), (80, 80), (81, 50), (160, 100), (161, 200), (640, 400), (2000, 10)]:
        height, width, _ = decode(tmp_path / "a.jpg", min_size=min_size).shape
        assert height >= min(tall, min_size[0]) and width >= min(tall, wide, min_size[1])
        scale = tall / height
        assert scale in (1, 2, 4, 8) and width == wide / scale
        assert scale == 8 or tall // (2 * scale) < min_size[0] or wide // (2 * scale) < min_size[1]


def test_open_image_lets_go_of_the_file(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    image = open_image(tmp_path / "a.png")
    (tmp_path / "a.png").unlink()
    assert image.mode == "RGB" and np.array_equal(np.asarray(image), picture())


def test_every_door_gives_one_image(tmp_path: Path) -> None:
    """A path, the file's content, a stream, an opened image and an array."""
    exif = Image.Exif()
    exif[0x0112] = 6
    rgba = np.dstack([picture(), np.full((40, 60), 90, np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "a.png", exif=exif)
    expected = decode(tmp_path / "a.png", decoding=WHITE)
    assert expected.shape == (60, 40, 3)
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes()):
        assert np.array_equal(decode(source, decoding=WHITE), expected)
        assert upright_size(source) == (60, 40) and open_layer(source).size == (40, 60)
    with open(tmp_path / "a.png", "rb") as stream, Image.open(tmp_path / "a.png") as opened:
        for _ in range(2):
            assert np.array_equal(decode(stream, decoding=WHITE), expected)
            assert np.array_equal(decode(opened, decoding=WHITE), expected)
            assert upright_size(stream) == upright_size(opened) == (60, 40)
    assert np.array_equal(decode(np.rot90(rgba, -1), decoding=WHITE), expected)
    gray = picture()[..., :1]
    assert np.array_equal(decode(gray), np.repeat(gray, 3, axis=2)) and np.array_equal(
        decode(gray[..., 0]), decode(gray)
    )
    assert decode(np.full((4, 5), 4095, np.uint16), decoding=Decoding(range=(0, 4095))).min() == 255


def test_an_opened_image_is_not_changed(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as opened:
        decode(opened)[:] = 0
        assert np.array_equal(np.asarray(opened), picture())


@pytest.mark.parametrize("content", [b"", b"\xff\xd8"])
def test_a_file_that_ends_at_once_is_named_without_a_text_of_the_library(tmp_path, content):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(UnreadableImage) as caught:
        decode(tmp_path / "x.jpg")
    assert "x.jpg: " in str(caught.value) and "unpack" not in str(caught.value)


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"")
    for image, name in ((path, "a.png"), (b"", "image bytes")):
        for read in (decode, upright_size):
            with pytest.raises(UnreadableImage, match=f"{name}: an empty file"):
                read(image)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, io.BytesIO])
def test_the_content_of_a_file_in_any_buffer(kind: Callable[[bytes], Any]) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (5, 4), (10, 20, 30)).save(stream, "PNG")
    image = kind(stream.getvalue())
    assert decode(image).shape == (4, 5, 3) and upright_size(image) == (4, 5)
    assert image_list(image) == [image]


def test_what_is_no_image_is_named() -> None:
    for other in (None, 5, {"a": 1}, object()):
        with pytest.raises(
            DataError, match=f"an object of type {type(other).__name__} in place of an image; expected a path"
        ):
            decode(other)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="of type int in place"):
        image_list(5)  # type: ignore[arg-type]
    with pytest.raises(UnreadableImage, match="a stream of text; expected a binary one"):
        decode(io.StringIO("text"))  # type: ignore[arg-type]
    assert image_list(np.zeros((2, 4, 4, 3), np.uint8))[1].shape == (4, 4, 3)  # type: ignore[union-attr]


def test_a_path_as_bytes_is_said(tmp_path: Path) -> None:
    Image.new("RGB", (5, 4)).save(tmp_path / "a.png")
    with pytest.raises(UnreadableImage, match="the name of a file as bytes; expected its content, or the name as text"):
        decode(os.fsencode(tmp_path / "a.png"))
