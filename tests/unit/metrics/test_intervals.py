import math

import numpy as np
import pytest

from unalike.errors import UnalikeError
from unalike.metrics.intervals import (
    MIN_GROUPS,
    TOO_FEW,
    Interval,
    _poisson_bound,
    difference_interval,
    enough_groups,
    mean_interval,
    score_bounds,
    wilson_interval,
)


def draw_hits(rng, groups, size, mean, correlation):
    """Hits of queries whose classes differ: beta-binomial with this correlation within a class."""
    rate_G = np.full(groups, mean)
    if correlation:
        total = 1 / correlation - 1
        rate_G = rng.beta(mean * total, (1 - mean) * total, groups)
    return (rng.random((groups, size)) < rate_G[:, None]).astype(float).ravel(), np.repeat(np.arange(groups), size)


def coverage(draw, interval_of, truth, draws=400):
    """Share of draws whose 95 % interval covers the truth."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(draws):
        interval = interval_of(*draw(rng))
        covered += interval.low <= truth <= interval.high
    return covered / draws


# The lowest acceptable share in 400 draws: 93 % less two standard errors.
LOWEST = 0.905


def two_kinds(rng, size_G):
    """Hits where half of the classes are easy (0.98) and half hard (0.5), and the rate of each class."""
    rate_G = np.where(rng.random(len(size_G)) < 0.5, 0.5, 0.98)
    group_Q = np.repeat(np.arange(len(size_G)), size_G)
    return (rng.random(len(group_Q)) < rate_G[group_Q]).astype(float), group_Q, rate_G


@pytest.mark.parametrize("size_G", [[30] * 10, [60] * 10, [5, 10, 20, 35] * 5, [4] * 40])
def test_shares_are_covered_where_classes_are_of_two_kinds(size_G):
    size_G = np.array(size_G)
    assert coverage(lambda rng: two_kinds(rng, size_G)[:2], mean_interval, 0.74) >= LOWEST


@pytest.mark.parametrize(("groups", "size", "mean"), [(10, 30, 0.5), (10, 30, 0.8), (20, 15, 0.9), (81, 4, 0.95)])
def test_intervals_over_classes_are_narrow_where_classes_are_alike(groups, size, mean):
    rng, ours, oracle, covered = np.random.default_rng(0), 0.0, 0.0, 0
    for _ in range(300):
        hits, classes = draw_hits(rng, groups, size, mean, 0)
        interval, wilson = mean_interval(hits, classes), wilson_interval(int(hits.sum()), len(hits))
        ours, oracle = ours + interval.high - interval.low, oracle + wilson.high - wilson.low
        covered += interval.low <= mean <= interval.high
    assert ours <= 1.3 * oracle and 0.925 <= covered / 300 <= 0.99


@pytest.mark.parametrize("size_G", [[5, 5], [10, 40], [4, 9, 30], [20] * 5, [2] * 30, [1] * 40])
def test_these_classes_are_covered_by_narrow_intervals(size_G):
    """The truth is the mean rate of the very classes; it is narrower than that of equal classes where they differ."""
    size_G, rng = np.array(size_G), np.random.default_rng(0)
    covered = ours = oracle = 0.0
    for _ in range(400):
        hits, classes, rate_G = two_kinds(rng, size_G)
        truth = float(size_G @ rate_G) / size_G.sum()
        interval = mean_interval(hits, strata_Q=classes)
        covered += interval.low <= truth <= interval.high
        ours += interval.high - interval.low
        trials = truth * (1 - truth) * size_G.sum() ** 2 / float(size_G @ (rate_G * (1 - rate_G)))
        oracle += float(np.diff(score_bounds(float(hits.mean()), trials, 1.96))[0])
    assert covered / 400 >= LOWEST
    assert ours <= (1.3 if max(size_G) > 1 else 1.6) * oracle  # one image a class does not tell how it varies


@pytest.mark.parametrize("mean", [0.5, 0.8, 0.9, 0.98])
@pytest.mark.parametrize("correlation", [0, 0.2, 0.5, 0.8])
@pytest.mark.parametrize(("groups", "size"), [(2, 5), (5, 4), (10, 30), (18, 5), (40, 60), (81, 4)])
def test_shares_of_grouped_queries_are_covered(groups, size, mean, correlation):
    assert coverage(lambda rng: draw_hits(rng, groups, size, mean, correlation), mean_interval, mean) >= LOWEST


@pytest.mark.parametrize(
    ("queries", "mean"), [(10, 0.8), (10, 0.95), (20, 0.95), (50, 0.98), (100, 0.99), (300, 0.97), (1000, 0.9)]
)
def test_shares_of_independent_queries_are_covered_by_intervals_of_sensible_width(queries, mean):
    assert coverage(lambda rng: draw_hits(rng, queries, 1, mean, 0)[:1], mean_interval, mean) >= LOWEST
    hits = np.arange(queries) < round(mean * queries)
    ours, wilson = mean_interval(hits), wilson_interval(int(hits.sum()), queries)
    assert ours.high - ours.low <= 1.3 * (wilson.high - wilson.low)


@pytest.mark.parametrize(("groups", "size"), [(12, 4), (40, 8), (300, 3)])
def test_means_of_a_metric_are_covered_by_intervals_of_sensible_width(groups, size):
    def draw(rng):
        values, classes = rng.beta(4, 1, groups)[:, None] + rng.normal(0, 0.05, (groups, size)), np.arange(groups)
        return np.clip(values, 0, 1).ravel(), np.repeat(classes, size)

    rng = np.random.default_rng(1)
    truth = float(np.mean([draw(rng)[0].mean() for _ in range(3000)]))
    assert coverage(draw, mean_interval, truth) >= LOWEST
    assert coverage(draw, lambda v, g: mean_interval(v, g, averaged_over_Q=g), truth) >= LOWEST
    widths, means = [], []
    for _ in range(200):
        interval = mean_interval(*draw(rng))
        widths.append(interval.high - interval.low)
        means.append(interval.value)
    assert np.mean(widths) <= 1.3 * 2 * 1.96 * np.std(means)


@pytest.mark.parametrize(("groups", "size"), [(2, 5), (3, 5), (5, 4), (12, 4), (30, 8), (200, 3)])
def test_equal_models_are_called_apart_in_at_most_one_of_twenty(groups, size):
    rng = np.random.default_rng(0)
    apart = 0
    for _ in range(400):
        rate_G = rng.beta(4, 1, groups)[:, None]
        before, after = ((rng.random((groups, size)) < rate_G).astype(float).ravel() for _ in range(2))
        apart += difference_interval(before, after, np.repeat(np.arange(groups), size)).excludes_zero
    assert apart / 400 <= 0.05 + 2 * 0.011


def test_a_clear_difference_is_called_apart():
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(100):
        rate_G = rng.beta(4, 2, 40)[:, None]
        before, after = ((rng.random((40, 5)) < rate).astype(float).ravel() for rate in (rate_G, np.sqrt(rate_G)))
        found += difference_interval(before, after, np.repeat(np.arange(40), 5)).low > 0
    assert found >= 90


def test_classes_give_wider_intervals_when_their_queries_agree():
    groups = np.repeat(np.arange(30), 20)
    values = (np.random.default_rng(0).random(30) < 0.5)[groups].astype(float)
    by_query, by_class = mean_interval(values), mean_interval(values, groups)
    assert by_class.high - by_class.low > 3 * (by_query.high - by_query.low)
    assert by_class.value == by_query.value


def test_all_right_is_no_certainty():
    interval = mean_interval(np.ones(36))
    assert interval.value == interval.high == 1 and interval.low == pytest.approx(0.904, abs=0.01)
    assert mean_interval(np.ones(36), np.repeat(np.arange(6), 6)).low < interval.low
    same = difference_interval(np.ones(20), np.ones(20))
    assert same.low < -0.05 and same.high > 0.05


def test_paired_difference_is_sharper_than_two_intervals():
    hard = np.random.default_rng(0).random(400) * 0.9
    before, after = hard, hard + 0.03 + np.random.default_rng(1).normal(0, 0.01, 400)
    difference = difference_interval(before, np.clip(after, 0, 1))
    assert difference.excludes_zero and difference.value == pytest.approx(0.03, abs=0.003)
    assert mean_interval(before).high > mean_interval(np.clip(after, 0, 1)).low
    assert not difference_interval(before, before).excludes_zero
    with pytest.raises(UnalikeError, match="3 and 4"):
        difference_interval(np.ones(3), np.ones(4))


def test_nan_is_left_out_and_one_group_has_no_interval():
    assert mean_interval(np.array([1.0, np.nan, 0.0, np.nan])).value == 0.5
    assert math.isnan(mean_interval(np.array([np.nan])).value)
    alone = mean_interval(np.array([0.3]))
    assert alone.to_dict() == {"value": 0.3, "low": None, "high": None, "too_few": True}
    assert Interval.from_dict(alone.to_dict()).too_few and Interval.from_dict(alone.to_dict()).few_groups
    assert Interval.from_dict(Interval(0.1, -0.2, 0.3, 2.0).to_dict(), 2.0) == Interval(0.1, -0.2, 0.3, 2.0)
    assert math.isnan(mean_interval(np.array([0.3, 0.4]), [1, 1]).low)
    assert str(alone) == f"0.3000 [{TOO_FEW}]"


def test_two_classes_are_too_few_to_say():
    interval = mean_interval(np.array([1, 1, 1, 0, 1, 1, 1, 1, 1, 0.0]), np.repeat([0, 1], 5))
    assert interval.too_few and interval.low < 0.2 and TOO_FEW in str(interval) and interval.to_dict()["too_few"]
    enough = mean_interval(np.arange(100) < 80)
    assert not enough.too_few and "too_few" not in enough.to_dict() and str(enough).startswith("0.8000 [0.7")


def test_fewer_classes_than_ten_say_too_little_about_classes_like_these():
    hits = (np.random.default_rng(0).random(400) < 0.9).astype(float)
    for groups in (MIN_GROUPS - 1, MIN_GROUPS):
        classes = np.arange(400) % groups
        enough = groups == MIN_GROUPS
        assert enough_groups(classes) == enough
        assert (
            mean_interval(hits, classes).too_few != enough
            and mean_interval(hits, classes, averaged_over_Q=classes).too_few != enough
        )
        assert not mean_interval(hits, strata_Q=classes).too_few
    assert mean_interval(hits, np.minimum(np.arange(400), 20)).too_few  # one class holds nearly all queries
    assert not mean_interval(hits).too_few
    # A difference needs fewer; where it is clear, it is stated.
    assert difference_interval(hits, hits, np.arange(400) % 7).too_few
    assert not difference_interval(hits, hits, np.arange(400) % 8).too_few
    assert not difference_interval(np.zeros(400), np.ones(400), np.arange(400) % 5).too_few


def test_means_of_equal_classes_are_those_of_all_queries():
    rng = np.random.default_rng(0)
    hits, classes = draw_hits(rng, 12, 20, 0.8, 0.1)
    macro, micro = mean_interval(hits, classes, averaged_over_Q=classes), mean_interval(hits, classes)
    assert (macro.value, macro.low, macro.high) == pytest.approx((micro.value, micro.low, micro.high))
    small = np.concatenate([np.ones(90), [0.0, 1, 0, 1]]), np.repeat([0, 1, 2], [90, 2, 2])
    macro = mean_interval(small[0], strata_Q=small[1], averaged_over_Q=small[1])
    assert macro.value == pytest.approx(2 / 3) and macro.low < 0.5 and 0.75 < macro.high < 0.95


def test_a_poisson_bound_is_the_quantile_of_the_gamma_distribution():
    from scipy.stats import gamma

    for events in (0.3, 1, 2.5, 9.95):
        assert _poisson_bound(events, 0.05) == pytest.approx(gamma.ppf(0.05, events), rel=1e-9)
    assert _poisson_bound(0, 0.05) == 0


def test_settings_out_of_range_are_refused():
    for arguments in ((np.ones(4), None, 1.0), (np.ones(4), [1, 2], 0.95), (np.array([0.5, 1.5]), None, 0.95)):
        with pytest.raises(UnalikeError):
            mean_interval(*arguments)


def test_wilson():
    # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I: 81 of 263.
    assert (wilson_interval(81, 263).low, wilson_interval(81, 263).high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20).low == 0 and wilson_interval(0, 20).high == pytest.approx(0.1611, abs=5e-5)
    assert wilson_interval(20, 20).high == 1
    assert math.isnan(wilson_interval(0, 0).value)
    with pytest.raises(UnalikeError):
        wilson_interval(3, 2)


def test_misses_have_the_mirror_image_of_the_interval_of_hits() -> None:
    """Also at exactly one half, where rounding must not decide which outcome is the rarer one."""
    rng = np.random.default_rng(4)
    for number in range(300):
        groups = int(rng.integers(2, 25))
        size_G = rng.integers(1, 6, groups)
        group_Q = np.repeat(np.arange(groups), size_G)
        hit_Q = (rng.random(len(group_Q)) < rng.choice([0.02, 0.3, 0.5, 0.9])).astype(float)
        if number % 3 == 0 and len(hit_Q) % 2 == 0:
            hit_Q = rng.permutation(np.repeat([0.0, 1.0], len(hit_Q) // 2))
        for arguments in (
            {},
            {"groups_Q": group_Q},
            {"strata_Q": group_Q},
            {"groups_Q": group_Q, "averaged_over_Q": group_Q},
        ):
            hits, misses = mean_interval(hit_Q, **arguments), mean_interval(1 - hit_Q, **arguments)
            assert np.allclose([hits.low, hits.high], [1 - misses.high, 1 - misses.low], atol=1e-6), (hit_Q, group_Q)


def test_equal_groups_have_whole_degrees_of_freedom() -> None:
    """Five equal groups have four, though the weights add up to a little less than one."""
    interval = mean_interval(np.zeros(10), np.repeat(np.arange(5), 2))
    effective = 10 / 1.5  # PRIOR_CORRELATION of two queries a group
    square = 2.7764451**2  # Student's t with four degrees of freedom, 0.975
    assert math.isclose(interval.high, square / (effective + square), rel_tol=1e-4)
