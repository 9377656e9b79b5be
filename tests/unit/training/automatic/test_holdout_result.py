"""Results are means over images with intervals over what the images have in common; the images behind them are kept."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.series import feature_series
from unalike.metrics.prediction import prediction_interval
from unalike.training.automatic.holdout import Split, cross_validation_splits, pooled_splits
from unalike.training.automatic.holdout_result import (
    HoldoutResult,
    Lookups,
    describe_counts,
    evaluate_embeddings,
    pool_results,
)
from unalike.training.automatic.scenes import assign_scenes


def test_results_equal_those_of_a_loop_over_queries() -> None:
    features, labels, _ = feature_series(seed=5)
    features = features + 0.8 * np.random.default_rng(0).normal(size=features.shape)
    splits = cross_validation_splits(labels, assign_scenes(features, labels), "both")
    result = evaluate_embeddings(splits, labels, lambda _, s: (features[s.query_N], features[s.reference_N]))
    place = 0
    for s in splits:
        references = features[s.reference_N] / np.linalg.norm(features[s.reference_N], axis=1, keepdims=True)
        for query in s.query_N:
            cosines = references @ (features[query] / np.linalg.norm(features[query]))
            order = labels[s.reference_N][np.argsort(-cosines)]
            relevant = (labels[s.reference_N] == labels[query]).sum()
            hits = order[:relevant] == labels[query]
            precision = (hits * np.cumsum(hits) / np.arange(1, relevant + 1)).sum() / relevant
            assert result.hit_Q[place] == (order[0] == labels[query])
            assert result.precision_Q[place] == pytest.approx(precision)
            place += 1
    assert place == len(result.hit_Q)


def test_scores_weigh_by_goal_and_gains_are_paired() -> None:
    kind = np.array(["known"] * 4 + ["new"] * 2)
    worse = HoldoutResult(kind, np.array([1, 0, 0, 0, 1, 0.0]), np.zeros(6), np.arange(6))
    better = HoldoutResult(kind, np.array([1, 1, 1, 0, 1, 1.0]), np.ones(6), np.arange(6))
    assert worse.score("known-classes") == pytest.approx(0.125)
    assert worse.score("new-classes") == pytest.approx(0.25)
    assert worse.score("both") == pytest.approx(0.1875)
    gain = better.gain_over(worse)
    assert gain["known"]["R@1"].value == pytest.approx(0.5) and gain["new"]["MAP@R"].value == pytest.approx(1.0)


def noisy(seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    features, labels, _ = feature_series(seed=seed)
    return features + 0.8 * np.random.default_rng(0).normal(size=features.shape), labels


def evaluate(features: np.ndarray, labels: np.ndarray, splits: list[Split]) -> HoldoutResult:
    return evaluate_embeddings(
        splits, labels, lambda _, s: (features[s.query_N], features[s.reference_N]), with_images=True
    )


def test_the_images_behind_a_figure_are_those_that_were_looked_up() -> None:
    features, labels = noisy()
    result = evaluate(features, labels, pooled_splits(features, labels, "known-classes"))
    lookups = result.lookups
    assert lookups is not None
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert np.array_equal(result.hit_Q, labels[lookups.nearest_Q] == labels[lookups.query_Q])
    assert np.array_equal(labels[lookups.query_Q], result.label_Q) and (lookups.nearest_Q != lookups.query_Q).all()
    np.testing.assert_allclose(
        lookups.score_Q, (unit[lookups.query_Q] * unit[lookups.nearest_Q]).sum(axis=1), atol=1e-5
    )
    missed = result.hit_Q == 0
    assert missed.any() and (lookups.own_Q[~missed] == -1).all() and (lookups.own_Q[missed] >= 0).all()
    assert np.array_equal(labels[lookups.own_Q[missed]], result.label_Q[missed])
    assert (lookups.own_score_Q[missed] <= lookups.score_Q[missed] + 1e-6).all()
    same = result.kind_Q == "same"
    assert lookups.select(same).query_Q.tolist() == lookups.query_Q[same].tolist()
    assert (lookups.own_Q != lookups.query_Q).all()


def test_with_its_own_series_among_the_references_a_query_is_found_more_often() -> None:
    features, labels, _ = feature_series(classes=4, per_class=16, per_series=2)
    metrics = evaluate(features, labels, pooled_splits(features, labels, "known-classes")).metrics()
    assert metrics["same"]["R@1"].value == 1.0 > metrics["known"]["R@1"].value


def test_repeated_queries_of_an_image_are_no_further_trials() -> None:
    features, labels = noisy()
    once = evaluate(features, labels, pooled_splits(features, labels, "known-classes"))
    five = pool_results([once] * 5)
    for kind, row in five.metrics().items():
        for name, interval in row.items():
            expected = once.metrics()[kind][name]
            assert (interval.value, interval.low, interval.high) == pytest.approx(
                (expected.value, expected.low, expected.high)
            )
    assert five.score("both") == pytest.approx(once.score("both"))
    counts = five.counts()["known"]
    assert counts == {"queries": 5 * len(labels), "images": len(labels), "classes": 6}
    assert describe_counts(counts) == f"{5 * len(labels)} queries of {len(labels)} images, 6 classes"
    assert once.difference(five, "R@1", "both") == pytest.approx((0.0, 0.0), abs=1e-9)


def test_with_few_classes_intervals_are_over_series() -> None:
    labels = np.repeat([0, 1], 40)
    hits = (np.arange(80) % 4 > 0).astype(float)
    rows = np.arange(80)
    lookups = Lookups(rows, rows, hits, rows, hits, np.full(len(rows), -1), hits, hits)
    kind = np.array(["known"] * 80)
    by_class = HoldoutResult(kind, hits, hits, labels, lookups)
    assert by_class.metrics()["known"]["R@1"].too_few
    interval = by_class.with_series(rows // 2).metrics()["known"]["R@1"]
    assert not interval.too_few and 0.55 < interval.low < 0.75 < interval.high < 0.9
    alike = (rows // 4 % 4 > 0).astype(float)  # images of a series are hits together
    series = HoldoutResult(kind, alike, alike, labels, lookups).with_series(rows // 4).metrics()["known"]["R@1"]
    assert series.high - series.low > 1.4 * (interval.high - interval.low)


def test_intervals_of_pooled_queries_cover() -> None:
    """Each image of a series shares its chance; five repeats of the same images tell nothing more."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(200):
        chance = rng.beta(6, 2, 40).repeat(3)  # of 40 series, the mean is 0.75
        hits = np.concatenate([rng.random(120) < chance for _ in range(1)] * 5).astype(float)
        rows = np.tile(np.arange(120), 5)
        labels = np.tile(np.arange(120) % 5, 5)
        result = HoldoutResult(
            np.array(["known"] * 600),
            hits,
            hits,
            labels,
            Lookups(rows, rows, hits, rows, hits, np.full(len(rows), -1), hits, hits),
        )
        interval = result.with_series(np.arange(120) // 3).metrics()["known"]["R@1"]
        covered += interval.low <= 0.75 <= interval.high
    assert covered >= 186


def test_what_is_expected_reaches_from_other_series_to_the_same() -> None:
    rows = np.arange(400)
    hits = np.concatenate([np.arange(200) % 10 < 6, np.arange(200) % 10 < 9]).astype(float)
    kind = np.repeat(["known", "same"], 200)
    result = HoldoutResult(
        kind, hits, hits, rows % 20, Lookups(rows % 200, rows, hits, rows, hits, np.full(len(rows), -1), hits, hits)
    )
    metrics, expected = result.metrics(), result.expected()["R@1"]
    ranges = {kind: prediction_interval(metrics[kind]["R@1"], 100) for kind in metrics}
    assert (expected.low, expected.high) == (ranges["known"].low, ranges["same"].high)
    assert expected.low < metrics["known"]["R@1"].low
    assert expected.value == pytest.approx(0.6)
    assert HoldoutResult(np.array(["new"] * 4), hits[:4], hits[:4], rows[:4]).expected() == {}
    one_class = HoldoutResult(kind, hits, hits, np.zeros(400, int))
    assert one_class.expected() == {}  # no interval can be had
