"""Names of files that are made of a user's names fit into a file system."""

from __future__ import annotations

import os

import pytest

from unalike.runs.filenames import MAX_STEM_BYTES, bounded_stem


@pytest.mark.parametrize("letter", ["a", "ü", "\udce4", "😀"])
def test_a_long_stem_is_cut_and_stays_unique(tmp_path, letter):
    long = letter * (250 // len(os.fsencode(letter)))
    stems = {bounded_stem(long), bounded_stem(long[:-1]), bounded_stem(long[:-1] + "b")}
    assert len(stems) == 3
    for stem in stems:
        assert len(os.fsencode(stem)) <= MAX_STEM_BYTES
        (tmp_path / f"00000_{stem}_heat_features.jpg").touch()
    assert bounded_stem(letter * 20) == letter * 20
