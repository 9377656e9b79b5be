"""Color profiles are converted to sRGB, whatever sRGB is called; a profile that cannot be used changes nothing."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from unalike.data.color_profile import needs_conversion, profile_name
from unalike.data.decode import decode, open_layer
from unalike.data.decoding import Decoding
from unalike.data.decoding_fit import fit_decoding

# Colorants (rXYZ, gXYZ, bXYZ) adapted to D50.
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))


def matrix_profile(colorants: tuple[tuple[float, ...], ...], gamma: float, name: str = "a camera") -> bytes:
    """An ICC profile (version 2) of three colorants and one gamma."""

    def fixed(values: tuple[float, ...]) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    text = name.encode() + b"\0"
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(4 + 4 + 2 + 1 + 67),
        b"cprt": b"text" + bytes(4) + b"none\0",
        b"wtpt": b"XYZ " + bytes(4) + fixed((0.9642, 1.0, 0.8249)),
        **{
            tag: b"XYZ " + bytes(4) + fixed(value)
            for tag, value in zip((b"rXYZ", b"gXYZ", b"bXYZ"), colorants, strict=True)
        },
        **{tag: b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) for tag in (b"rTRC", b"gTRC", b"bTRC")},
    }
    table, data = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for tag, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        table += tag + struct.pack(">II", start + len(data), len(content))
        data += padded
    header = struct.pack(">I4sI4s4s4s", start + len(data), b"none", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + fixed((0.9642, 1.0, 0.8249)) + bytes(48)
    return header + table + data


def picture() -> Image.Image:
    y, x = np.mgrid[0:48, 0:64]
    return Image.fromarray(np.stack([x * 4, y * 5, 255 - x * 4], -1).astype(np.uint8))


def by_lcms(image: Image.Image, profile: bytes) -> np.ndarray:
    converted = ImageCms.profileToProfile(
        image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    )
    return np.asarray(converted)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [("png", {}), ("jpg", {"quality": 95, "subsampling": 0}), ("tif", {}), ("webp", {"lossless": True})],
)
@pytest.mark.parametrize("colorants", [DISPLAY_P3, ADOBE_RGB])
def test_profiles_are_converted(tmp_path: Path, suffix: str, options: dict[str, Any], colorants: Any) -> None:
    profile, path = matrix_profile(colorants, 2.2), tmp_path / f"a.{suffix}"
    picture().save(path, icc_profile=profile, **options)
    with Image.open(path) as opened:
        expected = by_lcms(opened.convert("RGB"), profile)
        assert needs_conversion(opened) and profile_name(opened) == "a camera"
        for source in (path, path.read_bytes(), opened):
            assert np.abs(decode(source).astype(int) - expected).max() <= 1
    assert np.abs(decode(path).astype(int) - decode(path, decoding=Decoding(1))).max() > 20


def test_a_more_saturated_red_is_seen(tmp_path: Path) -> None:
    """(200, 30, 30) of Display P3 lies outside sRGB's: its sRGB has more red and less green."""
    Image.new("RGB", (8, 8), (200, 30, 30)).save(tmp_path / "a.png", icc_profile=matrix_profile(DISPLAY_P3, 2.2))
    red, green, _ = decode(tmp_path / "a.png")[0, 0].tolist()
    assert red > 210 and green < 20


def test_srgb_passes_untouched(tmp_path: Path) -> None:
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, profile in (("own", own), ("odd", matrix_profile(SRGB, 2.2, "c2")), ("damaged", b"nothing" * 40)):
        path = tmp_path / f"{name}.jpg"
        picture().save(path, icc_profile=profile, quality=95)
        with Image.open(path) as opened:
            if name != "odd":  # a plain gamma is not sRGB's curve
                assert not needs_conversion(opened)
                assert np.array_equal(decode(path), np.asarray(opened))


def test_gray_cmyk_and_transparent_images(tmp_path: Path) -> None:
    profile = matrix_profile(DISPLAY_P3, 2.2)
    gray = picture().convert("L")
    gray.save(tmp_path / "gray.jpg", icc_profile=profile, quality=95)  # of another color model: ignored
    with Image.open(tmp_path / "gray.jpg") as opened:
        assert np.array_equal(decode(tmp_path / "gray.jpg")[..., 0], np.asarray(opened))
    clear = picture().convert("RGBA")
    clear.putalpha(120)
    clear.save(tmp_path / "clear.png", icc_profile=profile)
    layer = np.asarray(open_layer(tmp_path / "clear.png"))
    assert (layer[..., 3] == 120).all() and np.abs(layer[..., :3].astype(int) - by_lcms(picture(), profile)).max() <= 1
    palette = picture().quantize(16)
    palette.save(tmp_path / "palette.png", icc_profile=profile)
    assert np.abs(decode(tmp_path / "palette.png").astype(int) - by_lcms(palette.convert("RGB"), profile)).max() <= 1


def test_the_notice_counts_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture().save(tmp_path / "a.jpg", icc_profile=matrix_profile(DISPLAY_P3, 2.2, "Display P3"))
    picture().save(tmp_path / "b.png", icc_profile=matrix_profile(ADOBE_RGB, 2.2, "Adobe RGB (1998)"))
    picture().save(
        tmp_path / "c.jpg", exif=b"Exif\0\0" + bytes(3000), icc_profile=matrix_profile(DISPLAY_P3, 2.2, "Display P3")
    )
    picture().save(tmp_path / "d.jpg")
    assert fit_decoding(sorted(tmp_path.iterdir())) == Decoding()
    assert (
        "of 4 images: 3 converted from a color profile to sRGB: Display P3 (2), Adobe RGB (1998) (1)"
        in capsys.readouterr().err
    )
