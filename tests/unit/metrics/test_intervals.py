import math

import numpy as np
import pytest

from unalike.errors import UnalikeError
from unalike.metrics import intervals
from unalike.metrics.intervals import bootstrap, bootstrap_metrics, paired_bootstrap, wilson_interval


def test_equals_a_plain_loop_of_resamples():
    values = np.random.default_rng(0).random(25)
    interval = bootstrap(values, n=400, seed=3)
    rng = np.random.default_rng(3)
    means = [values[drawn].mean() for drawn in rng.integers(0, 25, (400, 25))]
    assert interval.value == pytest.approx(values.mean())
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


def test_groups_equal_a_plain_loop_of_whole_groups():
    rng = np.random.default_rng(1)
    values, groups = rng.random(40), np.array(list("abcdef"))[rng.integers(0, 6, 40)]
    micro, macro = bootstrap_metrics(values[:, None], groups, by_group=True, n=300, seed=5)
    names = np.unique(groups)
    micros, macros = [], []
    for drawn in np.random.default_rng(5).integers(0, len(names), (300, len(names))):
        picked = [values[groups == names[g]] for g in drawn]
        micros.append(np.concatenate(picked).mean())
        macros.append(np.mean([part.mean() for part in picked]))
    assert (micro[0].low, micro[0].high) == pytest.approx(tuple(np.quantile(micros, [0.025, 0.975])))
    assert (macro[0].low, macro[0].high) == pytest.approx(tuple(np.quantile(macros, [0.025, 0.975])))


def test_macro_over_resampled_queries_equals_a_loop():
    rng = np.random.default_rng(1)
    values, groups = rng.random(20), np.sort(rng.integers(0, 4, 20))
    _, macro = bootstrap_metrics(values[:, None], groups, n=200, seed=2)
    means = []
    for drawn in np.random.default_rng(2).integers(0, 20, (200, 20)):
        means.append(np.mean([values[drawn][groups[drawn] == g].mean() for g in np.unique(groups[drawn])]))
    assert (macro[0].low, macro[0].high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


def test_95_percent_intervals_hold_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(0)
    inside = 0
    for trial in range(300):
        interval = bootstrap((rng.random(120) < 0.7).astype(float), n=400, seed=trial)
        inside += interval.low <= 0.7 <= interval.high
    assert 0.90 <= inside / 300 <= 0.985


def test_whole_classes_give_wider_intervals_when_queries_of_a_class_agree():
    groups = np.repeat(np.arange(30), 20)
    values = (np.random.default_rng(0).random(30) < 0.5)[groups].astype(float)
    by_query, by_class = bootstrap(values), bootstrap(values, groups)
    assert by_class.high - by_class.low > 3 * (by_query.high - by_query.low)
    assert by_class.value == by_query.value


def test_paired_difference_is_sharper_than_two_intervals():
    hard = np.random.default_rng(0).random(400)
    before, after = hard, hard + 0.03 + np.random.default_rng(1).normal(0, 0.01, 400)
    difference = paired_bootstrap(before, after)
    assert difference.excludes_zero and difference.value == pytest.approx(0.03, abs=0.003)
    assert bootstrap(before).high > bootstrap(after).low
    assert not paired_bootstrap(before, before).excludes_zero
    with pytest.raises(UnalikeError, match="3 and 4"):
        paired_bootstrap(np.ones(3), np.ones(4))


def test_nan_is_left_out_and_too_little_has_no_interval():
    assert bootstrap(np.array([1.0, np.nan, 0.0, np.nan])).value == 0.5
    assert math.isnan(bootstrap(np.array([np.nan])).value)
    assert math.isnan(bootstrap(np.array([0.3])).low)
    assert bootstrap(np.array([0.3])).to_dict() == {"value": 0.3, "low": None, "high": None}
    assert math.isnan(bootstrap(np.array([0.3, 0.4]), groups=[1, 1]).low)


def test_seed_decides_and_chunks_do_not(monkeypatch):
    values = np.random.default_rng(0).random(50)
    interval = bootstrap(values, seed=1)
    monkeypatch.setattr(intervals, "WEIGHTS_AT_ONCE", 120)
    assert bootstrap(values, seed=1).low == pytest.approx(interval.low, abs=1e-12)
    assert bootstrap(values, seed=2) != interval


def test_wilson():
    # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I: 81 of 263.
    assert (wilson_interval(81, 263).low, wilson_interval(81, 263).high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20).low == 0 and wilson_interval(0, 20).high == pytest.approx(0.1611, abs=5e-5)
    assert wilson_interval(20, 20).high == 1
    assert math.isnan(wilson_interval(0, 0).value)
    with pytest.raises(UnalikeError):
        wilson_interval(3, 2)
