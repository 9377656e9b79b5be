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

import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from unalike.errors import UnalikeError
from unalike.measure.nearest import EXCLUDED, as_labels, check_widths, unit, workers

# Scores of all workers' products held at once; at least MIN_ROWS rows each whatever the number of references.
SCORE_BYTES = 96 * 2**20
MIN_ROWS, MAX_ROWS = 16, 512
MAX_WORKERS = 8
# Rows ranked together: their scores and the partitioned copy (2 x 5 MB at 20,000 references) should stay in cache.
RANK_ROWS = 64
# Sorts behind every key of a cosine, and is not marked.
PADDING = np.uint32(0xFFFFFFFE)


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
    advance: Callable[[int], object] | None = None,
) -> Ranking:
    """Rank all references by cosine for every query and measure where those of its class stand.

    ``same`` says that the queries are the first Q rows of the references; each query then leaves itself out.
    Vectors need not be of unit length; float16 is fine. Exact; memory beside unit copies of the inputs is bounded
    (about 150 MB up to a million references). The names stand in error messages;
    ``advance`` is called with the number of queries done.
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
    _rank_all(query_QD, reference_RD, relevance, tally, advance)
    return _finish(tally, relevance, labels_Q, labels_R, ks, same)


def _rank_all(
    query_QD: np.ndarray,
    reference_RD: np.ndarray,
    relevance: _Relevance,
    tally: _Tally,
    advance: Callable[[int], object] | None,
) -> None:
    """Chunks of queries, class by class, through product and ranking.

    Every worker does both for its own chunk: BLAS keeps all cores busy where it can, and one worker ranks while
    another multiplies (seen: 1.5 x the bare product against 1.6 x when the two take turns, 2026-11-23).
    """
    queries, references = len(query_QD), len(reference_RD)
    threads = min(workers(), MAX_WORKERS)
    rows = int(np.clip(SCORE_BYTES // (4 * references * threads), MIN_ROWS, MAX_ROWS))
    rows = min(rows, -(-queries // threads))
    own = threading.local()

    def work(top: int) -> int:
        chosen = relevance.order_Q[top : top + rows]
        if not hasattr(own, "buffer"):
            own.buffer = np.empty((rows, references), np.float32)
        scores_BR = np.matmul(query_QD[chosen], reference_RD.T, out=own.buffer[: len(chosen)])
        if relevance.same:
            scores_BR[np.arange(len(chosen)), chosen] = EXCLUDED
        for at in range(0, len(chosen), RANK_ROWS):
            _rank(scores_BR[at : at + RANK_ROWS], chosen[at : at + RANK_ROWS], relevance, tally)
        return len(chosen)

    with ThreadPoolExecutor(threads) as pool:
        for done in pool.map(work, range(0, queries, rows)):
            if advance is not None:
                advance(done)


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
    """Which references have a query's class: their columns by class, and each query's slice of them."""

    def __init__(self, labels_Q: np.ndarray, labels_R: np.ndarray, same: bool) -> None:
        self.columns = np.argsort(labels_R, kind="stable")
        sorted_R = labels_R[self.columns]
        self.labels_Q = labels_Q
        self.order_Q = np.argsort(labels_Q, kind="stable")
        self.start_Q = np.searchsorted(sorted_R, labels_Q, side="left")
        self.size_Q = np.searchsorted(sorted_R, labels_Q, side="right") - self.start_Q
        # The query itself is in its class's slice when it is among the references, but is never relevant.
        self.count_Q = self.size_Q - int(same)
        self.same = same

    def columns_of(self, query: int) -> np.ndarray:
        """Columns of the references with this query's class, ascending (the query's own among them when same)."""
        return self.columns[self.start_Q[query] : self.start_Q[query] + self.size_Q[query]]

    def runs(self, query_B: np.ndarray) -> list[tuple[int, int, np.ndarray]]:
        """(first row, row after the last, columns) for each run of queries of one class."""
        labels_B = self.labels_Q[query_B]
        edges = [0, *(np.flatnonzero(labels_B[1:] != labels_B[:-1]) + 1).tolist(), len(query_B)]
        return [(a, b, self.columns_of(query_B[a])) for a, b in itertools.pairwise(edges)]


class _Tally:
    """Per-query results that the workers fill, each its own queries."""

    def __init__(self, queries: int, depth: int, reach: int) -> None:
        self.depth, self.reach = depth, reach
        self.nearest = np.zeros(queries, np.int64)
        self.score = np.zeros(queries, np.float32)
        self.first = np.zeros(queries, np.int64)
        self.within_r = np.zeros(queries, np.int64)
        self.sum_at_r = np.zeros(queries)
        self.sum_at_depth = np.zeros(queries)


def _keys(scores: np.ndarray, mark: int) -> np.ndarray:
    """uint32 keys whose ascending order is that of descending scores, mark 0 before mark 1 when equal.

    A float32's bits, with the lower 31 flipped when negative, order as the numbers do; scores lie within (-2, 2),
    so that 31 bits hold them and the last bit is free for the mark.
    """
    bits = (scores + np.float32(0)).view(np.int32)  # adding zero turns -0.0 into 0.0
    bits ^= (bits >> 31) & np.int32(0x7FFFFFFF)
    keys = np.subtract(np.int32(0x3FFFFFFF), bits, out=bits).view(np.uint32)
    keys <<= np.uint32(1)
    if mark:
        keys |= np.uint32(1)
    return keys


def _score(key: np.uint32) -> np.float32:
    """The score of a key, marked or plain."""
    bits = np.int32(0x3FFFFFFF) - np.int32(key >> np.uint32(1))
    return np.float32(np.array(bits ^ ((bits >> 31) & 0x7FFFFFFF), np.int32).view(np.float32)[()])


def _sorted_keys(scores_BR: np.ndarray, query_B: np.ndarray, relevance: _Relevance, reach: int) -> np.ndarray:
    """Row by row, keys of the best scores and, marked, of the relevant scores among them, in descending score.

    A relevant score thus stands twice: once plain, as one of the best, and right after that once marked. One score
    beyond ``reach`` is kept to tell whether the one at reach is tied with what lies below it.
    """
    rows, references = scores_BR.shape
    kept = min(reach + 1, references)
    best_BK = np.partition(scores_BR, references - kept, axis=1)[:, references - kept :]
    lowest_B1 = best_BK[:, :1]  # partition leaves the smallest of the kept in their first place
    runs = relevance.runs(query_B)
    widest = max(len(columns_C) for _, _, columns_C in runs)
    keys_BW = np.full((rows, kept + widest), PADDING, np.uint32)
    keys_BW[:, :kept] = _keys(best_BK, mark=0)
    most = 0
    for first, after, columns_C in runs:
        scores_BC = scores_BR[first:after].take(columns_C, axis=1)
        low_BC = scores_BC < lowest_B1[first:after]
        keys_BW[first:after, kept : kept + len(columns_C)] = np.where(low_BC, PADDING, _keys(scores_BC, mark=1))
        most = max(most, len(columns_C) - int(low_BC.sum(axis=1).min(initial=0)) if len(columns_C) else 0)
    keys_BW.sort(axis=1)
    return keys_BW[:, : kept + most]


def _rank(scores_BR: np.ndarray, query_B: np.ndarray, relevance: _Relevance, tally: _Tally) -> None:
    """Find the ranks (up to reach) of the relevant references of these queries, and tally what follows from them."""
    nearest_B = scores_BR.argmax(axis=1)
    tally.nearest[query_B] = nearest_B
    tally.score[query_B] = scores_BR[np.arange(len(query_B)), nearest_B]

    keys_BW = _sorted_keys(scores_BR, query_B, relevance, tally.reach)
    marked_BW = (keys_BW & np.uint32(1)).view(np.int32)
    found_BW = np.cumsum(marked_BW, axis=1, dtype=np.int32)
    # Marked keys at or before a place do not count as ranks of their own.
    rank_BW = np.arange(1, keys_BW.shape[1] + 1, dtype=np.int32) - found_BW
    _settle_ties(rank_BW, keys_BW, scores_BR, query_B, relevance)

    row_B, place_B = np.arange(len(query_B)), marked_BW.argmax(axis=1)
    first_B = rank_BW[row_B, place_B]
    tally.first[query_B] = np.where((found_BW[row_B, place_B] == 1) & (first_B <= tally.reach), first_B, 0)
    precision_BW = found_BW / rank_BW
    marked_BW *= rank_BW <= tally.depth
    precision_BW *= marked_BW
    tally.sum_at_depth[query_B] = precision_BW.sum(axis=1)
    inside_BW = rank_BW <= relevance.count_Q[query_B, None].astype(np.int32)
    tally.within_r[query_B] = np.einsum("bw,bw->b", marked_BW, inside_BW)
    precision_BW *= inside_BW
    tally.sum_at_r[query_B] = precision_BW.sum(axis=1)


def _settle_ties(
    rank_BW: np.ndarray, keys_BW: np.ndarray, scores_BR: np.ndarray, query_B: np.ndarray, relevance: _Relevance
) -> None:
    """Where other references share a relevant one's very score, set its rank by index, the lower first.

    Keys cannot tell equal scores apart. Two equal plain keys before a marked one give such a run away; the row is
    then searched for that score.
    """
    tied_BW = keys_BW[:, 1:-1] == keys_BW[:, :-2]
    tied_BW &= (keys_BW[:, 2:] - keys_BW[:, 1:-1]) == 1
    for row, before in np.argwhere(tied_BW):
        place, keys_W = before + 2, keys_BW[row]
        key = keys_W[place]
        plain = place - keys_W.searchsorted(key - np.uint32(1))
        after = place + int(keys_W[place:].searchsorted(key, side="right"))
        if plain == after - place and after < len(keys_W) and keys_W[after] != PADDING:
            order = np.arange(1, plain + 1)  # all of them relevant, and none cut off below the best that were kept
        else:
            equal = np.flatnonzero(scores_BR[row] == _score(key))
            columns_C = relevance.columns_of(query_B[row])
            nearby = np.minimum(np.searchsorted(columns_C, equal), len(columns_C) - 1)
            order = np.flatnonzero(columns_C[nearby] == equal) + 1
        rank_BW[row, place : place + len(order)] = rank_BW[row, place] - plain + order


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
