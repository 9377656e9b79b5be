"""Ignored regions: masks, boxes, both, and what cannot be meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unalike.data.ignored import find_ignored
from unalike.errors import DataError


def test_masks_and_boxes(tmp_path: Path) -> None:
    assert find_ignored((20, 30), None, None) is None and find_ignored((20, 30), None, []) is None
    mask = np.zeros((20, 30), np.uint8)
    mask[:5, :5] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    ignored = find_ignored((20, 30), tmp_path / "mask.png", [(10, 10, 30, 20)])
    assert ignored is not None and ignored.sum() == 25 + 200 and ignored[0, 0] and ignored[19, 29]
    with pytest.raises(DataError, match="mask.png is 20 x 30"):
        find_ignored((21, 30), tmp_path / "mask.png", None)
    for box in ((0, 0, 31, 20), (5, 5, 5, 9), (9, 0, 5, 9)):
        with pytest.raises(DataError, match="ignored box"):
            find_ignored((20, 30), None, [box])
