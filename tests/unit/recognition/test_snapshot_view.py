"""A state of a gallery in memory or in its file; ``backends.conformance`` holds the laws that it keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unalike.recognition.gallery import Gallery
from unalike.recognition.snapshot import SEARCHED_NAMES


def test_names_are_found_in_the_file_and_behind_it(tmp_path: Path) -> None:
    """Few names are searched in the bytes of all, many are looked up; both find the same, also after a removal."""
    gallery = Gallery(2)
    names = ["ab", "b", "", "abab", "b", "Gru\u0308n", "Gr\u00fcn"]
    gallery.enrol(np.ones((7, 2)), ["a"] * 7, names)
    gallery.save(tmp_path / "a.gallery")
    gallery = Gallery.load(tmp_path / "a.gallery")
    gallery.remove(ids=[1])
    gallery.enrol(np.ones((3, 2)), ["a"] * 3, ["b", "ab", "x"])
    expected = {"b": [4, 7], "ab": [0, 8], "abab": [3], "": [2], "Gr\u00fcn": [5, 6], "x": [9], "ba": []}
    assert {name: gallery.ids_of_name(name) for name in expected} == expected
    snapshot = gallery.snapshot
    many = snapshot.names.rows_of(expected, len(snapshot))
    assert len(expected) > SEARCHED_NAMES
    assert {name: snapshot.ids_N[rows].tolist() for name, rows in many.items()} == expected


def test_a_view_is_free_and_the_snapshot_its_own() -> None:
    gallery = Gallery(2)
    assert gallery.view() is gallery.view() and gallery.view().snapshot() is gallery.snapshot
