"""From nearest vectors to the nearest class: by the nearest vector, the nearest class prototype, or a weighted vote.

Each rule gives for every query its class, a ``score`` (a cosine) that says how near it is, and a ``margin`` that says
how far the second class is behind. Leaving out a class or the query itself is what calibration asks for.

Shape letters: Q queries, K neighbours, C classes, D width, S (query, class) pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from unalike.errors import DataError
from unalike.metrics.knn import EXCLUDED, scan, unit
from unalike.recognition.decision import check_rule
from unalike.recognition.snapshot import GallerySnapshot

# Neighbours among which a second class is sought first; where all are of one class the gallery is read once more.
DEPTH = 32
# Neighbours that vote, and how steeply the weight exp(cosine / temperature) falls: Wu et al., "Unsupervised feature
# learning via non-parametric instance discrimination" (2018), take 0.07 (and 200 neighbours, of 1,280 a class).
VOTERS, TEMPERATURE = 10, 0.07


@dataclass(frozen=True)
class ClassRanking:
    """``code_Q`` the best class, ``second_Q`` the next (-1: there is none), ``score_Q`` cosine of the best.

    ``margin_Q`` is infinite where there is no second class; ``code_Q`` is -1 and the score EXCLUDED where there is none
    at all. ``scores_QK`` and ``indices_QK`` are the nearest vectors (empty when the rule does not look at them).
    """

    code_Q: np.ndarray
    second_Q: np.ndarray
    score_Q: np.ndarray
    margin_Q: np.ndarray
    scores_QK: np.ndarray
    indices_QK: np.ndarray


def rank_classes(
    enrolled: GallerySnapshot,
    vectors_QD: np.ndarray,
    rule: str = "nearest",
    k: int = VOTERS,
    *,
    exclude_row_Q: np.ndarray | None = None,
    exclude_class_Q: np.ndarray | None = None,
    neighbours: tuple[np.ndarray, np.ndarray] | None = None,
    second: bool = True,
) -> ClassRanking:
    """The class of every query by ``rule`` (``k`` neighbours vote).

    ``exclude_row_Q``: the queries are these enrolled vectors, each leaves itself out. ``exclude_class_Q``: each leaves out the class of
    this code (-1: none). ``neighbours`` (scores_QK, indices_QK) are those of a search done before, approximate perhaps.
    ``second=False`` spares looking for the second class by the rule ``nearest``.
    """
    check_rule(rule)
    vectors_QD = unit(np.atleast_2d(vectors_QD), name="query vectors")
    hide = None
    if exclude_class_Q is not None:
        hide = enrolled.exclude_classes(exclude_class_Q)
    elif exclude_row_Q is not None:
        hide = enrolled.exclude_rows(exclude_row_Q)
    if rule == "prototype":
        return _by_prototype(enrolled, vectors_QD, exclude_row_Q, exclude_class_Q)
    if neighbours is None:
        depth = k if rule == "vote" else max(DEPTH, k) if second else 1
        neighbours = enrolled.search(vectors_QD, depth, hide)
    if rule == "vote":
        return _by_vote(enrolled, *neighbours, k)
    return _by_nearest(enrolled, vectors_QD, *neighbours, exclude_row_Q, exclude_class_Q, second)


def _codes(enrolled: GallerySnapshot, indices_QK: np.ndarray) -> np.ndarray:
    """Codes of neighbours, -1 where there is none."""
    return np.where(indices_QK >= 0, enrolled.codes_N[np.maximum(indices_QK, 0)], -1)


def _by_nearest(
    enrolled: GallerySnapshot,
    vectors_QD: np.ndarray,
    scores_QK: np.ndarray,
    indices_QK: np.ndarray,
    exclude_row_Q: np.ndarray | None,
    exclude_class_Q: np.ndarray | None,
    second: bool,
) -> ClassRanking:
    codes_QK = _codes(enrolled, indices_QK)
    best_Q = codes_QK[:, 0].copy()
    other_QK = (codes_QK != best_Q[:, None]) & (codes_QK >= 0)
    column_Q = other_QK.argmax(axis=1)
    rows_Q = np.arange(len(best_Q))
    found_Q = other_QK[rows_Q, column_Q]
    second_Q = np.where(found_Q, codes_QK[rows_Q, column_Q], -1)
    second_score_Q = np.where(found_Q, scores_QK[rows_Q, column_Q], EXCLUDED)
    open_U = np.flatnonzero(~found_Q & (best_Q >= 0)) if second else np.empty(0, np.int64)
    if len(open_U) and scores_QK.shape[1] < len(enrolled):
        hidden = [enrolled.exclude_classes(best_Q[open_U])]
        if exclude_class_Q is not None:
            hidden.append(enrolled.exclude_classes(exclude_class_Q[open_U]))
        if exclude_row_Q is not None:
            hidden.append(enrolled.exclude_rows(exclude_row_Q[open_U]))

        def hide(scores_BC: np.ndarray, top: int, left: int) -> None:
            for part in hidden:
                part(scores_BC, top, left)

        again_U1, index_U1 = enrolled.search(vectors_QD[open_U], 1, hide)
        second_score_Q[open_U], second_Q[open_U] = again_U1[:, 0], _codes(enrolled, index_U1)[:, 0]
    return ClassRanking(best_Q, second_Q, scores_QK[:, 0].copy(), _margin(scores_QK[:, 0], second_score_Q, second_Q), scores_QK,
                  indices_QK)  # fmt: skip


def _margin(first_Q: np.ndarray, second_score_Q: np.ndarray, second_Q: np.ndarray) -> np.ndarray:
    return np.where(second_Q >= 0, first_Q.astype(np.float64) - second_score_Q, np.inf)


def _by_prototype(
    enrolled: GallerySnapshot,
    vectors_QD: np.ndarray,
    exclude_row_Q: np.ndarray | None,
    exclude_class_Q: np.ndarray | None,
) -> ClassRanking:
    """The query's own vector is taken out of its class's mean before it is compared with that."""
    if not len(enrolled):
        raise DataError("the gallery is empty", remedy="enrol reference images first")
    prototypes_CD, empty_C = enrolled.prototypes_CD, enrolled.counts_C == 0
    rest_Q = None
    if exclude_row_Q is not None:
        codes_Q = enrolled.codes_N[exclude_row_Q]
        rest_QD = enrolled.sums_CD[codes_Q] - enrolled.vectors(exclude_row_Q)
        alone_Q = enrolled.counts_C[codes_Q] == 1
        rest_Q = np.where(alone_Q, EXCLUDED, np.einsum("qd,qd->q", unit(rest_QD), vectors_QD)).astype(np.float32)

    def hide(scores_BC: np.ndarray, top: int, left: int) -> None:
        here, rows_B = slice(top, top + len(scores_BC)), np.arange(len(scores_BC))
        scores_BC[:, empty_C[left : left + scores_BC.shape[1]]] = EXCLUDED
        for code_Q, value_Q in (
            (None if exclude_row_Q is None else enrolled.codes_N[exclude_row_Q], rest_Q),
            (exclude_class_Q, None),
        ):
            if code_Q is not None:
                place_B = code_Q[here] - left
                inside_B = np.flatnonzero((place_B >= 0) & (place_B < scores_BC.shape[1]) & (code_Q[here] >= 0))
                value = EXCLUDED if value_Q is None else value_Q[here][inside_B]
                scores_BC[rows_B[inside_B], place_B[inside_B]] = value

    scores_Q2, codes_Q2 = scan(vectors_QD, lambda a, b: prototypes_CD[a:b], len(prototypes_CD), 2, hide=hide)
    none = np.empty((len(vectors_QD), 0))
    return ClassRanking(codes_Q2[:, 0], codes_Q2[:, 1], scores_Q2[:, 0], _margin(scores_Q2[:, 0], scores_Q2[:, 1], codes_Q2[:, 1]),
                  none, none.astype(np.int64))  # fmt: skip


def _by_vote(enrolled: GallerySnapshot, scores_QK: np.ndarray, indices_QK: np.ndarray, k: int) -> ClassRanking:
    """Every one of the k nearest votes with exp(cosine / TEMPERATURE); shares of the whole vote make the margin."""
    near_QK, codes_QK = scores_QK[:, :k], _codes(enrolled, indices_QK[:, :k])
    queries = len(near_QK)
    weight_QK = np.exp((near_QK.astype(np.float64) - near_QK[:, :1]) / TEMPERATURE) * (codes_QK >= 0)
    order_QK = np.argsort(codes_QK, axis=1, kind="stable")  # by class, and within it best first
    row_N = np.repeat(np.arange(queries), near_QK.shape[1])
    code_N = np.take_along_axis(codes_QK, order_QK, axis=1).ravel()
    start_S = np.flatnonzero(np.r_[True, (np.diff(code_N) != 0) | (np.diff(row_N) != 0)]) if len(code_N) else code_N
    total_S = np.add.reduceat(np.take_along_axis(weight_QK, order_QK, axis=1).ravel(), start_S)
    nearest_S = np.take_along_axis(near_QK, order_QK, axis=1).ravel()[start_S]
    row_S, code_S = row_N[start_S], code_N[start_S]
    ranked_S = np.lexsort((code_S, -nearest_S, -total_S, code_S < 0, row_S))
    first_Q = np.searchsorted(row_S, np.arange(queries))
    groups_Q = np.bincount(row_S, minlength=queries)
    best_Q = ranked_S[first_Q]
    next_Q = ranked_S[np.minimum(first_Q + 1, len(ranked_S) - 1)]
    there_Q = (groups_Q > 1) & (code_S[next_Q] >= 0)
    whole_Q = weight_QK.sum(axis=1)
    second_Q = np.where(there_Q, code_S[next_Q], -1)
    lead_Q = (total_S[best_Q] - np.where(there_Q, total_S[next_Q], 0)) / np.where(whole_Q > 0, whole_Q, 1)
    margin_Q = np.where(there_Q, lead_Q, np.inf)
    return ClassRanking(code_S[best_Q], second_Q, nearest_S[best_Q], margin_Q, scores_QK, indices_QK)


def check_vectors(vectors_QD: Any, dim: int) -> np.ndarray:
    """float32 (Q, dim) of one or several vectors. Raises DataError for another width."""
    vectors_QD = np.atleast_2d(np.asarray(vectors_QD, np.float32))
    if vectors_QD.ndim != 2 or vectors_QD.shape[1] != dim:
        raise DataError(
            f"vectors of shape {vectors_QD.shape}",
            expected=f"(any, {dim})",
            remedy="enrol and search with the network that the gallery was made with",
        )
    return vectors_QD
