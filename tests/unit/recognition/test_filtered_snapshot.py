"""Vectors that pass a filter: those of a file, of a file with removals, and of memory are read by their rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unalike.recognition.filtered_snapshot import FilteredSnapshot
from unalike.recognition.gallery import Gallery
from unalike.recognition.ranking import rank_classes


@pytest.mark.parametrize("half", [False, True])
def test_it_reads_and_ranks_the_vectors_of_its_rows(tmp_path: Path, half: bool) -> None:
    rng = np.random.default_rng(0)
    gallery = Gallery(6, half=half)
    gallery.enrol(rng.normal(size=(50, 6)), [f"c{row % 5}" for row in range(50)])
    gallery.save(tmp_path / "a.gallery")
    gallery = Gallery.load(tmp_path / "a.gallery")
    for change in (
        lambda: None,
        lambda: gallery.enrol(rng.normal(size=(9, 6)), ["c1"] * 9),
        lambda: gallery.remove(ids=[3, 20, 55]),
    ):
        change()
        whole, all_ND = gallery.snapshot, gallery.vectors_ND
        for rows in (np.arange(len(whole)), np.arange(1, len(whole), 3), np.arange(0), np.array([len(whole) - 1])):
            part = FilteredSnapshot.of(whole, rows)
            assert (len(part), part.half) == (len(rows), half)
            np.testing.assert_array_equal(part.reader()(0, len(rows)), all_ND[rows])
            np.testing.assert_array_equal(part.vectors(np.arange(len(rows))[::-1]), all_ND[rows][::-1])
            assert part.rows_of(np.array([[-1]])).tolist() == [[-1]]
            if not len(rows):
                continue
            alone = Gallery(6, half=half)
            alone.enrol(all_ND[rows], np.array(gallery.labels)[rows].tolist())
            queries = rng.normal(size=(4, 6)).astype(np.float32)
            for rule in ("nearest", "prototype", "vote"):
                ranking, reference = rank_classes(part, queries, rule), rank_classes(alone.snapshot, queries, rule)
                assert part.labels_of(ranking.code_Q) == alone.snapshot.labels_of(reference.code_Q)
                np.testing.assert_allclose(ranking.score_Q, reference.score_Q, atol=2e-3 if half else 1e-6)
            assert part.rows_of(ranking.indices_QK)[0, 0] == rows[ranking.indices_QK[0, 0]]
