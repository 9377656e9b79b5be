"""Folds and parts of normal images; reading and sampling are tested through test_inspector.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unalike.errors import DataError, UnalikeError
from unalike.inspection.normal_images import assign_folds, part_labels

RNG = np.random.default_rng(7)


def test_images_of_one_part_are_in_one_fold():
    parts = [int(n) for n in RNG.integers(0, 17, 90)]
    folds = assign_folds(parts, 4, 3)
    assert all(len({f for f, part in zip(folds, parts, strict=True) if part == one}) == 1 for one in set(parts))
    sizes = np.bincount(folds, minlength=4)
    assert len(sizes) == 4 and sizes.max() - sizes.min() <= max(parts.count(one) for one in set(parts))
    assert sorted(np.bincount(assign_folds(range(11), 4, 3)).tolist()) == [2, 3, 3, 3]
    assert sorted(np.bincount(assign_folds("aaabbbb", 4, 0)).tolist()) == [3, 4]
    assert not np.array_equal(assign_folds(range(50), 4, 0), assign_folds(range(50), 4, 1))


def test_parts_come_from_a_list_or_from_the_paths():
    paths = ["x/part_07_1.png", "x/part_07_2.png", Path("x/part_8_1.png")]
    assert part_labels(paths, r"part_(\d+)") == [("07",), ("07",), ("8",)]
    assert part_labels(paths, r"part_\d+") == ["part_07", "part_07", "part_8"]
    assert part_labels(paths, None) == [0, 1, 2]
    assert part_labels(paths, ["a", "a", "b"]) == ["a", "a", "b"]
    for wrong, message in (
        ("part_(", "regular expression"),
        ("part_0", "1 of 3 images do not match 'part_0', such as x/part_8_1.png"),
        (["a", "b"], "parts of 2 images"),
        (["a", "a", "a"], "one part"),
    ):
        with pytest.raises(UnalikeError, match=message):
            part_labels(paths, wrong)
    with pytest.raises(DataError, match="without a name"):
        part_labels([np.zeros((4, 4), np.uint8)] * 2, "a")
