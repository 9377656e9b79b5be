"""The walk over references: goes on where it stopped, takes new ones in, and begins again when the gallery changed."""

from __future__ import annotations

import numpy as np

from unalike.recognition.gallery import Gallery
from unalike.serve import reference_scan as module
from unalike.serve.reference_scan import AGAIN_S, ReferenceScan


def make_gallery(count: int = 200) -> Gallery:
    """Classes of ten references around one direction each."""
    rng = np.random.default_rng(0)
    gallery = Gallery(32)
    centers = rng.normal(size=(count // 10, 32))
    gallery.enrol(
        np.repeat(centers, 10, axis=0) + 0.3 * rng.normal(size=(count, 32)), [f"c{row // 10}" for row in range(count)]
    )
    return gallery


def walk(scan: ReferenceScan, gallery: Gallery) -> int:
    steps = 0
    while scan.step(gallery):
        steps += 1
    return steps


def test_all_references_are_looked_at_in_parts(monkeypatch) -> None:
    monkeypatch.setattr(module, "PART", 64)
    gallery, scan = make_gallery(), ReferenceScan()
    vectors = gallery.snapshot.vectors(np.arange(len(gallery)))
    gallery.enrol(vectors[30:31], ["c17"])  # a copy under another class: a near-duplicate, and a wrong label
    assert walk(scan, gallery) == 1 + 4  # the baseline, and four parts
    assert scan.looked == 201 and scan.idle_revision == gallery.revision
    assert [(pair.low.id, pair.high.id) for pair in scan.pairs()] == [(30, 200)]
    assert [(doubt.reference.id, doubt.suggested) for doubt in scan.doubts()] == [(200, "c3")]
    assert scan.baseline is not None and len(scan.baseline.foreign) == 20
    assert walk(scan, gallery) == 0, "nothing changed"


def test_new_references_are_looked_at_and_the_others_again_after_some_time() -> None:
    now = 0.0
    gallery, scan = make_gallery(40), ReferenceScan(lambda: now)
    walk(scan, gallery)
    gallery.enrol(np.random.default_rng(9).normal(size=(1, 32)), ["new"])
    assert walk(scan, gallery) == 1 and scan.looked == 41 and scan.idle_revision == gallery.revision
    gallery.rename("c1", "c one")
    gallery.merge(["c2"], "c3")
    assert walk(scan, gallery) == 0
    now = AGAIN_S + 1
    assert walk(scan, gallery) >= 2 and scan.looked == 41 and scan.idle_revision == gallery.revision
    assert walk(scan, gallery) == 0


def test_what_is_kept_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(module, "MOST_KEPT", 10)
    monkeypatch.setattr(module, "PART", 16)
    gallery, scan = Gallery(8), ReferenceScan()
    gallery.enrol(np.ones((100, 8)), [f"c{row % 2}" for row in range(100)])
    walk(scan, gallery)
    assert len(scan._pairs) <= 20 + 16 and len(scan._doubts) <= 20 + 16


def test_an_empty_gallery_is_complete_at_once() -> None:
    scan, gallery = ReferenceScan(), Gallery(3)
    assert (
        not scan.step(gallery) and scan.idle_revision == gallery.revision and scan.pairs() == [] and scan.doubts() == []
    )
