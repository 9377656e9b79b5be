"""Ranking of classes for queries: by the nearest neighbor, the nearest class prototype, or a weighted vote of neighbors.

Each rule gives for every query its best class, a ``score`` (a cosine) that says how near it is, and a ``margin`` that says
how far the second class is behind. Calibration excludes a class, or the query itself, from the gallery.

Shape letters: Q queries, K neighbors, C classes, D width, S (query, class) pairs, U queries whose second class is not
among their neighbors, B rows of a tile of scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from unalike.errors import DataError
from unalike.numerics.nearest_neighbors import EXCLUDED, scan
from unalike.numerics.normalization import l2_normalize
from unalike.recognition.decision import check_rule
from unalike.recognition.snapshot import Exclusion, GallerySnapshot
from unalike.storage.outside_files import reason

# Neighbors among which the second class is looked for first; where all are of one class the gallery is searched again.
DEPTH = 32
# Neighbors that vote, and how steeply the weight exp(cosine / temperature) falls: Wu et al., "Unsupervised feature
# learning via non-parametric instance discrimination" (2018), take 0.07 (and 200 neighbors, of 1,280 a class).
VOTERS, TEMPERATURE = 10, 0.07


@dataclass(frozen=True)
class ClassRanking:
    """The two best classes of every query.

    Attributes:
        code_Q: the best class; -1 where there is none at all.
        second_Q: the second class; -1 where there is none.
        score_Q: cosine of the best class; EXCLUDED where there is none.
        margin_Q: lead of the best class over the second; infinite where there is no second.
        scores_QK, indices_QK: the nearest vectors; empty where the rule does not look at them.
    """

    code_Q: np.ndarray
    second_Q: np.ndarray
    score_Q: np.ndarray
    margin_Q: np.ndarray
    scores_QK: np.ndarray
    indices_QK: np.ndarray


def rank_classes(
    snapshot: GallerySnapshot,
    vectors_QD: np.ndarray,
    rule: str = "nearest",
    k: int = VOTERS,
    *,
    exclude_row_Q: np.ndarray | None = None,
    exclude_class_Q: np.ndarray | None = None,
    neighbors: tuple[np.ndarray, np.ndarray] | None = None,
    second: bool = True,
) -> ClassRanking:
    """Rank the classes of a gallery for every query.

    Args:
        snapshot: the gallery.
        vectors_QD: queries of any length.
        rule: ``nearest``, ``prototype`` or ``vote``.
        k: number of neighbors that vote.
        exclude_row_Q: the queries are these enrolled vectors; each is compared with the others.
        exclude_class_Q: code of the class that each query is not compared with (-1: none).
        neighbors: (scores_QK, indices_QK) of a search made before, approximate perhaps.
        second: whether the second class is searched beyond the given neighbors, under the rule ``nearest``.

    Raises:
        SpecError: there is no such rule.
        DataError: the gallery is empty.
    """
    check_rule(rule)
    vectors_QD = l2_normalize(np.atleast_2d(vectors_QD), name="query vectors")
    hide = None
    if exclude_class_Q is not None:
        hide = snapshot.exclude_classes(exclude_class_Q)
    elif exclude_row_Q is not None:
        hide = snapshot.exclude_rows(exclude_row_Q)
    if rule == "prototype":
        return _by_prototype(snapshot, vectors_QD, exclude_row_Q, exclude_class_Q)
    if neighbors is None:
        depth = k if rule == "vote" else max(DEPTH, k) if second else 1
        neighbors = snapshot.search(vectors_QD, depth, hide)
    scores_QK, indices_QK = neighbors
    codes_QK = _codes(snapshot, indices_QK)
    if rule == "vote":
        return rank_by_vote(codes_QK, scores_QK, indices_QK, k)

    def find_second(rows_U: np.ndarray, best_U: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        exclusions = [snapshot.exclude_classes(best_U)]
        if exclude_class_Q is not None:
            exclusions.append(snapshot.exclude_classes(exclude_class_Q[rows_U]))
        if exclude_row_Q is not None:
            exclusions.append(snapshot.exclude_rows(exclude_row_Q[rows_U]))

        def hide(scores_BC: np.ndarray, top: int, left: int) -> None:
            for exclude in exclusions:
                exclude(scores_BC, top, left)

        scores_U1, indices_U1 = snapshot.search(vectors_QD[rows_U], 1, hide)
        return scores_U1[:, 0], _codes(snapshot, indices_U1)[:, 0]

    is_complete = scores_QK.shape[1] >= len(snapshot)
    return rank_by_nearest(codes_QK, scores_QK, indices_QK, find_second if second and not is_complete else None)


def _codes(snapshot: GallerySnapshot, indices_QK: np.ndarray) -> np.ndarray:
    """Class codes of neighbors, -1 where there is none."""
    return np.where(indices_QK >= 0, snapshot.codes_N[np.maximum(indices_QK, 0)], -1)


def rank_by_nearest(
    codes_QK: np.ndarray,
    scores_QK: np.ndarray,
    indices_QK: np.ndarray,
    find_second: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] | None,
) -> ClassRanking:
    """The class of the nearest vector; the second is that of the nearest vector of another class.

    Args:
        codes_QK: classes of the nearest vectors, -1 where there is none.
        scores_QK, indices_QK: their cosines, and what they are.
        find_second: called as ``find_second(rows_U, best_U)`` with the queries whose neighbors are all of one class, and that
            class; returns score (U,) and class (U,) of the nearest vector of another one, EXCLUDED and -1 where there is none.
            None: these queries have no second class.
    """
    best_Q = codes_QK[:, 0].copy()
    other_QK = (codes_QK != best_Q[:, None]) & (codes_QK >= 0)
    column_Q = other_QK.argmax(axis=1)
    rows_Q = np.arange(len(best_Q))
    has_other_Q = other_QK[rows_Q, column_Q]
    second_Q = np.where(has_other_Q, codes_QK[rows_Q, column_Q], -1)
    second_score_Q = np.where(has_other_Q, scores_QK[rows_Q, column_Q], EXCLUDED)
    rows_U = np.flatnonzero(~has_other_Q & (best_Q >= 0))
    if len(rows_U) and find_second is not None:
        second_score_Q[rows_U], second_Q[rows_U] = find_second(rows_U, best_Q[rows_U])
    margin_Q = _margin(scores_QK[:, 0], second_score_Q, second_Q)
    return ClassRanking(best_Q, second_Q, scores_QK[:, 0].copy(), margin_Q, scores_QK, indices_QK)


def _margin(first_Q: np.ndarray, second_score_Q: np.ndarray, second_Q: np.ndarray) -> np.ndarray:
    """Difference of the scores of both classes; infinite where there is no second."""
    return np.where(second_Q >= 0, first_Q.astype(np.float64) - second_score_Q, np.inf)


def _by_prototype(
    snapshot: GallerySnapshot,
    vectors_QD: np.ndarray,
    exclude_row_Q: np.ndarray | None,
    exclude_class_Q: np.ndarray | None,
) -> ClassRanking:
    """The class of the nearest mean; an enrolled query is taken out of the mean of its own class first."""
    if not len(snapshot):
        raise DataError("the gallery is empty", remedy="enrol reference images first")
    empty_C, own_class_Q, own_score_Q = snapshot.counts_C == 0, None, None
    if exclude_row_Q is not None:
        own_class_Q = snapshot.codes_N[exclude_row_Q]
        rest_QD = snapshot.sums_CD[own_class_Q] - snapshot.vectors(exclude_row_Q)
        alone_Q = snapshot.counts_C[own_class_Q] == 1
        cosine_Q = np.einsum("qd,qd->q", l2_normalize(rest_QD), vectors_QD)
        own_score_Q = np.where(alone_Q, EXCLUDED, cosine_Q).astype(np.float32)

    def hide(scores_BC: np.ndarray, top: int, left: int) -> None:
        tile, rows_B = slice(top, top + len(scores_BC)), np.arange(len(scores_BC))
        scores_BC[:, empty_C[left : left + scores_BC.shape[1]]] = EXCLUDED
        for code_Q, score_Q in ((own_class_Q, own_score_Q), (exclude_class_Q, None)):
            if code_Q is not None:
                column_B = code_Q[tile] - left
                inside_B = np.flatnonzero((column_B >= 0) & (column_B < scores_BC.shape[1]) & (code_Q[tile] >= 0))
                score = EXCLUDED if score_Q is None else score_Q[tile][inside_B]
                scores_BC[rows_B[inside_B], column_B[inside_B]] = score

    return rank_by_prototype(vectors_QD, snapshot.prototypes_CD, hide)


def rank_by_prototype(vectors_QD: np.ndarray, prototypes_CD: np.ndarray, hide: Exclusion | None = None) -> ClassRanking:
    """The class of the nearest mean, for queries and means of unit length; ``hide`` excludes pairs of both."""
    scores_Q2, codes_Q2 = scan(vectors_QD, lambda a, b: prototypes_CD[a:b], len(prototypes_CD), 2, hide=hide)
    margin_Q = _margin(scores_Q2[:, 0], scores_Q2[:, 1], codes_Q2[:, 1])
    no_scores_Q0 = np.empty((len(vectors_QD), 0))
    return ClassRanking(
        codes_Q2[:, 0], codes_Q2[:, 1], scores_Q2[:, 0], margin_Q, no_scores_Q0, no_scores_Q0.astype(np.int64)
    )


def rank_by_vote(codes_QK: np.ndarray, scores_QK: np.ndarray, indices_QK: np.ndarray, k: int) -> ClassRanking:
    """Each of the k nearest votes with exp(cosine / TEMPERATURE); the margin is a difference of shares of all votes.

    Args:
        codes_QK: classes of the nearest vectors, -1 where there is none.
        scores_QK, indices_QK: their cosines, and what they are.
        k: number of voters.
    """
    near_QK, codes_QK = scores_QK[:, :k], codes_QK[:, :k]
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
    has_second_Q = (groups_Q > 1) & (code_S[next_Q] >= 0)
    all_votes_Q = weight_QK.sum(axis=1)
    second_Q = np.where(has_second_Q, code_S[next_Q], -1)
    lead_Q = total_S[best_Q] - np.where(has_second_Q, total_S[next_Q], 0)
    margin_Q = np.where(has_second_Q, lead_Q / np.where(all_votes_Q > 0, all_votes_Q, 1), np.inf)
    return ClassRanking(code_S[best_Q], second_Q, nearest_S[best_Q], margin_Q, scores_QK, indices_QK)


def check_vectors(vectors_QD: Any, dim: int) -> np.ndarray:
    """Return one or several vectors as float32 (Q, dim).

    Raises:
        DataError: Another width; or anything but real numbers: complex ones, texts, truth values, dates, Python objects, an
            array with masked entries.
    """
    try:
        given_QD = vectors_QD if isinstance(vectors_QD, np.ma.MaskedArray) else np.asarray(vectors_QD)
    except Exception as error:  # ragged lists, tensors of another device or with a gradient: each library's own
        raise DataError(f"vectors that are no array ({reason(error)})", expected=f"numbers of shape (any, {dim})",
                        remedy="pass numpy.asarray(vectors, numpy.float32)") from error  # fmt: skip
    if given_QD.dtype.kind not in "fiu":
        raise DataError(f"vectors of type {given_QD.dtype}", expected=f"real numbers of shape (any, {dim})",
                        remedy="pass numpy.asarray(vectors, numpy.float32)")  # fmt: skip
    if isinstance(given_QD, np.ma.MaskedArray) and np.ma.is_masked(given_QD):
        raise DataError(f"vectors of which {int(np.ma.getmaskarray(given_QD).sum())} numbers are masked", expected="complete vectors",
                        remedy="leave those rows out, or fill them")  # fmt: skip
    with np.errstate(over="ignore"):  # infinite then, and refused as such
        array_QD: np.ndarray = np.atleast_2d(np.asarray(given_QD, np.float32))
    if array_QD.ndim != 2 or array_QD.shape[1] != dim:
        raise DataError(
            f"vectors of shape {array_QD.shape}",
            expected=f"(any, {dim})",
            remedy="enrol and search with the network that the gallery was made with",
        )
    return array_QD
