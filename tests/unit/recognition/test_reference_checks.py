"""Checks of references by parts, against a slow oracle, in a file and in PostgreSQL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.postgres import new_database
from unalike.recognition.backends.address import open_gallery, save_gallery
from unalike.recognition.backends.protocol import GalleryView
from unalike.recognition.gallery import Gallery
from unalike.recognition.reference_checks import NEIGHBORS, PartChecks, check_part

DIM = 24


def gallery_with_a_wrong_label(folder: Path, kind: str) -> Any:
    """Four classes of six references each; the last of the first class looks like the second one."""
    rng = np.random.default_rng(0)
    centers = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0][:4]
    vectors = np.concatenate([center + 0.05 * rng.normal(size=(6, DIM)) for center in centers])
    vectors[5] = centers[1] + 0.05 * rng.normal(size=DIM)
    gallery = Gallery(DIM)
    gallery.enrol(vectors, [f"class {row // 6}" for row in range(24)], [f"{row}.png" for row in range(24)])
    address = str(folder / "a.gallery") if kind == "file" else f"{new_database()}&gallery=checks"
    save_gallery(gallery, address)
    return open_gallery(address)


def parts_of(view: GalleryView, part: int) -> list[PartChecks]:
    """All parts of a gallery."""
    result, after = [], -1
    while (checks := check_part(view, view.counts(), after, part)).references:
        result.append(checks)
        after = checks.references[-1].id
    return result


@pytest.mark.parametrize("part", [5, 100])
@pytest.mark.parametrize("kind", ["file", "postgresql"])
def test_the_wrong_label_is_doubted_and_no_other(tmp_path: Path, kind: str, part: int) -> None:
    gallery = gallery_with_a_wrong_label(tmp_path, kind)
    with gallery.view() as view:
        parts = parts_of(view, part)
    doubts = [doubt for checks in parts for doubt in checks.doubts]
    assert [(doubt.reference.id, doubt.suggested, doubt.nearest.label) for doubt in doubts] == [
        (5, "class 1", "class 1")
    ]
    assert 0.5 < doubts[0].lead <= 1
    gallery.close()


@pytest.mark.parametrize("kind", ["file", "postgresql"])
def test_each_reference_has_its_nearest_other_one(tmp_path: Path, kind: str) -> None:
    gallery = gallery_with_a_wrong_label(tmp_path, kind)
    with gallery.view() as view:
        vectors = view.vectors(range(24))
        pairs = {id: pair for checks in parts_of(view, 7) for id, pair in checks.pairs.items()}
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -2)
    for id, pair in pairs.items():
        other = int(scores[id].argmax())
        assert (pair.low.id, pair.high.id) == (min(id, other), max(id, other))
        assert pair.score == pytest.approx(float(scores[id, other]), abs=1e-5)
    assert sorted(pairs) == list(range(24))
    gallery.close()


def test_copies_of_one_picture_do_not_hide_one_another() -> None:
    """More copies than neighbors: a reference may be missing among its own nearest ones."""
    gallery = Gallery(4)
    gallery.enrol(np.ones((NEIGHBORS + 5, 4)), ["one"] * (NEIGHBORS + 4) + ["two"])
    with gallery.view() as view:
        checks = check_part(view, view.counts())
    assert len(checks.pairs) == NEIGHBORS + 5 and all(pair.low.id != pair.high.id for pair in checks.pairs.values())
    assert not checks.doubts, "a reference that is alone in its class is not doubted"


@pytest.mark.parametrize("count", [0, 1, 2])
def test_small_galleries_are_looked_at_too(count: int) -> None:
    gallery = Gallery(3)
    if count:
        gallery.enrol(np.eye(3)[:count], ["a", "b"][:count])
    with gallery.view() as view:
        checks = check_part(view, view.counts())
    assert (len(checks.references), len(checks.pairs), checks.doubts) == (count, count if count > 1 else 0, [])
