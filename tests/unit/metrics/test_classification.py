import numpy as np
import pytest

from unalike.metrics.classification import classification_results


def test_means_over_classes_against_a_slow_count():
    draws = np.random.default_rng(0)
    labels, neighbours = draws.integers(0, 4, 50), draws.integers(0, 5, (50, 3))
    classes = ["a", "b", "c", "d", "e"]
    results = classification_results(neighbours, labels, classes, topk=2)
    first, top = [], []
    for label in range(4):
        rows = [i for i in range(50) if labels[i] == label]
        first.append(sum(neighbours[i][0] == label for i in rows) / len(rows))
        top.append(sum(label in neighbours[i][:2] for i in rows) / len(rows))
    assert results["top_1_accuracy"] == pytest.approx(np.mean(first))
    assert results["top_k_accuracy"] == pytest.approx(np.mean(top))
    for row, true in enumerate(results["classes"]):
        for column, said in enumerate(results["classes"]):
            count = sum(classes[labels[i]] == true and classes[neighbours[i][0]] == said for i in range(50))
            assert results["confusion_matrix"][row][column] == count


def test_d33_a_class_without_a_query_counts_in_no_mean_and_is_no_nan():
    results = classification_results(np.array([[0], [2]]), np.array([0, 0]), ["a", "b", "c"], topk=1)
    assert results["top_1_accuracy"] == 0.5 and results["classes"] == ["a", "c"]
    assert results["classification_report"]["c"] == {"precision": 0.0, "recall": 0.0, "f1-score": 0.0, "support": 0}
    assert (
        results["classification_report"]["a"]["recall"] == 0.5
        and results["classification_report"]["a"]["precision"] == 1
    )
