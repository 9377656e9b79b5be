"""The range of a further sample."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unalike.metrics.intervals import UNKNOWN, mean_interval
from unalike.metrics.prediction import prediction_interval


def test_a_further_sample_of_the_same_rate_lies_in_it_as_often_as_it_says() -> None:
    """400 trials and 100 further ones of one rate: both scatter."""
    rng = np.random.default_rng(3)
    for rate, lowest in ((0.5, 0.93), (0.9, 0.93)):
        covered = 0
        for _ in range(600):
            interval = mean_interval((rng.random(400) < rate).astype(float))
            further = rng.binomial(100, rate) / 100
            covered += prediction_interval(interval, 100).low <= further <= prediction_interval(interval, 100).high
        assert lowest < covered / 600 < 0.985


def test_a_larger_sample_has_a_narrower_range_and_a_huge_one_that_of_the_mean() -> None:
    interval = mean_interval(np.repeat([1.0, 0.0], [80, 20]))
    ranges = [prediction_interval(interval, count) for count in (10, 100, 10**9)]
    widths = [one.high - one.low for one in ranges]
    assert widths == sorted(widths, reverse=True)
    assert ranges[-1].low == pytest.approx(interval.low, abs=1e-4)
    assert ranges[-1].high == pytest.approx(interval.high, abs=1e-4)
    assert all(one.value == interval.value for one in ranges)


def test_it_stays_within_what_a_share_can_be() -> None:
    assert prediction_interval(mean_interval(np.ones(30)), 5).high == 1.0
    assert prediction_interval(mean_interval(np.zeros(30)), 5).low == 0.0
    assert math.isnan(prediction_interval(UNKNOWN, 100).low)


def test_with_less_confidence_it_is_narrower() -> None:
    hits = np.repeat([1.0, 0.0], [80, 20])
    wide, narrow = (prediction_interval(mean_interval(hits, confidence=c), 100, c) for c in (0.95, 0.8))
    assert wide.low < narrow.low < 0.8 < narrow.high < wide.high
