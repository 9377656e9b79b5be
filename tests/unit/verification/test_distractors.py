"""Distractors are determined by seed and number, and differ from each other."""

from __future__ import annotations

import numpy as np
from PIL import Image

from unalike.verification.distractors import draw_distractor


def test_distractors_differ_from_each_other() -> None:
    drawn = [draw_distractor(0, number) for number in range(4)]
    assert np.array_equal(drawn[0].layer_HW4, draw_distractor(0, 0).layer_HW4)
    small = [np.asarray(Image.fromarray(one.composite()).resize((16, 16)), float).ravel() for one in drawn]
    assert all(np.abs(small[i] - small[j]).mean() > 5 for i in range(4) for j in range(i))
