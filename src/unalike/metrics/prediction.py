"""What a sample yet to come is expected to show: a confidence interval widened by the chance of the sample."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist

from unalike.metrics.intervals import Interval


def prediction_interval(interval: Interval, count: int, confidence: float = 0.95) -> Interval:
    """Compute the range of the mean of a further sample.

    A confidence interval tells of the mean over all images; a sample of them scatters around it. Each bound moves away from
    the value: its distance and the score error of a share at the bound, of so many trials, are added as squares.

    Args:
        interval: interval of a mean of values in 0..1.
        count: number of images in the further sample, each drawn independently of the others.
        confidence: that of the interval, and of the range; 0..1, exclusive.

    Returns:
        The range, around the same value; coverage by simulation in docs/experiments/metrics.md
        (benchmarks/interval_coverage.py, part ``prediction``).
    """
    quantile = NormalDist().inv_cdf(0.5 + confidence / 2)

    def distance(bound: float) -> float:
        # Wilson's error, which is not 0 at a share of 0 or 1.
        error = math.sqrt(max(0.0, bound * (1 - bound)) / count + (quantile / (2 * count)) ** 2)
        return math.hypot(bound - interval.value, quantile * error)

    if math.isnan(interval.low) or math.isnan(interval.high):
        return interval
    return replace(
        interval,
        low=max(0.0, interval.value - distance(interval.low)),
        high=min(1.0, interval.value + distance(interval.high)),
    )
