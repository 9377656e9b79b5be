"""Comparison results: images of them, plain data, and levels that were not compared."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.support.drawings import shapes
from unalike.comparison.comparer import Comparer
from unalike.errors import SpecError

pytest.importorskip("cv2")


def test_images_and_plain_data() -> None:
    reference = shapes(3)
    image = reference.copy()
    image[100:120, 150:180] = (255, 0, 255)
    result = Comparer().compare(reference, image)
    assert result.level == "pixels" and not result.same
    values = json.loads(json.dumps(result.to_dict()))
    assert list(values) == ["same", "answer", "reasons", "regions", "registration", "height", "width", "level", "threshold", "features",
                            "compared", "coverage_reference", "coverage_image", "uncovered_reference",
                            "uncovered_image", "seconds", "notes", "preset", "tolerance", "contrast", "min_area", "edge_displacement",
                            "noise", "compared_as", "tolerated_displacement",
                            "smallest_area", "not_looked_for"]  # fmt: skip
    assert list(values["regions"][0]) == ["box", "extent", "score", "area", "contrast", "change", "level"]
    for drawn in (result.picture(), result.overlay(), result.reference(), result.heat_map(), result.heat_map("pixels")):
        assert drawn.size == (320, 240)
    assert np.abs(np.asarray(result.reference(), int) - reference).mean() < 2
    with pytest.raises(SpecError, match="level='both'"):
        result.heat_map("features")
