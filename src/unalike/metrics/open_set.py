"""Open-set metrics of an evaluation: verification of pairs, and identification with each class enrolled and held out.

Held out, a query meets all references but those of its class: it is then an unknown one, and its best score is what a
false match would have. Real open-set queries (no reference of their class at all) are reported beside that.

Shape letters: Q queries looked at, R references, B queries of a chunk, N own pairs, M other pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unalike.metrics.intervals import enough_groups, mean_interval
from unalike.metrics.labels import as_labels
from unalike.metrics.roc import auroc, dir_at_fpir, fnmr_at_fmr, trials_needed
from unalike.numerics.normalization import check_widths, l2_normalize

# Pairs that are looked at: beyond that a seeded sample of the queries, so that memory and time stay bounded.
MAX_PAIRS = 4_000_000
CHUNK_PAIRS = 1_000_000
RATES = (0.1, 0.01, 0.001)


@dataclass(frozen=True)
class OpenSetTrials:
    """Scores of queries against references of their class and of others.

    Attributes:
        rows_Q: Indices of the queries that were compared.
        labels_Q: Their class indices.
        own_Q, other_Q: Best cosine among references of the query's class and of others; -inf where there are none.
        next_Q: Best cosine among references of classes that are neither the query's nor that of ``other_Q``; -inf likewise.
        pair_own_N, pair_label_N: Cosine of each pair of one class, and that class.
        pair_other_M: Cosine of each pair of two classes.
    """

    rows_Q: np.ndarray
    labels_Q: np.ndarray
    own_Q: np.ndarray
    other_Q: np.ndarray
    next_Q: np.ndarray
    pair_own_N: np.ndarray
    pair_label_N: np.ndarray
    pair_other_M: np.ndarray


def collect_trials(
    query_QD: np.ndarray,
    query_labels_Q: np.ndarray | Sequence[int],
    reference_RD: np.ndarray,
    reference_labels_R: np.ndarray | Sequence[int],
    *,
    same: bool = False,
    max_pairs: int = MAX_PAIRS,
    seed: int = 0,
) -> OpenSetTrials:
    """Compare queries with references.

    Args:
        query_QD: Query vectors (Q, D).
        query_labels_Q: Class index of each query.
        reference_RD: Reference vectors (R, D).
        reference_labels_R: Class index of each reference.
        same: Whether the queries are the first references; each then leaves itself out.
        max_pairs: Most pairs; above it a sample of the queries is compared.
        seed: Seed of the sample.

    Raises:
        UnalikeError: A vector holds NaN, widths or lengths differ, or a label is negative.
    """
    query_QD, reference_RD = (
        l2_normalize(query_QD, name="query vectors"),
        l2_normalize(reference_RD, name="reference vectors"),
    )
    check_widths(query_QD, reference_RD)
    labels_Q = as_labels(query_labels_Q, len(query_QD), "query")
    labels_R = as_labels(reference_labels_R, len(reference_RD), "reference")
    rows_Q = np.arange(len(query_QD))
    block = max(1, max_pairs // max(1, len(reference_RD)))
    if len(rows_Q) > block:
        rows_Q = np.sort(np.random.default_rng(seed).choice(rows_Q, block, replace=False))
    own_Q, other_Q, next_Q = (np.full(len(rows_Q), -math.inf) for _ in range(3))
    own, label, other = [np.empty(0, np.float32)], [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    step = max(1, CHUNK_PAIRS // max(1, len(reference_RD)))
    for top in range(0, len(rows_Q) if len(reference_RD) else 0, step):
        rows_B = rows_Q[top : top + step]
        scores_BR = query_QD[rows_B] @ reference_RD.T
        own_BR = labels_Q[rows_B, None] == labels_R[None]
        other_BR = ~own_BR
        if same:
            own_BR[np.arange(len(rows_B)), rows_B] = False
        own_Q[top : top + step] = np.where(own_BR, scores_BR, -math.inf).max(axis=1)
        others_BR = np.where(other_BR, scores_BR, -math.inf)
        nearest_B = others_BR.argmax(axis=1)
        other_Q[top : top + step] = others_BR[np.arange(len(rows_B)), nearest_B]
        others_BR[labels_R[nearest_B][:, None] == labels_R] = -math.inf
        next_Q[top : top + step] = others_BR.max(axis=1)
        own.append(scores_BR[own_BR])
        label.append(np.repeat(labels_Q[rows_B], own_BR.sum(axis=1)))
        other.append(scores_BR[other_BR])
    return OpenSetTrials(
        rows_Q, labels_Q[rows_Q], own_Q, other_Q, next_Q,
        np.concatenate(own), np.concatenate(label), np.concatenate(other),
    )  # fmt: skip


def summarize_trials(
    trials: OpenSetTrials,
    *,
    n: int = 1000,
    confidence: float = 0.95,
    rates: Sequence[float] = RATES,
    resample: str = "auto",
    second_weight: float = 0.0,
) -> dict[str, Any]:
    """Summarize trials as plain data for ``metrics.json``.

    Args:
        trials: Result of ``collect_trials``.
        n: 0 leaves the intervals out.
        confidence: Confidence of the intervals, 0..1, exclusive.
        rates: False match rates (verification) and false positive identification rates, 0..1, exclusive.
        resample: As for ``summary.summarize``, for identification. Pairs share images, so that classes alone are independent
            there.
        second_weight: Part of the second class's cosine (0..1) that galleries subtract from the best one; with it identification is
            reported by that score too, where every query has a second class.

    Returns:
        ``verification`` of pairs, and ``identification`` against the references, whose unknown queries are
        ``classes_held_out`` or ``open_set_queries``; None where there were none. Figures by the score of galleries are in
        ``less_second_class`` of these, None where they cannot be told. A rate that the number of trials cannot
        support (``trials_needed``) is left out. Intervals treat the threshold as fixed.
    """
    settings = {"n": n, "confidence": confidence, "resample": resample}
    known_Q = np.isfinite(trials.own_Q)
    enrolled_Q = known_Q & np.isfinite(trials.other_Q)
    open_Q = ~known_Q & np.isfinite(trials.other_Q)
    parts = {"classes_held_out": (enrolled_Q, enrolled_Q), "open_set_queries": (known_Q, open_Q)}
    return {
        "verification": _verification(trials, rates, settings),
        "identification": {
            name: _identification(trials, *masks, rates, settings, second_weight) for name, masks in parts.items()
        },
    }


def _verification(trials: OpenSetTrials, rates: Sequence[float], settings: dict[str, Any]) -> dict[str, Any] | None:
    genuine_N, impostor_M = trials.pair_own_N, trials.pair_other_M
    if not len(genuine_N) or not len(impostor_M):
        return None
    at = []
    for rate in rates:
        if trials_needed(rate, settings["confidence"]) <= len(impostor_M):
            fnmr, threshold = fnmr_at_fmr(genuine_N, impostor_M, rate)
            misses_N = (genuine_N < threshold).astype(float)
            at.append(
                {
                    "fmr": rate,
                    "fnmr": _interval(fnmr, misses_N, trials.pair_label_N, settings | {"resample": "classes"}),
                    "threshold": threshold,
                }
            )
    return {"queries": len(trials.rows_Q), "genuine_pairs": len(genuine_N), "impostor_pairs": len(impostor_M),
            "auroc": auroc(genuine_N, impostor_M), "fnmr_at_fmr": at}  # fmt: skip


def _identification(
    trials: OpenSetTrials, known_Q: np.ndarray, unknown_Q: np.ndarray, rates: Sequence[float], settings: dict[str, Any],
    second_weight: float,
) -> dict[str, Any] | None:  # fmt: skip
    """Figures by the cosine, and by what galleries subtract of the second class.

    Args:
        known_Q: Queries that meet all references.
        unknown_Q: Queries that meet those of other classes.
    """
    if not known_Q.any() or not unknown_Q.any():
        return None
    own_Q, other_Q, next_Q = trials.own_Q[known_Q], trials.other_Q[known_Q], trials.next_Q[known_Q]
    right_Q, labels_Q = own_Q > other_Q, trials.labels_Q[known_Q]
    best_Q, best_M = np.maximum(own_Q, other_Q), trials.other_Q[unknown_Q]
    second_Q, second_M = np.where(right_Q, other_Q, np.maximum(own_Q, next_Q)), trials.next_Q[unknown_Q]
    figures: dict[str, Any] = {"known": int(known_Q.sum()), "unknown": len(best_M)}
    figures |= _detection(best_Q, right_Q, best_M, labels_Q, rates, settings)
    if second_weight:
        figures["less_second_class"] = None
        if np.isfinite(second_Q).all() and np.isfinite(second_M).all():
            score_Q, score_M = best_Q - second_weight * second_Q, best_M - second_weight * second_M
            figures["less_second_class"] = {
                "second_weight": second_weight,
                **_detection(score_Q, right_Q, score_M, labels_Q, rates, settings),
            }
    return figures


def _detection(
    score_Q: np.ndarray, right_Q: np.ndarray, score_M: np.ndarray, labels_Q: np.ndarray, rates: Sequence[float],
    settings: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """AUROC and DIR at each rate, of known queries (score, whether their best class is right, class) beside unknown ones."""
    at = []
    for rate in rates:
        if trials_needed(rate, settings["confidence"]) <= len(score_M):
            detection_rate, threshold = dir_at_fpir(score_Q, right_Q, score_M, rate)
            hits_Q = (right_Q & (score_Q >= threshold)).astype(float)
            interval = _interval(detection_rate, hits_Q, labels_Q, settings)
            at.append({"fpir": rate, "dir": interval, "threshold": threshold})
    return {"auroc": auroc(score_Q, score_M), "dir_at_fpir": at}


def _interval(
    value: float, values: np.ndarray, labels: np.ndarray, settings: dict[str, Any]
) -> dict[str, float | bool | None]:
    if settings["n"] < 1:
        return {"value": value, "low": None, "high": None}
    random = settings["resample"] == "classes" or (settings["resample"] == "auto" and enough_groups(labels))
    groups, strata = (labels, None) if random else (None, labels)
    return mean_interval(values, groups, settings["confidence"], strata_Q=strata).to_dict()


def format_open_set(summary: dict[str, Any]) -> list[str]:
    """Format the result of ``summarize_trials`` as lines of text."""
    lines = []
    pairs = summary["verification"]
    if pairs is not None:
        at = [f", FNMR {entry['fnmr']['value']:.4f} at FMR {entry['fmr']:g}" for entry in pairs["fnmr_at_fmr"]]
        lines.append(f"same or another: AUROC {pairs['auroc']:.4f}{''.join(at)}")
    for name, part in summary["identification"].items():
        if part is not None:
            title = f"known or unknown ({name.replace('_', ' ')})"
            lines.append(f"{title}: {_format_detection(part)}")
            if score := part.get("less_second_class"):
                weight = score["second_weight"]
                lines.append(
                    f"   as galleries decide (less {weight:g} of the second class): {_format_detection(score)}"
                )
    return lines


def _format_detection(figures: dict[str, Any]) -> str:
    at = [f", DIR {entry['dir']['value']:.4f} at FPIR {entry['fpir']:g}" for entry in figures["dir_at_fpir"]]
    return f"AUROC {figures['auroc']:.4f}{''.join(at)}"
