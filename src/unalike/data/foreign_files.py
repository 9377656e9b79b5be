"""Names of files that are not images of a known format, by their first bytes, and what to do with them."""

from __future__ import annotations

import re

PREFIX = 512  # bytes that are looked at
_CONVERT = "convert it to PNG or JPEG"
_HTML = re.compile(rb"(?i)\s*(<!--.*?-->\s*)?<(!doctype html|html|head|body)", re.DOTALL)
# What stands before the drawing is matched once (atomic groups): tried again, n comments are 2**n ways to read them.
_SVG = re.compile(
    rb"(?i)\s*+(?>(?:<\?xml.*?\?>|<!--.*?-->|<!doctype svg[^\[>]*(?:\[.*?\]\s*+)?>)\s*+)*+<svg[\s>]", re.DOTALL
)
_BRANDS = {b"crx ": "a raw photograph (CR3)", b"qt  ": "a video", b"isom": "a video", b"mp41": "a video", b"mp42": "a video",
           b"avc1": "a video", b"M4V ": "a video", b"3gp4": "a video", b"3gp5": "a video", b"iso2": "a video"}  # fmt: skip
# (first bytes, what they are, what to do)
_STARTS = (
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "a JPEG 2000 image", _CONVERT),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image", _CONVERT),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "a JPEG XL image", _CONVERT),
    (b"\xff\x0a", "a JPEG XL image", _CONVERT),
    (b"%PDF", "a PDF document", "save its pages as PNG, with pdftoppm -png for example"),
    (b"%!PS", "a PostScript file", _CONVERT),
    (b"8BPS", "a Photoshop document", _CONVERT),
    (b"v/1\x01", "an OpenEXR image", "convert it to TIFF of 16 bits or floating point"),
    (b"#?RADIANCE", "a Radiance HDR image", "convert it to TIFF of floating point"),
    (b"\x00\x00\x01\x00", "an icon file (ICO)", _CONVERT),
    (b"SIMPLE  =", "a FITS image", "convert it to TIFF of 16 bits or floating point"),
    (b"\x0a\x05\x01", "a PCX image", _CONVERT),
    (b"qoif", "a QOI image", _CONVERT),
    (b"\xd7\xcd\xc6\x9a", "a Windows metafile", _CONVERT),
    (b"\x93NUMPY", "a NumPy array", "save it as an image, or give the array in Python"),
    (b"\x89HDF", "an HDF5 file", "save its pictures as image files"),
    (b"SQLite format 3", "a SQLite database", ""),
    (b"PAR1", "a Parquet table", "give it as a dataset, not as an image"),
    (b"PK\x03\x04", "a zip archive", "give it as a dataset, with the suffix .zip, or unpack it"),
    (b"\x1f\x8b", "a gzip file", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (b"\x1a\x45\xdf\xa3", "a video", "save its frames as images"),
    (b"version https://git-lfs", "a pointer of Git LFS in place of the image", "fetch the images: git lfs pull"),
)


def describe(content: bytes) -> tuple[str, str] | None:
    """Say what kind of file this is.

    Args:
        content: Its first bytes, ``PREFIX`` of them.

    Returns:
        (what it is, what to do, which may be empty), or None.
    """
    for start, name, remedy in _STARTS:
        if content.startswith(start):
            return name, remedy
    if content[4:8] == b"ftyp" and content[8:12] in _BRANDS:
        name = _BRANDS[content[8:12]]
        return name, "save its frames as images" if name == "a video" else _CONVERT
    if content[128:132] == b"DICM":
        return "a DICOM image", "convert it to PNG of 16 bits"
    if content[:4] == b"RIFF" and content[8:12] == b"AVI ":
        return "a video", "save its frames as images"
    if _HTML.match(content):
        return (
            "a web page (HTML) in place of the image",
            "download the image again: it may be a page that asks to sign in",
        )
    if _SVG.match(content):
        return "an SVG drawing", "render it as PNG, with rsvg-convert for example"
    if content and not any(content):
        return "a file of zero bytes", "copy or download it again"
    return None
