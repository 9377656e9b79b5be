import sys

import numpy as np
import pytest

from unalike.errors import MissingExtra, UnalikeError
from unalike.metrics.clustering import ami_nmi


def test_given_clusters_score_as_in_pytorch_metric_learning():
    pytest.importorskip("sklearn")
    accuracy = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    rng = np.random.default_rng(0)
    labels, clusters = rng.integers(0, 5, 80), rng.integers(0, 6, 80)
    calculator = accuracy.AccuracyCalculator(include=("AMI", "NMI"), kmeans_func=lambda *_: clusters)
    ours = ami_nmi(np.ones((80, 2)), labels, cluster_labels_N=clusters)
    assert ours["AMI"] == pytest.approx(calculator.calculate_AMI(labels, clusters), abs=1e-6)
    assert ours["NMI"] == pytest.approx(calculator.calculate_NMI(labels, clusters), abs=1e-6)


def test_separate_clouds_are_found_and_the_seed_decides():
    pytest.importorskip("sklearn")
    labels = np.arange(60) % 3
    vectors = np.eye(3)[labels] + np.random.default_rng(0).normal(0, 0.05, (60, 3))
    assert ami_nmi(vectors, labels) == pytest.approx({"AMI": 1.0, "NMI": 1.0})
    noise = np.random.default_rng(1).random((60, 3))
    assert ami_nmi(noise, labels, seed=4, max_vectors=30) == ami_nmi(noise, labels, seed=4, max_vectors=30)


def test_missing_package_and_empty_input(monkeypatch):
    with pytest.raises(UnalikeError):
        ami_nmi(np.ones((0, 2)), np.zeros(0, int))
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(MissingExtra, match=r"\[train\]"):
        ami_nmi(np.ones((2, 2)), np.zeros(2, int))
