"""Forged galleries, whose checksums are right, are read or refused in one line."""

from __future__ import annotations

import hashlib
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.forged_files import PREAMBLE, forge, forgeries
from tests.support.mutations import mutations
from unalike.errors import UnalikeError
from unalike.recognition.gallery import Gallery
from unalike.recognition.gallery_calibration import calibrate


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    gallery = Gallery(4)
    centers = rng.normal(size=(30, 4))
    vectors = np.repeat(centers, 10, axis=0) + 0.01 * rng.normal(size=(300, 4))
    attributes = [{"site": "ab"[i % 2]} if i % 3 else {} for i in range(300)]
    gallery.enrol(vectors, [f"c{i // 10}" for i in range(300)], [f"n{i}.png" for i in range(300)], attributes)
    gallery.calibration = calibrate(gallery, 0.3)
    return gallery.save(tmp_path_factory.mktemp("g") / "g")


def use(path: Path) -> None:
    """All that a user would do; anything but an error of the product is a fault."""
    try:
        gallery = Gallery.load(path)
        _ = gallery.counts(), gallery.names, gallery.labels, gallery.stale
        gallery.search(np.eye(4), k=3)
        if gallery.attributes():
            gallery.view().rank(np.eye(4), where={"site": "b"})
        if gallery.calibration is not None:
            gallery.calibration.decide(np.ones(1), np.ones(1))
            str(gallery.calibration)
        gallery.enrol(np.eye(4), list("abcd"), None, {"site": "c"})
        gallery.save(path.with_name("again"))
    except UnalikeError as error:
        assert "\n" not in str(error) and len(str(error)) < 800


@pytest.mark.parametrize("share", [0.15, pytest.param(1.0, marks=pytest.mark.slow)], ids=["some", "all"])
def test_every_value_of_the_header_replaced(saved: Path, tmp_path: Path, share: float) -> None:
    for what in forgeries(saved, tmp_path / "f", share):
        try:
            use(tmp_path / "f")
        except Exception as error:  # noqa: BLE001  named with the place, so that it can be mended
            pytest.fail(f"{what}: {type(error).__name__}: {error}")


@pytest.mark.parametrize(
    "seeds", [range(150), pytest.param(range(150, 5000), marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_damaged_galleries_are_read_or_refused(saved: Path, tmp_path: Path, seeds: range) -> None:
    for seed, content in mutations(saved.read_bytes(), seeds):
        (tmp_path / "f").write_bytes(content)
        try:
            use(tmp_path / "f")
        except Exception as error:  # noqa: BLE001  named with its seed, so that it can be mended
            pytest.fail(f"seed {seed}: {type(error).__name__}: {error}")


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
