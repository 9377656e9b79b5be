"""Classification metrics of a retrieval, as in TAO's ``results.json``: top-k accuracy, confusion matrix, table of classes.

Q queries, C classes, K neighbors. A class without queries counts in no mean (TAO D33).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def classification_results(
    neighbors_QK: np.ndarray, labels_Q: np.ndarray, classes: Sequence[str], *, topk: int
) -> dict[str, Any]:
    """Compute the classification metrics of a k-nearest-neighbor search.

    Args:
        neighbors_QK: Class indices of each query's nearest references, nearest first.
        labels_Q: True class index of each query.
        classes: Name of each class.
        topk: Number of neighbors among which a query's class must be for ``top_k_accuracy``.

    Returns:
        Plain data for ``results.json``. ``top_k_accuracy`` and ``top_1_accuracy`` are means over classes of the share
        of queries whose class is among the first ``topk`` (the first) neighbors. ``confusion_matrix`` counts true
        (rows) against predicted classes, over the classes that occur; ``classification_report`` has precision, recall,
        f1-score and support of each.
    """
    first_Q = neighbors_QK[:, 0]
    in_top_k_Q = (neighbors_QK[:, :topk] == labels_Q[:, None]).any(1)
    present = np.unique(labels_Q)
    occurring = np.unique(np.concatenate([present, first_Q]))
    row_of = {int(label): row for row, label in enumerate(occurring)}
    matrix_CC = np.zeros((len(occurring), len(occurring)), np.int64)
    np.add.at(matrix_CC, ([row_of[int(i)] for i in labels_Q], [row_of[int(i)] for i in first_Q]), 1)
    return {
        "top_k_accuracy": _class_mean(present, labels_Q, in_top_k_Q),
        "top_1_accuracy": _class_mean(present, labels_Q, first_Q == labels_Q),
        "topk": topk,
        "queries": len(labels_Q),
        "classes": [classes[i] for i in occurring],
        "confusion_matrix": matrix_CC.tolist(),
        "classification_report": {classes[label]: _report(matrix_CC, row) for row, label in enumerate(occurring)},
    }


def _class_mean(present: np.ndarray, labels_Q: np.ndarray, correct_Q: np.ndarray) -> float:
    return float(np.mean([correct_Q[labels_Q == label].mean() for label in present])) if len(present) else 0.0


def _report(matrix_CC: np.ndarray, row: int) -> dict[str, float | int]:
    correct, support, predicted = int(matrix_CC[row, row]), int(matrix_CC[row].sum()), int(matrix_CC[:, row].sum())
    precision = correct / predicted if predicted else 0.0
    recall = correct / support if support else 0.0
    total = precision + recall
    return {"precision": precision, "recall": recall, "f1-score": 2 * precision * recall / total if total else 0.0,
            "support": support}  # fmt: skip
