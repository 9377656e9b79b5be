"""The threshold from normal images: its rate, its interval, what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unalike.errors import DataError
from unalike.metrics.false_alarm import AnomalyThreshold, choose_threshold, fit_threshold, images_needed

RNG = np.random.default_rng(7)


def test_images_of_the_same_parts_widen_the_interval_and_move_nothing_else():
    scores = RNG.normal(size=199)
    alone, shared = fit_threshold(scores, 0.05), fit_threshold(scores, 0.05, parts=40)
    assert (alone.threshold, alone.expected_rate) == (shared.threshold, shared.expected_rate)
    assert shared.low < alone.low and alone.high < shared.high and "199 good images of 40 parts" in str(shared)
    assert fit_threshold(scores, 0.05, parts=199).high == pytest.approx(alone.high) and "parts" not in str(alone)
    assert AnomalyThreshold.from_dict(shared.to_dict()).parts == 40


def test_the_target_rate_is_kept_on_average_and_inside_its_interval():
    rng, true_rates, inside = np.random.default_rng(1), [], 0
    for _ in range(1000):
        threshold = fit_threshold(rng.random(120), 0.05)
        true_rates.append(1 - threshold.threshold)  # of uniform scores the true_rates rate is known
        inside += threshold.low <= true_rates[-1] <= threshold.high
    assert threshold.expected_rate == pytest.approx(6 / 121)
    assert np.mean(true_rates) == pytest.approx(threshold.expected_rate, abs=0.002)
    assert 0.935 <= inside / 1000 <= 0.965


def test_a_rate_that_the_data_cannot_support_is_refused():
    assert images_needed(0.01) == 99 and images_needed(0.5) == 1
    scores = np.arange(98.0)
    with pytest.raises(
        DataError, match="98 good images cannot support 1 % false alarms.*at least 99 images, or 1.01 % or more"
    ):
        fit_threshold(scores, 0.01)
    assert fit_threshold(np.arange(99.0), 0.01).threshold == 98.0
    with pytest.raises(DataError, match="between 0 and 1"):
        fit_threshold(scores, 1.5)


def test_defects_measure_what_is_detected_and_change_nothing_else():
    good = np.arange(99.0)
    plain, measured = fit_threshold(good, 0.1), fit_threshold(good, 0.1, defects_M=np.array([1.0, 95.0, 200.0, 90.0]))
    assert (
        plain.threshold == measured.threshold == 89.0
        and measured.defects_detected == 0.75
        and math.isnan(plain.defects_detected)
    )
    assert AnomalyThreshold.from_dict(measured.to_dict()) == measured and plain.to_dict()["found"] is None
    assert "75.0% of 4" in str(measured)


def scores_with_one_odd_image(rng: np.random.Generator, count: int = 31) -> np.ndarray:
    scores = rng.normal(1, 0.05, count).clip(0.5)
    scores[7] = 1.83
    return scores


def test_one_odd_image_does_not_set_the_threshold_and_both_images_are_named():
    names = [f"{number:02}.png" for number in range(31)]
    scores = scores_with_one_odd_image(np.random.default_rng(3))
    threshold = fit_threshold(scores, 0.05, names=names, defects_M=np.full(40, 1.5))
    assert threshold.outliers == ("07.png",) and threshold.defects_detected == 1.0
    assert threshold.threshold == np.sort(scores)[-2] and threshold.set_by == names[int(np.argsort(scores)[-2])]
    assert threshold.outlier_rate == pytest.approx(2 / 32) and threshold.expected_rate == pytest.approx(1 / 31)
    assert "07.png: look at it (if good after all, expect 6.25%)" in str(threshold)
    assert AnomalyThreshold.from_dict(threshold.to_dict()) == threshold
    assert fit_threshold(scores, 0.05).outliers == ("image 7",)


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("scale", [0.05, 0.1])
def test_the_stated_rate_holds_with_and_without_an_odd_image(scale, odd):
    rng, true_rates, inside = np.random.default_rng(5), [], 0
    population = np.sort(rng.lognormal(0, scale, 100_000))
    for _ in range(500):
        scores = rng.lognormal(0, scale, 31)
        if odd:
            scores[0] = scores.max() * rng.uniform(1.7, 3)
        threshold = fit_threshold(scores, 0.05)
        true_rates.append(1 - np.searchsorted(population, threshold.threshold, "right") / len(population))
        inside += threshold.low <= true_rates[-1] <= threshold.high
    assert 0.02 < np.mean(true_rates) < 0.05 and inside / 500 >= 0.93


@pytest.mark.parametrize("copies", [1, 2, 8])
@pytest.mark.parametrize("score", [0.0, 1e-3])
def test_copies_among_the_images_do_not_hide_an_odd_one(copies, score):
    scores = scores_with_one_odd_image(np.random.default_rng(3))
    scores[10 : 10 + copies] = score  # an image whose copy is in the memory bank
    assert fit_threshold(scores, 0.05).outliers == ("image 7",)


def test_few_images_wide_scores_and_several_at_the_top_leave_nothing_out():
    rng = np.random.default_rng(2)
    assert not any(fit_threshold(rng.gamma(4, 0.25, 40), 0.1).outliers for _ in range(300))
    assert not fit_threshold(np.array([*rng.normal(1, 0.05, 13), 2.0]), 0.2).outliers
    assert not fit_threshold(
        np.array([*rng.normal(1, 0.05, 29), 1.8, 1.9]), 0.1
    ).outliers  # two of 31: a kind of its own
    # The others alone would not support the rate.
    assert not fit_threshold(np.array([*rng.normal(1, 0.01, 18), 2.0]), 0.05).outliers


def test_a_chosen_threshold_has_the_share_of_normal_images_above_it_and_its_interval():
    scores = np.arange(1.0, 101.0)
    chosen = choose_threshold(95.5, scores)
    assert (chosen.threshold, chosen.images, chosen.expected_rate) == (95.5, 100, 0.05)
    # Clopper and Pearson of 5 in 100, as in their paper's tables.
    assert chosen.low == pytest.approx(0.0164, abs=2e-4) and chosen.high == pytest.approx(0.1128, abs=2e-4)
    above, below = choose_threshold(200, scores), choose_threshold(0.5, scores)
    assert (above.expected_rate, above.low) == (0.0, 0.0) and 0.02 < above.high < 0.05
    assert (below.expected_rate, below.high) == (1.0, 1.0)
    alone = choose_threshold(3)
    assert alone.images == 0 and math.isnan(alone.expected_rate) and (alone.low, alone.high) == (0.0, 1.0)
    with pytest.raises(DataError, match="not a number"):
        choose_threshold(math.nan, scores)
