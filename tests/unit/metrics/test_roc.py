import math

import numpy as np
import pytest

from unalike.errors import UnalikeError
from unalike.metrics.intervals import clopper_pearson, clustered_proportion, student_quantile
from unalike.metrics.open_set import collect_trials, format_open_set, summarize_trials
from unalike.metrics.roc import auroc, dir_at_fpir, fnmr_at_fmr, threshold_at, trials_needed


def scores(seed, n, levels=None):
    """Random scores, with many equal ones when ``levels`` are few."""
    draws = np.random.default_rng(seed)
    return draws.integers(0, levels, n) / levels if levels else draws.normal(size=n)


@pytest.mark.parametrize("levels", [None, 5, 40, 1])
def test_measures_equal_their_definitions(levels):
    for seed in range(5):
        genuine, impostor = scores(seed, 37, levels) + 0.3, scores(seed + 9, 53, levels)
        pairs = [(g > i) + (g == i) / 2 for g in genuine for i in impostor]
        assert auroc(genuine, impostor) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
        for rate in (0, 0.01, 0.02, 0.1, 0.5, 1):
            t = threshold_at(impostor, rate)
            assert sum(s >= t for s in impostor) <= rate * 53
            lower = sorted({s for s in impostor if s < t})
            if lower:  # any lower threshold would let too many through
                assert sum(s >= lower[-1] for s in impostor) > rate * 53
            fnmr, at = fnmr_at_fmr(genuine, impostor, rate)
            assert at == t and fnmr == pytest.approx(sum(g < t for g in genuine) / 37)
            right = scores(seed, 37) > 0
            detection_rate, at = dir_at_fpir(genuine, right, impostor, rate)
            assert at == t
            assert detection_rate == pytest.approx(sum(r and g >= t for g, r in zip(genuine, right, strict=True)) / 37)


def test_what_is_empty_or_not_a_number():
    none = np.empty(0)
    assert math.isnan(auroc(none, np.ones(2))) and math.isnan(auroc(np.ones(2), none))
    assert math.isnan(threshold_at(none, 0.1)) and math.isnan(fnmr_at_fmr(np.ones(2), none, 0.1)[0])
    assert math.isnan(dir_at_fpir(none, none, np.ones(3), 0.1)[0])
    assert threshold_at(np.ones(3), 1) == -math.inf and threshold_at(np.ones(3), 0.5) > 1
    for act in (
        lambda: auroc(np.array([1, np.nan]), np.ones(2)), lambda: threshold_at(np.array([np.nan]), 0.1),
        lambda: threshold_at(np.ones(3), 1.5), lambda: dir_at_fpir(np.ones(3), np.ones(2), np.ones(3), 0.1),
        lambda: auroc(np.ones((2, 2)), np.ones(2)),
    ):  # fmt: skip
        with pytest.raises(UnalikeError):
            act()


def test_the_rule_of_three():
    assert trials_needed(0.01) == 299 and trials_needed(1e-3) == 2995
    for rate in (0.3, 0.05, 0.002):
        n = trials_needed(rate)
        assert (1 - rate) ** n <= 0.05 < (1 - rate) ** (n - 1)


def test_exact_intervals_equal_scipy():
    stats = pytest.importorskip("scipy.stats")
    for k, n in ((0, 10), (3, 10), (10, 10), (7, 3000), (2.5, 40.7)):
        interval = clopper_pearson(k, n, 0.9)
        assert interval.low == pytest.approx(stats.beta.ppf(0.05, k, n - k + 1) if k else 0, abs=1e-9)
        assert interval.high == pytest.approx(stats.beta.ppf(0.95, k + 1, n - k) if k < n else 1, abs=1e-9)
    for freedom in (1, 4, 39, 2000):
        assert student_quantile(freedom, 0.975) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-8)


def test_alike_trials_of_a_class_count_for_less():
    draws = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 50)
    apart = draws.random(2000) < 0.1
    alike = np.repeat(draws.random(40) < 0.1, 50)  # all images of a class err, or none
    loose, effective = clustered_proportion(alike, groups)
    tight, nearly_all = clustered_proportion(apart, groups)
    assert nearly_all > 1000 and effective == pytest.approx(40, rel=0.2)
    assert loose.high - loose.low > 3 * (tight.high - tight.low)
    wider, _ = clustered_proportion(alike, groups, new_sample=True)
    assert wider.low <= loose.low and wider.high >= loose.high
    assert clustered_proportion(np.zeros(2000), groups)[1] == 40
    assert math.isnan(clustered_proportion(apart, np.zeros(2000))[0].low) and clustered_proportion([], [])[1] == 0


def test_clustered_intervals_hold_as_often_as_they_say():
    covered = 0
    for seed in range(200):
        draws = np.random.default_rng(seed)
        rate_G = draws.beta(0.5, 4.5, 60)  # classes differ; the mean over classes is 0.1
        values = (draws.random((60, 20)) < rate_G[:, None]).ravel()
        interval, _ = clustered_proportion(values, np.repeat(np.arange(60), 20))
        covered += interval.low <= 0.1 <= interval.high
    assert covered >= 182  # 95 % of 200, less three standard errors


def oracle_trials(query, labels_Q, reference, labels_R, same):
    own, other, best_own, best_other, next_other = [], [], [], [], []
    for q in range(len(query)):
        mine, theirs, best_of = [], [], {}
        for r in range(len(reference)):
            score = query[q] @ reference[r] / np.linalg.norm(query[q]) / np.linalg.norm(reference[r])
            if labels_R[r] != labels_Q[q]:
                theirs.append(score)
                best_of[labels_R[r]] = max(score, best_of.get(labels_R[r], -math.inf))
            elif not (same and q == r):
                mine.append(score)
        own, other = own + mine, other + theirs
        best_own.append(max(mine, default=-math.inf))
        best_other.append(max(theirs, default=-math.inf))
        next_other.append(sorted(best_of.values())[-2])
    return own, other, best_own, best_other, next_other


@pytest.mark.parametrize("same", [False, True])
def test_trials_equal_two_loops(same):
    draws = np.random.default_rng(2)
    reference, labels_R = draws.normal(size=(30, 4)), draws.integers(0, 6, 30)
    query, labels_Q = (
        (reference[:20], labels_R[:20]) if same else (draws.normal(size=(20, 4)), draws.integers(0, 9, 20))
    )
    trials = collect_trials(query, labels_Q, reference, labels_R, same=same)
    own, other, best_own, best_other, next_other = oracle_trials(query, labels_Q, reference, labels_R, same)
    np.testing.assert_allclose(trials.pair_own_N, own, atol=1e-6)
    np.testing.assert_allclose(trials.pair_other_M, other, atol=1e-6)
    np.testing.assert_allclose(trials.own_Q, best_own, atol=1e-6)
    np.testing.assert_allclose(trials.other_Q, best_other, atol=1e-6)
    np.testing.assert_allclose(trials.next_Q, next_other, atol=1e-6)
    summary = summarize_trials(trials, n=50, rates=(0.2,))
    known = np.isfinite(best_own)
    unknown = np.array(best_other)[known]
    held_out = summary["identification"]["classes_held_out"]
    assert held_out["known"] == held_out["unknown"] == known.sum()
    best = np.maximum(best_own, best_other)[known]
    assert held_out["auroc"] == pytest.approx(auroc(best, unknown))
    if not same:
        assert summary["identification"]["open_set_queries"]["unknown"] == (~known).sum() > 0
        assert len(format_open_set(summary)) == 3
    assert "less_second_class" not in held_out
    summary = summarize_trials(trials, n=50, rates=(0.5,), second_weight=0.25)
    by_score = summary["identification"]["classes_held_out"]["less_second_class"]
    ranked = [sorted(x, reverse=True) for x in zip(best_own, best_other, next_other, strict=True) if np.isfinite(x[0])]
    score_known = np.array([first - 0.25 * second for first, second, _ in ranked])
    score_unknown = np.array(best_other)[known] - 0.25 * np.array(next_other)[known]
    right = (np.array(best_own) > np.array(best_other))[known]
    assert by_score["auroc"] == pytest.approx(auroc(score_known, score_unknown))
    assert by_score["dir_at_fpir"][0]["dir"]["value"] == pytest.approx(
        dir_at_fpir(score_known, right, score_unknown, 0.5)[0]
    )
    assert len(format_open_set(summary)) == (3 if same else 5)


def test_many_pairs_are_sampled_by_seed_and_one_class_tells_nothing():
    draws = np.random.default_rng(2)
    vectors, labels = draws.normal(size=(50, 4)), draws.integers(0, 6, 50)
    trials = collect_trials(vectors, labels, vectors, labels, same=True, max_pairs=1000, seed=3)
    assert len(trials.rows_Q) == 20 and len(trials.pair_other_M) + len(trials.pair_own_N) == 20 * 49
    again = collect_trials(vectors, labels, vectors, labels, same=True, max_pairs=1000, seed=3)
    assert np.array_equal(trials.rows_Q, again.rows_Q)
    alone = collect_trials(vectors, np.zeros(50, int), vectors, np.zeros(50, int), same=True)
    summary = summarize_trials(alone, n=0)
    assert summary == {"verification": None, "identification": {"classes_held_out": None, "open_set_queries": None}}
    assert format_open_set(summary) == []
    two = summarize_trials(collect_trials(vectors, labels % 2, vectors, labels % 2, same=True), n=0, second_weight=0.25)
    assert (
        two["identification"]["classes_held_out"]["less_second_class"] is None
    )  # unknown to one class, there is no second


def test_trials_in_groups_of_two_sorts_hold_as_often_as_they_say():
    """Shares that vary by asset and by kind, judged on as many new kinds of as many new assets."""
    inside = {False: 0, True: 0}
    for seed in range(60):
        rng = np.random.default_rng(seed)

        def trials(rng=rng):
            asset, kind = np.repeat(np.arange(20), 24), np.tile(np.repeat(np.arange(6), 4), 20)
            hard = rng.normal(0, 0.6, 20)[asset] + rng.normal(0, 1.0, 6)[kind] - 3
            return (rng.random(480) < 1 / (1 + np.exp(-hard))).astype(float), asset, kind

        (values, asset, kind), (new, _, _) = trials(), trials()
        for crossed in inside:
            interval, _ = clustered_proportion(
                values, asset, new_sample=True, crossed_groups_Q=kind if crossed else None
            )
            inside[crossed] += interval.low <= new.mean() <= interval.high
    assert inside[True] >= 54 > inside[False]


def test_the_effective_number_over_two_sorts_of_groups_is_that_of_plain_loops():
    rng = np.random.default_rng(3)
    values, asset, kind = (rng.random(120) < 0.2).astype(float), rng.integers(0, 8, 120), rng.integers(0, 4, 120)
    share = values.mean()

    def effect(groups):
        """The design effect: estimate and prior, weighted by how many groups carry events and by the prior's two."""
        names = sorted(set(groups))
        members = {name: [v for v, g in zip(values, groups, strict=True) if g == name] for name in names}
        total = sum(sum(v - share for v in member) ** 2 for member in members.values())
        estimate = max(1 / 3, len(names) / (len(names) - 1) * total / (120 * share * (1 - share)))
        events = [sum(member) for member in members.values()]
        even = 120**2 / sum(len(member) ** 2 for member in members.values())
        weight = min(sum(events) ** 2 / sum(n**2 for n in events), even - 1) ** 3 / (even - 1)
        prior = 1 + (120 / even - 1) * 0.5
        return (estimate**weight * prior**2) ** (1 / (weight + 2))

    assets, kinds, cells = (effect(g) for g in (asset.tolist(), kind.tolist(), (asset * 4 + kind).tolist()))
    expected = 120 / max(assets, kinds, assets + kinds - cells)
    assert clustered_proportion(values, asset, crossed_groups_Q=kind)[1] == pytest.approx(expected)


def test_at_one_half_hits_and_misses_have_mirrored_intervals_of_clustered_proportions():
    """Which outcome is the rarer one is not decided by rounding, or by which of them is called a hit."""
    rng = np.random.default_rng(2)
    for _ in range(100):
        groups = np.repeat(np.arange(8), rng.integers(1, 6, 8))
        groups = groups[: len(groups) // 2 * 2]
        values = rng.permutation(np.repeat([0.0, 1.0], len(groups) // 2))
        hits, effective = clustered_proportion(values, groups)
        misses, same = clustered_proportion(1 - values, groups)
        assert effective == pytest.approx(same)
        assert (hits.low, hits.high) == pytest.approx((1 - misses.high, 1 - misses.low), abs=1e-6)
