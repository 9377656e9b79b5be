"""Forged galleries, whose checksums are right, are read or refused in one line."""

from __future__ import annotations

import copy
import hashlib
import json
import random
import struct
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unalike.errors import UnalikeError
from unalike.recognition.gallery import Gallery
from unalike.recognition.gallery_calibration import calibrate

PREAMBLE = struct.Struct("<8sIIQQ")
WRONG: tuple[Any, ...] = (
    None,
    -1,
    0,
    1,
    2**31,
    2**63,
    10**30,
    1.5,
    "x",
    "",
    "nan",
    [],
    [1],
    [-1],
    [[]],
    {},
    {"a": 1},
    True,
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    gallery = Gallery(4)
    centers = rng.normal(size=(30, 4))
    vectors = np.repeat(centers, 10, axis=0) + 0.01 * rng.normal(size=(300, 4))
    gallery.enrol(vectors, [f"c{i // 10}" for i in range(300)], [f"n{i}.png" for i in range(300)])
    gallery.calibration = calibrate(gallery, 0.3)
    return gallery.save(tmp_path_factory.mktemp("g") / "g")


def forge(saved: Path, path: Path, change: Any) -> None:
    """Change the header and compute its checksum anew."""
    content = saved.read_bytes()
    magic, version, zero, offset, length = PREAMBLE.unpack(content[:32])
    header = json.loads(content[offset : offset + length])
    changed = change(header)
    encoded = json.dumps(header if changed is None else changed).encode()
    preamble = PREAMBLE.pack(magic, version, zero, offset, len(encoded))
    path.write_bytes(preamble + hashlib.sha256(preamble + encoded).digest() + content[64:offset] + encoded)


def use(path: Path) -> None:
    """All that a user would do; anything but an error of the product is a fault."""
    try:
        gallery = Gallery.load(path)
        _ = gallery.counts(), gallery.names, gallery.labels, gallery.stale
        gallery.search(np.eye(4), k=3)
        if gallery.calibration is not None:
            gallery.calibration.decide(np.ones(1), np.ones(1))
            str(gallery.calibration)
        gallery.enrol(np.eye(4), list("abcd"))
        gallery.save(path.with_name("again"))
    except UnalikeError as error:
        assert "\n" not in str(error) and len(str(error)) < 800


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        for key in value:
            found += places(value[key], (*path, key))
    elif isinstance(value, list) and value and len(path) < 4:
        found += places(value[0], (*path, 0))
    return found


def header_of(saved: Path) -> dict[str, Any]:
    content = saved.read_bytes()
    _, _, _, offset, length = PREAMBLE.unpack(content[:32])
    return dict(json.loads(content[offset : offset + length]))


@pytest.mark.parametrize("share", [0.15, pytest.param(1.0, marks=pytest.mark.slow)], ids=["some", "all"])
def test_every_value_of_the_header_replaced(saved: Path, tmp_path: Path, share: float) -> None:
    rng = random.Random(0)
    header = header_of(saved)
    for place in places(header):
        for wrong in (*WRONG, "gone"):
            if rng.random() > share:
                continue

            def change(header: dict[str, Any], place: tuple[Any, ...] = place, wrong: Any = wrong) -> None:
                inner = header
                for key in place[:-1]:
                    inner = inner[key]
                if wrong == "gone" and isinstance(inner, dict):
                    del inner[place[-1]]
                else:
                    inner[place[-1]] = copy.deepcopy(wrong)

            forge(saved, tmp_path / "f", change)
            try:
                use(tmp_path / "f")
            except Exception as error:  # noqa: BLE001  named with the place, so that it can be mended
                pytest.fail(f"{place} = {wrong!r}: {type(error).__name__}: {error}")


@pytest.mark.parametrize("header", [[], 1, "x", {}, [[[]]], {"blocks": {}}, {"blocks": [], "dim": 4}])
def test_headers_of_another_shape(saved: Path, tmp_path: Path, header: Any) -> None:
    forge(saved, tmp_path / "f", lambda _: header)
    with pytest.raises(UnalikeError):
        Gallery.load(tmp_path / "f")


def test_a_deep_header(saved: Path, tmp_path: Path) -> None:
    content = saved.read_bytes()
    magic, version, zero, offset, _ = PREAMBLE.unpack(content[:32])
    encoded = b"[" * 200_000
    preamble = PREAMBLE.pack(magic, version, zero, offset, len(encoded))
    (tmp_path / "f").write_bytes(preamble + hashlib.sha256(preamble + encoded).digest() + content[64:offset] + encoded)
    with pytest.raises(UnalikeError, match="nested too deeply"):
        Gallery.load(tmp_path / "f")


def test_names_that_differ_by_the_form_of_unicode_become_one_class(saved: Path, tmp_path: Path) -> None:
    def change(header: dict[str, Any]) -> None:
        header["classes"][:2] = [unicodedata.normalize("NFD", "Möhre"), "Möhre"]

    forge(saved, tmp_path / "f", change)
    gallery = Gallery.load(tmp_path / "f")
    assert gallery.counts()["Möhre"] == 20 and len(gallery.counts()) == 29
    gallery.rename(unicodedata.normalize("NFD", "Möhre"), "x")
    gallery.enrol(np.eye(4)[:1], [unicodedata.normalize("NFD", "Öl")])
    assert gallery.merge(["Öl"], unicodedata.normalize("NFD", "é")) == 1
    assert "é" in gallery.classes and gallery.remove(["é"]) == 1
