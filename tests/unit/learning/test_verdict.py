"""The verdict: worse is refused whatever the number, equal needs images, better passes; how many are missing is what suffices."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.learning.paired_result import PairedResult
from unalike.learning.verdict import MARGIN, PROMOTE, TOO_FEW, WORSE, images_needed, judge
from unalike.metrics.intervals import difference_interval


def result(images: int, gains: int = 0, losses: int = 0) -> PairedResult:
    before_Q, after_Q = np.ones(images, bool), np.ones(images, bool)
    before_Q[:gains] = False
    after_Q[gains : gains + losses] = False
    return PairedResult(before_Q, after_Q, (), 10, 3)


def test_a_worse_candidate_is_refused() -> None:
    for images, losses in ((3, 1), (2000, 1), (2000, 400)):
        verdict = judge(result(images, losses=losses))
        assert verdict.decision == WORSE and not verdict.allows and verdict.missing == 0 and "worse" in verdict.reason


def test_an_equal_candidate_needs_enough_images() -> None:
    needed = images_needed(0.0, 0.0)
    assert 100 < needed < 1000
    assert judge(result(needed)).decision == PROMOTE
    few = judge(result(needed - 40))
    assert few.decision == TOO_FEW and few.missing == 40 and "40 more are missing, corrected answers" in few.reason
    assert "points" not in few.reason
    assert judge(result(0)).missing == needed


def test_a_better_candidate_needs_fewer() -> None:
    verdict = judge(result(40, gains=20))
    assert verdict.allows and verdict.decision == PROMOTE and "+50.0 points" in verdict.reason


def test_the_lower_bound_decides_not_the_difference() -> None:
    mixed = judge(result(60, gains=16, losses=15))
    assert mixed.decision == TOO_FEW and mixed.missing > 1000


@pytest.mark.parametrize(("gain", "loss"), [(0.0, 0.0), (0.05, 0.02), (0.1, 0.1), (0.3, 0.0)])
def test_so_many_images_suffice_and_one_less_does_not(gain: float, loss: float) -> None:
    needed = images_needed(gain, loss)

    def low(images: int) -> float:
        losses = round(loss * images)
        gains = max(losses, round(gain * images))
        before_Q, after_Q = np.zeros(images), np.zeros(images)
        before_Q[:losses] = 1
        after_Q[losses : losses + gains] = 1
        return difference_interval(before_Q, after_Q).low

    assert low(needed) >= -MARGIN > low(needed - 1)
