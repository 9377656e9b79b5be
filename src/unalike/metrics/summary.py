"""Summary of per-query metrics: the content of ``metrics.json``, and TAO's KPI names.

Micro (mean over queries) and macro (mean over classes of the class's mean) always stand side by side; the headline
and every KPI is micro, whatever is switched on for reporting. Open-set queries count in neither and stand apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unalike.errors import UnalikeError
from unalike.metrics.intervals import enough_groups, mean_interval
from unalike.metrics.retrieval import Ranking

FORMAT_VERSION = 1
HEADLINE = "precision_at_1"
# TAO's KPI names behind the prefix, and where each value stands in a summary's micro averages.
KPI_NAMES = {
    " Mean Average Precision": "mean_average_precision",
    " Mean Reciprocal Rank": "mean_reciprocal_rank",
    " r-Precision": "r_precision",
    " Precision at Rank 1": "precision_at_1",
}
# Pairs of confused classes that a summary lists; confusion.csv holds all.
CONFUSED_SHOWN = 20


def summarize(
    ranking: Ranking,
    classes: Sequence[str],
    *,
    clusters: Mapping[str, float] | None = None,
    reference_labels: np.ndarray | None = None,
    n: int = 1000,
    confidence: float = 0.95,
    resample: str = "auto",
    series: Sequence[str] | None = None,
    unseen_classes: bool = False,
) -> dict[str, Any]:
    """Summarize a ranking as the content of ``metrics.json``.

    Args:
        ranking: Metrics per query.
        classes: Display name of every label.
        clusters: {"AMI", "NMI"}, where they were computed.
        reference_labels: Label of each reference (R,), for the table per class; None where they are not known.
        n: 0 leaves the intervals out.
        confidence: Confidence of the intervals, 0..1, exclusive.
        resample: What the intervals treat as random: "classes", for a claim about further classes like these, or
            "queries", for one about further images of these classes. "auto" is "classes" where there are enough of
            them (``intervals.MIN_GROUPS``).
        series: Series of each query (a scene, a day), whose images are alike, "" for a series of one image; None where the
            queries of a class are independent of one another. Used where queries are random.
        unseen_classes: Whether the claim is about classes that training never saw; the summary states it.

    Returns:
        Plain JSON data; NaN is None.

    Raises:
        UnalikeError: ``resample`` is another string, or a label has no name.
    """
    _check(ranking, classes, resample)
    metrics = ranking.metrics()
    in_gallery = ~ranking.open_set
    labels = ranking.labels[in_gallery]
    if resample == "auto":
        resample = "classes" if enough_groups(labels) else "queries"
    claim, groups, strata = _claim(resample, labels, None if series is None else np.asarray(series)[in_gallery])
    micro, macro = (
        [
            mean_interval(values[in_gallery], groups, confidence, strata_Q=strata, averaged_over_Q=over)
            for values in metrics.values()
        ]
        for over in (None, labels)
    )
    per_class = per_class_table(ranking, classes, reference_labels)
    summary: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "headline": {"metric": HEADLINE, "average": "micro", "value": _plain(micro[0].value)},
        "queries": len(ranking),
        "measured": int(in_gallery.sum()),
        "references": ranking.references,
        "classes": sum(1 for row in per_class if row["measured"]),
        "query_in_reference": ranking.same,
        "depth": ranking.depth,
        "micro": {name: interval.to_dict() for name, interval in zip(metrics, micro, strict=True)},
        "macro": {name: interval.to_dict() for name, interval in zip(metrics, macro, strict=True)},
        "clusters": {name: _plain(value) for name, value in (clusters or {}).items()},
        "intervals": {"method": "score interval of effective trials" if n else None, "resampled": resample, "claim": claim,
                      "unseen_classes": unseen_classes, "confidence": confidence},
        "open_set": open_set(ranking, classes),
        "per_class": per_class,
        "confused": confused_pairs(ranking, classes)[:CONFUSED_SHOWN],
    }  # fmt: skip
    if n < 1:
        _remove_intervals(summary)
    return summary


def _check(ranking: Ranking, classes: Sequence[str], resample: str) -> None:
    if resample not in ("auto", "queries", "classes"):
        raise UnalikeError(f"resample is {resample!r}", expected="auto, queries or classes")
    highest = int(max(ranking.labels.max(), ranking.predicted.max()))
    if highest >= len(classes):
        raise UnalikeError(f"label {highest} has no name", expected=f"labels below {len(classes)}")


def _remove_intervals(summary: Mapping[str, Any]) -> None:
    for average in ("micro", "macro"):
        for entry in summary[average].values():
            entry["low"] = entry["high"] = None
            entry.pop("too_few", None)


def _claim(
    resample: str, labels: np.ndarray, series: np.ndarray | None
) -> tuple[str, np.ndarray | None, np.ndarray | None]:
    """What the intervals are about, in words; the groups that are random; the strata that are fixed."""
    classes = len(np.unique(labels))
    if resample == "classes":
        return f"further classes like these {classes}", labels, None
    if series is not None:
        alone = [name or f"\0{number}" for number, name in enumerate(series.tolist())]
        return f"further series of these {classes} classes", np.array(alone), None
    return f"further images of these {classes} classes, each taken independently of the others", None, labels


def tao_kpis(summary: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Return the KPIs under TAO's names.

    Args:
        summary: Result of ``summarize``.
        prefix: "val" or "test".

    Returns:
        Value by name, averaged over queries (micro); without the KPIs that were not computed.
    """
    kpis: dict[str, float] = {}
    for name in ("AMI", "NMI"):
        if summary.get("clusters", {}).get(name) is not None:
            kpis[f"{prefix}_{name}"] = summary["clusters"][name]
    for name, key in KPI_NAMES.items():
        value = summary["micro"][key]["value"]
        if value is not None:
            kpis[prefix + name] = value
    return kpis


def kpi_intervals(summary: Mapping[str, Any], prefix: str) -> dict[str, tuple[float, float]]:
    """Return (low, high) of the KPIs that have a confidence interval, by the names of ``tao_kpis``."""
    rows = {prefix + name: summary["micro"][key] for name, key in KPI_NAMES.items()}
    return {
        name: (row["low"], row["high"]) for name, row in rows.items() if None not in (row.get("low"), row.get("high"))
    }


def per_class_table(
    ranking: Ranking, classes: Sequence[str], reference_labels: np.ndarray | None = None
) -> list[dict[str, Any]]:
    """Compute the metrics of each class.

    Args:
        ranking: Metrics per query.
        classes: Display name of every label.
        reference_labels: Label of each reference (R,); None where they are not known.

    Returns:
        A row for every class that has a query or a reference, in the order of ``classes``. Keys: class, queries,
        references (None when unknown), measured (queries that are not open-set), then the mean of every metric, None
        for a class without measured queries.
    """
    count = len(classes)
    queries_C = np.bincount(ranking.labels, minlength=count)
    in_gallery = ~ranking.open_set
    closed_C = np.bincount(ranking.labels[in_gallery], minlength=count)
    if reference_labels is not None:
        references_C = np.bincount(np.asarray(reference_labels, np.int64), minlength=count)
    else:
        references_C = np.zeros(count, np.int64)
        references_C[ranking.labels] = ranking.relevant + int(ranking.same)
    sums = {
        name: np.bincount(ranking.labels[in_gallery], values[in_gallery], minlength=count)
        for name, values in ranking.metrics().items()
    }
    return [
        {
            "class": classes[c],
            "queries": int(queries_C[c]),
            "references": int(references_C[c]) if reference_labels is not None or queries_C[c] else None,
            "measured": int(closed_C[c]),
            **{name: float(total[c] / closed_C[c]) if closed_C[c] else None for name, total in sums.items()},
        }
        for c in range(count)
        if queries_C[c] or references_C[c]
    ]


def open_set(ranking: Ranking, classes: Sequence[str]) -> dict[str, Any]:
    """Count the queries that have no (other) reference of their class.

    Args:
        ranking: Metrics per query.
        classes: Display name of every label.

    Returns:
        Keys: queries (their number), classes (number by name), median_score (None without any).
    """
    scores = ranking.score[ranking.open_set]
    labels, counts = np.unique(ranking.labels[ranking.open_set], return_counts=True)
    return {
        "queries": int(ranking.open_set.sum()),
        "classes": {classes[c]: int(n) for c, n in zip(labels, counts, strict=True)},
        "median_score": float(np.median(scores)) if len(scores) else None,
    }


def confused_pairs(ranking: Ranking, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Count the pairs of a query's class and its nearest reference's class that differ; without open-set queries.

    Args:
        ranking: Metrics per query.
        classes: Display name of every label.

    Returns:
        A row for each pair, most frequent first. Keys: class, taken_for, count, share (of the class's measured queries).
    """
    in_gallery = ~ranking.open_set
    labels, predicted = ranking.labels[in_gallery], ranking.predicted[in_gallery]
    totals = np.bincount(labels, minlength=len(classes))
    wrong = labels != predicted
    pairs, counts = np.unique(np.stack([labels[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [
        {
            "class": classes[pairs[i, 0]],
            "taken_for": classes[pairs[i, 1]],
            "count": int(counts[i]),
            "share": float(counts[i] / totals[pairs[i, 0]]),
        }
        for i in order
    ]


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
