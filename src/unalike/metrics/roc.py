"""How well scores tell "the same" from "another": AUROC, FNMR at FMR, DIR at FPIR; functions of arrays of scores.

A score is the higher the more alike (a cosine, -1..1); a pair or a query is accepted when its score is at least the
threshold. The terms are those of ISO/IEC 19795-1: false match rate (of pairs of two classes), false non-match rate (of
pairs of one class), and for identification against a gallery: detection and identification rate (known queries), false
positive identification rate (unknown queries).

Equal scores are never divided by a threshold, and count half in the AUROC. Scores hold no NaN (UnalikeError); a figure of
no scores is NaN.
"""

from __future__ import annotations

import math

import numpy as np

from unalike.errors import UnalikeError


def checked(scores_N: np.ndarray, name: str) -> np.ndarray:
    """Check scores.

    Args:
        scores_N: Scores (N,).
        name: What the scores are, for the message.

    Returns:
        The scores as float64.

    Raises:
        UnalikeError: Some are NaN, or the array is not one-dimensional.
    """
    scores_N = np.asarray(scores_N, np.float64)
    if scores_N.ndim != 1:
        raise UnalikeError(f"{name} have shape {scores_N.shape}", expected="one score each")
    bad = int(np.isnan(scores_N).sum())
    if bad:
        raise UnalikeError(f"{bad} of {len(scores_N)} {name} are NaN", expected="numbers")
    return scores_N


def auroc(positive_N: np.ndarray, negative_M: np.ndarray) -> float:
    """Compute the area under the ROC curve: the probability that a positive's score is above a negative's.

    Args:
        positive_N: Scores of the positives (N,).
        negative_M: Scores of the negatives (M,). Equal scores count half.

    Returns:
        0..1; NaN where one side is empty.

    Raises:
        UnalikeError: A score is NaN.
    """
    positive_N = checked(positive_N, "positive scores")
    negative_M = np.sort(checked(negative_M, "negative scores"))
    if not len(positive_N) or not len(negative_M):
        return math.nan
    below = np.searchsorted(negative_M, positive_N, "left").sum(dtype=np.float64)
    not_above = np.searchsorted(negative_M, positive_N, "right").sum(dtype=np.float64)
    return float((below + not_above) / 2 / len(positive_N) / len(negative_M))


def threshold_at(impostor_M: np.ndarray, rate: float) -> float:
    """Find the lowest threshold that at most a share of these scores reaches.

    Args:
        impostor_M: Scores (M,).
        rate: The share, 0..1.

    Returns:
        The threshold, half way between the last score that reaches it and the first that does not (just above the highest
        score when none may reach it); -inf when all may, NaN for no scores.

    Raises:
        UnalikeError: A score is NaN, or the rate is out of range.
    """
    impostor_M = np.sort(checked(impostor_M, "impostor scores"))
    if not 0 <= rate <= 1:
        raise UnalikeError(f"a rate of {rate}", expected="0 to 1")
    if not len(impostor_M):
        return math.nan
    # A tolerance, so that 0.07 of 100 scores are 7 of them whatever 0.07 * 100 is to a computer.
    limit = math.floor(rate * len(impostor_M) * (1 + 1e-12))
    if limit >= len(impostor_M):
        return -math.inf
    score = float(impostor_M[len(impostor_M) - limit - 1])
    above = impostor_M[np.searchsorted(impostor_M, score, "right") :]
    return between(score, float(above[0])) if len(above) else float(np.nextafter(score, math.inf))


def between(low: float, high: float) -> float:
    """Return a number above ``low`` and at most ``high``: the middle, where floating point has one."""
    middle = (low + high) / 2
    return middle if middle > low else high


def fnmr_at_fmr(genuine_N: np.ndarray, impostor_M: np.ndarray, fmr: float) -> tuple[float, float]:
    """Compute the false non-match rate at a false match rate.

    Args:
        genuine_N: Scores of pairs of one class (N,).
        impostor_M: Scores of pairs of two classes (M,).
        fmr: False match rate, 0..1.

    Returns:
        The share of genuine pairs below the threshold (0..1, NaN without pairs), and the threshold.

    Raises:
        UnalikeError: A score is NaN, or the rate is out of range.
    """
    threshold = threshold_at(impostor_M, fmr)
    genuine_N = checked(genuine_N, "genuine scores")
    if not len(genuine_N) or math.isnan(threshold):
        return math.nan, threshold
    return float(np.mean(genuine_N < threshold)), threshold


def dir_at_fpir(
    known_score_N: np.ndarray, known_right_N: np.ndarray, unknown_score_M: np.ndarray, fpir: float
) -> tuple[float, float]:
    """Compute the detection and identification rate at a false positive identification rate.

    Args:
        known_score_N: Best score of each query whose class is in the gallery (N,).
        known_right_N: Whether that best score is of the query's class (N,), boolean.
        unknown_score_M: Best score of each query of no class of the gallery (M,).
        fpir: False positive identification rate, 0..1.

    Returns:
        The share of known queries that reach the threshold with the right class (0..1, NaN without queries), and the
        threshold.

    Raises:
        UnalikeError: A score is NaN, the rate is out of range, or the lengths differ.
    """
    threshold = threshold_at(unknown_score_M, fpir)
    known_score_N, right_N = checked(known_score_N, "known scores"), np.asarray(known_right_N, np.bool_)
    if right_N.shape != known_score_N.shape:
        raise UnalikeError(f"{len(right_N)} answers for {len(known_score_N)} known queries", expected="as many each")
    if not len(known_score_N) or math.isnan(threshold):
        return math.nan, threshold
    return float(np.mean(right_N & (known_score_N >= threshold))), threshold


def trials_needed(rate: float, confidence: float = 0.95) -> int:
    """Compute how many trials without an error show that a rate is below ``rate``: about 3 / rate at 95 %.

    The "rule of three" (Hanley and Lippman-Hand, "If nothing goes wrong, is everything all right?", JAMA, 1983).

    Args:
        rate: The rate, 0..1, exclusive.
        confidence: Confidence of the statement, 0..1, exclusive.

    Raises:
        UnalikeError: One of them is out of range.
    """
    if not 0 < rate < 1 or not 0 < confidence < 1:
        raise UnalikeError(f"rate {rate} at confidence {confidence}", expected="both between 0 and 1")
    return math.ceil(math.log1p(-confidence) / math.log1p(-rate))
