"""The page of compared pairs: counts, escaped names, the most different pairs first."""

from __future__ import annotations

import re

import pytest

from tests.support.drawings import as_jpeg, shapes
from unalike.comparison.comparer import Comparer
from unalike.comparison.report import PairPreview, make_pairs_report

pytest.importorskip("cv2")


def test_the_page_of_pairs() -> None:
    reference = shapes(3)
    small, large = reference.copy(), reference.copy()
    small[100:108, 150:158] = (255, 0, 255)
    large[100:140, 150:190] = (255, 0, 255)
    entries, previews = [], []
    for name, image in (("pair 1", small), ("<pair 2>", large), ("pair 3", as_jpeg(reference))):
        result = Comparer().compare(reference, image)
        entries.append({"name": name, **result.to_dict()})
        previews.append(PairPreview.from_result(name, result, {"boxes": result.picture()}))
    entries.append({"name": "broken", "error": "not an image"})
    html = make_pairs_report(entries, previews).html()
    assert "Of 4 pairs, 2 show a difference, 1 does not and 1 could not be compared at all." in html
    assert html.count("✗ different") == 2 and html.count("✓ same") == 1
    assert "<pair 2>" not in html and html.index("&lt;pair 2&gt;") < html.index("pair 1") < html.index("pair 3")
    assert re.search(r"1 difference, scores [0-9.]+", html) and "no difference" in html
    assert "not an image" in html and html.count("data:image/jpeg") == 3
