"""All bits of images of more than 8 bits are read, whatever the format, and scaled by the range of their set."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unalike.data import deep_pixels, pillow, pixel_conversion
from unalike.data.decode import decode, open_layer
from unalike.data.decoding import Decoding
from unalike.data.decoding_fit import fit_decoding
from unalike.data.deep_pixels import is_deep, read_values, scale_to_8_bits, stated_maximum


def png(path: Path, values_HWC: np.ndarray) -> Path:
    """A PNG of 16 bits a channel: gray, gray and alpha, RGB or RGBA."""
    height, width, channels = values_HWC.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values_HWC)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    content = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


def tiff(path: Path, values_HWC: np.ndarray, order: str = "<") -> Path:
    """An uncompressed TIFF of 16 bits a channel: RGB or RGBA, in either byte order."""
    height, width, channels = values_HWC.shape
    data = values_HWC.astype(f"{order}u2").tobytes()
    extra = 8 + len(data)
    bits = struct.pack(f"{order}{channels}H", *[16] * channels)
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, extra), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 8),
            (277, 3, 1, channels), (278, 3, 1, height), (279, 4, 1, len(data))]  # fmt: skip
    if channels == 4:
        tags.append((338, 3, 1, 2))
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, kind, count)
        + (struct.pack(f"{order}HH", value, 0) if kind == 3 and count == 1 else struct.pack(f"{order}I", value))
        for tag, kind, count, value in tags
    )
    directory = struct.pack(f"{order}H", len(tags)) + entries + bytes(4)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, extra + len(bits))
    path.write_bytes(head + data + bits + directory)
    return path


def values(channels: int, top: int = 65535) -> np.ndarray:
    return np.random.default_rng(channels).integers(0, top + 1, (24, 31, channels), np.uint16)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_all_bits_of_a_png(tmp_path: Path, channels: int) -> None:
    expected = values(channels)
    path = png(tmp_path / "a.png", expected)
    with pillow.open_file(path) as image:
        assert is_deep(image)
        assert np.array_equal(read_values(image, lambda: pillow.open_file(path)), expected)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [3, 4])
def test_all_bits_of_a_tiff(tmp_path: Path, channels: int, order: str) -> None:
    expected = values(channels)
    path = tiff(tmp_path / "a.tif", expected, order)
    with pillow.open_file(path) as image:
        assert np.array_equal(read_values(image, lambda: pillow.open_file(path)), expected)


@pytest.mark.parametrize("write", [png, tiff])
def test_12_bit_colors_keep_their_levels(tmp_path: Path, write: object) -> None:
    expected = values(3, 4095)
    path = write(tmp_path / ("a.png" if write is png else "a.tif"), expected)  # type: ignore[operator]
    decoding = fit_decoding([path])
    assert decoding.range == (0, 4095)
    assert np.array_equal(decode(path, decoding=decoding), np.floor(expected / 4095 * 255 + 0.5))
    assert np.array_equal(decode(path.read_bytes(), decoding=decoding), decode(path, decoding=decoding))
    with Image.open(path) as opened:
        assert fit_decoding([opened]) == decoding
        for _ in range(2):
            assert np.array_equal(decode(opened, decoding=decoding), decode(path, decoding=decoding))


def test_transparency_of_16_bit_images(tmp_path: Path) -> None:
    pixels = values(4, 4095)
    pixels[..., 3] = 0
    pixels[4:12, 4:12, 3] = 65535
    path = png(tmp_path / "a.png", pixels)
    layer = np.asarray(open_layer(path, decoding=Decoding(range=(0, 4095))))
    assert layer[..., 3].max() == 255 and (layer[..., 3] > 0).sum() == 64
    on_black = decode(path, decoding=Decoding(ground=(0, 0, 0), range=(0, 4095)))
    assert not on_black[20:].any() and on_black[4:12, 4:12].max() > 200
    gray = np.full((8, 8, 1), 700, np.uint16)
    gray[2:4] = 65535
    Image.fromarray(gray[..., 0]).save(tmp_path / "key.png", transparency=700)
    assert (decode(tmp_path / "key.png", decoding=Decoding(ground=(0, 200, 0)))[0, 0] == [0, 200, 0]).all()


def test_white_is_zero(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 65535]], np.uint16)).save(tmp_path / "a.tif", tiffinfo={262: 0})
    assert decode(tmp_path / "a.tif")[0, :, 0].tolist() == [255, 0]


def test_unknown_range_is_that_of_the_number_format(tmp_path: Path) -> None:
    """A single image without a set is never scaled by its own content."""
    for dtype, top in ((np.uint16, 65535), (np.float32, 1)):
        ramp = (np.linspace(0, top, 64).reshape(8, 8)).astype(dtype)
        Image.fromarray(ramp).save(tmp_path / "full.tif")
        Image.fromarray((ramp / 16).astype(dtype)).save(tmp_path / "dark.tif")
        assert decode(tmp_path / "full.tif").max() == 255
        assert decode(tmp_path / "dark.tif").max() == 16


def test_scaling_cuts_off_and_takes_nan_for_the_lowest() -> None:
    scaled = scale_to_8_bits(np.array([[-1, 0, 5, 10, 99, np.nan, np.inf]], np.float32), (0, 10))
    assert scaled.tolist() == [[0, 0, 128, 255, 255, 0, 255]]


def test_maximum_by_tags(tmp_path: Path) -> None:
    gray = Image.fromarray(np.zeros((4, 4), np.uint16))
    for tags, expected in (({}, None), ({281: 4095}, 4095), ({50717: 1023}, 1023)):
        gray.save(tmp_path / "a.tif", tiffinfo=tags)
        with Image.open(tmp_path / "a.tif") as image:
            assert stated_maximum(image) == expected


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("version", [1, 2])
def test_strips_give_the_same_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: type, version: int
) -> None:
    values = np.random.default_rng(0).integers(0, 60_000, (37, 23)).astype(dtype)
    if dtype == np.float32:
        values[3, 4] = np.nan
    Image.fromarray(values).save(tmp_path / "a.tif", compression="tiff_deflate")
    whole = decode(tmp_path / "a.tif", decoding=Decoding(version=version))
    for module in (deep_pixels, pixel_conversion):
        monkeypatch.setattr(module, "STRIP_VALUES", 50)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # of other code in the process; ours is dataset.max_pixels
    assert (decode(tmp_path / "a.tif", decoding=Decoding(version=version)) == whole).all()
    assert Image.MAX_IMAGE_PIXELS == 10
