"""Files of other kinds are named, with what to do."""

from __future__ import annotations

import io
import time
import zipfile

import numpy as np
import pytest
from PIL import Image, features

from unalike.data.decode import decode
from unalike.data.foreign_files import describe
from unalike.errors import UnreadableImage


def _zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a", "b")
    return out.getvalue()


def _npy() -> bytes:
    out = io.BytesIO()
    np.save(out, np.zeros(3))
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "name", "remedy"),
    [
        (b"%PDF-1.7\n", "a PDF document", "pdftoppm"),
        (b"  <!DOCTYPE html><html><body>404</body></html>", "a web page", "download the image again"),
        (b'<?xml version="1.0"?>\n<!-- a --><svg xmlns="x"/>', "an SVG drawing", "render it"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS", "git lfs pull"),
        (_zip(), "a zip archive", "unpack"),
        (_npy(), "a NumPy array", "save it as an image"),
        (b"\xff\x0a" + bytes(20), "a JPEG XL image", "convert it"),
        (b"\0\0\0\x18ftypmp42" + bytes(20), "a video", "frames"),
        (b"\0\0\0\x18ftypcrx " + bytes(20), "a raw photograph", "convert it"),
        (bytes(128) + b"DICM" + bytes(20), "a DICOM image", "16 bits"),
        (bytes(600), "a file of zero bytes", "copy or download it again"),
    ],
)
def test_kinds_are_named(content: bytes, name: str, remedy: str) -> None:
    with pytest.raises(UnreadableImage, match=f"image bytes: not an image of a known format but {name}") as caught:
        decode(content)
    assert remedy in caught.value.remedy


@pytest.mark.skipif(not features.check("jpg_2000"), reason="this build of Pillow writes no JPEG 2000")
def test_jpeg_2000_of_pillow() -> None:
    out = io.BytesIO()
    Image.new("RGB", (40, 30)).save(out, "JPEG2000")
    assert describe(out.getvalue()) == ("a JPEG 2000 image", "convert it to PNG or JPEG")


@pytest.mark.parametrize("content", [b"", b"a text", b"Py", b"BMW models are", b"\x01\x02\x03"])
def test_others_have_no_name(content: bytes) -> None:
    assert describe(content) is None
    with pytest.raises(UnreadableImage, match="not an image of a known format$" if content else "an empty file"):
        decode(content)


@pytest.mark.parametrize(
    "part",
    [b"<!---->", b"<?xml?>", b"<!doctype svg>", b"<!doctype svg[]", b"<!doctype svg [", b" ", b"<!--", b"\n<!-->"],
)
def test_parts_of_a_drawing_without_one_take_no_time(part: bytes) -> None:
    start = time.monotonic()
    assert describe((part * 512)[:512]) is None
    assert time.monotonic() - start < 1.0


@pytest.mark.parametrize(
    "head", [b"<!---->" * 30, b"<!DOCTYPE svg PUBLIC 'a' 'b'\n [<!ENTITY c 'd>'>] >\n<!-- e -->", b"\n<!--\n<a>\n-->\n"]
)
def test_drawings_are_named_behind_what_may_stand_before_them(head: bytes) -> None:
    assert (describe(head + b"<svg>") or ("",))[0] == "an SVG drawing"
