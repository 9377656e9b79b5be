"""Ranking of rows of scores as far as the metrics look, without ever sorting a whole row.

How it is fast: a row of scores is never sorted, nor even partitioned. The columns are dealt into groups, and only the
largest score of each group is looked at: when ``reach`` groups have a score of at least t, so have ``reach``
references, and everything that can stand within ``reach`` is among the candidates, the scores of at least t. These, a
third more than needed, are sorted as 32-bit keys that carry one bit for "relevant". Equal scores are ordered by
reference index; a key alone cannot tell that, so rows where it matters are ordered again with longer keys.

Shape letters: Q queries, R references, B rows ranked together, G groups of columns, N candidates of all rows, W the most
candidates of a row, K the ranks that are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from unalike.numerics.nearest_neighbors import EXCLUDED, fold_scores

# Scores ranked together: as many rows as hold them, so that the 5 MB stay in cache.
RANK_SCORES = 1_280_000
# Below every score, as EXCLUDED is; it fills up rows that have fewer candidates than others.
PADDING = np.float32(-1.9375)
# Columns a group at most; more would save no time.
MAX_GROUP = 32
# From this reach on, thresholds are found by counting; below, partitioning the few groups that there are is quicker.
COUNTING_REACH, COUNTS = 256, 10
# numpy finds what is set without branching where a tenth is, else by one search a hit: 9 us against 23 for 20,000 of
# which a twentieth is set (own measurement, 2026-11-26). Where more than the first share is set, it is made the second.
SEARCHED, BRANCHLESS = 0.01, 0.11


@dataclass(frozen=True)
class Relevance:
    """What ranking needs to know of the labels.

    Attributes:
        codes_Q, codes_R: int32, class of each query and of each reference.
        relevant_Q: R_q, the number of (other) references of the query's class.
        depth: Largest R_q of all queries.
        reach: Ranks that are looked at.
    """

    codes_Q: np.ndarray
    codes_R: np.ndarray
    relevant_Q: np.ndarray
    depth: int
    reach: int

    def of_queries(self, first: int, after: int) -> Relevance:
        """The same of the queries from ``first`` to before ``after``."""
        return replace(self, codes_Q=self.codes_Q[first:after], relevant_Q=self.relevant_Q[first:after])


class Tally:
    """Results of each query, which workers fill, each its own queries.

    Args:
        relevance: Of these queries.
        neighbors: References listed for each query, at most R.
    """

    def __init__(self, relevance: Relevance, neighbors: int = 0) -> None:
        queries = len(relevance.codes_Q)
        self.relevance = relevance
        self.nearest = np.zeros(queries, np.int64)
        self.score = np.zeros(queries, np.float32)
        self.first = np.zeros(queries, np.int64)
        self.within_r = np.zeros(queries, np.int64)
        self.sum_at_r = np.zeros(queries)
        self.sum_at_depth = np.zeros(queries)
        self.neighbor_scores_QK = np.full((queries, neighbors), EXCLUDED, np.float32)
        self.neighbors_QK = np.full((queries, neighbors), -1, np.int64)

    def results(self) -> dict[str, np.ndarray]:
        """The arrays that hold one result, or one row of results, a query, by name."""
        return {name: values for name, values in vars(self).items() if isinstance(values, np.ndarray)}

    def fill(self, first: int, results: dict[str, np.ndarray]) -> None:
        """Take over the results of the queries from number ``first`` on."""
        for name, values in results.items():
            getattr(self, name)[first : first + len(values)] = values


def rank_scores_of_block(scores_BR: np.ndarray, first: int, tally: Tally) -> None:
    """Rank the references of a block of queries, and tally the results.

    Args:
        scores_BR: Scores, float32 within (-1.9, 1.9), or EXCLUDED.
        first: Number of the block's first query in the tally.
        tally: Filled in place.
    """
    rows, references = scores_BR.shape
    together = max(1, RANK_SCORES // references)
    for at in range(0, rows, together):
        _rank(scores_BR[at : at + together], first + at, tally)
    if tally.neighbors_QK.shape[1]:
        here = slice(first, first + rows)
        fold_scores(scores_BR, tally.neighbor_scores_QK[here], tally.neighbors_QK[here])


def _keys(scores: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """uint32 keys whose ascending order is that of descending scores, the unmarked before the marked when equal.

    A float32's bits, with the lower 31 flipped when negative, order as the numbers do; scores lie within (-2, 2),
    so that 31 bits hold them and the last bit is free for the mark.
    """
    bits = (scores + np.float32(0)).view(np.int32)  # adding zero turns -0.0 into 0.0
    bits ^= (bits >> 31) & np.int32(0x7FFFFFFF)
    keys = np.subtract(np.int32(0x3FFFFFFF), bits, out=bits).view(np.uint32)
    keys <<= np.uint32(1)
    keys |= marks
    return keys


def _candidates(scores_BR: np.ndarray, reach: int) -> np.ndarray:
    """Places in the flattened scores, ascending, of all that may stand within reach in their row.

    They are complete: a score equal to a candidate's is one too. But for ties they are about 1.3 times reach
    a row, and never more than reach + 1 groups hold (a sixteenth more where they are counted), however the references
    are ordered.
    """
    rows, references = scores_BR.shape
    size = min(max(1, 2 * references // (5 * reach)), MAX_GROUP)
    groups = references // size
    largest_BG = scores_BR[:, : size * groups].reshape(rows, size, groups).max(axis=1)
    least_B = _counted(largest_BG, reach) if COUNTING_REACH <= reach < groups else _partitioned(largest_BG, reach)
    scores = scores_BR.size
    padding = int(BRANCHLESS * scores) if reach > SEARCHED * references else 0
    mask = np.empty(scores + padding, np.bool_)
    mask[scores:] = True
    np.greater_equal(scores_BR, least_B[:, None], out=mask[:scores].reshape(rows, -1))
    places = np.flatnonzero(mask)
    return places[: len(places) - padding]


def _partitioned(largest_BG: np.ndarray, reach: int) -> np.ndarray:
    """The score of number ``reach`` from above in every row, (B,); the rows are reordered."""
    kth = largest_BG.shape[1] - reach
    largest_BG.partition(kth, axis=1)
    return np.asarray(largest_BG[:, kth])


def _counted(largest_BG: np.ndarray, reach: int) -> np.ndarray:
    """A score in every row, (B,), that at least ``reach`` scores and few more attain.

    Counting is a plain pass over the row, partitioning is not: 7 us against 16 for 2,500 groups (own measurement,
    2026-11-26). Every count halves the interval at worst, near enough; rows that are not closed in by then (an outlier
    far from all others) are partitioned.
    """
    rows, groups = largest_BG.shape
    most = reach + reach // 16
    low_B, high_B = largest_BG.min(axis=1), largest_BG.max(axis=1)
    at_low_B, at_high_B = np.full(rows, groups, np.float32), np.ones(rows, np.float32)
    for _ in range(COUNTS):
        share_B = ((reach + most) / 2 - at_high_B) / np.maximum(at_low_B - at_high_B, 1)
        middle_B = high_B - (high_B - low_B) * np.clip(share_B, 0.1, 0.9).astype(np.float32)
        at_middle_B = (largest_BG >= middle_B[:, None]).view(np.uint8).sum(axis=1, dtype=np.uint32).astype(np.float32)
        enough_B = at_middle_B >= reach
        low_B, at_low_B = np.where(enough_B, (middle_B, at_middle_B), (low_B, at_low_B))
        high_B, at_high_B = np.where(enough_B, (high_B, at_high_B), (middle_B, at_middle_B))
        if (at_low_B <= most).all():
            return np.asarray(low_B)
    wide_B = at_low_B > most
    low_B[wide_B] = _partitioned(largest_BG[wide_B], reach)
    return np.asarray(low_B)


def _relevant_by_rank(scores_BW: np.ndarray, marks_BW: np.ndarray) -> np.ndarray:
    """The marks in the order of descending scores; where scores are equal in the order in which they stand."""
    keys_BW = _keys(scores_BW, marks_BW)
    keys_BW.sort(axis=1)
    ranked_BW = (keys_BW & np.uint32(1)).view(np.int32)
    mixed_B = ((keys_BW[:, 1:] ^ keys_BW[:, :-1]) == 1).any(axis=1)  # one score, both relevant and not
    if mixed_B.any():
        marks_TW = marks_BW[mixed_B]
        long_TW = (_keys(scores_BW[mixed_B], marks_TW) >> np.uint32(1)).astype(np.uint64) << np.uint64(32)
        long_TW |= np.arange(0, 2 * marks_TW.shape[1], 2, dtype=np.uint64)
        long_TW |= marks_TW
        long_TW.sort(axis=1)
        ranked_BW[mixed_B] = (long_TW & np.uint64(1)).astype(np.int32)
    return ranked_BW


def _rank(scores_BR: np.ndarray, top: int, tally: Tally) -> None:
    """Rank the queries from number ``top`` on, as far as reach, and tally what follows."""
    relevance = tally.relevance
    rows, references = scores_BR.shape
    here = slice(top, top + rows)
    place_N = _candidates(scores_BR, relevance.reach)
    start_B = np.arange(rows) * references
    first_B, after_B = place_N.searchsorted(start_B), place_N.searchsorted(start_B + references)
    count_B = after_B - first_B
    filled_BW = np.arange(count_B.max()) < count_B[:, None]
    scores_BW = np.full(filled_BW.shape, PADDING)
    scores_BW[filled_BW] = scores_BR.reshape(-1).take(place_N)
    best_B = scores_BW.argmax(axis=1)
    tally.nearest[here] = place_N[first_B + best_B] - start_B
    tally.score[here] = scores_BW[np.arange(rows), best_B]

    codes_N = relevance.codes_R.take(place_N - start_B.repeat(count_B))
    marks_BW = np.zeros(filled_BW.shape, np.bool_)
    marks_BW[filled_BW] = codes_N == relevance.codes_Q[here].repeat(count_B)
    ranked_BK = _relevant_by_rank(scores_BW, marks_BW)[:, : relevance.reach]
    leading_B = ranked_BK.argmax(axis=1)
    tally.first[here] = np.where(ranked_BK[np.arange(rows), leading_B] == 1, leading_B + 1, 0)
    ranked_BK = ranked_BK[:, : relevance.depth]
    rank_K = np.arange(1, ranked_BK.shape[1] + 1, dtype=np.int32)
    inside_BK = rank_K <= relevance.relevant_Q[here, None].astype(np.int32)
    precision_BK = ranked_BK.cumsum(axis=1, dtype=np.int32) * (1.0 / rank_K)
    precision_BK *= ranked_BK
    tally.sum_at_depth[here] = precision_BK.sum(axis=1)
    tally.within_r[here] = np.einsum("bk,bk->b", ranked_BK, inside_BK)
    precision_BK *= inside_BK
    tally.sum_at_r[here] = precision_BK.sum(axis=1)
