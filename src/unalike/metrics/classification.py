"""Retrieval read as classification: TAO's figures of an engine (``results.json``).

Q queries, C classes, K neighbours. A class without queries counts in no mean (TAO D33).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def class_results(
    neighbours_QK: np.ndarray, labels_Q: np.ndarray, classes: Sequence[str], *, topk: int
) -> dict[str, Any]:
    """``neighbours_QK``: class indices of each query's nearest references, nearest first; ``labels_Q`` the true ones.

    ``top_k_accuracy`` and ``top_1_accuracy`` are means over classes of the share of queries whose class stands among
    the first ``topk`` (the first) neighbours. ``confusion_matrix`` counts true (rows) against predicted classes, over
    the classes that occur; ``classification_report`` has precision, recall, f1 and support of each.
    """
    first_Q = neighbours_QK[:, 0]
    hit_Q = (neighbours_QK[:, :topk] == labels_Q[:, None]).any(1)
    present = np.unique(labels_Q)
    shown = np.unique(np.concatenate([present, first_Q]))
    place = {int(label): row for row, label in enumerate(shown)}
    matrix_CC = np.zeros((len(shown), len(shown)), np.int64)
    np.add.at(matrix_CC, ([place[int(i)] for i in labels_Q], [place[int(i)] for i in first_Q]), 1)
    return {
        "top_k_accuracy": _mean_over(present, labels_Q, hit_Q),
        "top_1_accuracy": _mean_over(present, labels_Q, first_Q == labels_Q),
        "topk": topk,
        "queries": len(labels_Q),
        "classes": [classes[i] for i in shown],
        "confusion_matrix": matrix_CC.tolist(),
        "classification_report": {classes[label]: _report(matrix_CC, row) for row, label in enumerate(shown)},
    }


def _mean_over(present: np.ndarray, labels_Q: np.ndarray, right_Q: np.ndarray) -> float:
    return float(np.mean([right_Q[labels_Q == label].mean() for label in present])) if len(present) else 0.0


def _report(matrix_CC: np.ndarray, row: int) -> dict[str, float | int]:
    right, support, predicted = int(matrix_CC[row, row]), int(matrix_CC[row].sum()), int(matrix_CC[:, row].sum())
    precision = right / predicted if predicted else 0.0
    recall = right / support if support else 0.0
    total = precision + recall
    return {"precision": precision, "recall": recall, "f1-score": 2 * precision * recall / total if total else 0.0,
            "support": support}  # fmt: skip
