"""Ranking metrics of queries against references, one value a query, without ever sorting a whole ranking.

The definitions are those of pytorch-metric-learning's ``AccuracyCalculator`` with ``k="max_bin_count"``. With R_q the
number of references of the query's class (less the query itself when it is among them) and depth the largest R_q:

- precision at 1: the nearest reference has the query's class;
- R-precision: the share of the first R_q references that have it;
- MAP@R: sum over relevant ranks r <= R_q of (relevant up to r) / r, divided by R_q (Musgrave et al., "A Metric
  Learning Reality Check", 2020);
- average precision: the same sum over r <= depth, divided by R_q;
- reciprocal rank: 1 / rank of the first relevant reference, 0 when that rank is beyond depth;
- recall at k: 1 when a relevant reference is among the first k.

How it is fast: all that these need is the ranks of the relevant references that lie above ``depth``. A row of scores
is partitioned once (O(R)); its best values and the relevant scores among them are then sorted together as 32-bit keys
that carry one bit for "relevant", and a relevant key's place in that order is its rank. Equal scores are ordered by
reference index; a key alone cannot tell that, so the few rows where it matters are ordered again, slowly.

Shape letters: Q queries, R references, D width, B rows of a chunk, H relevant references found ("hits").
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from unalike.errors import UnalikeError
from unalike.measure.nearest import EXCLUDED, as_labels, check_widths, unit, workers

# Scores of one product held at once; at least MIN_ROWS rows whatever the number of references.
SCORE_BYTES = 96 * 2**20
MIN_ROWS, MAX_ROWS = 16, 512
# Rows ranked together: their scores and the partitioned copy (2 x 5 MB at 20,000 references) should stay in cache.
RANK_ROWS = 64


@dataclass(frozen=True)
class Ranking:
    """Per-query results (arrays of length Q); metrics are float64 in [0, 1], NaN for open-set queries.

    ``open_set`` marks queries whose class has no (other) reference; ``relevant`` is R_q; ``first_relevant`` the rank
    of the first relevant reference, 0 when it lies beyond ``depth``; ``recall_at`` maps k to an array.
    """

    labels: np.ndarray
    predicted: np.ndarray
    nearest: np.ndarray
    score: np.ndarray
    open_set: np.ndarray
    relevant: np.ndarray
    first_relevant: np.ndarray
    precision_at_1: np.ndarray
    r_precision: np.ndarray
    average_precision_at_r: np.ndarray
    average_precision: np.ndarray
    reciprocal_rank: np.ndarray
    recall_at: dict[int, np.ndarray] = field(default_factory=dict)
    depth: int = 0
    references: int = 0
    same: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def metrics(self) -> dict[str, np.ndarray]:
        """The per-query values under the names of metrics.json, in the order in which they are shown."""
        recalls = {f"recall_at_{k}": values for k, values in self.recall_at.items()}
        return {
            "precision_at_1": self.precision_at_1,
            **recalls,
            "mean_average_precision_at_r": self.average_precision_at_r,
            "r_precision": self.r_precision,
            "mean_reciprocal_rank": self.reciprocal_rank,
            "mean_average_precision": self.average_precision,
        }


def evaluate_ranking(
    query_QD: np.ndarray,
    query_labels_Q: np.ndarray | Sequence[int],
    reference_RD: np.ndarray,
    reference_labels_R: np.ndarray | Sequence[int],
    *,
    ks: Sequence[int] = (1, 5, 10),
    same: bool = False,
    query_name: str = "query",
    reference_name: str = "reference",
) -> Ranking:
    """Rank all references by cosine for every query and measure where those of its class stand.

    ``same`` says that the queries are the first Q rows of the references; each query then leaves itself out.
    Vectors need not be of unit length; float16 is fine. Exact; memory beside unit copies of the inputs is bounded
    (about 150 MB up to a million references). The names stand in error messages.
    Raises UnalikeError: no queries or no references, NaN, widths or lengths that differ, no class in common.
    """
    query_QD, reference_RD, labels_Q, labels_R = _checked(
        query_QD, query_labels_Q, reference_RD, reference_labels_R, same, query_name, reference_name
    )
    relevance = _Relevance(labels_Q, labels_R, same)
    if not relevance.count_Q.any():
        raise _disjoint(labels_Q, labels_R, same, query_name, reference_name)
    ks = sorted({int(k) for k in ks})
    if ks and ks[0] < 1:
        raise UnalikeError(f"ks holds {ks[0]}", expected="ranks of at least 1")
    depth = int(relevance.count_Q.max())
    reach = min(max([depth, *ks]), len(labels_R) - int(same))
    tally = _Tally(len(labels_Q), depth, reach)
    rows = int(np.clip(SCORE_BYTES // (4 * len(labels_R)), MIN_ROWS, MAX_ROWS))
    buffer = np.empty((min(rows, len(labels_Q)), len(labels_R)), np.float32)
    with ThreadPoolExecutor(workers()) as pool:
        for top in range(0, len(labels_Q), rows):
            chunk = query_QD[top : top + rows]
            scores_BR = np.matmul(chunk, reference_RD.T, out=buffer[: len(chunk)])
            if same:
                own = np.arange(len(chunk))
                scores_BR[own, top + own] = EXCLUDED
            parts = range(0, len(chunk), RANK_ROWS)
            list(pool.map(lambda at: _rank(scores_BR[at : at + RANK_ROWS], top + at, relevance, tally), parts))  # noqa: B023
    return _finish(tally, relevance, labels_Q, labels_R, ks, same)


def _checked(
    query_QD: np.ndarray,
    query_labels_Q: np.ndarray | Sequence[int],
    reference_RD: np.ndarray,
    reference_labels_R: np.ndarray | Sequence[int],
    same: bool,
    query_name: str,
    reference_name: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    for vectors, name in ((query_QD, query_name), (reference_RD, reference_name)):
        if len(vectors) == 0:
            raise UnalikeError(f"{name} holds no vectors", expected="at least one image on each side")
    unit_query_QD = unit(query_QD, name=f"vectors of {query_name}")
    shared = query_QD is reference_RD
    unit_reference_RD = unit_query_QD if shared else unit(reference_RD, name=f"vectors of {reference_name}")
    check_widths(unit_query_QD, unit_reference_RD)
    labels_Q = as_labels(query_labels_Q, len(unit_query_QD), query_name)
    labels_R = as_labels(reference_labels_R, len(unit_reference_RD), reference_name)
    if same and (len(labels_Q) > len(labels_R) or not np.array_equal(labels_Q, labels_R[: len(labels_Q)])):
        raise UnalikeError(
            f"{query_name} is not the beginning of {reference_name}",
            expected="queries that are the first rows of the references, with the same labels",
        )
    return unit_query_QD, unit_reference_RD, labels_Q, labels_R


def _disjoint(
    labels_Q: np.ndarray, labels_R: np.ndarray, same: bool, query_name: str, reference_name: str
) -> UnalikeError:
    if same:
        return UnalikeError(
            f"every class of {query_name} has one image only ({len(np.unique(labels_Q))} classes)",
            expected="classes of at least two images, so that one can find another",
            remedy="add images, or give separate query and reference folders",
        )
    return UnalikeError(
        f"{query_name} ({len(np.unique(labels_Q))} classes) and {reference_name} ({len(np.unique(labels_R))} classes) "
        "have no class in common",
        expected="folders of the same class names on both sides",
        remedy="compare the folder names of both, and dataset.class_from and class_map",
    )


class _Relevance:
    """Which references have a query's class: columns sorted by class, and each query's slice of them."""

    def __init__(self, labels_Q: np.ndarray, labels_R: np.ndarray, same: bool) -> None:
        self.columns = np.argsort(labels_R, kind="stable")
        sorted_R = labels_R[self.columns]
        self.start_Q = np.searchsorted(sorted_R, labels_Q, side="left")
        self.size_Q = np.searchsorted(sorted_R, labels_Q, side="right") - self.start_Q
        # The query itself is in its class's slice when it is among the references, but is never relevant.
        self.count_Q = self.size_Q - int(same)
        self.same = same

    def of_rows(self, top: int, bottom: int) -> tuple[np.ndarray, np.ndarray]:
        """(row - top, column) of every reference with the query's class, row by row, columns ascending."""
        size = self.size_Q[top:bottom]
        row = np.repeat(np.arange(bottom - top), size)
        ends = np.cumsum(size)
        offset = np.repeat(self.start_Q[top:bottom] - (ends - size), size)
        return row, self.columns[np.arange(len(row)) + offset]


class _Tally:
    """Per-query sums that the worker threads fill, each its own rows."""

    def __init__(self, queries: int, depth: int, reach: int) -> None:
        self.depth, self.reach = depth, reach
        self.nearest = np.zeros(queries, np.int64)
        self.score = np.zeros(queries, np.float32)
        self.first = np.zeros(queries, np.int64)
        self.within_r = np.zeros(queries, np.int64)
        self.sum_at_r = np.zeros(queries)
        self.sum_at_depth = np.zeros(queries)

    def add(self, top: int, rows: int, row_H: np.ndarray, rank_H: np.ndarray, count_B: np.ndarray) -> None:
        """Take the ranks (1-based, ascending within a row) of the hits of rows top .. top + rows."""
        order_H = _within_row(row_H, rows)
        part = slice(top, top + rows)
        first_H = order_H == 1
        self.first[part][row_H[first_H]] = rank_H[first_H]
        precision_H = order_H / rank_H
        inside_H = rank_H <= count_B[row_H]
        self.within_r[part] = np.bincount(row_H[inside_H], minlength=rows)
        self.sum_at_r[part] = np.bincount(row_H[inside_H], precision_H[inside_H], minlength=rows)
        if self.reach > self.depth:
            deep_H = rank_H <= self.depth
            row_H, precision_H = row_H[deep_H], precision_H[deep_H]
        self.sum_at_depth[part] = np.bincount(row_H, precision_H, minlength=rows)


def _within_row(row_H: np.ndarray, rows: int) -> np.ndarray:
    """1, 2, ... counted anew in every row of an ascending list of row numbers."""
    sizes = np.bincount(row_H, minlength=rows)
    return np.arange(1, len(row_H) + 1) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def _keys(scores: np.ndarray, relevant: int) -> np.ndarray:
    """uint32 keys whose ascending order is that of descending scores, "not relevant" before "relevant" when equal.

    A float32's bits, with the lower 31 flipped when negative, order as the numbers do; scores lie within (-2, 2),
    so that 31 bits hold them and the last bit is free for the mark.
    """
    bits = (scores + np.float32(0)).view(np.int32)  # adding zero turns -0.0 into 0.0
    bits ^= (bits >> 31) & np.int32(0x7FFFFFFF)
    keys = np.subtract(np.int32(0x3FFFFFFF), bits, out=bits).view(np.uint32)
    keys <<= np.uint32(1)
    if relevant:
        keys |= np.uint32(1)
    return keys


def _rank(scores_BR: np.ndarray, top: int, relevance: _Relevance, tally: _Tally) -> None:
    """Find the ranks (up to reach) of the relevant references of these rows, and tally them."""
    rows, references = scores_BR.shape
    nearest_B = scores_BR.argmax(axis=1)
    tally.nearest[top : top + rows] = nearest_B
    tally.score[top : top + rows] = scores_BR[np.arange(rows), nearest_B]

    # One value beyond reach tells whether the value at reach is tied with what lies below it.
    kept = min(tally.reach + 1, references)
    best_BK = np.partition(scores_BR, references - kept, axis=1)[:, references - kept :]
    row_H, column_H = relevance.of_rows(top, top + rows)
    score_H = scores_BR[row_H, column_H]
    high_H = score_H >= best_BK[:, 0][row_H]  # partition leaves the smallest of the kept in their first place
    row_H, score_H = row_H[high_H], score_H[high_H]

    hits_B = np.bincount(row_H, minlength=rows)
    width = kept + int(hits_B.max(initial=0))
    keys_BW = np.full((rows, width), 0xFFFFFFFE, np.uint32)
    keys_BW[:, :kept] = _keys(best_BK, relevant=0)
    keys_BW[row_H, kept + _within_row(row_H, rows) - 1] = _keys(score_H, relevant=1)
    keys_BW.sort(axis=1)
    keys = keys_BW.ravel()
    at_H = np.flatnonzero(keys & np.uint32(1))
    # Every hit stands twice, plain and marked, the plain one first: marked ones before it do not count.
    rank_H = at_H - row_H * width + 1 - _within_row(row_H, rows)
    # Two plain keys equal to a marked one: another reference has that very score, and the index decides.
    tied_H = (keys[at_H - 1] | np.uint32(1)) == keys[at_H]
    tied_H &= (rank_H > 1) & (keys[at_H - 2] == keys[at_H - 1])
    keep_H = rank_H <= tally.reach
    if tied_H.any():
        row_H, rank_H, keep_H = _settle_ties(scores_BR, top, relevance, tally, row_H, rank_H, keep_H, row_H[tied_H])
    tally.add(top, rows, row_H[keep_H], rank_H[keep_H], relevance.count_Q[top : top + rows])


def _settle_ties(
    scores_BR: np.ndarray,
    top: int,
    relevance: _Relevance,
    tally: _Tally,
    row_H: np.ndarray,
    rank_H: np.ndarray,
    keep_H: np.ndarray,
    tied_rows: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Replace the ranks of rows with ties by those of a stable sort (lower reference index first)."""
    tied_rows = np.unique(tied_rows)
    others = ~np.isin(row_H, tied_rows)
    all_rows, all_ranks, all_keep = [row_H[others]], [rank_H[others]], [keep_H[others]]
    references = scores_BR.shape[1]
    for row in tied_rows:
        scores_R = scores_BR[row]
        threshold = np.partition(scores_R, references - tally.reach)[references - tally.reach]
        candidates = np.flatnonzero(scores_R >= threshold)
        ranked = candidates[np.argsort(-scores_R[candidates], kind="stable")[: tally.reach]]
        start, size = relevance.start_Q[top + row], relevance.size_Q[top + row]
        columns = relevance.columns[start : start + size]
        relevant = np.isin(ranked, columns[columns != top + row] if relevance.same else columns)
        ranks = np.flatnonzero(relevant) + 1
        all_rows.append(np.full(len(ranks), row))
        all_ranks.append(ranks)
        all_keep.append(np.ones(len(ranks), bool))
    row_H = np.concatenate(all_rows)
    order = np.argsort(row_H, kind="stable")
    return row_H[order], np.concatenate(all_ranks)[order], np.concatenate(all_keep)[order]


def _finish(
    tally: _Tally, relevance: _Relevance, labels_Q: np.ndarray, labels_R: np.ndarray, ks: Sequence[int], same: bool
) -> Ranking:
    open_set = relevance.count_Q == 0
    divisor_Q = np.where(open_set, np.nan, relevance.count_Q)
    blank_Q = np.where(open_set, np.nan, 0.0)
    first = tally.first
    return Ranking(
        labels=labels_Q,
        predicted=labels_R[tally.nearest],
        nearest=tally.nearest,
        score=tally.score,
        open_set=open_set,
        relevant=relevance.count_Q,
        first_relevant=np.where(first <= tally.depth, first, 0),
        precision_at_1=blank_Q + (first == 1),
        r_precision=tally.within_r / divisor_Q,
        average_precision_at_r=tally.sum_at_r / divisor_Q,
        average_precision=tally.sum_at_depth / divisor_Q,
        reciprocal_rank=blank_Q + np.divide(1.0, first, where=(first > 0) & (first <= tally.depth), out=blank_Q * 0),
        recall_at={k: blank_Q + ((first > 0) & (first <= k)) for k in ks},
        depth=tally.depth,
        references=len(labels_R),
        same=same,
    )
