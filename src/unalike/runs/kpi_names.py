"""Short names of metrics, as pages and the terminal show them; TAO's files keep TAO's names."""

from __future__ import annotations

import re

# Name of TAO's KPI behind its prefix, or the key of our JSON files -> the name in every page, table and line of the terminal.
SHORT_NAMES = {
    "Precision at Rank 1": "R@1",
    "Mean Average Precision": "MAP@R",
    "Mean Reciprocal Rank": "MRR",
    "r-Precision": "R-precision",
}
KEY_NAMES = {
    "precision_at_1": "R@1",
    "mean_average_precision_at_r": "MAP@R",
    "mean_reciprocal_rank": "MRR",
    "r_precision": "R-precision",
    "recall_loss": "R@1 loss in points",
    "map_at_r_loss": "MAP@R loss in points",
}
_RECALL = re.compile(r"recall_at_(\d+)")


def short_name(name: str) -> str:
    """The name with TAO's name of a metric in it shortened: ``val Precision at Rank 1`` -> ``val R@1``; others as they are.

    Keys of our own JSON files become the same names: ``precision_at_1`` -> ``R@1``, ``recall_at_5`` -> ``R@5``.
    """
    if name in KEY_NAMES:
        return KEY_NAMES[name]
    if match := _RECALL.fullmatch(name):
        return f"R@{match[1]}"
    for long, short in SHORT_NAMES.items():
        name = name.replace(long, short)
    return name
