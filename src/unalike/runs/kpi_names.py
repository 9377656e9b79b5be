"""Short names of metrics, as pages and the terminal show them; TAO's files keep TAO's names."""

from __future__ import annotations

# Name of TAO's KPI behind its prefix -> the name in every page, table and line of the terminal.
SHORT_NAMES = {
    "Precision at Rank 1": "R@1",
    "Mean Average Precision": "MAP@R",
    "Mean Reciprocal Rank": "MRR",
    "r-Precision": "R-precision",
}


def short_name(name: str) -> str:
    """The name with TAO's name of a metric in it shortened: ``val Precision at Rank 1`` -> ``val R@1``; others as they are."""
    for long, short in SHORT_NAMES.items():
        name = name.replace(long, short)
    return name
