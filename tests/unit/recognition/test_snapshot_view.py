"""A state of a gallery in memory or in its file; ``backends.conformance`` holds the laws that it keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unalike.errors import UnalikeError
from unalike.recognition.gallery import Gallery
from unalike.recognition.ranking import rank_classes
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


@pytest.mark.parametrize("rule", ["nearest", "vote", "prototype"])
@pytest.mark.parametrize("count", [3, 60])
def test_vectors_of_any_length_rank_alike_and_as_the_parts_do(rule: str, count: int) -> None:
    """A view normalizes queries once; what it ranks is bit for bit what a search and a ranking by themselves give."""
    rng = np.random.default_rng(count)
    gallery = Gallery(5)
    gallery.enrol(
        rng.normal(size=(count, 5)), [f"c{row % 7}" for row in range(count)], [str(row) for row in range(count)]
    )
    view, queries = gallery.view(), rng.normal(size=(4, 5)).astype(np.float32) * np.float32([[1e-20], [1], [3], [1e15]])
    before = queries.copy()
    ranking = view.rank(queries, rule, k=2)
    depth = 2 if rule == "prototype" else 10 if rule == "vote" else 32
    neighbors = view.snapshot().search(queries, depth)
    expected = rank_classes(view.snapshot(), queries, rule, neighbors=neighbors)
    assert np.array_equal(ranking.score_Q, expected.score_Q) and np.array_equal(ranking.margin_Q, expected.margin_Q)
    assert ranking.label_Q == tuple(view.snapshot().classes[code] for code in expected.code_Q)
    assert np.array_equal(ranking.nearest.scores_QK, neighbors[0][:, :2])
    assert np.array_equal(ranking.nearest.ids_QK, neighbors[1][:, :2])
    assert np.array_equal(queries, before) and queries.flags.writeable
    queries[1, 2] = np.nan
    with pytest.raises(UnalikeError, match="1 of 4 query vectors hold NaN or infinity, the first is number 1"):
        view.rank(queries, rule)


def test_a_view_is_free_and_the_snapshot_its_own() -> None:
    gallery = Gallery(2)
    assert gallery.view() is gallery.view() and gallery.view().snapshot() is gallery.snapshot
