"""The heads that `benchmarks/logistic_heads.py` compares: their classifier beside scikit-learn's, and their vectors."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest

from tests.support.paths import ROOT
from unalike.numerics.normalization import l2_normalize
from unalike.training.heads.config import HeadConfig
from unalike.training.heads.head_search import HeadTrial

BENCHMARKS = ROOT / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="only in the repository")
CLASSES, WIDTH = 6, 20


@pytest.fixture(scope="module")
def heads() -> Iterator[ModuleType]:
    pytest.importorskip("sklearn")
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("logistic_heads")
    sys.path.remove(str(BENCHMARKS))


def draw_features(count: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, F) of classes whose means differ, and their labels."""
    rng = np.random.default_rng(seed)
    labels_N = np.arange(count) % CLASSES
    means_CF = np.random.default_rng(9).normal(size=(CLASSES, WIDTH))
    return (means_CF[labels_N] + rng.normal(size=(count, WIDTH))).astype(np.float32), labels_N


def test_the_classifier_is_that_of_scikit_learn(heads: ModuleType) -> None:
    from sklearn.linear_model import LogisticRegression

    x_NF, labels_N = draw_features()
    for penalty, weight_FC in heads.fit_classifiers(x_NF, labels_N).items():
        # The penalty there is ||W||^2 / (2 C) beside the sum over images, on features that are not divided by sqrt(F).
        other = LogisticRegression(C=WIDTH / (len(x_NF) * WIDTH * penalty), tol=1e-8, max_iter=5000)
        expected_FC = other.fit(x_NF / np.sqrt(WIDTH), labels_N).coef_.T / np.sqrt(WIDTH)
        own_NC, expected_NC = (x_NF @ (w_FC - w_FC.mean(axis=1, keepdims=True)) for w_FC in (weight_FC, expected_FC))
        assert np.corrcoef(own_NC.ravel(), expected_NC.ravel())[0, 1] > (0.999 if penalty >= 1e-3 else 0.97), penalty


def test_vectors_go_from_the_closed_form_to_the_classifier(heads: ModuleType) -> None:
    x_NF, labels_N = draw_features()
    config = HeadConfig(sqrt=True, residual=0.5)
    head = heads.fit_logistic_head(x_NF, labels_N, HeadTrial(config, None, 0.0))
    penalty = heads.PENALTIES[0]
    base_ND, logit_NC = head.vectors(x_NF, 0.0, 0.0), head.vectors(x_NF, penalty, float("inf"))
    closed_ND = head.whitening.head(0.5)(x_NF)
    assert np.allclose(
        l2_normalize(base_ND) @ l2_normalize(base_ND).T, l2_normalize(closed_ND) @ l2_normalize(closed_ND).T, atol=1e-4
    )
    assert logit_NC.shape == (60, CLASSES)
    for vectors in (base_ND, logit_NC):
        assert np.isclose(np.linalg.norm(vectors, axis=1).mean(), 1, atol=1e-4)
    blend_ND = head.vectors(x_NF, penalty, 2.0)
    assert np.allclose(blend_ND @ blend_ND.T, base_ND @ base_ND.T + 4 * logit_NC @ logit_NC.T, atol=1e-4)
    assert (logit_NC.argmax(axis=1) == labels_N).mean() > 0.9


def test_every_rule_has_an_outcome_of_all_queries(heads: ModuleType) -> None:
    methods = importlib.import_module("recognition_methods")
    (fit_MF, fit_label_M), (query_QF, query_label_Q) = draw_features(), draw_features(24, seed=1)
    nothing = np.zeros(0)
    task = methods.Task(fit_MF, fit_label_M, nothing, fit_MF, fit_label_M, nothing, query_QF, query_label_Q, nothing)
    outcomes = heads.compare_heads(task, "known-classes")
    assert {"base", "score", "clear"} <= set(outcomes) and len(outcomes) == 3 + len(heads.PENALTIES) * len(
        heads.WEIGHTS
    )
    for outcome, text in outcomes.values():
        assert len(outcome.hit_Q) == len(outcome.precision_Q) == 24 and "inner score" in text
    assert outcomes["base"][0].hit_Q.mean() > 2 / CLASSES


def test_the_summary_counts_gains_ranks_and_losses(heads: ModuleType) -> None:
    def make(value: float, low: float, high: float, **flags: bool) -> dict[str, object]:
        return {
            "heads": {"base": {}, "new": {"R@1 of base less this": {"value": value, "low": low, "high": high, **flags}}}
        }

    results = {
        "a": make(-3.0, -5, -1),
        "b": make(1.0, 0.5, 2),
        "c": make(-1.0, -2, 0.5),
        "d": make(2.0, 1, 3, too_few=True),
    }
    (line,) = heads.summarize(results)
    assert line == (
        "new: R@1 +0.25, MAP@R +0.00 over 4 sets, rank 1.50 beside 1.50 of the base; lower: b R@1; higher: a R@1"
    )
    (line,) = heads.summarize({"a": results["a"], "e": {"heads": {"base": {}, "new": {}}}})
    assert line.startswith("new: R@1 +1.50, MAP@R +0.00 over 2 sets, rank 1.25 beside 1.75 of the base; lower: none")
