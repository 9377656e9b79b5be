"""Sets of regions in a picture of another size."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.serving import store_in
from unalike.serve.problems import Problem
from unalike.serve.region_sets import KIND, find_set, scale_boxes


def test_boxes_are_scaled_by_side_and_cover_what_they_covered() -> None:
    content = {"frame": [100, 200], "boxes": [[10, 10, 21, 31], [0, 0, 200, 100]]}
    assert scale_boxes(content, (100, 200)) == [(10, 10, 21, 31), (0, 0, 200, 100)]
    assert scale_boxes(content, (50, 100)) == [(5, 5, 11, 16), (0, 0, 100, 50)]
    assert scale_boxes(content, (300, 200)) == [(10, 30, 21, 93), (0, 0, 200, 300)]


def test_a_set_is_found_by_its_name_or_a_like_one_is_offered(tmp_path: Path) -> None:
    with store_in(tmp_path) as store:
        store.settings.set(KIND, "clock", {"frame": [1, 1], "boxes": []}, "ann")
        assert find_set(store, "clock") == {"frame": [1, 1], "boxes": []}
        with pytest.raises(Problem) as problem:
            find_set(store, "clok")
        assert problem.value.status == 404 and "clock" in problem.value.remedy
