"""Figures and scoring rules of the benchmark of scores for strangers, by loops."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tests.support.paths import ROOT

BENCHMARKS = ROOT / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="only in the repository")


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_cosines_and_rules_are_those_of_loops() -> None:
    from open_set_rules import RULES, compare, enroll

    rng = np.random.default_rng(0)
    code_R = np.repeat(np.arange(6), 4)
    vectors_RD, query_QD, cohort_MD = (unit(rng.normal(size=(count, 8))) for count in (24, 9, 20))
    series_R = np.array([f"{code} {place % 2}" for place, code in enumerate(code_R)])
    gallery = enroll(vectors_RD, code_R, series_R, cohort_MD)
    queries = compare(query_QD, vectors_RD, code_R, cohort_MD)
    for q, query in enumerate(query_QD):
        cosines = [
            sorted((float(vectors_RD[r] @ query) for r in np.flatnonzero(code_R == c)), reverse=True) for c in range(6)
        ]
        best = sorted((own[0] for own in cosines), reverse=True)
        nearest = int(np.argmax([own[0] for own in cosines]))
        mean = vectors_RD[code_R == nearest].mean(axis=0)
        expected = {
            "nearest": best[0], "t 1 x 0.25": best[0] - 0.25 * best[1], "t 3 x 0.5": best[0] - 0.5 * np.mean(best[1:4]),
            "judge two 1": np.mean(cosines[nearest][:2]), "judge mean 1": mean @ query / np.linalg.norm(mean),
            "cohort 1 x 0.5": best[0] - 0.5 * (cohort_MD @ query).max(),
        }  # fmt: skip
        for name, value in expected.items():
            score_Q, code_Q = RULES[name](queries, gallery)
            assert score_Q[q] == pytest.approx(value) and code_Q[q] == nearest
    for r in range(24):  # no reference is compared with its own class, or with its own series
        others = vectors_RD[code_R != code_R[r]] @ vectors_RD[r]
        assert gallery.foreign.best_QC[r].max() == pytest.approx(others.max())
        again = vectors_RD[(code_R == code_R[r]) & (series_R != series_R[r])] @ vectors_RD[r]
        assert gallery.again.best_QC[r, code_R[r]] == pytest.approx(again.max())
    for name, rule in RULES.items():
        score_Q, code_Q = rule(queries, gallery)
        assert np.isfinite(score_Q).all() and ((code_Q >= 0) & (code_Q < 6)).all(), name


def test_a_weight_counts_as_so_many_classes() -> None:
    from open_set_scores import Trials, weighted_dir

    from unalike.metrics.roc import dir_at_fpir

    rng = np.random.default_rng(1)
    known_class_N, unknown_class_M = rng.integers(0, 10, 60), rng.integers(10, 20, 80)
    trials = Trials(
        rng.normal(size=60) + 1, rng.random(60) < 0.8, known_class_N, np.round(rng.normal(size=80), 1), unknown_class_M
    )
    weight_of = rng.integers(0, 3, 20)
    for weights in (np.ones(20, int), weight_of):
        rows, others = (
            np.repeat(np.arange(60), weights[known_class_N]),
            np.repeat(np.arange(80), weights[unknown_class_M]),
        )
        for place, fpir in enumerate((0.1, 0.01)):
            expected, _ = dir_at_fpir(
                trials.known_score_N[rows], trials.known_right_N[rows], trials.unknown_score_M[others], fpir
            )
            assert weighted_dir(trials, weights.astype(float))[place] == pytest.approx(expected)


def test_a_better_rule_is_ranked_before_nearest_and_a_worse_one_is_named() -> None:
    from open_set_scores import Trials, measure, rank_rules

    classes = np.repeat(np.arange(40), 5)
    known, unknown = classes[:100], classes[100:]
    right = np.ones(100, bool)

    def trials(gap: float) -> Trials:
        rng = np.random.default_rng(2)
        return Trials(rng.normal(size=100) + gap, right, known, rng.normal(size=100), unknown)

    split = {"nearest": trials(2.0), "better": trials(4.0), "worse": trials(0.5)}
    sets = {"a": {"counts": True, "rules": measure([split], 40, 100)}}
    ranks = rank_rules(sets)
    assert ranks["better"][0] == 1 and not ranks["better"][3]
    assert ranks["worse"][0] == 2 and ranks["worse"][3] == ["a 0.1", "a 0.01"]
    assert ranks["nearest"][0] == 1.5
